"""Hours of the week in words: of a window in the platform's data, and of what ``lib.during`` leaves of a rule."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_WEEK: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_RUN: Final = 3
"""So many days in a row are written as "first to last"."""

_MOMENT: Final = ("input", "context", "time_ns")
TIME: Final = ".".join(_MOMENT)
_CLOCK_FORMAT: Final = "%02d:%02d"
_COMPARED: Final = 2


def hours_in_words(days: Sequence[str], start: str, end: str, timezone: str) -> str:
    """Return hours as ``Monday to Friday, 08:00 to 18:00 Europe/Berlin``; days that are none are left out."""
    return f"{_days(days)}, {start} to {end} {timezone}"


def hours_of_windows(windows: Sequence[Any], kinds: Sequence[str]) -> Iterator[str]:
    """Say the hours that the platform's windows set to a row.

    Args:
        windows: those that bound one of its kinds.
        kinds: those of the row.
    """
    for window in windows:
        match window["hours"]:
            case {"days": list(days), "from": str(start), "to": str(end), "timezone": str(zone)}:
                when = f"only {hours_in_words(days, start, end, zone)}"
            case _:
                when = "never"
        bounded = [kind for kind in window["kinds"] if kind in kinds]
        about = "" if {*bounded} >= {*kinds} else f"{', '.join(bounded)} "
        lifted = ", lifted for this person now" if window["lifted"] else ""
        yield f"{about}{when} (window {window['id']}{lifted})"


def read_hours(expressions: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Take the conditions that ``mcp.platform.calendar.during`` becomes out of a conjunction.

    It is recognised as a whole or not at all: a weekday among some, a clock, and the clock's reading between two
    texts, all in one time zone.

    Returns:
        What was recognised, in words, and the expressions that are left.
    """
    rest = list(expressions)
    said = []
    for clock in expressions:
        match _called(clock, ("time", "clock")):
            case [{"type": "array", "value": [moment, {"type": "string", "value": str(zone)}]}, reading] if (
                _path(moment) == _MOMENT and reading.get("type") == "var"
            ):
                parts = _parts(rest, zone, reading)
            case _:
                continue
        if parts is not None:
            used, days, start, end = parts
            rest = [one for one in rest if one is not clock and not any(one is other for other in used)]
            said.append(hours_in_words(days, start, end, zone))
    return said, rest


def _parts(expressions: Sequence[Any], zone: str, reading: Any) -> tuple[list[Any], list[str], str, str] | None:
    """Return the other three expressions about a clock, with the days and both ends; None if one is not there."""
    days = next(((one, found) for one in expressions if (found := _weekdays(one, zone)) is not None), None)
    start = next(((one, text) for one in expressions if (text := _bound(one, "lte", 0, reading)) is not None), None)
    end = next(((one, text) for one in expressions if (text := _bound(one, "lt", 1, reading)) is not None), None)
    if days is None or start is None or end is None:
        return None
    return [days[0], start[0], end[0]], days[1], start[1], end[1]


def _weekdays(expression: Any, zone: str) -> list[str] | None:
    match _called(expression, ("internal", "member_2")):
        case [
            {"type": "call", "value": [name, {"type": "array", "value": [moment, {"value": of}]}]},
            {"type": "array" | "set", "value": list(days)},
        ] if _path(name) == ("time", "weekday") and _path(moment) == _MOMENT and of == zone:
            constant = all(day.get("type") == "string" for day in days)
            return [str(day["value"]) for day in days] if constant else None
        case _:
            return None


def _bound(expression: Any, operator: str, side: int, reading: Any) -> str | None:
    """Return the text on one side of a comparison that has the clock's reading on the other."""
    sides = _called(expression, (operator,)) or []
    if len(sides) != _COMPARED or sides[side].get("type") != "string":
        return None
    match sides[1 - side]:
        case {"type": "call", "value": [name, {"value": str(form)}, {"type": "array", "value": [hour, minute]}]} if (
            _path(name) == ("sprintf",) and form == _CLOCK_FORMAT
        ):
            wanted = [{"type": "ref", "value": [reading, {"type": "number", "value": part}]} for part in (0, 1)]
            return str(sides[side]["value"]) if [hour, minute] == wanted else None
        case _:
            return None


def _called(expression: Any, name: tuple[str, ...]) -> list[Any] | None:
    """Return the arguments of an expression that calls this; None for another one, a negated one, one with ``with``."""
    match expression:
        case {"terms": [operator, *arguments], **rest} if not rest.keys() - {"index"} and _path(operator) == name:
            return arguments
        case _:
            return None


def _path(term: Any) -> tuple[str, ...]:
    match term:
        case {"type": "ref", "value": list(parts)}:
            return tuple(str(part.get("value")) for part in parts)
        case _:
            return ()


def _days(days: Sequence[str]) -> str:
    """Return days in the order of the week, those in a row as ``first to last``."""
    places = [place for place, day in enumerate(_WEEK) if day in days]
    if len(places) == len(_WEEK):
        return "every day"
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    said = [
        f"{_WEEK[run[0]]} to {_WEEK[run[-1]]}" if len(run) >= _RUN else ", ".join(_WEEK[place] for place in run)
        for run in runs
    ]
    return ", ".join(said) or "on no day"


_BEFORE_AFTER: Final = {"lt": "before {}", "lte": "until {}", "gt": "after {}", "gte": "from {} on"}
_TURNED: Final = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}


def moment_in_words(operator: Any, left: Any, right: Any) -> str:
    """Return a comparison of the time of the request with a moment or a weekday in words; empty for all others."""
    name = "".join(_path(operator))
    for how, one, other in ((name, left, right), (_TURNED.get(name, name), right, left)):
        match other:
            case {"type": "number", "value": int(moment)} if how in _BEFORE_AFTER and _path(one) == _MOMENT:
                return _BEFORE_AFTER[how].format(in_utc(moment))
            case _:
                continue
    match left, right:
        case {"type": "ref" | "array"}, {"type": "string", "value": str(day)} if (
            _path(operator) == ("time", "weekday") and day in _WEEK
        ):
            return f"on {day} ({_zone(left)})" if _zone(left) else ""
        case _:
            return ""


def _zone(moment: Any) -> str:
    match moment:
        case {"type": "array", "value": [when, {"type": "string", "value": str(zone)}]} if _path(when) == _MOMENT:
            return zone
        case _:
            return "UTC" if _path(moment) == _MOMENT else ""


def in_utc(nanoseconds: int) -> str:
    """Return a moment as people write it; one that no calendar has stays a number."""
    try:
        moment = _EPOCH + timedelta(seconds=nanoseconds // 10**9)
    except OverflowError:
        return str(nanoseconds)
    return moment.strftime("%Y-%m-%d %H:%M UTC" if not moment.second else "%Y-%m-%d %H:%M:%S UTC")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
