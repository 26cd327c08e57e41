"""What every group of settings is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]


class SettingsGroup(BaseModel):
    """A group of settings: immutable, closed against unknown names, and explained field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def unusable_texts(value: object, place: str = "") -> Iterator[str]:
    """Yield the settings whose text no file name, program or message could hold: a NUL, or what is not Unicode.

    Variables of the environment can have bytes that are no UTF-8, which Python reads as lone surrogates (PEP 383).
    """
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                yield from unusable_texts(getattr(value, name), f"{place}.{name}" if place else name)
        case Mapping():
            for name, item in value.items():
                yield from unusable_texts(name, place)
                yield from unusable_texts(item, f"{place}.{name}")
        case tuple() | list():
            for number, item in enumerate(value):
                yield from unusable_texts(item, f"{place}.{number}")
        case SecretStr():
            yield from unusable_texts(value.get_secret_value(), place)
        case str() | Path():
            text = str(value)
            if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
                yield place
        case _:
            pass
