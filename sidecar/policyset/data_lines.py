"""Where in its files a value of a bundle's data stands, for findings about data that OPA has put together."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.policyset.folder import PolicySet

PLATFORM: Final = ("mcp", "platform")
"""The platform's data in OPA; the last is also the name of its bundle."""

MOST_PROBLEMS: Final = 100
"""Findings about data that are looked up and told; each reads the file again."""

_BUNDLE: Final = PLATFORM[-1]
_FILE: Final = "data.json"
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_JSON: Final = json.JSONDecoder()
_ENDS: Final = {"{": "}", "[": "]"}


def pointer(place: Sequence[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of a place."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in place)


def has_data(policies: PolicySet) -> bool:
    """Whether the platform's bundle holds any data."""
    return next(_files(policies, _BUNDLE), None) is not None


def where(place: Sequence[str | int], policies: PolicySet, *, bundle: str = _BUNDLE) -> tuple[str, int]:
    """Return file and line of a value, or of the nearest above it that a file has.

    Args:
        place: names and numbers from the top of all data.
        policies: the set that OPA has loaded.
        bundle: the one whose data it is.
    """
    deepest, found = -1, (f"{bundle}/{_FILE}", 1)
    for folders, file, content in _files(policies, bundle):
        # A file in a subfolder is data at that path (OPA's bundle format).
        if folders == tuple(place[: len(folders)]):
            depth, line = _reached(content, place[len(folders) :])
            if len(folders) + depth > deepest:
                deepest, found = len(folders) + depth, (file, line)
    return found


def json_span(text: str, place: Sequence[str | int]) -> tuple[int, int]:
    """Return where a value begins and ends in a text that is JSON.

    Raises:
        KeyError: there is none at this place.
    """
    at = _behind_space(text, 0)
    for step in place:
        found = next((begin for name, begin in _members(text, at) if name == str(step)), None)
        if found is None:
            raise KeyError(step)
        at = found
    return at, _JSON.raw_decode(text, at)[1]


def _files(policies: PolicySet, bundle: str) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    for path, content in policies.files:
        if path.startswith(f"{bundle}/") and path.endswith(f"/{_FILE}"):
            yield tuple(path.removeprefix(f"{bundle}/").split("/")[:-1]), path, content


def _reached(content: bytes, steps: Sequence[str | int]) -> tuple[int, int]:
    """Return how many of the steps a file has, and on which line what the last one leads to begins."""
    try:
        text = content.decode("utf-8-sig")
        _JSON.decode(text)
    except (ValueError, RecursionError):
        return 0, 1
    at = _behind_space(text, 0)
    for taken, step in enumerate(steps):
        # Of two members of a name OPA takes the last.
        begins = [begin for name, begin in _members(text, at) if name == str(step)]
        if not begins:
            return taken, _line(text, at)
        at = begins[-1]
    return len(steps), _line(text, at)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Yield name or number of each member of a value, and where it begins; of text that is known to be JSON."""
    end = _ENDS.get(text[at])
    at = _behind_space(text, at + 1)
    number = 0
    while end is not None and text[at] != end:
        name = str(number)
        if end == "}":
            name, at = _JSON.raw_decode(text, at)
            at = _behind_space(text, _behind_space(text, at) + 1)
        yield name, at
        at = _behind_space(text, _JSON.raw_decode(text, at)[1])
        at = _behind_space(text, at + 1) if text[at] == "," else at
        number += 1


def _behind_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
