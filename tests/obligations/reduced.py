"""What a mask leaves of a document, worked out on the document itself; no expression of the product's is used.

``reduced`` is the document as it would be stored if the view of the caller were all there is; ``disguised`` is another
document of which the mask leaves the same.
"""

import math
import random
from collections.abc import Callable
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

from bson import Decimal128, Int64

Document = dict[str, Any]

GONE: Final = object()
Leaf = Callable[[Any, str], Any]


def forms_of(mask: list[Any]) -> dict[str, str]:
    """The form of each field."""
    return {
        one if isinstance(one, str) else one["field"]: "absent" if isinstance(one, str) else one["as"] for one in mask
    }


def reduced(document: Document, mask: list[Any]) -> Document:
    """What the mask leaves of a document."""
    for path, form in forms_of(mask).items():
        document = _in_object(document, path.split("."), form, _left)
    return document


def disguised(document: Document, mask: list[Any], choice: random.Random) -> Document:
    """Another document that is the same under the mask."""

    def other(value: Any, form: str) -> Any:
        return _disguise(value, form, choice)

    for path, form in forms_of(mask).items():
        document = _in_object(document, path.split("."), form, other)
    return document


def _in_object(document: Document, parts: list[str], form: str, leaf: Leaf) -> Document:
    first, *rest = parts
    if first not in document:
        return document
    value = leaf(document[first], form) if not rest else _through(document[first], rest, form, leaf)
    if value is GONE:
        return {key: one for key, one in document.items() if key != first}
    return {**document, first: value}


def _through(value: Any, rest: list[str], form: str, leaf: Leaf) -> Any:
    if isinstance(value, list):
        return [_in_object(one, rest, form, leaf) if isinstance(one, dict) else one for one in value]
    return _in_object(value, rest, form, leaf) if isinstance(value, dict) else value


def _left(value: Any, form: str) -> Any:
    if form == "absent":
        return GONE
    if isinstance(value, list):
        return [None if (one := _left_of_one(element, form)) is GONE else one for element in value]
    return _left_of_one(value, form)


def _left_of_one(value: Any, form: str) -> Any:
    if form == "last4":
        text = str(abs(value)) if isinstance(value, int) and not isinstance(value, bool) else value
        return text[-4:] if isinstance(text, str) and len(text) > 4 else GONE
    width = int(form.partition(":")[2])
    if isinstance(value, Decimal128):
        number: Decimal = value.to_decimal()
        if not number.is_finite():
            return GONE
        return Decimal128((number / width).to_integral_value(ROUND_FLOOR) * width)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return GONE
    return math.floor(value / width) * float(width) if math.isfinite(value) else GONE


def _disguise(value: Any, form: str, choice: random.Random) -> Any:
    if form == "absent":
        return choice.choice([GONE, 99, "another", ["more"], {"name": "zz"}, value])
    if isinstance(value, list):
        return [_disguise(one, form, choice) for one in value]
    if form == "last4" and isinstance(value, str) and len(value) > 4:
        return choice.choice(["0", "9x", "000000000000"]) + value[-4:]
    if form != "last4" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        lowest = _left_of_one(value, form)
        return choice.choice([lowest, lowest + 0.5, Int64(lowest) + 1])
    return value
