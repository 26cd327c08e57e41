"""What a module of a team names, calls and grants by literals: read from OPA's parse tree, judged by ``names``.

OPA takes a name that nothing defines for a value that is not there. A ``deny`` that asks for one never fires, a grant
never gives, and neither says so. What is found here can be looked up before a set is served.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sidecar.obligations import is_form, is_maskable
from sidecar.policyset.bindings import Bindings
from sidecar.policyset.syntax_tree import (
    SCALARS,
    UNREAD,
    RegoPath,
    head_of,
    imports_of,
    line_of,
    listed,
    package_of,
    path_of,
)

OBLIGATIONS: Final = (
    "filter",
    "mask",
    "max_documents",
    "max_time_ms",
    "max_affected",
    "max_bytes",
    "no_collection_scan",
    "approval",
    "names",
)
"""The parts of a grant that must be done for it to stand (``policies/platform/terms.rego``)."""

PARTS: Final = ("id", *OBLIGATIONS)
"""Of a grant."""

IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MOST: Final = 2147483647


class Syntax(StrEnum):
    """What the text in an argument has to be."""

    REGEX = "regular expression"
    GLOB = "glob"
    TIMEZONE = "time zone"


BUILTIN_PATTERNS: Final[Mapping[RegoPath, Mapping[int, Syntax]]] = {
    ("glob", "match"): {0: Syntax.GLOB},
    ("mcp", "platform", "names", "matches"): {0: Syntax.GLOB},
    ("regex", "match"): {0: Syntax.REGEX},
    ("regex", "find_n"): {0: Syntax.REGEX},
    ("regex", "find_all_string_submatch_n"): {0: Syntax.REGEX},
    ("regex", "replace"): {1: Syntax.REGEX},
    ("regex", "split"): {0: Syntax.REGEX},
}
"""Which arguments of functions are patterns. Those of the library follow from what it does with its own."""


BUILTIN_COMPARISONS: Final[Mapping[RegoPath, tuple[int, int]]] = {
    ("equal",): (0, 1),
    ("eq",): (0, 1),
    ("neq",): (0, 1),
    ("internal", "member_2"): (0, 1),
    ("glob", "match"): (0, 2),
    ("mcp", "platform", "names", "matches"): (0, 1),
}
"""Which two arguments of functions are held against each other."""
MEMBERSHIP: Final = ("internal", "member_2")
"""``x in y``: the first is held against the members of the second."""

SPELLED_OUT: Final = SCALARS | {"array", "set", "object"}
_DEEPEST: Final = 8
"""Steps from a name to what it is bound to, and of objects inside objects; what is deeper is not read."""
_PAIR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A path that starts with ``input`` or ``data``, as far as it is spelled out."""

    path: RegoPath
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """What stands in one argument of a call: texts, and a name that stands for others."""

    texts: tuple[tuple[str, int], ...] = ()
    """Each with its line: the argument itself, or the members of a list or set."""
    path: RegoPath = ()
    """A reference, with its imports put in; a variable is one name, or what the rule binds it to."""
    one_of: bool = False
    """Whether it is a member of what the path leads to, and not that itself."""
    kind: str = ""
    """What is spelled out: ``string``, ``object``, …; empty where nothing is."""
    parts: "tuple[tuple[str, int, Argument], ...]" = ()
    """Of an object the members with constant names, each with its line."""
    whole: bool = True
    """Whether these are all members of the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """A call of a function: a builtin's by its names, any other's by its path below ``data``."""

    function: RegoPath
    arguments: tuple[Argument, ...]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDefinition:
    """A definition of a function, with the names of its arguments and what it calls."""

    path: RegoPath
    parameters: RegoPath
    calls: tuple[FunctionCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """What one module names and defines."""

    package: RegoPath = ()

    mentions: tuple[Mention, ...] = ()
    calls: tuple[FunctionCall, ...] = ()
    functions: tuple[FunctionDefinition, ...] = ()
    rules: tuple[Mention, ...] = ()
    """Every rule and function, by its path below ``data``, where it is defined."""
    constants: tuple[tuple[RegoPath, Argument], ...] = ()
    """What a rule is, by its path below ``data``, where that is spelled out and nothing is asked."""
    variables: frozenset[str] = frozenset()
    """Names that stand in rules without anything before them, heads excepted."""
    faults: tuple[tuple[int, str], ...] = ()
    """Line and message of what no grant can have."""


NOTHING: Final = Mentions()


def mentions_of(tree: Any) -> Mentions:
    """Collect what a module names.

    Args:
        tree: OPA's parse tree of it as JSON; without locations every line is 1.
    """
    if not isinstance(tree, dict):
        return Mentions()
    scan = _MentionScan(tree)
    for rule in listed(tree.get("rules")):
        scan.rule(rule)
    return Mentions(
        package=package_of(tree),
        mentions=tuple(scan.mentions),
        calls=tuple(scan.calls),
        functions=tuple(scan.functions),
        rules=tuple(scan.rules),
        constants=tuple(scan.constants),
        variables=frozenset(scan.variables),
        faults=tuple(scan.faults),
    )


class _MentionScan:
    def __init__(self, tree: dict[str, Any]) -> None:
        self._package = package_of(tree)
        self._imports = dict(imports_of(tree))
        self.mentions = [
            Mention(path=path, line=line_of(entry, 1))
            for entry in listed(tree.get("imports"))
            for _, path in imports_of({"imports": [entry]})
            if path[0] in {"data", "input"}
        ]
        self.calls: list[FunctionCall] = []
        self.functions: list[FunctionDefinition] = []
        self.rules: list[Mention] = []
        self.constants: list[tuple[RegoPath, Argument]] = []
        self.variables: set[str] = set()
        self._unread_calls: list[tuple[list[Any], int]] = []
        self._bindings = Bindings()
        self.faults: list[tuple[int, str]] = []

    def rule(self, rule: Any) -> None:
        """Walk one rule whole, without recursion: its depth is the author's choice."""
        head = rule.get("head") if isinstance(rule, dict) else None
        if not isinstance(head, dict):
            return
        line, path = line_of(rule, 1), (*self._package, *path_of(head.get("ref")))
        self.rules.append(Mention(path=path, line=line))
        if path == (*self._package, "grant"):
            self.faults += [fault for grant, at in _granted(rule, line) for fault in _faults(grant, at)]
        parameters = listed(head.get("args"))
        self._unread_calls, self._bindings = [], Bindings()
        stack: list[tuple[Any, int]] = [(child, line) for name, child in rule.items() if name != "head"]
        stack += [(child, line) for name, child in head.items() if name not in {"name", "ref"}]
        stack += [(step, line) for step in listed(head.get("ref"))[1:]]
        while stack:
            node, line = stack.pop()
            match node:
                case list():
                    stack += [(child, line) for child in node]
                case dict():
                    line = line_of(node, line)
                    stack += [(child, line) for child in self._node(node, line)]
                case _:
                    continue
        names = tuple(str(one.get("value", "")) if _is(one, "var") else "" for one in parameters)
        self._bindings.forget(names)
        calls = [call for terms, at in self._unread_calls if (call := self._call(terms, at)) is not None]
        self.calls += calls
        if parameters:
            self.functions.append(FunctionDefinition(path=path, parameters=names, calls=tuple(calls)))
        elif _asks_nothing(rule) and head.get("value"):
            self.constants.append((path, self._argument(head["value"], line_of(rule, 1))))

    def _node(self, node: dict[str, Any], line: int) -> list[Any]:
        """Take what a node names, and return what lies below it."""
        value = node.get("value")
        match node.get("type"):
            case "ref":
                if (path := self._whole(path_of(value))) and path[0] in {"data", "input"}:
                    self.mentions.append(Mention(path=path, line=line))
                self.variables.add(head_of(value))
                return listed(value)[1:] if head_of(value) else listed(value)
            case "var":
                self.variables.add(str(value))
                return []
            case "call":
                self._unread_calls.append((listed(value), line))
            case _:
                pass
        if isinstance(terms := node.get("terms"), list):
            self._bindings.assignment(terms)
            self._unread_calls.append((terms, line))
        # ``some x in …`` and ``every x in …`` bind, and compare nothing.
        self._bindings.every(node)
        for symbol in listed(node.get("symbols")):
            if _is(symbol, "call"):
                self._bindings.declaration(listed(symbol["value"]))
        if "symbols" in node:
            return [
                term for symbol in listed(node["symbols"]) if _is(symbol, "call") for term in listed(symbol["value"])
            ]
        return [child for name, child in node.items() if name not in UNREAD]

    def _call(self, terms: list[Any], line: int) -> FunctionCall | None:
        operator, *given = terms or [None]
        path = path_of(operator.get("value")) if _is(operator, "ref") else ()
        if not path:
            return None
        whole = self._whole(path)
        own = path if path in BUILTIN_PATTERNS or path in BUILTIN_COMPARISONS else (*self._package, *path)
        function = whole[1:] if whole[0] == "data" else own
        return FunctionCall(function=function, arguments=tuple(self._argument(one, line) for one in given), line=line)

    def _argument(self, term: Any, line: int, depth: int = 0) -> Argument:
        line = line_of(term, line)
        if depth > _DEEPEST:
            return Argument()
        if _is(term, "var") or _is(term, "ref"):
            return self._referred(listed(term["value"]) if _is(term, "ref") else [term], line, depth)
        if _is(term, "object"):
            pairs = [pair for pair in listed(term.get("value")) if isinstance(pair, list) and len(pair) == _PAIR]
            parts = tuple(
                (str(key["value"]), line_of(key, line), self._argument(value, line_of(key, line), depth + 1))
                for key, value in pairs
                if _is(key, "string")
            )
            return Argument(kind="object", parts=parts, whole=len(parts) == len(pairs))
        members = listed(term.get("value")) if _is(term, "array") or _is(term, "set") else [term]
        texts = tuple((one["value"], line_of(one, line)) for one in members if _is(one, "string"))
        kind = str(term.get("type", "")) if isinstance(term, dict) else ""
        return Argument(texts=texts, kind=kind if kind in SPELLED_OUT else "")

    def _referred(self, terms: list[Any], line: int, depth: int) -> Argument:
        """Return what a reference names: by an import, or by what the rule has bound its first name to."""
        path, one_of = path_of(terms), False
        if len(path) == len(terms) - 1 and _is(terms[-1], "var"):
            one_of = True  # a step that is not spelled out, at the end: any member
        elif len(path) != len(terms):
            # Behind a step that is not spelled out stands something else than what the path names.
            return Argument()
        if not path:
            return Argument()
        bound = None if path[0] in self._imports else self._bindings.of(path[0])
        if bound is None:
            return Argument(path=self._whole(path), one_of=one_of)
        term, is_member = bound
        known = self._argument(term, line, depth + 1)
        if len(path) == 1:
            return replace(known, one_of=True) if (one_of or is_member) and known.path else known
        if not known.path or known.one_of or is_member:
            return Argument()
        return Argument(path=(*known.path, *path[1:]), one_of=one_of)

    def _whole(self, path: RegoPath) -> RegoPath:
        """Put what an import stands for in its place."""
        return (*self._imports[path[0]], *path[1:]) if path and path[0] in self._imports else path


