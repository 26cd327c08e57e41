"""A grant to change documents that masks no field, beside one to read the same documents with a mask.

Who has both finds out by a condition of an update or a delete what the mask of the reads hides: the answer says how
many documents met it. A mask is for the kinds that its grant is for (docs/field-masks.md), so nothing else says so.

A warning, and only where the rules say it by themselves: kinds, database, collections and groups that are spelled out
in them. What a rule asks besides can only narrow it; what is computed, or asked in another module, is not judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.syntax_tree import RegoPath, imports_of, line_of, listed, path_of

_LIBRARY: Final = ("data", "mcp", "lib")
_KIND: Final = ("input", "access", "kind")
_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "reads": frozenset({"read"}),
    "counts": frozenset({"read"}),
    "reads_metadata": frozenset({"metadata"}),
    "inserts": frozenset({"insert"}),
    "writes": frozenset({"insert", "update", "delete"}),
    "drops": frozenset({"drop"}),
}
"""What the conditions of the library ask of the kind of an access (``policies/platform/lib.rego``)."""

_TELLING: Final = frozenset({"update", "delete"})
"""Kinds of access whose answer says how many documents met a condition."""

_EQUAL: Final = frozenset({("eq",), ("equal",)})
_MEMBER: Final = frozenset({("internal", "member_2")})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """What one rule grants, as far as it spells it out."""

    name: str
    line: int
    masked: bool
    kinds: frozenset[str] | None
    places: frozenset[tuple[str, str]]
    groups: frozenset[str] | None
    """None: any caller."""


def unmasked_writes(tree: Any, file: str) -> Iterator[Violation]:
    """Yield a warning for each grant of one module that opens by changes what another one masks for reads.

    Args:
        tree: OPA's tree of the module as JSON; without locations every line is 1.
        file: POSIX path below the policy folder.
    """
    grants = [grant for rule in listed(tree.get("rules")) if (grant := _read(rule, _library(tree))) is not None]
    masking = [one for one in grants if one.masked and one.kinds is not None and "read" in one.kinds]
    for write in grants:
        if write.masked or write.kinds is None or "read" in write.kinds or not write.kinds & _TELLING:
            continue
        for read in masking:
            if shared := _shared(write, read):
                message = (
                    f"the grant {write.name} is for changes in {shared} without the mask that {read.name} has for "
                    "reads: a condition of an update or a delete tells what is in a masked field; give it the mask too"
                )
                yield Violation(file=file, line=write.line, rule=Rule.MASK, message=message, severity=Severity.WARNING)
                break


def _shared(one: _Grant, other: _Grant) -> str:
    """Return a collection that both are for, for a caller who could have both; empty where there is none."""
    if one.groups is not None and other.groups is not None and not one.groups & other.groups:
        return ""
    places = sorted(one.places & other.places)
    return ".".join(places[0]) if places else ""


def _library(tree: Any) -> str:
    return next((name for name, path in imports_of(tree) if path == _LIBRARY), "")


def _read(rule: Any, library: str) -> _Grant | None:
    """Return what a rule grants; None where it grants nothing, or its parts are computed as a whole."""
    head = rule.get("head") if isinstance(rule, dict) else None
    if not isinstance(head, dict) or (path_of(head.get("ref")) or (head.get("name"),)) != ("grant",):
        return None
    parts = _object(head.get("key"))
    if parts is None:
        return None
    kinds: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    places: frozenset[tuple[str, str]] | None = None
    for function, arguments in _conditions(rule, library):
        if (asked := _asked_kinds(function, arguments)) is not None:
            kinds = asked if kinds is None else kinds & asked
        elif function == "on" and (found := _places(arguments)) is not None:
            places = found if places is None else places & found
        elif function in ("in_group", "in_any_group") and arguments and (named := _texts(arguments[0])) is not None:
            groups = named if groups is None else groups & named
    identifier = parts.get("id")
    name = str(identifier.get("value")) if isinstance(identifier, dict) and identifier.get("type") == "string" else "?"
    return _Grant(
        name=name,
        line=line_of(head, line_of(rule, 1)),
        masked="mask" in parts,
        kinds=kinds,
        places=places or frozenset(),
        groups=groups,
    )


def _conditions(rule: dict[str, Any], library: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield what the body of a rule asks: a function of the library by name, or a comparison as ``==`` and ``in``."""
    for expression in listed(rule.get("body")):
        if not isinstance(expression, dict) or expression.get("negated") or "with" in expression:
            continue
        terms = expression.get("terms")
        called, arguments = (terms[0], terms[1:]) if isinstance(terms, list) and terms else (terms, [])
        path: RegoPath = path_of(called.get("value")) if isinstance(called, dict) else ()
        if library and len(path) == 2 and path[0] == library:  # noqa: PLR2004 - the library and the function
            yield path[1], arguments
        elif path in _EQUAL:
            yield "==", arguments
        elif path in _MEMBER:
            yield "in", arguments


def _asked_kinds(function: str, arguments: list[Any]) -> frozenset[str] | None:
    """Return the kinds of access that a condition leaves; None where it is not about them."""
    if function in _KINDS:
        return _KINDS[function]
    if function not in ("==", "in") or len(arguments) != 2:  # noqa: PLR2004 - both sides
        return None
    one, other = arguments
    if _path(one) == _KIND:
        return _texts(other)
    return _texts(one) if function == "==" and _path(other) == _KIND else None


def _places(arguments: list[Any]) -> frozenset[tuple[str, str]] | None:
    """Return the collections that ``on`` names; None where they are computed, or patterns of names."""
    if len(arguments) != 2:  # noqa: PLR2004 - a database and collections
        return None
    databases, collections = _texts(arguments[0]), _texts(arguments[1])
    if databases is None or collections is None:
        return None
    return frozenset((database, collection) for database in databases for collection in collections)


def _path(term: Any) -> RegoPath:
    return path_of(term.get("value")) if isinstance(term, dict) and term.get("type") == "ref" else ()


def _texts(term: Any) -> frozenset[str] | None:
    """Return the text, or all members of an array or a set of texts; None where a term is anything else."""
    if not isinstance(term, dict):
        return None
    value = term.get("value")
    if term.get("type") == "string":
        return frozenset({str(value)})
    if term.get("type") not in ("array", "set"):
        return None
    members = [_texts(one) if isinstance(one, dict) and one.get("type") == "string" else None for one in listed(value)]
    return None if None in members else frozenset(text for one in members for text in one or ())


def _object(term: Any) -> dict[str, Any] | None:
    """Return an object that stands there by its constant names."""
    if not isinstance(term, dict) or term.get("type") != "object":
        return None
    found: dict[str, Any] = {}
    for pair in listed(term.get("value")):
        name, value = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)  # noqa: PLR2004 - a pair
        if not isinstance(name, dict) or name.get("type") != "string":
            return None
        found[str(name.get("value"))] = value
    return found
