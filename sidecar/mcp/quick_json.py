"""Most bodies, read by a compiled decoder in a quarter of the time.

``msgspec`` reads every JSON text as the strict decoder does (tests/mcp/test_quick_json.py holds both against each
other), but for what that one refuses and this one cannot see: a name that is there twice, of which it takes the last.
So it is used where something else shows that there is none, and where no number, no escape and no depth needs a closer
look. What it is not used for, or refuses, the strict decoder reads from the beginning; it also says what is wrong.

Members are counted in the text and in what was read, by their colons. In JSON a colon stands between a name and its
value, and else in texts only. Without escapes by number it is written there as itself, and written so again; a member
that was overwritten is not. So the counts are equal exactly if none was. To look for a single byte takes a tenth of the
time that a search for two takes, and in a large body each search counts.
"""

from typing import Final

import msgspec

from sidecar.model import JsonValue

_COLON: Final = b":"
_BACKSLASH: Final = b"\\"
_NUMBERED_ESCAPE: Final = b"\\u"
"""May be a quote, a colon or half of a pair of surrogates."""
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_MOST_BRACKETS: Final = 100_000
"""Brackets that are looked at, up to half as many times as there may be levels: 10 ms at most."""

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def read(body: bytes, depth: int, values: int) -> JsonValue:
    """Return what the body is, if it is JSON without a name twice, within the bounds, and easily seen to be; else None.

    Numbers are not looked at here: the caller knows that none is too long or too large.

    Args:
        body: maybe JSON.
        depth: levels of arrays and objects, at most.
        values: values, at most.
    """
    openers = body.count(b"[") + body.count(b"{")
    if body.count(b",") + openers >= values or (_BACKSLASH in body and _NUMBERED_ESCAPE in body):
        return None
    if openers > depth and not _is_flat(body, depth):
        return None
    try:
        value: JsonValue = _decode(body)
        once = _encode(value).count(_COLON) == body.count(_COLON)
    except (ValueError, RecursionError):
        return None
    return value if once else None


def _is_flat(body: bytes, depth: int) -> bool:
    """Whether brackets outside of texts nest no deeper; certain where it says yes and the body is JSON."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = body.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in structure:  # a text with a bracket in it
        return False
    if len(structure) > _MOST_BRACKETS:
        return False
    for _ in range(depth // 2):  # each time the innermost level goes, or the two innermost
        before, structure = structure, structure.replace(b"[]", b"").replace(b"{}", b"")
        if not structure or structure == before:
            break
    return not structure
