"""What a team's module may say: judged on OPA's parse tree of it, or on the tree that a running OPA evaluates.

It refers to nothing but ``input``, the team's own packages and data, and ``data.mcp.lib``; and it calls nothing but
builtins that are open (``sidecar.policyset.callable_names``), functions of the team's modules, and functions of the
library. Both are lists of what is allowed: a node, an import or a name that is not known here is refused, so that new
syntax and new builtins have to be looked at before a team can use them.

A module calls functions that another module of the team defines. So one module is judged with the calls that it leaves
open (``lint_module``), and a team's modules together close them (``uncalled``).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policyset.callable_names import CALLABLE, CLOSED, why_closed
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.mentions import NOTHING, Mentions
from sidecar.policyset.read_list import RuleReads
from sidecar.policyset.syntax_tree import (
    MEMBERS,
    SCALARS,
    TERMS,
    UNREAD,
    RegoPath,
    head_of,
    imports_of,
    line_of,
    listed,
    package_of,
    path_of,
)
from sidecar.policyset.unmasked_writes import unmasked_writes

MAX_TREE_DEPTH: Final = 200
"""Nodes from a module's root to a leaf. The repository's own modules, compiled by people, stay below 40."""

RESERVED_IDS: Final = "platform."
"""What the ids of grants in evidence start with where the platform and no team grants."""

_OPEN_IMPORTS: Final = frozenset(
    {("rego", "v1"), *(("future", "keywords", *name) for name in ((), ("in",), ("if",), ("contains",), ("every",)))}
)
"""Imports that open nothing: Rego v1 has them all."""

_Node = tuple[Any, int, int, bool]
"""A node, the line that it is on, its depth, and whether it is inside a ``deny``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleReport:
    """What one module is by itself."""

    findings: tuple[Violation, ...] = ()
    defines: frozenset[RegoPath] = frozenset()
    """Functions, by their paths below ``data``."""
    calls: tuple[tuple[RegoPath, Violation], ...] = ()
    """Functions that it calls by a name of its own package, and what to say where nothing defines them."""
    mentions: Mentions = NOTHING
    """What it names, where that is looked up: not of what runs in an OPA already."""
    reads: tuple[RuleReads, ...] = ()
    """What its rules read of a question; the same."""


def lint_module(tree: Any, *, team: str, file: str, served: bool = True) -> ModuleReport:
    """Judge one module of a team, all but the calls that its other modules may define.

    Args:
        tree: OPA's tree as JSON; with locations the findings have lines, without they are all on line 1.
        team: the name of the team's folder.
        file: POSIX path below the policy folder, for the findings.
        served: whether OPA will serve it. A test that stays behind may use ``with`` and refer to everything, and is
            held to the rest. No name makes a test: an OPA that loads an archive serves ``…_test.rego`` like any other.
    """
    module = _Module(tree, team, file, served=served)
    findings = tuple(module.judge())
    if served and isinstance(tree, dict):
        findings += tuple(unmasked_writes(tree, file))
    return ModuleReport(findings=findings, defines=frozenset(_functions(tree)), calls=tuple(module.calls))


def uncalled(modules: Iterable[ModuleReport], beside: Iterable[ModuleReport] = ()) -> Iterator[Violation]:
    """Find the calls of some modules of a team that none of them defines.

    Args:
        modules: the team's modules that make the calls.
        beside: those that only define.
    """
    calling = list(modules)
    defined = frozenset().union(*(module.defines for module in (*calling, *beside)))
    for module in calling:
        yield from (violation for path, violation in module.calls if path not in defined)


def lint(tree: Any, *, team: str, file: str, served: bool = True) -> Iterator[Violation]:
    """Judge a module that is all that the team has; as ``lint_module``."""
    linted = lint_module(tree, team=team, file=file, served=served)
    yield from linted.findings
    yield from uncalled([linted])


def reserved_message(identifier: str) -> str:
    """Say why a grant may not be called so."""
    return f"the id {identifier} is the platform's: {RESERVED_IDS}… says in evidence that no team granted"


def _functions(tree: Any) -> Iterator[RegoPath]:
    package = package_of(tree)
    for rule in listed(tree.get("rules")) if isinstance(tree, dict) else ():
        head = rule.get("head") if isinstance(rule, dict) else None
        if isinstance(head, dict) and head.get("args") and (path := path_of(head.get("ref"))):
            yield (*package, *path)


