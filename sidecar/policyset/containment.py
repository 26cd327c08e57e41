"""What a team's folder may hold: the control that keeps one team's policy out of everybody else's decisions.

OPA lets every module read and extend everything that is loaded beside it. What a team may write is therefore decided
before OPA serves it, on the bytes that it will serve: packages and data below the team's own roots, and modules whose
parse tree (OPA's own, ``rego.parse_module``) refers to nothing but ``input``, the team's own packages and data, and
``data.mcp.lib``. This file judges; ``sidecar.policyset.checks`` asks OPA for the trees.

Closed on purpose: a node, a file or a manifest member that is not known here is refused, so that new syntax has to be
looked at before a team can use it. The platform's and the system's folders are trusted, and must be where they belong.
The same rules judge a folder, archives (``sidecar.policyset.bundle_reader``) and what an OPA runs
(``sidecar.opa.external_inventory``).
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import MANIFEST, TEAMS, PolicySet
from sidecar.policyset.manifest import TRUSTED, decode_strictly, is_team, listed, listing, team_fault, trusted_fault

MAX_MODULE_BYTES: Final = 256 * 2**10
MAX_TEAM_RULES_BYTES: Final = 2**20
"""All modules of one team, tests included: 100 teams compile within the memory of one check."""
MAX_TEAM_DATA_BYTES: Final = 2 * 2**20
"""OPA takes about twenty times that in memory (measured by OPA's own documentation: 8 MB → 160 MB)."""
MAX_TEAM_FILES: Final = 256
MAX_TREE_DEPTH: Final = 200
"""Nodes from a module's root to a leaf. The repository's own modules, compiled by people, stay below 40."""
MAX_DATA_DEPTH: Final = 32


# --- files, manifests, data -------------------------------------------------------------------------------------------


def misplaced(policies: PolicySet) -> Iterator[Violation]:
    """Find what is in the wrong place, by names, manifests and data alone."""
    for path, fault in policies.strays:
        yield Violation(file=path, line=1, rule=Rule.FILE, message=f"{path.rpartition('/')[2]} {fault}")
    for path, _ in (*policies.files, *policies.aside):
        if not path.isprintable():
            # One that is not UTF-8 is read with half surrogate pairs in it (``os.fsdecode``), which no text may have.
            message = "the name of the file or of its folder has characters that do not print"
            yield Violation(file=path, line=1, rule=Rule.FILE_NAME, message=message)
    for bundle in policies.bundles:
        if bundle in TRUSTED:
            yield from _trusted(policies, bundle)
    for team in policies.teams:
        if not is_team(team):
            message = f"{team!r} cannot be a team's name"
            yield Violation(file=f"{TEAMS}{team}/{MANIFEST}", line=1, rule=Rule.TEAM_NAME, message=message)
        yield from _team_files(policies, team)


def _trusted(policies: PolicySet, bundle: str) -> Iterator[Violation]:
    file = f"{bundle}/{MANIFEST}"
    try:
        manifest = decode_strictly(dict(policies.files).get(file, b""))
    except ValueError as error:
        message = str(error)
    else:
        message = trusted_fault(manifest, bundle, policies.bundles)
        if not message and not _as_listed(policies, bundle, manifest):
            message = _OTHER_MODULES
    if message:
        yield Violation(file=file, line=1, rule=Rule.MANIFEST, message=message)


_OTHER_MODULES: Final = "the bundle holds other modules than its manifest lists"


def _as_listed(policies: PolicySet, bundle: str, manifest: Any) -> bool:
    said = listed(manifest)
    files = [(path.removeprefix(f"{bundle}/"), content) for path, content in policies.files if _is_in(path, bundle)]
    return said is None or said == listing([(path, content) for path, content in files if path.endswith(".rego")])


def _is_in(path: str, bundle: str) -> bool:
    return path.startswith(f"{bundle}/")


def _team_files(policies: PolicySet, team: str) -> Iterator[Violation]:
    folder = f"{TEAMS}{team}/"
    files = [(path, content) for path, content in (*policies.files, *policies.aside) if path.startswith(folder)]
    sizes = {
        "modules": (sum(len(content) for path, content in files if path.endswith(".rego")), MAX_TEAM_RULES_BYTES),
        "data": (sum(len(content) for path, content in files if path.endswith(".json")), MAX_TEAM_DATA_BYTES),
    }
    for what, (size, limit) in sizes.items():
        if size > limit:
            message = f"the team's {what} have {size} bytes, {limit} are allowed"
            yield Violation(file=f"{folder}{MANIFEST}", line=1, rule=Rule.SIZE, message=message)
    if len(files) > MAX_TEAM_FILES:
        message = f"the team has {len(files)} files, {MAX_TEAM_FILES} are allowed"
        yield Violation(file=f"{folder}{MANIFEST}", line=1, rule=Rule.SIZE, message=message)
    for path, content in files:
        yield from _team_file(policies, team, path, content)


def _team_file(policies: PolicySet, team: str, path: str, content: bytes) -> Iterator[Violation]:
    match path.rpartition("/")[2]:
        case ".manifest":
            yield from _team_manifest(policies, team, path, content)
        case "data.json":
            yield from _team_data(team, path, content)
        case name if name.endswith(".rego"):
            if len(content) > MAX_MODULE_BYTES:
                message = f"a module has {len(content)} bytes, {MAX_MODULE_BYTES} are allowed"
                yield Violation(file=path, line=1, rule=Rule.SIZE, message=message)
        case name:
            # YAML has more than one reading of the same text, and a signature belongs to a built bundle.
            message = f"{name} has no place in a team's folder (*.rego, data.json, .manifest)"
            yield Violation(file=path, line=1, rule=Rule.FILE, message=message)


def _team_manifest(policies: PolicySet, team: str, path: str, content: bytes) -> Iterator[Violation]:
    try:
        manifest = decode_strictly(content)
    except ValueError as error:
        message = str(error)
    else:
        message = team_fault(manifest, team)
        if path != f"{TEAMS}{team}/{MANIFEST}":
            message = "a manifest belongs at the top of the team's folder"
        elif not message and not _as_listed(policies, f"{TEAMS}{team}", manifest):
            message = _OTHER_MODULES
    if message:
        yield Violation(file=path, line=1, rule=Rule.MANIFEST, message=message)


def _team_data(team: str, path: str, content: bytes) -> Iterator[Violation]:
    """Hold data to ``mcp.grants.<team>``; a file in a subfolder is data at that path (OPA's bundle format)."""
    try:
        document = decode_strictly(content)
    except ValueError as error:
        yield Violation(file=path, line=1, rule=Rule.DATA, message=str(error))
        return
    for name in reversed(path.split("/")[2:-1]):
        document = {name: document}
    message = ""
    for depth, name in enumerate(("mcp", "grants", team)):
        if not isinstance(document, dict) or not set(document) <= {name}:
            place = ".".join(("data", "mcp", "grants")[: depth + 1])
            message = f"a team's data lies below mcp.grants.{team}, and nowhere else below {place}"
            break
        document = document.get(name, {})
    else:
        if not isinstance(document, dict):
            message = f"mcp.grants.{team} must be an object"
        elif _depth(document) > MAX_DATA_DEPTH:
            message = f"the data is nested deeper than {MAX_DATA_DEPTH}"
    if message:
        yield Violation(file=path, line=1, rule=Rule.DATA, message=message)


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack += [(child, depth + 1) for child in children]
    return deepest


# --- modules ----------------------------------------------------------------------------------------------------------

_FORBIDDEN: Final = re.compile(
    r"(?:http|net|opa|rand|rego|io|providers|graphql|internal\.print)(?:\..*)?"
    r"|time\.now_ns|trace|print|uuid\.rfc4122|numbers\.range(?:_step)?|bits\.lsh"
)
"""Refused even where a deployment's own ``capabilities.json`` lists them: what reaches out (network, environment,
clock, randomness, a log), what reads policies, and what makes memory out of a number: ``numbers.range(1, 1e9)`` and
``bits.lsh(1, 1e10)`` ask for gigabytes in one step, which no deadline interrupts."""

_OPEN_IMPORTS: Final = frozenset(
    {("rego", "v1"), *(("future", "keywords", *name) for name in ((), ("in",), ("if",), ("contains",), ("every",)))}
)
"""Imports that open nothing: Rego v1 has them all."""

_SCALARS: Final = frozenset({"string", "number", "boolean", "null"})
_TERMS: Final = _SCALARS | {
    *("var", "ref", "call", "array", "set", "object", "templatestring"),
    *("arraycomprehension", "setcomprehension", "objectcomprehension"),
}
_MEMBERS: Final = frozenset(
    {
        *("package", "imports", "rules", "path", "alias", "alias_location", "location", "comments", "annotations"),
        *("head", "body", "default", "else", "name", "ref", "args", "key", "value", "assign", "generated"),
        *("index", "terms", "negated", "with", "target", "symbols", "domain", "parts", "multi_line", "type", "term"),
        *("file", "row", "col", "text"),
    }
)
"""Members of the nodes of a parse tree (``v1/ast``, 1.22.2). ``lhs`` and ``rhs`` (the logical operators to come) are
not among them."""

_UNREAD: Final = frozenset({"location", "alias_location", "comments", "annotations"})

_Node = tuple[Any, int, int, bool]
"""A node, the line that it is on, its depth, and whether it is inside a ``deny``."""


def lint(tree: Any, *, team: str, file: str, served: bool = True) -> Iterator[Violation]:
    """Judge the parse tree of one module of a team.

    Args:
        tree: OPA's tree as JSON; with locations the findings have lines, without they are all on line 1.
        team: the name of the team's folder.
        file: POSIX path below the policy folder, for the findings.
        served: whether OPA will serve it. A test that stays behind may use ``with`` and refer to everything, and is
            held to the rest. No name makes a test: an OPA that loads an archive serves ``…_test.rego`` like any other.
    """
    return _Module(team, file, served=served).judge(tree)


class _Module:
    """The lint of one module."""

    def __init__(self, team: str, file: str, *, served: bool) -> None:
        self._file = file
        self._test = not served
        self._own = ("mcp", "teams", team)
        self._open = (self._own, ("mcp", "grants", team), ("mcp", "lib"))

    def judge(self, tree: Any) -> Iterator[Violation]:
        """Walk the whole tree without recursion: its depth is the author's choice."""
        if not isinstance(tree, dict):
            yield self._found(1, Rule.SYNTAX, "OPA's parse tree has another form than expected")
            return
        yield from self._package(tree.get("package"))
        for entry in _listed(tree.get("imports")):
            yield from self._import(entry)
        stack: list[_Node] = [(rule, 1, 1, _is_deny(rule)) for rule in reversed(_listed(tree.get("rules")))]
        while stack:
            node, line, depth, deny = stack.pop()
            if depth > MAX_TREE_DEPTH:
                yield self._found(line, Rule.DEPTH, f"the module is nested deeper than {MAX_TREE_DEPTH} nodes")
                return
            match node:
                case dict():
                    line = _line(node, line)
                    yield from self._node(node, line, deny=deny)
                    children = _children(node)
                case list():
                    children = node
                case _:
                    continue
            stack += [(child, line, depth + 1, deny) for child in reversed(children)]

    def _package(self, package: Any) -> Iterator[Violation]:
        path = _path(package.get("path")) if isinstance(package, dict) else ()
        if path[:4] != ("data", *self._own):
            name = ".".join(path[1:])
            message = f"package {name} is not this team's: it must be {'.'.join(self._own)} or below"
            yield self._found(_line(package, 1), Rule.PACKAGE, message)

    def _import(self, entry: Any) -> Iterator[Violation]:
        line = _line(entry, 1)
        reference = entry.get("path") if isinstance(entry, dict) else None
        terms = reference.get("value") if isinstance(reference, dict) else None
        path = _path(terms)
        match path:
            case ("input", *_):
                return
            case ("data", *_):
                yield from self._reference(terms, line)
            case _ if path not in _OPEN_IMPORTS:
                yield self._found(line, Rule.IMPORT, f"import {'.'.join(path)} is not open to teams")
            case _:
                return

    def _node(self, node: dict[str, Any], line: int, *, deny: bool) -> Iterator[Violation]:
        unknown = set(node) - _MEMBERS
        kind = str(node.get("type", ""))
        if unknown or (kind and kind not in _TERMS):
            what = ", ".join(sorted(unknown)) or kind
            yield self._found(line, Rule.SYNTAX, f"this syntax is not open to teams ({what})")
        if node.get("with") and not self._test:
            yield self._found(line, Rule.WITH, "with is for tests: a served rule cannot replace input or data")
        value = node.get("value")
        match kind:
            case "ref" if _head(value) == "data":
                yield from self._reference(value, line)
            case "var" if value == "data":
                yield self._found(line, Rule.REFERENCE, "data is no name for a rule, a variable or an argument")
            case "call":
                yield from self._call(value, line)
            case _:
                pass
        terms = node.get("terms")
        if isinstance(terms, list):
            yield from self._call(terms, line)
            if deny and node.get("negated") and _asks_about_input(terms):
                message = "not before a call is undefined where the call's argument is, and then the deny is lost"
                yield self._found(line, Rule.NEGATED_CALL, message, Severity.WARNING)

    def _reference(self, terms: Any, line: int) -> Iterator[Violation]:
        """Hold ``data…`` to the open prefixes, each spelled out in constants."""
        if self._test:
            return
        path = _path(terms)[1:]
        if any(path[: len(prefix)] == prefix for prefix in self._open):
            return
        dynamic = len(path) < len(terms) - 1
        name = ".".join(("data", *path)) + ("[…]" if dynamic else "")
        why = "it is dynamic where it must be spelled out" if dynamic else "it is not this team's"
        yield self._found(line, Rule.REFERENCE, f"{name} is out of reach: {why}")

    def _call(self, terms: Any, line: int) -> Iterator[Violation]:
        operator = terms[0] if terms else None
        if isinstance(operator, dict) and operator.get("type") == "ref":
            name = ".".join(_path(operator.get("value")))
            if _FORBIDDEN.fullmatch(name):
                yield self._found(line, Rule.BUILTIN, f"{name} is not open to teams")

    def _found(self, line: int, rule: Rule, message: str, severity: Severity = Severity.ERROR) -> Violation:
        return Violation(file=self._file, line=line, rule=rule, message=message, severity=severity)


def _children(node: dict[str, Any]) -> list[Any]:
    """What to look at below a node. The head of a reference to data is judged with the reference."""
    kind, value = str(node.get("type", "")), node.get("value")
    if kind in _SCALARS or kind == "var":
        return []
    if kind == "ref" and _head(value) == "data":
        return list(value or ())[1:]
    return [child for name, child in node.items() if name not in _UNREAD]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _line(node: Any, otherwise: int) -> int:
    location = node.get("location") if isinstance(node, dict) else None
    row = location.get("row") if isinstance(location, dict) else None
    return row if isinstance(row, int) else otherwise


def _head(terms: Any) -> str:
    """The variable that a reference starts with, or empty."""
    first = terms[0] if isinstance(terms, list) and terms else None
    is_variable = isinstance(first, dict) and first.get("type") == "var"
    return str(first.get("value", "")) if is_variable and isinstance(first, dict) else ""


def _path(terms: Any) -> tuple[str, ...]:
    """The variable and the constant texts that a reference starts with, up to the first thing that is neither."""
    head = _head(terms)
    if not head:
        return ()
    names = [head]
    for term in terms[1:]:
        if not isinstance(term, dict) or term.get("type") != "string":
            break
        names.append(str(term.get("value")))
    return tuple(names)


def _is_deny(rule: Any) -> bool:
    head = rule.get("head") if isinstance(rule, dict) else None
    return isinstance(head, dict) and _head(head.get("ref")) == "deny"


def _asks_about_input(terms: list[Any]) -> bool:
    """Whether an argument of a call is read from input or data."""
    return any(
        isinstance(term, dict) and term.get("type") == "ref" and _head(term.get("value")) in {"input", "data"}
        for term in terms[1:]
    )
