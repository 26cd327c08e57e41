"""Field masks of policy: which fields a caller does not see, or sees only a part of, and the stages that see to it.

A mask names fields by dotted paths. ``absent`` takes a field away; ``last4`` leaves the last four characters of a
longer text or whole number; ``bucket:N`` leaves the multiple of N at or below a number. What cannot be reduced so is
absent, or null where it stands in a list. All that a caller writes comes after these stages, and sees what they left.

A path goes through lists as MongoDB's paths do: of a list of objects, the field of each. A list directly inside a list
on the way to a field is null.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from sidecar.model import JsonObject, JsonValue
from sidecar.obligations.row_filter import is_field

MAX_FIELDS: Final = 64
"""Fields of one mask. Its stages are added once for each place."""

MAX_PARTS: Final = 5
"""Parts of a path. What masks a path is twice as large for each."""

ABSENT: Final = "absent"
LAST4: Final = "last4"

_BUCKET: Final = re.compile(r"bucket:([1-9][0-9]{0,14})")
"""A width that is exact on its way through the MongoDB MCP server, which is JavaScript."""

_SHOWN: Final = 4
_GONE: Final = "$$REMOVE"
_WHOLE_NUMBERS: Final[list[JsonValue]] = ["int", "long"]

_MaskTree: TypeAlias = "dict[str, _MaskTree] | str"
"""A tree of the masked fields by the parts of their paths; its leaves say what is left of them."""


class MaskNotUsable(ValueError):
    """A mask of policy that is not of the contract. The message never repeats a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A mask that was understood completely."""

    forms: Mapping[str, str]
    """What is left of each field, by its path; none lies inside another."""
    parts: tuple[tuple[str, list[str]], ...]
    """Each path, and the parts of it."""
    tree: Mapping[str, _MaskTree]
    """The forms by the parts of the paths."""
    computed: JsonObject
    """The expression of what is left of each field of the document itself in which something is masked."""
    stages: tuple[JsonValue, ...]
    """The stages after which a document holds no more than the mask leaves of it."""

    def touched(self, path: str) -> str:
        """Return a masked field that a path leads to, into or around; empty where there is none.

        A path counts without its positions in lists (``a.0.b``, ``a.$[].b``), which lead to any element.
        """
        parts = [part for part in path.split(".") if not (part.isdigit() or part.startswith("$"))] if path else []
        node: Mapping[str, _MaskTree] | str = self.tree
        for at, part in enumerate(parts):
            if isinstance(node, str):
                return ".".join(parts[:at])
            if part not in node:
                return ""
            node = node[part]
        return next(field for field, known in self.parts if known[: len(parts)] == parts)

    def held_by(self, document: JsonValue) -> str:
        """Return a masked field that a document to be stored holds anything of; empty where it holds none."""
        return _held(document, self.tree, "")


def read_mask(entries: Iterable[JsonValue]) -> Mask:
    """Understand a mask, or several that must all hold: of two forms for one field, it is absent.

    Raises:
        MaskNotUsable: a field is no path, its form is not known, or there are too many.
    """
    found: dict[str, str] = {}
    for entry in entries:
        field, form = _entry(entry)
        found[field] = form if found.get(field, form) == form else ABSENT
    if len(found) > MAX_FIELDS:
        raise MaskNotUsable(f"a mask of more than {MAX_FIELDS} fields")
    return _understood(tuple(found.items()))


@lru_cache(maxsize=128)
def _understood(found: tuple[tuple[str, str], ...]) -> Mask:
    """Return a mask of fields and forms; policies have few, and the expressions cost more than all else of a call."""
    fields = {field for field, _ in found}
    forms = {field: form for field, form in found if not _is_below(field, fields)}
    tree: dict[str, _MaskTree] = {}
    for field, form in forms.items():
        *above, last = field.split(".")
        node = tree
        for part in above:
            inner = node.setdefault(part, {})
            assert isinstance(inner, dict)  # noqa: S101 - no path is below another
            node = inner
        node[last] = form
    gone: list[JsonValue] = [top for top, node in tree.items() if node == ABSENT]
    computed = {top: _left(node, f"${top}", 0) for top, node in tree.items() if node != ABSENT}
    stages: list[JsonValue] = [{"$unset": gone}] if gone else []
    return Mask(
        forms=forms,
        parts=tuple((field, field.split(".")) for field in forms),
        tree=tree,
        computed=computed,
        stages=(*stages, {"$set": computed}) if computed else tuple(stages),
    )


def is_maskable(field: str) -> bool:
    """Whether a text is the path of a field that can be masked."""
    return is_field(field) and field.count(".") < MAX_PARTS


def is_form(form: str) -> bool:
    """Whether a text says what is left of a masked field."""
    return form in (ABSENT, LAST4) or _width(form) > 1


def _entry(entry: JsonValue) -> tuple[str, str]:
    if isinstance(entry, str):
        entry = {"field": entry, "as": ABSENT}
    if not isinstance(entry, dict) or entry.keys() != {"field", "as"}:
        raise MaskNotUsable("a masked field of another form")
    field, form = entry["field"], entry["as"]
    if not isinstance(field, str) or not is_maskable(field):
        raise MaskNotUsable("a masked field that is no path, or one of too many parts")
    if not isinstance(form, str) or not is_form(form):
        raise MaskNotUsable("a form of a masked field that is not known")
    return field, form


def _is_below(field: str, others: Collection[str]) -> bool:
    return any(field[:at] in others for at, letter in enumerate(field) if letter == ".")


def _width(form: str) -> int:
    found = _BUCKET.fullmatch(form)
    return int(found[1]) if found is not None else 0


def _held(value: JsonValue, node: Mapping[str, _MaskTree] | str, path: str) -> str:
    """Return what of a tree a value holds, also in lists in lists, or under a key that is spelled like a path."""
    if isinstance(node, str):
        return path
    if isinstance(value, list):
        return next(filter(None, (_held(one, node, path) for one in value)), "")
    if not isinstance(value, dict):
        return ""
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        if key in node:
            if found := _held(inner, node[key], where):
                return found
        elif "." in key and _leads(key, node):
            return where
    return ""


def _leads(key: str, node: Mapping[str, _MaskTree] | str) -> bool:
    """Whether a key with dots in it would lead to or into something masked, or to what holds it, if it were a path."""
    for part in key.split("."):
        if isinstance(node, str):
            return True
        if part not in node:
            return False
        node = node[part]
    return True


# --- expressions ------------------------------------------------------------------------------------------------------


def _left(node: _MaskTree, value: str, depth: int, unchanged: JsonValue = None) -> JsonValue:
    """Return what is left of a value, of each element where it is a list.

    Args:
        node: what is masked in it.
        value: where it is, as a field or a variable.
        depth: how many lists it may be in.
        unchanged: an expression of it that keeps it missing where it is; if there is none, ``value`` does.
    """
    if node == ABSENT:
        return _GONE
    name = f"e{depth}"
    one = _left_of_one(node, f"$${name}", depth, f"$${name}")
    of_element = one if isinstance(node, str) else _if({"$isArray": [f"$${name}"]}, None, one)
    each: JsonObject = {"$map": {"input": value, "as": name, "in": of_element}}
    return _if({"$isArray": [value]}, each, _left_of_one(node, value, depth, unchanged or value))


def _left_of_one(node: _MaskTree, value: str, depth: int, unchanged: JsonValue) -> JsonValue:
    """Return what is left of a value that is no list."""
    if isinstance(node, str):
        return _last4(value) if node == LAST4 else _bucket(value, _width(node))
    made: JsonValue = value
    for part, inner in node.items():
        same: JsonObject = {"$getField": {"field": part, "input": value}}
        left = _left(inner, f"{value}.{part}", depth + 1, same)
        made = {"$setField": {"field": part, "input": made, "value": left}}
    return _if(_is_type(value, "object"), made, unchanged)


def _last4(value: str) -> JsonValue:
    """The last characters of a text that is longer, and of a whole number by its digits."""
    length: JsonObject = {"$strLenCP": "$$text"}
    last: JsonObject = {"$substrCP": ["$$text", {"$subtract": [length, _SHOWN]}, _SHOWN]}
    digits: JsonObject = {"$ltrim": {"input": {"$toString": value}, "chars": "-"}}
    text = _if({"$in": [{"$type": value}, _WHOLE_NUMBERS]}, digits, value)
    shown = _if(_is_type("$$text", "string"), _if({"$gt": [length, _SHOWN]}, last, _GONE), _GONE)
    return {"$let": {"vars": {"text": text}, "in": shown}}


def _bucket(value: str, width: int) -> JsonValue:
    """The multiple of the width at or below a number of any type."""
    multiple: JsonObject = {"$multiply": [{"$floor": {"$divide": [value, width]}}, width]}
    finite: JsonObject = {"$eq": [{"$subtract": [value, value]}, 0]}  # of no other number it is NaN
    return _if({"$isNumber": value}, _if(finite, multiple, _GONE), _GONE)


def _is_type(value: str, name: str) -> JsonObject:
    return {"$eq": [{"$type": value}, name]}


def _if(condition: JsonValue, then: JsonValue, otherwise: JsonValue) -> JsonValue:
    return {"$cond": [condition, then, otherwise]}


def stage_below(mask: Mask, name: str) -> JsonValue:
    """Return the stage that masks the documents of a list which stands under a name; it is a dotted path."""
    top, *rest = name.split(".")
    node: _MaskTree = dict(mask.tree)
    for part in reversed(rest):
        node = {part: node}
    return {"$set": {top: _left(node, f"${top}", 0)}}
