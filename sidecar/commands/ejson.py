"""MongoDB Extended JSON v2: which objects the server reads as one value, and whether each is a value of its type.

js-bson reads leniently: ``{"$date": "next year"}`` becomes 1970, ``{"$numberInt": "5000000000"}`` another number,
``{"$binary": {"subType": "zz"}}`` subtype 0. What is decided here is what MongoDB gets, so a typed value passes only if
it has the form of the specification, is in the range of its BSON type and survives the server's reading unchanged.

Sources: specifications/source/extended-json (mongodb/specifications) and its bson-corpus; bsonspec.org 1.1;
``EJSON.deserialize(…, {relaxed: false})`` of js-bson 7.3, with which the tests compare every rule.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from math import isinf
from typing import Final, NamedTuple

from sidecar.commands.arguments import is_number, is_whole
from sidecar.model import JsonObject, JsonValue

INT32: Final = 2**31
INT64: Final = 2**63
UINT32_MAX: Final = 2**32 - 1

MAX_MILLISECONDS: Final = 8_640_000_000_000_000
"""Either side of 1970 that a JavaScript date reaches (ECMA-262, time values); the server makes 1970 of all beyond."""

MAX_DECIMAL_TEXT: Final = 6_999
"""Characters of a ``$numberDecimal``; js-bson refuses longer ones."""

_UUID_BYTES: Final = 16
_VECTOR: Final = 9
"""Binary subtype of vectors (specifications/source/bson-binary-vector)."""
_INT8, _FLOAT32, _PACKED_BITS = 0x03, 0x27, 0x10

_WHOLE: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18})")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONG_WHOLE: Final = re.compile(r"[+-]?0*([1-9][0-9]{15,})(?:\.0*)?")
"""Of more than the 15 digits that a double always keeps (IEEE 754, ``DBL_DIG``)."""
_DOUBLE_WORDS: Final = frozenset({"Infinity", "+Infinity", "-Infinity", "NaN"})
_DECIMAL_WORD: Final = re.compile(r"[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE)
_OID: Final = re.compile(r"[0-9a-fA-F]{24}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")
_SUBTYPE: Final = re.compile(r"[0-9a-fA-F]{1,2}")
_FLAGS: Final = re.compile(r"[imlsux]*")
_DATE: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,3}0{0,6})?)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9]))?"
)
"""RFC 3339 section 5.6, to the millisecond; seconds may be left out, and so may the whole time, which is then midnight
UTC (ECMA-262, date time string format). A time without a zone is none: the server would read it in its own zone."""

_LEAP_YEAR: Final = 2000
"""Has the same days as the year 0, which ``datetime`` does not know."""

_DECIMAL128: Final = Context(
    prec=34, Emin=-6143, Emax=6144, clamp=1, traps=[Inexact, InvalidOperation, Overflow], rounding="ROUND_HALF_EVEN"
)


class TypeFault(NamedTuple):
    """A typed value that is not of its type."""

    key: str
    wanted: str


class _Type(NamedTuple):
    """One typed value."""

    holds: Callable[[JsonValue], bool]
    """Whether the value under the type's key is one of the type."""
    wanted: str
    companion: str = ""
    """The one key that may stand beside."""


def _is_int32(value: JsonValue) -> bool:
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None and -INT32 <= int(value) < INT32


def _is_int64(value: JsonValue) -> bool:
    """Say whether the text is an int64; js-bson refuses ``-0``."""
    if not isinstance(value, str) or value == "-0" or not _WHOLE.fullmatch(value):
        return False
    return -INT64 <= int(value) < INT64


def _is_double(value: JsonValue) -> bool:
    """Say whether the text is a double: what overflows, becomes zero or is a longer integer than fits is none."""
    if not isinstance(value, str) or len(value) > MAX_DECIMAL_TEXT:
        return False
    if not _NUMBER.fullmatch(value):
        return value in _DOUBLE_WORDS
    number = float(value)
    if isinf(number) or (number == 0 and any(digit in "123456789" for digit in re.split("[eE]", value)[0])):
        return False
    long = _LONG_WHOLE.fullmatch(value)
    return long is None or _is_kept(long[1].rstrip("0"), abs(number))


def _is_kept(digits: str, number: float) -> bool:
    """Say whether a long integer is still itself at the precision that it was written in."""
    mantissa, _, _ = f"{number:.{len(digits) - 1}e}".partition("e")
    return mantissa.replace(".", "") == digits


