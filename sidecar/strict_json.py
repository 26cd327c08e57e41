"""JSON that has one reading: no name twice in one object, no NaN, no infinity.

RFC 8259 (section 4) says that names should be unique and leaves the rest to the reader. Go takes the last of two, other
parsers the first, and what was checked is then not what is used. The standard decoder and not ``msgspec``, which takes
the last one (measured).
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


class NotStrict(ValueError):
    """JSON that parsers read differently."""


class DuplicateName(NotStrict):
    """A name occurs twice in one object."""


class NotANumber(NotStrict):
    """NaN or an infinity, which JSON does not have; the text is the literal."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these members (an ``object_pairs_hook``).

    Raises:
        DuplicateName: two of them have one name.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateName("a name occurs twice in one object")
    return members


def refuse_constant(literal: str) -> NoReturn:
    """Refuse what Python's parser takes and JSON does not have (a ``parse_constant``).

    Raises:
        NotANumber: always.
    """
    raise NotANumber(literal)


def decoder(
    *, parse_int: Callable[[str], Any] | None = None, parse_float: Callable[[str], Any] | None = None
) -> json.JSONDecoder:
    """Return a decoder that raises ``NotStrict`` where there is more than one reading.

    Args:
        parse_int: reads a number without fraction; the built-in ``int`` where absent.
        parse_float: reads any other number; the built-in ``float`` where absent.
    """
    return json.JSONDecoder(
        object_pairs_hook=unique, parse_constant=refuse_constant, parse_int=parse_int, parse_float=parse_float
    )


DECODER: Final = decoder()
"""Reads numbers as Python does."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)


def first_duplicate(text: str) -> tuple[str, int] | None:
    """Return the first name that an object has twice, and the line of the second; of text that is JSON otherwise."""
    names: list[set[str] | None] = []
    is_name = False
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "{" | "[" as opening:
                is_name = opening == "{"
                names.append(set() if is_name else None)
            case "}" | "]":
                names.pop()
                is_name = False
            case ",":
                is_name = bool(names) and names[-1] is not None
            case quoted if is_name and (seen := names[-1]) is not None:
                name = str(json.JSONDecoder(strict=False).decode(quoted))
                if name in seen:
                    return name, text.count("\n", 0, token.start()) + 1
                seen.add(name)
                is_name = False
            case _:
                continue
    return None
