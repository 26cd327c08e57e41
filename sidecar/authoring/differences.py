"""Where what a golden case expects and what policy decides differ, as pointers and values."""

import json
from collections.abc import Iterator
from typing import Any, Final

_LONGEST: Final = 120
_MOST: Final = 8
_MISSING: Final = object()


def differences(expected: Any, actual: Any) -> list[str]:
    """Return the first differences in words, the outermost where one side has nothing, and how many more there are."""
    found = list(_differ(expected, actual, ""))
    told = [f"{place or '/'} is {_shown(here)}, expected {_shown(wanted)}" for place, wanted, here in found[:_MOST]]
    return [*told, *([f"and {len(found) - _MOST} more"] if len(found) > _MOST else [])]


def _differ(expected: Any, actual: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    match expected, actual:
        case dict(), dict():
            for name in sorted({*expected, *actual}):
                step = f"{place}/{name.replace('~', '~0').replace('/', '~1')}"
                yield from _differ(expected.get(name, _MISSING), actual.get(name, _MISSING), step)
        case list(), list() if len(expected) == len(actual):
            for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
                yield from _differ(one, other, f"{place}/{index}")
        case _ if expected != actual or type(expected) is not type(actual):
            yield place, expected, actual
        case _:
            return


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