def _is_decimal(value: JsonValue) -> bool:
    if not isinstance(value, str) or len(value) > MAX_DECIMAL_TEXT:
        return False
    if not _NUMBER.fullmatch(value):
        return _DECIMAL_WORD.fullmatch(value) is not None
    try:
        _DECIMAL128.create_decimal(value)
    except DecimalException:
        return False
    return True


def _is_oid(value: JsonValue) -> bool:
    return isinstance(value, str) and _OID.fullmatch(value) is not None


def _is_uuid(value: JsonValue) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _is_binary(value: JsonValue) -> bool:
    if not isinstance(value, dict) or value.keys() != {"base64", "subType"}:
        return False
    text, subtype = value["base64"], value["subType"]
    if not isinstance(text, str) or not isinstance(subtype, str) or not _SUBTYPE.fullmatch(subtype):
        return False
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return False
    if b64encode(data).decode() != text:
        return False  # bits after the last byte, which the server would drop
    kind = int(subtype, 16)
    if kind == _VECTOR:
        return _is_vector(data)
    return len(data) == _UUID_BYTES if kind == 4 else True  # noqa: PLR2004  # the subtype of UUIDs


def _is_vector(data: bytes) -> bool:
    """Say whether a binary vector is well formed: element type, padding, elements."""
    kind, padding, rest = data[:1], data[1:2], len(data) - 2
    if kind in (bytes([_INT8]), bytes([_FLOAT32])):
        return padding == b"\0" and (kind[0] == _INT8 or rest % 4 == 0)
    if kind == bytes([_PACKED_BITS]):
        return padding == b"\0" or (rest > 0 and padding < b"\x08")
    return True


def _is_date(value: JsonValue) -> bool:
    if isinstance(value, str):
        found = _DATE.fullmatch(value)
        return found is not None and _is_day(int(found[1]), int(found[2]), int(found[3]))
    if isinstance(value, dict):
        long = value.get("$numberLong")
        return len(value) == 1 and _is_int64(long) and abs(int(str(long))) <= MAX_MILLISECONDS
    # A smaller number becomes an int32 on the way, which js-bson takes for no date.
    return is_whole(value) and not -INT32 <= value < INT32 and abs(value) <= MAX_MILLISECONDS


def _is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year or _LEAP_YEAR, month, day)
    except ValueError:
        return False
    return True


def _is_timestamp(value: JsonValue) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"t", "i"}
        and all(is_whole(part) and 0 <= part <= UINT32_MAX for part in value.values())
    )


def _is_regular_expression(value: JsonValue) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"pattern", "options"}
        and _is_pattern(value["pattern"])
        and _are_flags(value["options"])
    )


def _is_pattern(value: JsonValue) -> bool:
    return isinstance(value, str) and "\0" not in value


def _are_flags(value: JsonValue) -> bool:
    return isinstance(value, str) and _FLAGS.fullmatch(value) is not None


def _is_one(value: JsonValue) -> bool:
    return is_number(value) and value == 1


def _is_text(value: JsonValue) -> bool:
    return isinstance(value, str)


def _never(_value: JsonValue) -> bool:
    return False


_KEY: Final = _Type(_is_one, "the number 1")
_DEPRECATED: Final = _Type(_never, "another type: this one is deprecated and not accepted")

TYPES: Final[Mapping[str, _Type]] = {
    "$oid": _Type(_is_oid, "24 hexadecimal digits"),
    "$uuid": _Type(_is_uuid, "a UUID, such as 73ffd264-44b3-4c69-90e8-e7d1dfc035d4"),
    "$numberInt": _Type(_is_int32, "a string with a whole number from -2147483648 to 2147483647"),
    "$numberLong": _Type(_is_int64, "a string with a whole number from -9223372036854775808 to 9223372036854775807"),
    "$numberDouble": _Type(
        _is_double, 'a string with a number that a double can hold, or "Infinity", "-Infinity", "NaN"'
    ),
    "$numberDecimal": _Type(
        _is_decimal, 'a string with a number of at most 34 digits that a decimal128 can hold, or "Infinity", "NaN"'
    ),
    "$binary": _Type(_is_binary, '{"base64": padded base64, "subType": two hexadecimal digits} and fit its subtype'),
    "$date": _Type(
        _is_date,
        'a date that exists, as "2026-03-31T12:00:00Z" (with a zone, to the millisecond, years 0000 to 9999) or as '
        '{"$numberLong": milliseconds since 1970}',
    ),
    "$timestamp": _Type(_is_timestamp, '{"t": seconds, "i": ordinal}, each from 0 to 4294967295'),
    "$regularExpression": _Type(
        _is_regular_expression, '{"pattern": text, "options": letters out of "imlsux"}, without NUL'
    ),
    "$regex": _Type(_is_pattern, 'text without NUL, with letters out of "imlsux" as $options', "$options"),
    "$minKey": _KEY,
    "$maxKey": _KEY,
    "$code": _Type(_is_text, "text, with a plain object as $scope", "$scope"),
    "$symbol": _DEPRECATED,
    "$undefined": _DEPRECATED,
    "$dbPointer": _DEPRECATED,
}
"""Keys that make the server read the whole object as one value. Siblings would be lost on the way."""