class _Module:
    """The lint of one module."""

    def __init__(self, tree: Any, team: str, file: str, *, served: bool) -> None:
        self._tree = tree
        self._file = file
        self._test = not served
        self._own = ("mcp", "teams", team)
        self._open = (self._own, ("mcp", "grants", team), ("mcp", "lib"))
        self._package_path = package_of(tree)
        self._imported = {name for name, path in imports_of(tree) if path[0] == "data"}
        self.calls: list[tuple[RegoPath, Violation]] = []

    def judge(self) -> Iterator[Violation]:
        """Walk the whole tree without recursion: its depth is the author's choice."""
        tree = self._tree
        if not isinstance(tree, dict):
            yield self._found(1, Rule.SYNTAX, "OPA's parse tree has another form than expected")
            return
        yield from self._package(tree.get("package"))
        for entry in listed(tree.get("imports")):
            yield from self._import(entry)
        stack: list[_Node] = [(rule, 1, 1, _is_deny(rule)) for rule in reversed(listed(tree.get("rules")))]
        while stack:
            node, line, depth, deny = stack.pop()
            if depth > MAX_TREE_DEPTH:
                yield self._found(line, Rule.DEPTH, f"the module is nested deeper than {MAX_TREE_DEPTH} nodes")
                return
            match node:
                case dict():
                    line = line_of(node, line)
                    yield from self._node(node, line, deny=deny)
                    children = _children(node)
                case list():
                    children = node
                case _:
                    continue
            stack += [(child, line, depth + 1, deny) for child in reversed(children)]

    def _package(self, package: Any) -> Iterator[Violation]:
        path = path_of(package.get("path")) if isinstance(package, dict) else ()
        if path[:4] != ("data", *self._own):
            name = ".".join(path[1:])
            message = f"package {name} is not this team's: it must be {'.'.join(self._own)} or below"
            yield self._found(line_of(package, 1), Rule.PACKAGE, message)

    def _import(self, entry: Any) -> Iterator[Violation]:
        line = line_of(entry, 1)
        reference = entry.get("path") if isinstance(entry, dict) else None
        terms = reference.get("value") if isinstance(reference, dict) else None
        path = path_of(terms)
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
        unknown = set(node) - MEMBERS
        kind = str(node.get("type", ""))
        if unknown or (kind and kind not in TERMS):
            what = ", ".join(sorted(unknown)) or kind
            yield self._found(line, Rule.SYNTAX, f"this syntax is not open to teams ({what})")
        if node.get("with"):
            yield from self._replaced(listed(node["with"]), line)
        value = node.get("value")
        match kind:
            case "ref" if head_of(value) == "data":
                yield from self._reference(value, line)
            case "var" if value == "data":
                yield self._found(line, Rule.REFERENCE, "data is no name for a rule, a variable or an argument")
            case "call":
                yield from self._call(value, line)
            case "object":
                yield from self._object(value, line)
            case _:
                pass
        terms = node.get("terms")
        if isinstance(terms, list):
            yield from self._call(terms, line)
            if deny and node.get("negated") and _asks_about_input(terms):
                message = "not before a call is undefined where the call's argument is, and then the deny is lost"
                yield self._found(line, Rule.NEGATED_CALL, message, Severity.WARNING)

    def _replaced(self, replacements: list[Any], line: int) -> Iterator[Violation]:
        if not self._test:
            yield self._found(line, Rule.WITH, "with is for tests: a served rule cannot replace input or data")
        for one in replacements:
            # What a function is replaced by is called wherever the function is.
            term = one.get("value") if isinstance(one, dict) else None
            name = ".".join(path_of(term.get("value"))) if isinstance(term, dict) else ""
            if name in CLOSED:
                yield self._found(line, Rule.BUILTIN, why_closed(name))

    def _reference(self, terms: Any, line: int) -> Iterator[Violation]:
        """Hold ``data…`` to the open prefixes, each spelled out in constants."""
        if self._test:
            return
        path = path_of(terms)[1:]
        if any(path[: len(prefix)] == prefix for prefix in self._open):
            return
        dynamic = len(path) < len(terms) - 1
        name = ".".join(("data", *path)) + ("[…]" if dynamic else "")
        why = "it is dynamic where it must be spelled out" if dynamic else "it is not this team's"
        yield self._found(line, Rule.REFERENCE, f"{name} is out of reach: {why}")

    def _call(self, terms: Any, line: int) -> Iterator[Violation]:
        """Hold a call to builtins that are open, and to functions whose place is spelled out.

        A name that a rule or an import has is that rule's or import's, also where a builtin has it too: OPA resolves
        it so (measured with 1.22.4), and knows no function where the rule is none.
        """
        operator = terms[0] if isinstance(terms, list) and terms else None
        steps = operator.get("value") if isinstance(operator, dict) and operator.get("type") == "ref" else None
        path = path_of(steps)
        if not path or len(path) != len(steps or ()):
            yield self._found(line, Rule.BUILTIN, "a function is called by a name that is not spelled out")
            return
        name = ".".join(path)
        if path[0] == "data" or path[0] in self._imported or name in CALLABLE:
            return  # what lies below data, or was imported from there, is judged as a reference
        self.calls.append(((*self._package_path, *path), self._found(line, Rule.BUILTIN, why_closed(name))))

    def _object(self, pairs: Any, line: int) -> Iterator[Violation]:
        for pair in listed(pairs):
            key, value = (_text(term) for term in pair) if isinstance(pair, list) and len(pair) == _PAIR else ("", "")
            if key == "id" and value.startswith(RESERVED_IDS) and not self._test:
                yield self._found(line, Rule.RESERVED, reserved_message(value))

    def _found(self, line: int, rule: Rule, message: str, severity: Severity = Severity.ERROR) -> Violation:
        return Violation(file=self._file, line=line, rule=rule, message=message, severity=severity)


_PAIR: Final = 2


def _text(term: Any) -> str:
    """The text that a term is, or an empty one."""
    is_text = isinstance(term, dict) and term.get("type") == "string"
    return str(term.get("value", "")) if is_text else ""


def _children(node: dict[str, Any]) -> list[Any]:
    """What to look at below a node. The head of a reference to data is judged with the reference."""
    kind, value = str(node.get("type", "")), node.get("value")
    if kind in SCALARS or kind == "var":
        return []
    if kind == "ref" and head_of(value) == "data":
        return list(value or ())[1:]
    return [child for name, child in node.items() if name not in UNREAD]


def _is_deny(rule: Any) -> bool:
    head = rule.get("head") if isinstance(rule, dict) else None
    return isinstance(head, dict) and head_of(head.get("ref")) == "deny"


def _asks_about_input(terms: list[Any]) -> bool:
    """Whether an argument of a call is read from input or data."""
    return any(
        isinstance(term, dict) and term.get("type") == "ref" and head_of(term.get("value")) in {"input", "data"}
        for term in terms[1:]
    )
