"""The names of settings, for those who misspell one."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel


def names_at(model: type[BaseModel], place: Sequence[str | int]) -> tuple[str, ...]:
    """Return the names that a group of settings has; ``place`` leads to it (``("servers", 0)``). None: no group."""
    group: Any = model
    for part in place:
        if isinstance(part, str):
            field = group.model_fields.get(part) if group is not None else None
            group = _group(field.annotation) if field is not None else None
    return tuple(group.model_fields) if group is not None else ()


def variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the names of the environment variables that settings are read from."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}".upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{prefix}{name}__{below}".upper() for below in field.annotation.model_fields)


_PATTERNS: Final = {
    "[0-9a-f]{64}": "64 hexadecimal digits in lower case are needed, as mcp-sidecar inspect --tools prints them",
    "^https?://": "a URL is needed, https://…, exactly as it is in tokens",
    r"\x21\x23-\x5b": r'what may stand in a scope is needed: printable characters without space, " and \ (RFC 6749)',
    "[a-z0-9][a-z0-9-]{0,62}": "a name of a-z, 0-9 and '-' is needed, 63 at most, that begins with a letter or digit",
    "[A-Za-z0-9_.-]{1,128}": "a name of letters, digits, '_', '.' and '-' is needed, 128 at most",
    "[A-Za-z0-9_-]{1,63}": "a name of letters, digits, '_' and '-' is needed, 63 at most",
}
"""By a part of the pattern that a text does not match, what is needed instead."""


def in_words(kind: str, message: str) -> str:
    """Return what pydantic found wrong, in the words of a settings file."""
    match kind:
        case "missing":
            return "is not set"
        case "tuple_type":
            return 'a list is needed, such as ["…"]'
        case "string_type":
            return 'a text is needed, such as "…"'
        case "model_type" | "model_attributes_type" | "dict_type":
            return "a table is needed, with names and values"
        case "string_pattern_mismatch":
            return next((words for part, words in _PATTERNS.items() if part in message), message)
        case "too_short":
            return "at least one is needed"
        case _:
            return message.removeprefix("Value error, ")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to add to a refusal of ``name``: the known name that is most like it, if one is."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _group(annotation: object) -> type[BaseModel] | None:
    """Return the group of settings in an annotation: itself, or what a tuple or an optional holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _group(part)) is not None), None)
