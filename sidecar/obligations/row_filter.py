"""Row filters of policy: a closed part of the query language, so that no database is needed to tell what one admits.

Equality, ``$in`` and ranges over scalars, joined by ``$and`` and ``$or``; dates and ObjectIds have one form each. A
filter is made of values of claims and comes over the wire from OPA; so it is read strictly, and anything else in it
refuses the call: an operator that is not known, a null (which in MongoDB also matches documents without the field), an
empty text or list. Policy refuses the same before (``policies/platform/filters.rego``).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Final, TypeAlias

from sidecar.model import JsonObject, JsonValue

MAX_CONDITIONS: Final = 256
"""Conditions of one filter. It is added once for each place, so without a bound a call grows by the product."""

MAX_VALUES: Final = 1024
"""Values of all conditions of one filter."""

_MAX_DEPTH: Final = 8
_MAX_FIELD: Final = 256
_MOST_EXACT: Final = 2**53 - 1
"""Above it numbers are not exact on their way through the MongoDB MCP server, which is JavaScript."""

_PART: Final = re.compile(r"(?!\$)(?!\d+\Z)(?!__proto__\Z)[^.\0]+")
"""One part of a field's path. A number would be a position in an array, and a key ``__proto__`` is lost on its way."""

_RANGES: Final = frozenset({"$gt", "$gte", "$lt", "$lte"})

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{24}", re.ASCII)
"""The one form in which a date and an ObjectId are taken here; Extended JSON has more, and js-bson reads yet others."""


@dataclass(frozen=True, slots=True, order=True)
class TypedScalar:
    """A date or an ObjectId; two of one type are compared as MongoDB does."""

    type: str
    order: str
    """A text that sorts as the value does."""


Scalar: TypeAlias = bool | int | float | str | TypedScalar


class FilterNotUsable(ValueError):
    """A filter of policy that is not of the closed part of the query language. The message never repeats a value."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field held to values."""

    field: str
    operator: str
    """``$in`` (also of an equality), or a range."""
    values: tuple[Scalar, ...]

    def holds(self, value: JsonValue) -> bool:
        """Whether it holds of a plain scalar, as MongoDB compares: never across types."""
        known = plain(value)
        if known is None:
            return False
        if self.operator == "$in":
            return any(known == one and _alike(known, one) for one in self.values)
        return _within(known, self.operator, self.values[0])


