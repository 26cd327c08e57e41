"""JSON as the standard library's encoder writes it, by a compiled encoder that is several times as fast.

``msgspec`` writes the same bytes for every value without a fraction: null, truth, integers of any size, texts,
arrays and objects (tests/project/test_compact_json.py holds both against each other). Fractions it writes in another
form, and NaN as ``null``. So a value with a fraction goes to the standard encoder, and so does what msgspec does not
take. Whether there is one is seen in the value's MessagePack, where each fraction has a tag of its own: that takes a
microsecond, and a walk over the value in Python would take more than what is gained.
"""

from json import JSONEncoder
from typing import Final

import msgspec

from sidecar.strict_json import JsonObject, JsonValue

_STANDARD: Final = JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_COMPILED: Final = msgspec.json.Encoder()
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_PACK: Final = msgspec.msgpack.Encoder().encode

_FRACTION: Final = b"\xcb"
"""MessagePack's tag of a double. In a text it can be part of a character, and a length can have this value too: then
the standard encoder is asked for nothing."""
_WIDE: Final = (_FRACTION, b"\xcf", b"\xd3")
"""The same and those of integers beyond 32 bits."""


def encode(value: JsonValue) -> bytes:
    """Return a value as compact JSON in UTF-8.

    Raises:
        ValueError: it holds NaN, an infinity or a lone surrogate.
        TypeError: it holds something that is nothing like JSON. A set or bytes, which types forbid, are not noticed.
        RecursionError: it is too deep.
    """
    try:
        if _FRACTION not in _PACK(value):
            return _COMPILED.encode(value)
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
        return None if any(tag in packed for tag in _WIDE) else _SORTED.encode(value)
    except (TypeError, ValueError, OverflowError):
        return None