REFERENCE_KEYS: Final = frozenset({"$ref", "$id", "$db"})
"""Keys of a DBRef, which stays an object with its other keys."""


def is_typed(node: JsonObject) -> bool:
    """Say whether the server reads an object as one value. The scan has already held it to its type."""
    return not TYPES.keys().isdisjoint(node) and not _is_regex_operator(node)


def _is_regex_operator(node: JsonObject) -> bool:
    """Say whether ``$regex`` is the operator: js-bson leaves the object as it is where a pattern is typed itself."""
    pattern = node.get("$regex")
    return isinstance(pattern, dict) and ("$regularExpression" in pattern or isinstance(pattern.get("$regex"), str))


def is_one_value(node: JsonObject) -> bool:
    """Say whether an object is exactly one typed value without anything inside; quick, for the many that are."""
    if len(node) != 1:
        return False
    [(name, value)] = node.items()
    known = TYPES.get(name)
    return known is not None and name != "$code" and known.holds(value)


def fault(node: JsonObject) -> TypeFault | None:
    """Return what is wrong with an object that has a key of ``TYPES``; None if it is a value of its type."""
    if _is_regex_operator(node):
        names = TYPES.keys() & node.keys()
        if len(names) == 1 and _are_flags(node.get("$options", "")):
            return None
        return TypeFault("$regex", "alone, or with $options and other operators")
    name = next(key for key in node if key in TYPES)
    known = TYPES[name]
    if not known.holds(node[name]):
        return TypeFault(name, known.wanted)
    if len(node) == 1:
        return None
    if len(node) > 2 or known.companion not in node:  # noqa: PLR2004  # the type's key and its companion's
        return TypeFault(name, "alone in its object: the server would drop the other keys")
    beside = node[known.companion]
    if not (_are_flags(beside) if name == "$regex" else _is_scope(beside)):
        return TypeFault(name, known.wanted)
    return None


def _is_scope(value: JsonValue) -> bool:
    return isinstance(value, dict) and not is_typed(value) and not is_reference(value)


def is_reference(node: JsonObject) -> bool:
    """Say whether js-bson makes a DBRef of an object (specifications/source/dbref)."""
    return (
        node.get("$id") is not None
        and isinstance(node.get("$ref"), str)
        and isinstance(node.get("$db", ""), str)
        and all(key in REFERENCE_KEYS for key in node if key.startswith("$"))
    )


def reference_fault(node: JsonObject) -> TypeFault | None:
    """Return what the server would change in a DBRef: it reads ``a.b`` as database and collection, and drops ``""``."""
    if not is_reference(node):
        return None
    name = str(node["$ref"])
    if not name or name.count(".") == 1:
        return TypeFault("$ref", "a collection's name without a dot, with its database as $db")
    return TypeFault("$db", "a database's name, or left out") if node.get("$db") == "" else None


def whole_number(value: JsonValue) -> int | None:
    """Return the whole number that a value is in any of its spellings, or None."""
    if is_whole(value):
        return int(value)
    if not isinstance(value, dict) or len(value) != 1:
        return None
    [(name, text)] = value.items()
    if name not in _NUMBERS or not isinstance(text, str) or not TYPES[name].holds(text):
        return None
    number = Decimal(text)
    if not number.is_finite() or abs(number) >= INT64 or number != number.to_integral_value():
        return None
    return int(number)


_NUMBERS: Final = frozenset({"$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"})