@dataclass(frozen=True, slots=True)
class Clause:
    """Several conditions, of which all must hold, or any."""

    every: bool
    parts: tuple["Clause | Comparison", ...]


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A filter that was understood completely."""

    query: JsonObject
    """As MongoDB takes it."""
    root: Clause
    fields: tuple[str, ...]
    """The paths that it looks at, each once."""
    size: int
    """Its conditions and values, which it adds to each place."""

    def admits(self, document: JsonObject) -> bool:
        """Whether a document that is to be stored is certainly one of its rows.

        Every field that it looks at has to be there, as a plain scalar below plain objects: an array could match by one
        element and hide others, and what Extended JSON spells may be stored as something else than it looks like.
        """
        values = {field: _at(document, field) for field in self.fields}
        return all(plain(value) is not None for value in values.values()) and _holds(self.root, values)

    def holds_of(self, values: dict[str, JsonValue]) -> bool:
        """Whether it is certain of any document that has these values at these paths."""
        return _holds(self.root, values)


def read_filter(query: JsonObject) -> RowFilter:
    """Understand a filter of policy.

    Raises:
        FilterNotUsable: it is not of the closed part of the query language, or too large.
    """
    root = _clause(query, 0)
    found = [*_comparisons(root)]
    if len(found) > MAX_CONDITIONS or sum(len(one.values) for one in found) > MAX_VALUES:
        raise FilterNotUsable("a filter with too many conditions or values")
    fields = tuple(dict.fromkeys(comparison.field for comparison in found))
    return RowFilter(query, root, fields, sum(1 + len(comparison.values) for comparison in found))


def _clause(query: JsonValue, depth: int) -> Clause:
    if not isinstance(query, dict) or not query:
        raise FilterNotUsable("a filter, or a part of one, that is no object or empty")
    if depth > _MAX_DEPTH:
        raise FilterNotUsable("a filter that is nested too deep")
    parts: list[Clause | Comparison] = []
    for key, value in query.items():
        if key in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise FilterNotUsable(f"{key} without a list of filters")
            parts.append(Clause(key == "$and", tuple(_clause(one, depth + 1) for one in value)))
        else:
            parts += _conditions(_field(key), value)
    return Clause(every=True, parts=tuple(parts))


def is_field(path: str) -> bool:
    """Whether a text is the path of a field as policy may say it: dotted, without positions in lists."""
    return len(path) <= _MAX_FIELD and all(_PART.fullmatch(part) for part in path.split("."))


def _field(path: str) -> str:
    if not is_field(path):
        raise FilterNotUsable("an operator or a path that a filter cannot have")
    return path


def _conditions(field: str, value: JsonValue) -> Iterator[Comparison]:
    if not isinstance(value, dict) or plain(value) is not None:
        yield Comparison(field, "$in", (_scalar(value),))
        return
    if not value:
        raise FilterNotUsable("an empty condition")
    for operator, operand in value.items():
        if operator == "$eq":
            yield Comparison(field, "$in", (_scalar(operand),))
        elif operator == "$in":
            if not isinstance(operand, list) or not operand:
                raise FilterNotUsable("$in without a list of values")
            yield Comparison(field, "$in", tuple(map(_scalar, operand)))
        elif operator in _RANGES and not isinstance(operand, bool):
            yield Comparison(field, operator, (_scalar(operand),))
        else:
            raise FilterNotUsable("an operator that a filter cannot have, or a value of another type than it takes")


def _scalar(value: JsonValue) -> Scalar:
    known = plain(value)
    if known is None or known == "":
        raise FilterNotUsable("a value that is null, empty, a list or an object of no known type")
    if isinstance(known, int | float) and not (isfinite(known) and abs(known) <= _MOST_EXACT):
        raise FilterNotUsable("a number that is not exact")
    return known


def plain(value: JsonValue) -> Scalar | None:
    """Return a value that can be compared without a database; None for every other one."""
    match value:
        case bool() | int() | float() | str():
            return value
        case {"$date": str(text), **rest} if not rest and _DATE.fullmatch(text):
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:  # a day that does not exist: js-bson would make 1970 of it
                return None
            return TypedScalar("date", moment.isoformat(timespec="milliseconds"))
        case {"$oid": str(text), **rest} if not rest and _OBJECT_ID.fullmatch(text):
            return TypedScalar("oid", text)
        case _:
            return None


def _alike(left: Scalar, right: Scalar) -> bool:
    """Whether MongoDB compares the two at all; in Python ``True == 1``."""
    if isinstance(left, TypedScalar) or isinstance(right, TypedScalar):
        return isinstance(left, TypedScalar) and isinstance(right, TypedScalar) and left.type == right.type
    return all(isinstance(one, str) for one in (left, right)) or (
        isinstance(left, bool) is isinstance(right, bool) and not isinstance(left, str) and not isinstance(right, str)
    )


def _within(value: Scalar, operator: str, bound: Scalar) -> bool:
    if not _alike(value, bound) or isinstance(value, bool):
        return False
    # Texts are compared by their bytes, as MongoDB does without a collation.
    left, right = (one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one for one in (value, bound))
    order = (left > right) - (left < right)  # type: ignore[operator]  # both are texts, or both are numbers
    return (
        order > 0 or (order == 0 and operator in ("$gte", "$lte"))
        if operator[1] == "g"
        else (order < 0 or (order == 0 and operator == "$lte"))
    )


def _comparisons(clause: Clause) -> Iterator[Comparison]:
    for part in clause.parts:
        if isinstance(part, Comparison):
            yield part
        else:
            yield from _comparisons(part)


def _holds(clause: Clause, values: dict[str, JsonValue]) -> bool:
    for part in clause.parts:
        held = part.holds(values.get(part.field)) if isinstance(part, Comparison) else _holds(part, values)
        if held is not clause.every:
            return held
    return clause.every


def _at(document: JsonObject, path: str) -> JsonValue:
    value: JsonValue = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        for key in value:
            if key[:1] == "$":
                return None
        value = value[part]
    return value
