"""The scan of every nested argument value, before anything else looks inside.

It bounds depth and size, refuses what the two JSON readers (ours and the server's EJSON) would see differently, and
notes server-side JavaScript and ``$$USER_ROLES`` wherever they stand. After it, the walkers of this room may recurse:
nothing is deeper than ``MAX_DEPTH``.

Sources: reference, sections 2.1 and 2.5; MongoDB Extended JSON v2 specification; ``EJSON.deserialize`` of js-bson 7.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Final

from sidecar.commands.arguments import is_number
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue, Trait

MAX_DEPTH: Final = 64
"""Containers inside one another; BSON itself stops at 100."""

MAX_KEYS: Final = 10_000
"""Keys of one object."""

MAX_NODES: Final = 50_000
"""Values in one argument that is analysed (a filter, a pipeline). Bounds the time of everything after the scan."""

MAX_DOCUMENT_NODES: Final = 1_000_000
"""Values in the documents of one insert, which are only scanned."""

JAVASCRIPT_KEYS: Final = frozenset({"$where", "$function", "$accumulator", "$code"})
USER_ROLES: Final = "$$USER_ROLES"

_REFERENCE_KEYS: Final = frozenset({"$ref", "$id", "$db"})
"""DBRef: stays an object with its other keys (reference, section 2.5)."""


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


def _has_texts(*keys: str) -> Callable[[JsonValue], bool]:
    def check(value: JsonValue) -> bool:
        return isinstance(value, dict) and value.keys() == set(keys) and all(map(_is_text, value.values()))

    return check


def _is_timestamp(value: JsonValue) -> bool:
    return isinstance(value, dict) and value.keys() == {"t", "i"} and all(map(is_number, value.values()))


def _is_date(value: JsonValue) -> bool:
    return isinstance(value, str) or is_number(value) or _has_texts("$numberLong")(value)


def _is_binary(value: JsonValue) -> bool:
    return isinstance(value, str) or _has_texts("base64", "subType")(value)


EJSON_TYPES: Final[Mapping[str, tuple[frozenset[str], Callable[[JsonValue], bool]]]] = {
    "$oid": (frozenset(), _is_text),
    "$uuid": (frozenset(), _is_text),
    "$numberInt": (frozenset(), _is_text),
    "$numberLong": (frozenset(), _is_text),
    "$numberDouble": (frozenset(), _is_text),
    "$numberDecimal": (frozenset(), _is_text),
    "$binary": (frozenset({"$type"}), _is_binary),
    "$date": (frozenset(), _is_date),
    "$timestamp": (frozenset(), _is_timestamp),
    "$regularExpression": (frozenset(), _has_texts("pattern", "options")),
    "$regex": (frozenset({"$options"}), _is_text),
    "$minKey": (frozenset(), is_number),
    "$maxKey": (frozenset(), is_number),
    "$code": (frozenset({"$scope"}), _is_text),
    "$symbol": (frozenset(), lambda _: False),
    "$undefined": (frozenset(), lambda _: False),
    "$dbPointer": (frozenset(), lambda _: False),
}
"""Keys that make the server turn the whole object into a scalar, the keys allowed beside each, and its value's form.
Other siblings would be lost on the way, so they are refused; the three deprecated types are refused altogether."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Compared by exact class, so that whatever else there might be is looked into rather than passed over."""


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
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return traits
        objects = [node for node in level if isinstance(node, dict)]
        lists = [node for node in level if isinstance(node, list)]
        if len(objects) + len(lists) != len(level):
            raise CommandNotDerivable("malformed", "The argument holds something that is not JSON.", at)
        budget -= sum(map(len, objects)) + sum(map(len, lists))
        if budget < 0:
            raise CommandNotDerivable("too_large", "The argument has too many values to be analysed.", at)
        if _is_suspect(chain.from_iterable(objects)) or max(map(len, objects), default=0) > MAX_KEYS:
            for node in objects:
                traits |= _check_keys(node, value, at, documents=documents)
        children = list(chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists)))
        if not documents and _names_user_roles(children):
            traits.add(Trait.USER_ROLES)
        level = [child for child in children if child.__class__ not in _SCALARS]
    raise CommandNotDerivable("too_deep", f"The argument is nested more than {MAX_DEPTH} levels deep.", at)


def _is_suspect(keys: Iterable[str]) -> bool:
    """Say whether any key needs a look: one search over all of them costs less than one per key."""
    text = "\n".join(keys)
    return "$" in text or "__proto__" in text or "\0" in text


def is_ejson(value: JsonObject) -> bool:
    """Say whether the server reads this object as a scalar. The scan has already held it to its type's form."""
    return not EJSON_TYPES.keys().isdisjoint(value)


def _names_user_roles(children: list[JsonValue]) -> bool:
    return any(isinstance(child, str) and child.startswith(USER_ROLES) for child in children)


def _check_keys(node: JsonObject, root: JsonValue, at: str, *, documents: bool) -> set[Trait]:
    if not _is_suspect(node) and len(node) <= MAX_KEYS:
        return set()
    if len(node) > MAX_KEYS:
        raise CommandNotDerivable("too_large", f"An object has more than {MAX_KEYS} keys.", at)
    for key in node:
        if key == "__proto__" or "\0" in key:
            where = below(_locate(root, node, at), key)
            raise CommandNotDerivable("key_refused", "The server would drop or refuse this key; leave it out.", where)
    dollars = [key for key in node if key.startswith("$")]
    if not EJSON_TYPES.keys().isdisjoint(dollars):
        _check_ejson(node, root, at)
    elif documents and not _REFERENCE_KEYS.issuperset(dollars):
        where = below(_locate(root, node, at), next(key for key in dollars if key not in _REFERENCE_KEYS))
        raise CommandNotDerivable("operator_in_document", "Keys of stored documents do not start with $.", where)
    return set() if JAVASCRIPT_KEYS.isdisjoint(dollars) else {Trait.SERVER_SIDE_JS}


def _check_ejson(node: JsonObject, root: JsonValue, at: str) -> None:
    name = next(key for key in node if key in EJSON_TYPES)
    companions, is_well_formed = EJSON_TYPES[name]
    if not is_well_formed(node[name]) or any(key != name and key not in companions for key in node):
        where = below(_locate(root, node, at), name)
        raise CommandNotDerivable("ejson_refused", "An Extended JSON type stands alone, in its exact form.", where)


def _locate(root: JsonValue, wanted: JsonObject, at: str) -> str:
    """Return the pointer to a node that the scan found; only refusals pay for it."""
    stack: list[tuple[JsonValue, str, int]] = [(root, at, 0)]
    while stack:
        node, where, depth = stack.pop()
        if node is wanted:
            return where
        if depth == MAX_DEPTH:
            continue
        named: Iterable[tuple[str | int, JsonValue]] = ()
        if isinstance(node, dict):
            named = node.items()
        elif isinstance(node, list):
            named = enumerate(node)
        stack += [(child, below(where, key), depth + 1) for key, child in named if isinstance(child, dict | list)]
    return at
