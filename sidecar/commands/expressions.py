"""The scan of every nested argument value, before anything else looks inside.

It bounds depth and size, holds every typed value to its type, refuses what the two JSON readers (ours and the server's
EJSON) would see differently, and notes server-side JavaScript and ``$$USER_ROLES`` wherever they stand. After it, the
walkers of this room may recurse: nothing is deeper than ``MAX_DEPTH``.

Sources: reference, sections 2.1 and 2.5.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Final, cast

from sidecar.commands import ejson
from sidecar.commands.ejson import REFERENCE_KEYS, TYPES
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue, Trait

MAX_DEPTH: Final = 100
"""Containers inside one another, in one value or document: MongoDB's own limit (manual, "MongoDB Limits and
Thresholds", nested depth). Every recursive walk of this room stays far from Python's limit of 1,000 frames."""

MAX_KEYS: Final = 10_000
"""Keys of one object that is analysed."""

MAX_NODES: Final = 100_000
"""Objects, their keys and lists in an argument that is analysed (a filter, a pipeline): about 60 ms of one core. Items
of a list cost next to nothing, so only the message's own limits bound them: ``$in`` may have as many as fit."""

MAX_DOCUMENT_NODES: Final = 1_000_000
"""Values in the documents of one insert, which are only scanned."""

JAVASCRIPT_KEYS: Final = frozenset({"$where", "$function", "$accumulator", "$code"})
USER_ROLES: Final = "$$USER_ROLES"

_CHECKED: Final = JAVASCRIPT_KEYS | TYPES.keys() | {"__proto__", "$ref"}
"""The keys that mean something wherever they stand in a filter or a pipeline; NUL is looked for in all."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Compared by exact class, so that a value of any other class is looked into rather than passed over."""


def scan(value: JsonValue, at: str, *, documents: bool = False) -> set[Trait]:
    """Return the traits of one argument value.

    Args:
        value: a decoded JSON object or array.
        at: where it stands.
        documents: the value is data to be stored, in which ``$`` keys mean nothing but EJSON types.

    Raises:
        CommandNotDerivable: too deep, too large, ``__proto__`` (dropped by the server, so that what is left is another
            command), NUL in a key, an EJSON type with siblings or a value not of its form, an operator inside data.
    """
    traits: set[Trait] = set()
    budget = MAX_DOCUMENT_NODES if documents else MAX_NODES
    level: list[JsonValue] = [value]
    for depth in range(MAX_DEPTH + (2 if documents else 1)):  # the list of the documents is no part of one
        if not level:
            return traits
        objects, lists = _apart(level)
        if len(objects) + len(lists) != len(level):
            raise CommandNotDerivable("malformed", "The argument holds something that is not JSON.", at)
        keys = sum(map(len, objects))
        if keys > MAX_KEYS and not documents and max(map(len, objects)) > MAX_KEYS:
            raise CommandNotDerivable("too_large", f"An object has more than {MAX_KEYS} keys.", at)
        text = "\n".join(chain.from_iterable(objects)) if keys else ""
        if "$" in text or "__proto__" in text or "\0" in text:
            if documents and depth == 1 and any(map(ejson.is_typed, objects)):
                raise CommandNotDerivable("operator_in_document", "A typed value is no document.", at)
            looked_at = _CHECKED if not documents and "\0" not in text else None
            objects = _checked(objects, traits, value, at, looked_at, documents=documents)
            keys = sum(map(len, objects))
        budget -= len(objects) + keys + len(lists)
        if budget < 0:
            raise CommandNotDerivable("too_large", "The argument has too many values to be analysed.", at)
        children = list(chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists)))
        if not documents and _names_user_roles(children):
            traits.add(Trait.USER_ROLES)
        plain = _SCALARS.issuperset(map(type, children))
        level = [] if plain else [child for child in children if child.__class__ not in _SCALARS]
    raise CommandNotDerivable("too_deep", f"The argument is nested more than {MAX_DEPTH} levels deep.", at)


def _apart(level: list[JsonValue]) -> tuple[list[JsonObject], list[list[JsonValue]]]:
    """Return the objects and the arrays; most levels of most documents have one of the two only."""
    kinds = set(map(type, level))
    if kinds == {dict}:
        return cast("list[JsonObject]", level), []
    if kinds == {list}:
        return [], cast("list[list[JsonValue]]", level)
    return [one for one in level if isinstance(one, dict)], [one for one in level if isinstance(one, list)]


def _names_user_roles(children: list[JsonValue]) -> bool:
    texts = [child for child in children if child.__class__ is str]
    return USER_ROLES in "\n".join(texts) and any(text.startswith(USER_ROLES) for text in texts)


def _checked(
    objects: list[JsonObject],
    traits: set[Trait],
    root: JsonValue,
    at: str,
    looked_at: frozenset[str] | None,
    *,
    documents: bool,
) -> list[JsonObject]:
    """Return the objects of one level that hold more values; a typed value is one itself.

    Of an object without a key of ``looked_at`` nothing is to be checked; None if every key is.
    """
    further: list[JsonObject] = []
    for node in objects:
        if looked_at is not None and looked_at.isdisjoint(node):
            further.append(node)
            continue
        if ejson.is_one_value(node):
            continue
        if not TYPES.keys().isdisjoint(node):
            _check_typed(node, root, at)
            if "$code" in node:
                traits.add(Trait.SERVER_SIDE_JS)
                further.append({"$scope": node["$scope"]} if "$scope" in node else {})
            if ejson.is_typed(node):
                continue
        traits |= _check_keys(node, root, at, documents=documents)
        further.append(node)
    return further


def _check_keys(node: JsonObject, root: JsonValue, at: str, *, documents: bool) -> set[Trait]:
    for key in node:
        if key == "__proto__" or "\0" in key:
            where = below(_locate(root, node, at), key)
            raise CommandNotDerivable("key_refused", "The server would drop or refuse this key; leave it out.", where)
    dollars = [key for key in node if key.startswith("$")]
    if documents and not REFERENCE_KEYS.issuperset(dollars):
        where = below(_locate(root, node, at), next(key for key in dollars if key not in REFERENCE_KEYS))
        raise CommandNotDerivable("operator_in_document", "Keys of stored documents do not start with $.", where)
    if "$ref" in node and (wrong := ejson.reference_fault(node)) is not None:
        raise _not_of_its_type(wrong, _locate(root, node, at))
    return set() if JAVASCRIPT_KEYS.isdisjoint(dollars) else {Trait.SERVER_SIDE_JS}


def _check_typed(node: JsonObject, root: JsonValue, at: str) -> None:
    wrong = ejson.fault(node)
    if wrong is not None:
        raise _not_of_its_type(wrong, _locate(root, node, at))


def _not_of_its_type(wrong: ejson.TypeFault, at: str) -> CommandNotDerivable:
    return CommandNotDerivable("ejson_refused", f"A {wrong.key} must be {wrong.wanted}.", below(at, wrong.key))


def _locate(root: JsonValue, wanted: JsonObject, at: str) -> str:
    """Return the pointer to a node that the scan found; only refusals pay for it."""
    stack: list[tuple[JsonValue, str, int]] = [(root, at, 0)]
    while stack:
        node, where, depth = stack.pop()
        if node is wanted:
            return where
        if depth > MAX_DEPTH:
            continue
        named: Iterable[tuple[str | int, JsonValue]] = ()
        if isinstance(node, dict):
            named = node.items()
        elif isinstance(node, list):
            named = enumerate(node)
        stack += [(child, below(where, key), depth + 1) for key, child in named if isinstance(child, (dict, list))]
    return at
