"""What partial evaluation left of the teams' grants: what a caller could still be granted, for any call.

OPA is asked with the subject and the actor known and everything about a call unknown (``COMPILE_QUERY``). Its answer is
a list of conjunctions; each is one way in which one grant of one team could come about (OPA REST API, "Compile API").
From each we read only what surely narrows it: an equality, or a membership, of one part of ``input.access`` with
constants. Everything else that it says is left out of account, so what is read here is never less than what the team
grants: a tool may show that will not be allowed, and never the reverse.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.errors import DecisionUnavailable
from sidecar.model import Identity, JsonObject, JsonValue
from sidecar.policy.document import VERSION, actor_document, subject_document

COMPILE_QUERY: Final = "data.mcp.platform.visible.owners[owner]; data.mcp.teams[owner].grant[grant]"
"""The one query that ``policies/system/authz.rego`` opens the Compile API for, compared there letter by letter."""

COMPILE_UNKNOWNS: Final = ("input.access", "input.action", "input.command", "input.context")
"""Everything about a call. The time is among it, so that the answer holds for as long as the policies do."""

MAX_WAYS: Final = 32
"""Ways to a grant of one owner that are told apart."""

_TARGET: Final = "target/id"
"""The part that is the name of a target; no part of an access is spelled so."""

MAX_NAMES: Final = 64
"""Names of one way that are told apart."""

Names = frozenset[str] | None
"""The values that are possible; None is every value."""

_MergeKey = tuple[Names, Names, Names]
"""Kinds, databases and names of targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleGrant:
    """One way in which an owner could grant something."""

    owner: str
    kinds: Names = None
    databases: Names = None
    collections: Names = None
    targets: Names = None
    """Names of targets; what says so stands among the conditions as well."""
    grant: JsonValue = None
    """The grant as a term of OPA's syntax tree."""
    conditions: tuple[JsonValue, ...] = ()
    """What else must hold, as expressions of OPA's syntax tree."""


def residual_document(identity: Identity) -> JsonObject:
    """Render what is known of every question of this caller."""
    return {"v": VERSION, "subject": subject_document(identity.principal), "actor": actor_document(identity.actor)}


def possible_document(grants: Iterable[PossibleGrant]) -> list[JsonValue]:
    """Render what could be granted for the question about visibility: a bounded part of it for each owner.

    - Ways that differ in the collections only are one way with all of them. That says the same, since the question asks
      for some collection of some way: 900 grants of one name each are one way.
    - An owner with more than ``MAX_WAYS`` ways, or a way with more than ``MAX_NAMES`` names, counts as one that could
      grant everything that was delegated. What is read is never less than what is granted, and no team makes the lists
      of others slow.
    """
    merged: dict[str, dict[_MergeKey, Names]] = {}
    for one in grants:
        ways = merged.setdefault(one.owner, {})
        key = (_few(one.kinds), _few(one.databases), _few(one.targets))
        known = ways.get(key, frozenset())
        ways[key] = None if known is None or one.collections is None else _few(known | one.collections)
    rendered = [way for owner, ways in merged.items() for way in _rendered(owner, ways)]
    return [*sorted(rendered, key=repr)]


def _rendered(owner: str, ways: Mapping[_MergeKey, Names]) -> Iterator[JsonObject]:
    if len(ways) > MAX_WAYS:
        ways = {(None, None, None): None}
    for (kinds, databases, targets), collections in ways.items():
        yield {
            "owner": owner,
            "kinds": _listed(kinds),
            "databases": _listed(databases),
            "collections": _listed(collections),
            "targets": _listed(targets),
        }


def _few(names: Names) -> Names:
    """Return the names, or every name where there are too many."""
    return names if names is not None and len(names) <= MAX_NAMES else None


def read_residual(result: JsonValue) -> tuple[PossibleGrant, ...]:
    """Accept what OPA's Compile API answered to ``COMPILE_QUERY``.

    Raises:
        DecisionUnavailable: the answer is not of the API's form, or a way to a grant does not say whose it is.
    """
    if not isinstance(result, dict) or not result.keys() <= {"queries", "support"}:
        raise DecisionUnavailable("residual: not an answer of the Compile API")
    queries = result.get("queries", [])
    if not isinstance(queries, list):
        raise DecisionUnavailable("residual: no list of queries")
    ways = (_read_query(query) for query in queries)
    return tuple(way for way in ways if way is not None)


