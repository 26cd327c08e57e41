"""JSON as it leaves or is hashed, by a compiled encoder that is several times as fast as the standard library's.

``msgspec`` writes the same bytes as the standard encoder for every value without a fraction: null, truth, integers of
any size, texts, arrays and objects (tests/project/test_compact_json.py holds both against each other). A fraction it
writes as the shortest text of the same double, if not always the same text, and NaN as ``null``, which is another value
than the decided one. So a text without ``null`` is of a value without NaN. In any other, whether there is a NaN is seen
in the value's MessagePack, where a double has a tag of its own: that takes a microsecond, and a walk over the value in
Python would take more than what is gained.
"""

import re
from json import JSONEncoder
from typing import Final

import msgspec

from sidecar.strict_json import JsonObject, JsonValue

_STANDARD: Final = JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_COMPILED: Final = msgspec.json.Encoder()
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_PACK: Final = msgspec.msgpack.Encoder().encode

_NULL: Final = b"null"
_FRACTION: Final = b"\xcb"
"""MessagePack's tag of a double. In a text it can be part of a character, and a length can have this value too: then
another encoder is asked for nothing."""
_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
"""How a double begins whose exponent has every bit set (IEEE 754): NaN and the infinities."""
_UNSIGNED: Final = b"\xcf"
_SIGNED: Final = b"\xd3"
"""The tags of integers beyond 32 bits."""


def encode(value: JsonValue) -> bytes:
    """Return a value as compact JSON in UTF-8.

    Raises:
        ValueError: it holds NaN, an infinity or a lone surrogate.
        TypeError: it holds something that is nothing like JSON. A set or bytes, which types forbid, are not noticed.
        RecursionError: it is too deep.
    """
    try:
        text = _COMPILED.encode(value)
        if _NULL not in text or _NOT_FINITE.search(_PACK(value)) is None:
            return text
    except (TypeError, ValueError, OverflowError):
        pass
    return _STANDARD.encode(value).encode()


def encode_sorted(value: JsonObject) -> bytes | None:
    """Return an object as compact JSON in UTF-8, names in the order of code points.

    Returns:
        None where it holds a fraction, an integer beyond 32 bits, or a lone surrogate; and, since it is
        a test for bytes, where it holds some characters of Greek and Cyrillic.
    """
    try:
        packed = _PACK(value)
        if _FRACTION in packed or _UNSIGNED in packed or _SIGNED in packed:
            return None
        return _SORTED.encode(value)
    except (TypeError, ValueError, OverflowError):
        return None
