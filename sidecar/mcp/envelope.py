"""The outermost members of a body that is refused as a whole: which request would an answer be about?

Both official Python 1.x clients end their session over an HTTP error, and every SDK drops a call that is answered
without its id. So a body that is not decoded (too large, nested too deeply, not strict JSON) is still looked at for the
id of the one request that it is. Only the outermost object is read, by msgspec's C scanner, which builds nothing of
what lies below: less work than decoding the same body.

The answer goes only to the sender of the body, but a wrong id would settle another of the sender's
requests. So an id counts only where no two readers could disagree: one object, each outermost key once and without
escapes.

Of a body that is too large to keep, or that the scanner cannot read to its end (a thousand levels, ``NaN``), only the
first and the last bytes are looked at (``Ends``). There the members stand that every SDK writes before or after
``params``. Nothing that a text in the arguments holds can look like them: a quote in a text is escaped, and what stands
before the key of a last member is a comma, which is no escape.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from sidecar.mcp.jsonrpc import MAX_ID_CHARACTERS, MAX_INTEGER, MAX_METHOD_CHARACTERS, RequestId

MAX_MEMBERS: Final = 16
"""Outermost members that are looked at; JSON-RPC has four."""

_WHITE_SPACE: Final = b" \t\r\n"
_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]{0,15})")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_TEXT: Final = 6 * max(MAX_ID_CHARACTERS, MAX_METHOD_CHARACTERS) + 2
"""Bytes of the longest text in JSON: every character as an escape, and the quotes."""

_KEY_AND_SCALAR: Final = (
    rb'[ \t\r\n]*+"([^"\\]++)"[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+"|-?[0-9]++|true|false|null)[ \t\r\n]*+'
)
_FIRST_MEMBER: Final = re.compile(_KEY_AND_SCALAR + rb",")
_LAST_MEMBER: Final = re.compile(rb"," + _KEY_AND_SCALAR + rb"\Z")
"""Members without an escape whose value is neither an object nor an array, each with the comma to its neighbour."""

_NOTIFICATIONS: Final = "notifications/"
"""What the methods of MCP's notifications begin with, and those of no request."""

ENDS_BYTES: Final = 4096
"""At either end of a body; the longest id and the longest method together have less than 3,200."""

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a refused body."""

    request_id: RequestId | None
    """None where nothing expects an answer: a notification or a response."""
    method: str
    """Empty for a response."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the last bytes of a body, which may overlap."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, body: bytes | bytearray) -> Self:
        """Return those of what is there of a body."""
        return cls(bytes(body[:ENDS_BYTES]), bytes(body[-ENDS_BYTES:]))

    def followed_by(self, more: bytes) -> "Ends":
        """Return those of the body when more of it has come."""
        head = self.head if len(self.head) >= ENDS_BYTES else (self.head + more)[:ENDS_BYTES]
        return Ends(head, (self.tail + more[-ENDS_BYTES:])[-ENDS_BYTES:])


def read_ends(ends: Ends) -> Envelope | None:
    """Return whose answer a body of JSON would get, by what stands before and after its first object or array.

    None where a key is there twice, or neither an id and a method nor the method of a notification: another message
    without an id may have it in the middle.
    """
    head, tail = ends.head.lstrip(_WHITE_SPACE), ends.tail.rstrip(_WHITE_SPACE)
    if not head.startswith(b"{") or not tail.endswith(b"}"):
        return None
    found = [*_first_members(head[1:]), *_last_members(tail[:-1])]
    members = {key: msgspec.Raw(value) for key, value in found}
    if len(members) != len(found):
        return None
    method = _text(members.get(b"method"), MAX_METHOD_CHARACTERS)
    if method and b"id" not in members and method.startswith(_NOTIFICATIONS):
        return Envelope(None, method)
    request_id = _id(members.get(b"id"))
    return Envelope(request_id, method) if method and request_id is not None else None


def _first_members(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while (found := _FIRST_MEMBER.match(text, at)) is not None:
        yield found.group(1), found.group(2)
        at = found.end()


def _last_members(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go back from the end, a comma at a time; one inside a text is followed by no whole member."""
    end = len(text)
    while (start := text.rfind(b",", 0, end)) >= 0:
        end = start
        if (found := _LAST_MEMBER.match(text, start)) is not None:
            yield found.group(1), found.group(2)
            text = text[:start]


def read_envelope(body: bytes | Ends, *, readable: bool = True) -> Envelope | None:
    """Return whose answer a refused body would get, or None where that is not certain.

    Args:
        body: the body, or what was kept of it.
        readable: whether a reader of JSON gets to its end; else its ends may tell.
    """
    if isinstance(body, Ends):
        return read_ends(body)
    envelope = _read_whole(body)
    return read_ends(Ends.of(body)) if envelope is None and not readable else envelope


def _read_whole(body: bytes) -> Envelope | None:
    members = _members(body)
    if members is None and (whole := _SURROGATE.sub(rb"\\u00", body)) != body:
        # msgspec refuses half a surrogate pair wherever it stands; texts below are not looked at, so they may change
        body, members = whole, _members(whole)
        if members is not None and any(b"\\" in bytes(members.get(name, b"")) for name in ("id", "method")):
            return None
    if members is None:
        return None
    if len(members) > MAX_MEMBERS or not _each_once(body, members):
        return None
    method = _text(members.get("method"), MAX_METHOD_CHARACTERS)
    if "method" not in members:
        # a response: it gets no answer (JSON-RPC 2.0 section 5)
        return Envelope(None, "") if "id" in members and ("result" in members or "error" in members) else None
    if not method:
        return None
    if "id" not in members:
        return Envelope(None, method)
    request_id = _id(members["id"])
    return None if request_id is None else Envelope(request_id, method)


def _id(raw: msgspec.Raw | None) -> RequestId | None:
    if raw is None:
        return None
    number = _integer(raw)
    return _text(raw, MAX_ID_CHARACTERS) if number is None else number


def _members(body: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return _MEMBERS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _each_once(body: bytes, members: dict[str, msgspec.Raw]) -> bool:
    """Whether the body is exactly these members: a repeated or an escaped key would leave bytes over."""
    punctuation = 2 + max(0, len(members) - 1)  # braces, commas
    named = sum(len(key.encode()) + len('"":') for key in members)
    values = sum(_dense(bytes(value)) for value in members.values())
    return not any(key != key.strip() or " " in key for key in members) and (
        _dense(body) == punctuation + named + values
    )


def _dense(text: bytes | bytearray) -> int:
    return len(text.translate(None, _WHITE_SPACE))


def _integer(raw: msgspec.Raw) -> int | None:
    text = bytes(raw) if len(memoryview(raw)) <= _LONGEST_TEXT else b""
    return number if _INTEGER.fullmatch(text) and abs(number := int(text)) <= MAX_INTEGER else None


def _text(raw: msgspec.Raw | None, longest: int) -> str | None:
    """Return the text that a value is, or None where it is none or too long."""
    if raw is None or len(memoryview(raw)) > _LONGEST_TEXT:
        return None
    try:
        value = _TEXT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return value if len(value) <= longest else None
