"""Forms of tool arguments: closed key sets, exact JSON types, bounds.

A form is at most as wide as the server's own schema, and closed where the server strips unknown keys silently: what
the server would drop was never part of the command that was authorised. Deep values (filters, pipelines, documents)
are only held to be objects here; ``expressions`` and ``fields`` look inside.

Source: the ``inputSchema`` of each tool of MongoDB MCP server 3.0.4.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeGuard

from sidecar.commands.pointer import below
from sidecar.errors import InvalidArguments
from sidecar.model import JsonValue

MAX_WHOLE: Final = 2**53 - 1
"""Largest magnitude of a number: the server is JavaScript, where greater whole numbers are not exact (ECMA-262)."""


class ArgumentForm(Protocol):
    """What one argument may look like."""

    def check(self, value: JsonValue, at: str) -> None:
        """Return if ``value`` has this form.

        Raises:
            InvalidArguments: it has not; the pointer names the offending place.
        """
        ...

    def describe(self) -> str:
        """Say the form in a few words, for the reference page."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string: one of ``choices``, or of a length and a pattern that the whole string must match."""

    choices: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    shortest: int = 0
    longest: int | None = None
    words: str = "text"

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, str):
            raise _wrong_type(at, "a string")
        if self.choices and value not in self.choices:
            raise InvalidArguments("not_allowed", f"Use one of: {', '.join(self.choices)}.", at)
        if len(value) < self.shortest or (self.longest is not None and len(value) > self.longest):
            raise InvalidArguments("out_of_range", "The string is shorter or longer than allowed.", at)
        if self.pattern is not None and not self.pattern.fullmatch(value):
            raise InvalidArguments("not_allowed", f"This is not {self.words}.", at)

    def describe(self) -> str:
        """Say the form in a few words."""
        return " \\| ".join(f"`{choice}`" for choice in self.choices) if self.choices else self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number, by default a whole one. ``10.0`` is whole, because JSON has one kind of number; ``true`` is none.

    Fractions are refused even where the server takes them: ``limit: 0.1`` returned every row (reference, 10.8).
    """

    least: float | None = None
    most: float | None = None
    whole: bool = True

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not is_number(value):
            raise _wrong_type(at, "a number")
        if self.whole and not is_whole(value):
            raise InvalidArguments("out_of_range", "The number must be whole.", at)
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            raise InvalidArguments("out_of_range", f"The number must be in {self._range()}.", at)
        if abs(value) > MAX_WHOLE:
            raise InvalidArguments("out_of_range", f"The number must be at most {MAX_WHOLE}, on either side of 0.", at)

    def describe(self) -> str:
        """Say the form in a few words."""
        kind = "whole number" if self.whole else "number"
        return kind if self.least is None and self.most is None else f"{kind} {self._range()}"

    def _range(self) -> str:
        least = "" if self.least is None else f"{self.least:g}"
        most = "" if self.most is None else f"{self.most:g}"
        return f"{least}…{most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """``true`` or ``false``."""

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, bool):
            raise _wrong_type(at, "true or false")

    def describe(self) -> str:
        """Say the form in a few words."""
        return "`true` \\| `false`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Any object; what is inside is analysed elsewhere."""

    words: str = "object"

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")

    def describe(self) -> str:
        """Say the form in a few words."""
        return self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """An array of one form."""

    item: ArgumentForm
    fewest: int = 0
    most: int | None = None

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, list):
            raise _wrong_type(at, "an array")
        if len(value) < self.fewest or (self.most is not None and len(value) > self.most):
            bound = f"exactly {self.most}" if self.fewest == self.most else f"{self.fewest}…{self.most or ''}"
            raise InvalidArguments("out_of_range", f"The array must have {bound} items.", at)
        check = self.item.check
        for index, item in enumerate(value):
            check(item, f"{at}/{index}")

    def describe(self) -> str:
        """Say the form in a few words."""
        count = "exactly one " if (self.fewest, self.most) == (1, 1) else ""
        return f"array of {count}{self.item.describe()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """An array of objects, checked without a pointer per item: it may hold a hundred thousand of them."""

    fewest: int = 0
    words: str = "array of objects"

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, list):
            raise _wrong_type(at, "an array")
        if len(value) < self.fewest:
            raise InvalidArguments("out_of_range", f"The array must have at least {self.fewest} items.", at)
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise _wrong_type(f"{at}/{index}", "an object")

    def describe(self) -> str:
        """Say the form in a few words."""
        return self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactObject:
    """An object with these keys and no others."""

    fields: Mapping[str, ArgumentForm] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")
        fields = self.fields
        for key, item in value.items():
            form = fields.get(key)
            if form is None:
                raise InvalidArguments("unknown_argument", "There is no such argument.", below(at, key))
            form.check(item, f"{at}/{key}")
        for key in self.required:
            if key not in value:
                raise InvalidArguments("missing_argument", "A required argument is missing.", below(at, key))

    def describe(self) -> str:
        """Say the form in a few words."""
        keys = (f"`{key}`" if key in self.required else f"`{key}`?" for key in self.fields)
        return "{" + ", ".join(keys) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedUnion:
    """One of several records, told apart by the string under ``tag``."""

    tag: str
    forms: Mapping[str, ExactObject]

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to the record that its tag names."""
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")
        tag = value.get(self.tag)
        form = self.forms.get(tag) if isinstance(tag, str) else None
        if form is None:
            raise InvalidArguments("not_allowed", f"Use one of: {', '.join(self.forms)}.", below(at, self.tag))
        form.check(value, at)

    def describe(self) -> str:
        """Say the form in a few words."""
        return " or ".join(f"{form.describe()} ({self.tag} `{name}`)" for name, form in self.forms.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One of several forms, the first that fits."""

    forms: tuple[ArgumentForm, ...]

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to one of the forms; the refusal of the last one is reported."""
        for form in self.forms[:-1]:
            try:
                form.check(value, at)
            except InvalidArguments:
                continue
            return
        self.forms[-1].check(value, at)

    def describe(self) -> str:
        """Say the form in a few words."""
        return " or ".join(form.describe() for form in self.forms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One of a few values of mixed type, such as ``1``, ``-1`` and ``"text"``."""

    values: tuple[int | str, ...]

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)) or value not in self.values:
            known = ", ".join(str(known) for known in self.values)
            raise InvalidArguments("not_allowed", f"Use one of: {known}.", at)

    def describe(self) -> str:
        """Say the form in a few words."""
        return " \\| ".join(f"`{value}`" for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOf:
    """An object with keys of the caller's choice and values of one form."""

    item: ArgumentForm

    def check(self, value: JsonValue, at: str) -> None:
        """Hold ``value`` to this form."""
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")
        for key, item in value.items():
            self.item.check(item, below(at, key))

    def describe(self) -> str:
        """Say the form in a few words."""
        return f"object of {self.item.describe()}"


def is_number(value: JsonValue) -> TypeGuard[int | float]:
    """Say whether a JSON value is a number (in Python a ``bool`` is an ``int``; in JSON it is not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: JsonValue) -> TypeGuard[int | float]:
    """Say whether a JSON value is a whole, finite number."""
    return is_number(value) and (isinstance(value, int) or value.is_integer())


def _wrong_type(at: str, wanted: str) -> InvalidArguments:
    return InvalidArguments("wrong_type", f"This must be {wanted}.", at)


OBJECT: Final = Document()
FLAG: Final = Flag()
TEXT: Final = Text()
