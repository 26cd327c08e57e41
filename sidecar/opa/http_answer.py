"""Where one HTTP/1.1 answer begins and ends (RFC 9112 sections 2.1, 4, 6 and 7.1), as bytes in and an answer out.

For the one server that is known: an OPA that the sidecar started. What that never writes is refused, so that there is
one reading of every byte: other versions, interim answers, an answer without a length, both kinds of length, a field
that counts twice, chunk extensions, trailers.
"""

import re
from dataclasses import dataclass
from typing import Final

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault

MAX_HEAD_BYTES: Final = 16_384
"""OPA's own heads have some 150 bytes."""
_MAX_CHUNK_LINE: Final = 16
_NO_CONTENT: Final = 204

_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t\x20-\x7e]*)?\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,12}")
_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")
_ONCE: Final = frozenset({b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"connection"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedAnswer:
    """A whole answer."""

    status: int
    media_type: str
    body: bytes
    last: bool
    """OPA closes the connection after it."""


class AnswerFraming:
    """Reads the bytes of one connection until one answer is whole.

    Args:
        longest: bytes that the body may have.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._held = bytearray()
        self._fields: dict[bytes, bytes] | None = None
        self._status = 0
        self._length = 0
        self._chunks: list[bytes] | None = None

    @property
    def begun(self) -> bool:
        """Whether there was a byte of it."""
        return bool(self._held) or self._fields is not None

    def feed(self, data: bytes) -> FramedAnswer | None:
        """Take bytes as they come; return the answer once it is whole.

        Raises:
            DecisionUnavailable: they are no answer of OPA's, or one that is too long.
        """
        self._held += data
        if self._fields is None and not self._head():
            return None
        if self._chunks is not None:
            return self._answer(b"".join(self._chunks)) if self._last_chunk(self._chunks) else None
        if len(self._held) < self._length:
            return None
        if len(self._held) > self._length:
            raise _foreign("bytes after the answer")
        return self._answer(bytes(self._held))

    def _head(self) -> bool:
        """Read the head if it is all there; return whether it is."""
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or end > MAX_HEAD_BYTES:
            if len(self._held) > MAX_HEAD_BYTES:
                raise _foreign("a head that is too long")
            if not self._held.startswith(b"HTTP/1.1 "[: len(self._held)]):
                raise _foreign("another protocol")
            return False
        head = bytes(self._held[: end + 2])
        del self._held[: end + 4]
        first = _STATUS.match(head)
        if first is None:
            raise _foreign("another protocol")
        self._status = int(first[1])
        self._fields = fields = _fields_of(head, first.end())
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if b"content-encoding" in fields:
            what = "OPA answered with a content encoding that was not asked for"
            raise DecisionUnavailable(what, fault=PdpFault.MEDIA_TYPE)
        if coding is not None:
            if length is not None or coding.lower() != b"chunked" or self._status == _NO_CONTENT:
                raise _foreign("an answer without one length")
            self._chunks = []
        elif length is not None and _LENGTH.fullmatch(length):
            self._length = self._held_to(int(length))
        elif length is not None or self._status != _NO_CONTENT:
            raise _foreign("an answer without one length")
        return True

    def _last_chunk(self, chunks: list[bytes]) -> bool:
        """Take the chunks that are whole; return whether the last one is among them."""
        held = self._held
        while (end := held.find(b"\r\n", 0, _MAX_CHUNK_LINE)) >= 0:
            size = _SIZE.fullmatch(held, 0, end)
            if size is None:
                raise _foreign("a chunk without a size")
            length = int(size[0], 16)
            self._length = self._held_to(self._length + length)
            following = end + 2 + length + 2
            if len(held) < following:
                self._length -= length
                return False
            if held[following - 2 : following] != b"\r\n":
                raise _foreign("a chunk that is longer than its size")
            chunks.append(bytes(held[end + 2 : following - 2]))
            del held[:following]
            if not length:
                if held:
                    raise _foreign("bytes after the answer")
                return True
        if len(held) >= _MAX_CHUNK_LINE:
            raise _foreign("a chunk without a size")
        return False

    def _held_to(self, length: int) -> int:
        if length > self._longest:
            raise DecisionUnavailable(f"the answer is larger than {self._longest} bytes", fault=PdpFault.TOO_LARGE)
        return length

    def _answer(self, body: bytes) -> FramedAnswer:
        fields = self._fields or {}
        return FramedAnswer(
            status=self._status,
            media_type=fields.get(b"content-type", b"").decode("latin-1"),
            body=body,
            last=fields.get(b"connection", b"keep-alive").lower() != b"keep-alive",
        )


def _fields_of(head: bytes, start: int) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    while start < len(head):
        field = _FIELD.match(head, start)
        if field is None:
            raise _foreign("a head that is not well-formed")
        name = field[1].lower()
        if name in fields and name in _ONCE:
            raise _foreign("a field that is there twice")
        fields[name] = field[2]
        start = field.end()
    return fields


def _foreign(what: str) -> DecisionUnavailable:
    """Without the bytes themselves: they may repeat the question."""
    return DecisionUnavailable(f"no answer in HTTP/1.1 as OPA writes it: {what}", fault=PdpFault.UNREACHABLE)
