"""The outermost members of a body that is refused as a whole: which request would an answer be about?

Both official Python 1.x clients end their session over an HTTP error, and every SDK drops a call that is answered
without its id. So a body that is not decoded (too large, nested too deeply, not strict JSON) is still looked at for the
id of the one request that it is. Only the outermost object is read, by msgspec's C scanner, which builds nothing of
what lies below: less work than decoding the same body.

The answer goes only to the sender of the body, but a wrong id would settle another of the sender's
requests. So an id counts only where no two readers could disagree: one object, each outermost key once and without
escapes.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar.mcp.jsonrpc import MAX_ID_CHARACTERS, MAX_INTEGER, MAX_METHOD_CHARACTERS, RequestId

MAX_MEMBERS: Final = 16
"""Outermost members that are looked at; JSON-RPC has four."""

_WHITE_SPACE: Final = b" \t\r\n"
_INTEGER: Final = re.compile(rb"-?(0|[1-9][0-9]{0,15})")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_TEXT: Final = 6 * max(MAX_ID_CHARACTERS, MAX_METHOD_CHARACTERS) + 2
"""Bytes of the longest text in JSON: every character as an escape, and the quotes."""

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a refused body."""

    request_id: RequestId | None
    """None where nothing expects an answer: a notification or a response."""
    method: str
    """Empty for a response."""


def read_envelope(body: bytes | bytearray) -> Envelope | None:
    """Return whose answer a refused body would get, or None where that is not certain."""
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
    request_id: RequestId | None = _integer(members["id"])
    if request_id is None:
        request_id = _text(members["id"], MAX_ID_CHARACTERS)
    return None if request_id is None else Envelope(request_id, method)


def _members(body: bytes | bytearray) -> dict[str, msgspec.Raw] | None:
    try:
        return _MEMBERS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _each_once(body: bytes | bytearray, members: dict[str, msgspec.Raw]) -> bool:
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
