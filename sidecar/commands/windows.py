"""Stages that look at the neighbours of a document: ``$setWindowFields``, ``$fill``, ``$densify``.

Source: MongoDB manual 8.x. ``$densify`` makes documents that were never stored; the others add fields to stored ones.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sidecar.commands.amplifiers import MOST, capped, literal_number
from sidecar.commands.computed import analyse_expression
from sidecar.commands.draft import Draft
from sidecar.commands.options import assignments, field_name, field_names, options
from sidecar.commands.place import NONE, InnerPipeline, Place
from sidecar.commands.pointer import below
from sidecar.commands.projection import read_value
from sidecar.commands.refusals import an_object, malformed
from sidecar.commands.shape import FieldOrigin
from sidecar.commands.sorting import analyse_sort
from sidecar.model import JsonObject, JsonValue

_DAY: Final[Mapping[str, float]] = {
    "millisecond": 86_400_000,
    "second": 86_400,
    "minute": 1_440,
    "hour": 24,
    "day": 1,
    "week": 1 / 7,
    "month": 1 / 28,
    "quarter": 1 / 90,
    "year": 1 / 365,
}
"""Units of time, as how many there are in a day at most."""


def _partition(draft: Draft, place: Place, known: JsonObject, at: str) -> FieldOrigin:
    """Record by what documents are partitioned and sorted; what is computed from their neighbours tells of it."""
    with draft.fields.reading() as read:
        _read_partition(draft, known, at)
    return place.flow.shape.computed(read)


def _read_partition(draft: Draft, known: JsonObject, at: str) -> None:
    analyse_expression(draft.fields, known.get("partitionBy"), f"{at}/partitionBy")
    if "partitionByFields" in known:
        for name in field_names(known["partitionByFields"], f"{at}/partitionByFields"):
            draft.fields.use(name)
    if "sortBy" in known:
        where = f"{at}/sortBy"
        # mongod 7.0 to 8.3 ends on a window that is sorted by $meta (CVE-2026-13065); no manual shows one.
        for key, direction in an_object(known["sortBy"], where).items():
            if isinstance(direction, dict) and literal_number(direction) is None:
                raise malformed(below(where, key), "1 or -1")
        analyse_sort(draft.fields, known["sortBy"], where)


def set_window_fields(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$setWindowFields``: each output is computed from the documents of its window."""
    known = options(spec, at, "partitionBy sortBy output")
    order = _partition(draft, place, known, at)
    for key, value in assignments(known.get("output"), f"{at}/output"):
        where = below(f"{at}/output", key)
        output = an_object(value, where)
        if "window" in output:
            _window(draft, output["window"], f"{where}/window")
        function: JsonValue = {name: part for name, part in output.items() if name != "window"}
        origin, copies = read_value(draft.fields, function, where, place.flow.shape)
        place.flow.shape.set(key, FieldOrigin(frozenset(), origin.bases | origin.parts | order.parts))
        place.flow.resize(key, copies)
    return NONE


def _window(draft: Draft, value: JsonValue, at: str) -> None:
    known = options(value, at, "documents range unit")
    for kind in ("documents", "range"):
        bounds = known.get(kind)
        if not isinstance(bounds, list):
            continue
        written = [bound for bound in bounds if bound not in ("unbounded", "current")]
        numbers = [literal_number(bound) for bound in written]
        known_numbers = [number for number in numbers if number is not None]
        sure = len(known_numbers) == len(numbers)
        width = max([*known_numbers, 0]) - min([*known_numbers, 0])
        draft.fields.amplifiers.note(f"$window.{kind}", min(width, MOST) if sure else None, f"{at}/{kind}")


def fill(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$fill``: a field gets a value where it has none, from its neighbours or from an expression."""
    known = options(spec, at, "partitionBy partitionByFields sortBy output")
    order = _partition(draft, place, known, at)
    for key, value in assignments(known.get("output"), f"{at}/output"):
        where = below(f"{at}/output", key)
        draft.fields.use(key)
        filled = options(value, where, "value method").get("value")
        origin, copies = read_value(draft.fields, filled, where, place.flow.shape)
        place.flow.shape.add(key, FieldOrigin(origin.bases, origin.parts | order.parts))
        place.flow.resize(key, copies)
    return NONE


def densify(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$densify``: as many new documents as steps fit between the bounds."""
    place.flow.limit = None
    known = options(spec, at, "field partitionByFields range")
    draft.fields.use(field_name(known.get("field"), f"{at}/field"))
    _partition(draft, place, known, at)
    where = f"{at}/range"
    between = options(known.get("range"), where, "step unit bounds")
    step, unit, bounds = literal_number(between.get("step")), between.get("unit"), between.get("bounds")
    each_day = _DAY.get(unit) if isinstance(unit, str) else 1.0
    if isinstance(bounds, list):
        count = _between(bounds, step, each_day)
        draft.fields.amplifiers.note("$densify.range", count, where)
        place.flow.multiply(capped(max(count or 1, 1)))
    else:
        rate = each_day / step if step is not None and step > 0 and each_day is not None else None
        draft.fields.amplifiers.note("$densify.step", None if rate is None else min(rate, MOST), f"{where}/step")
    return NONE


def _between(bounds: list[JsonValue], step: float | None, each_day: float | None) -> float | None:
    """Return how many steps there are between two literal bounds, or None where that is not known."""
    if step is None or step <= 0 or each_day is None or len(bounds) != len(("lower", "upper")):
        return None
    ends = [literal_number(bound) for bound in bounds]
    if ends[0] is None or ends[1] is None:
        days = [_days(bound) for bound in bounds]
        if days[0] is None or days[1] is None:
            return None
        return min(max(days[1] - days[0], 0) * each_day / step, MOST)
    return min(max(ends[1] - ends[0], 0) / step, MOST)


def _days(value: JsonValue) -> float | None:
    """Return a date of Extended JSON in days since the epoch; the scan has held it to its form."""
    date = value.get("$date") if isinstance(value, dict) and len(value) == 1 else None
    milliseconds = literal_number(date)
    if milliseconds is not None:
        return milliseconds / _DAY["millisecond"]
    if not isinstance(date, str):
        return None
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return None
    return moment.timestamp() / _DAY["second"] if moment.tzinfo is not None else None
