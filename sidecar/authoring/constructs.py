"""Where in a call the construct stands that gives a command one of its traits."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sidecar.model import JsonValue, Trait

_KEYS: Final[Mapping[str, frozenset[str]]] = {
    Trait.SERVER_SIDE_JS: frozenset({"$where", "$function", "$accumulator", "$code"}),
    Trait.WRITES_VIA_PIPELINE: frozenset({"$out", "$merge"}),
    Trait.CHANGE_STREAM: frozenset({"$changeStream"}),
}
"""Traits of what stands anywhere inside the arguments."""

_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    Trait.UPSERT: ("upsert",),
    Trait.DROPS_TARGET: ("dropTarget",),
    Trait.WHOLE_COLLECTION: ("filter",),
    Trait.EXECUTES_PLAN: ("verbosity",),
    Trait.EXPORTS_FILE: ("exportTarget",),
    Trait.UNBOUNDED: ("limit",),
    Trait.ALL_INDEXES: ("indexName",),
    Trait.CREDENTIALS_IN_ARGUMENTS: ("connectionString", "connectionConfig"),
}
"""Traits of an argument by itself, whether it is there or is what is missing."""

_MOST: Final = 3
"""Places that are named for one trait."""


def constructs(trait: str, question: Any, arguments: Any) -> list[JsonValue]:
    """Return what in the call gives it a trait, each with its JSON pointer; nothing where that is the tool itself."""
    found = list(_places(trait, question, arguments))
    return [{"construct": construct, "at": at} for construct, at in [*dict.fromkeys(found)][:_MOST]]


def _places(trait: str, question: Any, arguments: Any) -> Iterator[tuple[str, str]]:
    if trait == Trait.AMPLIFYING:
        yield from ((one["construct"], one["at"]) for one in question["command"].get("amplifiers", []))
    elif trait == Trait.CROSS_DATABASE:
        home = arguments.get("database") if isinstance(arguments, dict) else None
        others = (one for one in question["accesses"] if one["database"] and one["database"] != home)
        yield from ((f"database {one['database']}", one["via"]) for one in others)
    elif trait in _ARGUMENTS:
        yield from ((name, f"/arguments/{name}") for name in _ARGUMENTS[trait] if name in arguments)
    else:
        yield from _inside(trait, arguments)


def _inside(trait: str, arguments: Any) -> Iterator[tuple[str, str]]:
    """Search the arguments without recursion; they were read before, so their size and depth are bounded."""
    keys = _KEYS.get(trait, frozenset())
    stack: list[tuple[Any, str]] = [(arguments, "/arguments")]
    while stack:
        node, at = stack.pop()
        members: list[tuple[Any, Any]] = []
        if isinstance(node, dict):
            members = list(node.items())
        elif isinstance(node, list):
            members = list(enumerate(node))
        elif trait == Trait.USER_ROLES and isinstance(node, str) and node.startswith("$$USER_ROLES"):
            yield "$$USER_ROLES", at
        for name, value in members:
            where = f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}"
            if name in keys:
                yield str(name), where
            stack.append((value, where))