def _read_query(query: JsonValue) -> PossibleGrant | None:
    """Read one conjunction; None if it contradicts itself."""
    if not isinstance(query, list):
        raise DecisionUnavailable("residual: a query is not a list of expressions")
    parts: dict[str, Names] = {"kind": None, "database": None, "collection": None, _TARGET: None}
    owner: str | None = None
    grant: JsonValue = None
    conditions: list[JsonValue] = []
    for expression in query:
        match _read_expression(expression):
            case ("owner", [str(name)]):
                owner = name
            case ("grant", term):
                grant = term
            case (str(part), list(values)) if part in parts:
                said = frozenset(str(value) for value in values)
                known = parts[part]
                parts[part] = said if known is None else known & said
                if part == _TARGET:
                    conditions.append(expression)
            case _:
                conditions.append(expression)
    if owner is None:
        raise DecisionUnavailable("residual: a grant without an owner")
    if any(values == frozenset() for values in parts.values()):
        return None
    return PossibleGrant(
        owner=owner,
        kinds=parts["kind"],
        databases=parts["database"],
        collections=parts["collection"],
        targets=parts[_TARGET],
        grant=grant,
        conditions=tuple(conditions),
    )


def _read_expression(expression: JsonValue) -> tuple[str, JsonValue] | None:
    """Return what an expression says of the owner, the grant or a part of the access; None if it cannot be told.

    A negated expression and one with ``with`` say something else than their terms do.
    """
    if not isinstance(expression, dict) or not expression.keys() <= {"index", "terms"}:
        return None
    match expression.get("terms"):
        case [operator, left, right] if _path(operator) in (("eq",), ("equal",)):
            return _equality(left, right) or _equality(right, left)
        case [operator, left, right] if _path(operator) == ("internal", "member_2"):
            part, values = _access_part(left), _strings(right)
            return (part, values) if part and values is not None else None
        case _:
            return None


def _equality(left: JsonValue, right: JsonValue) -> tuple[str, JsonValue] | None:
    constant = _string(right)
    match left:
        case {"type": "var", "value": "owner"} if constant is not None:
            return "owner", [constant]
        case {"type": "var", "value": "grant"}:
            return "grant", right
        case _:
            part = _access_part(left)
            if part == "target" and (name := _target_name(right)) is not None:
                return _TARGET, [name]
            return (part, [constant]) if part and constant is not None else None


def _target_name(term: JsonValue) -> str | None:
    """Return the name in a constant target, ``{"kind": …, "id": …}``."""
    match term:
        case {"type": "object", "value": list(pairs)}:
            found = [_string(pair[1]) for pair in pairs if isinstance(pair, list) and _string(pair[0]) == "id"]
            return found[0] if len(found) == 1 else None
        case _:
            return None


def _access_part(term: JsonValue) -> str:
    """Return the name of the part where a term is exactly ``input.access.<part>``; else an empty string."""
    match _path(term):
        case ("input", "access", part):
            return "" if part == _TARGET else part
        case ("input", "access", "target", "id"):
            return _TARGET
        case _:
            return ""


def _path(term: JsonValue) -> tuple[str, ...]:
    """Return a reference without variables as its names; empty for every other term."""
    match term:
        case {"type": "ref", "value": [{"type": "var", "value": str(head)}, *rest]}:
            names = [_string(part) for part in rest]
            return (head, *(name for name in names if name is not None)) if None not in names else ()
        case _:
            return ()


def _strings(term: JsonValue) -> list[JsonValue] | None:
    """Return the elements of an array or a set of constants; None for every other term."""
    match term:
        case {"type": "array" | "set", "value": list(elements)}:
            texts = [_string(element) for element in elements]
            return [*texts] if None not in texts else None
        case _:
            return None


def _string(term: JsonValue) -> str | None:
    match term:
        case {"type": "string", "value": str(text)}:
            return text
        case _:
            return None


def _listed(names: Collection[str] | None) -> list[JsonValue] | None:
    return None if names is None else [*sorted(names)]
