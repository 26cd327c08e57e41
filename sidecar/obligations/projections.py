"""The projection of a ``find`` on a masked collection: of what kind the caller's is, and one that gives no more.

The kinds are mongod's (``projection_parser.cpp``, 4.4 and later): a field that is switched on or computed makes a
projection inclusive, one that is switched off, ``_id`` apart, exclusive. What is added is of the same kind, so that a
projection taken for the wrong one fails and shows nothing.
"""

from collections.abc import Iterator
from typing import Final

from sidecar.errors import ObligationNotSupported
from sidecar.model import JsonObject, JsonValue
from sidecar.obligations.masks import ABSENT, Mask
from sidecar.obligations.rewrite import refused

_NOTHING: Final = "(not shown)"
"""The name of a field that is asked for in the place of a masked one; what is inside its parents is the same then."""

_TYPED_NUMBERS: Final = frozenset({"$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"})
"""Extended JSON. The MongoDB MCP server hands a projection on as it is (3.0.4); were it read, a field would be on."""

_KEEPING: Final = frozenset({"$slice", "$elemMatch", "$meta"})
"""What a projection says of a field without being inclusive for it."""


def masked(mask: Mask, projection: JsonValue) -> JsonObject:
    """Return the projection that gives of a document what the mask leaves of what the caller's gives.

    Raises:
        ObligationNotSupported: there is none.
    """
    if projection is not None and not isinstance(projection, dict):
        raise _refused("a projection of another form", "leave it out")
    leaves = dict(_leaves(projection or {}, ""))
    for path, value in leaves.items():
        takes_elements = path.endswith(".$") or (isinstance(value, dict) and not _KEEPING.isdisjoint(value))
        if takes_elements and mask.touched(path.removesuffix(".$")):
            raise _refused("this projection", "takes elements of a list of which you may not see all; name fields")
        if not _is_plain(value) and mask.touched(path):
            raise _refused(path, "is a field that you may not see all of; say 1 or 0")
    return _inclusive(mask, leaves) if _is_inclusive(leaves) else _exclusive(mask, leaves)


def is_stage(projection: JsonObject) -> bool:
    """Whether a projection means in ``$project`` what it means in ``find``: nothing but fields and expressions."""
    try:
        leaves = dict(_leaves(projection, ""))
    except ObligationNotSupported:
        return False
    return not any(
        path.endswith(".$") or not _is_plain(value) or (isinstance(value, dict) and not _KEEPING.isdisjoint(value))
        for path, value in leaves.items()
    )


def _leaves(level: JsonObject, prefix: str) -> Iterator[tuple[str, JsonValue]]:
    """Spell out nested objects: ``{a: {b: 1}}`` is ``{"a.b": 1}``."""
    for key, value in level.items():
        if isinstance(value, dict) and value and not any(name.startswith("$") for name in value):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, dict) and not _TYPED_NUMBERS.isdisjoint(value):
            raise _refused("a typed number in a projection", "is none to every reader of it; write it plainly")
        elif value == {}:
            raise _refused("an empty object in a projection", "says nothing; leave it out")
        else:
            yield prefix + key, value


def _is_plain(value: JsonValue) -> bool:
    """Whether all servers take a value for the same: older ones take some literals for "on"."""
    if isinstance(value, str):
        return value.startswith("$")
    return isinstance(value, dict | bool | int | float)


def _is_off(value: JsonValue) -> bool:
    return isinstance(value, bool | int | float) and not value


def _is_on(value: JsonValue) -> bool:
    return isinstance(value, bool | int | float) and bool(value)


def _is_inclusive(leaves: JsonObject) -> bool:
    others = {path: value for path, value in leaves.items() if path != "_id"}
    if any(map(_is_off, others.values())):
        return False
    kept = [value for value in others.values() if isinstance(value, dict) and not {"$slice", "$meta"}.isdisjoint(value)]
    return len(kept) < len(others) or (not others and "_id" in leaves and not _is_off(leaves["_id"]))


def _exclusive(mask: Mask, leaves: JsonObject) -> JsonObject:
    """Leave out the masked fields besides; a part of one cannot be left out as well (error 31249)."""
    kept = {
        path: value
        for path, value in leaves.items()
        if not (_is_off(value) and (field := mask.touched(path)) and f"{path}.".startswith(f"{field}."))
    }
    made: JsonObject = dict(kept)
    for field, form in mask.forms.items():
        if any(_is_off(kept.get(field[:at])) for at, letter in enumerate(field) if letter == "."):
            continue
        if form != ABSENT and not _is_off(leaves.get(field, True)):
            advice = "cannot be reduced beside all other fields; name the fields that you want, or use aggregate"
            raise _refused(field, advice)
        made[field] = 0
    return made


def _inclusive(mask: Mask, leaves: JsonObject) -> JsonObject:
    if "_id" not in leaves and mask.touched("_id"):
        leaves = {"_id": 1, **leaves}
    made: JsonObject = {}
    for path, value in leaves.items():
        field = mask.touched(path) if _is_on(value) else ""
        if not field:
            made[path] = value
        elif path == "_id" and mask.forms.get("_id") == ABSENT:
            made["_id"] = 0
        elif mask.forms[field] == ABSENT and f"{path}.".startswith(f"{field}."):
            above = field.rpartition(".")[0]
            made[f"{above}.{_NOTHING}" if above else _NOTHING] = 1
        elif path in mask.computed:
            made[path] = mask.computed[path]
        else:
            raise _refused(path, "cannot be reduced inside of its parents; name the whole of it, or use aggregate")
    if not any(_is_on(value) for path, value in made.items() if path != "_id"):
        made[_NOTHING] = 1  # so that it is inclusive for certain
    return made


def _refused(construct: str, advice: str) -> ObligationNotSupported:
    return refused(construct, advice, "mask")