def _asks_nothing(rule: dict[str, Any]) -> bool:
    """Whether a rule is its value whenever it is asked for."""
    body = listed(rule.get("body"))
    is_bare = len(body) == 1 and isinstance(body[0], dict) and _is(body[0].get("terms"), "boolean")
    return not rule.get("else") and not rule.get("default") and (not body or is_bare)


def _is(term: Any, kind: str) -> bool:
    return isinstance(term, dict) and term.get("type") == kind


def _granted(rule: dict[str, Any], line: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what a rule adds to the team's grants, where that stands as an object in it."""
    head = rule["head"]
    given = [head.get("key"), *listed(head.get("ref"))[1:2]]
    # A complete rule has the whole set as its value; ``grant[x]`` has true.
    given += listed(head["value"].get("value")) if _is(head.get("value"), "set") else []
    for term in given:
        if _is(term, "object"):
            yield term, line_of(term, line)
        elif _is(term, "var"):
            yield from _assigned(rule, str(term.get("value")), line)


def _assigned(rule: dict[str, Any], name: str, line: int) -> Iterator[tuple[dict[str, Any], int]]:
    for expression in listed(rule.get("body")):
        terms = listed(expression.get("terms")) if isinstance(expression, dict) else []
        match terms:
            case [operator, {"type": "var", "value": variable}, {"type": "object"} as term] if variable == name:
                if _is(operator, "ref") and path_of(operator["value"]) in {("assign",), ("eq",)}:
                    yield term, line_of(term, line)
            case _:
                continue


def _faults(grant: dict[str, Any], line: int) -> Iterator[tuple[int, str]]:
    """Yield what no part of a grant can be, of what stands there as a literal."""
    named: set[str] = set()
    dynamic = False
    for pair in listed(grant.get("value")):
        match pair:
            case [{"type": "string", "value": str(name)} as key, value]:
                named.add(name)
                if name not in PARTS:
                    yield line_of(key, line), f"a grant has no part {name}"
                elif fault := _part_fault(name, value):
                    yield line_of(value, line), fault
            case _:
                dynamic = True
    if "id" not in named and not dynamic:
        yield line, "a grant has an id"


_CHOICES: Final[dict[str, tuple[tuple[str | bool, ...], str]]] = {
    "approval": (("confirm", "second_person"), 'approval is "confirm" or "second_person"'),
    "no_collection_scan": ((True,), "no_collection_scan is true"),
    "names": (("reachable",), 'names is "reachable"'),
}
"""The parts with few values, and what is told where another one stands."""


def _part_fault(name: str, term: Any) -> str:
    """Return what is wrong with a literal in one part of a grant; empty where only evaluation can tell."""
    kind, value = (term.get("type"), term.get("value")) if isinstance(term, dict) else ("", None)
    is_literal = kind in {"string", "number", "boolean", "null", "array", "set", "object"}
    match name:
        case "id" if is_literal and not (isinstance(value, str) and IDENTIFIER.fullmatch(value)):
            return f"{name} is a text of a-z, 0-9, '.', '_' and '-', 64 at most, that begins with a letter or digit"
        case "max_documents" | "max_time_ms" | "max_affected" | "max_bytes" if is_literal and not (
            kind == "number" and _is_limit(value)
        ):
            return f"{name} is a whole number from 1 to {_MOST}"
        case "approval" | "no_collection_scan" | "names" if is_literal:
            values, words = _CHOICES[name]
            return "" if any(value is one or (value == one and isinstance(one, str)) for one in values) else words
        case "filter" if is_literal and not (kind == "object" and value):
            return "filter is an object with at least one member"
        case "mask" if is_literal and not (kind in {"array", "set"} and value):
            return "mask is a set of fields, at least one"
        case "mask" if is_literal:
            return next((fault for one in listed(value) if (fault := _field_fault(one))), "")
        case _:
            return ""


def _field_fault(term: Any) -> str:
    """Return what is wrong with one masked field: a path, or an object of a path and what is left of the field."""
    if _is(term, "object"):
        parts = {key["value"]: value for key, value in term["value"] if _is(key, "string")}
        if parts.keys() != {"field", "as"} or len(parts) != len(term["value"]):
            return 'a masked field that is an object has "field" and "as", and no more'
        form = parts["as"].get("value") if _is(parts["as"], "string") else None
        if isinstance(form, str) and not is_form(form):
            return f'{form!r} is nothing that can be left of a masked field: "absent", "last4" or "bucket:10000"'
        return _field_fault(parts["field"])
    name = term.get("value") if _is(term, "string") else None
    if isinstance(name, str) and not is_maskable(name):
        return f"{name!r} in a mask is no path of a field, such as customer.address"
    return ""


def _is_limit(value: Any) -> bool:
    return isinstance(value, int | float) and value == int(value) and 1 <= value <= _MOST
