"""Server-sent events as Streamable HTTP uses them, without I/O (WHATWG HTML, 9.2.6 "Interpreting an event stream")."""

import re
from collections.abc import Iterator

from sidecar.errors import UpstreamProtocolViolation

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
_HEADER = re.compile(rb"[\x21-\x7e]{1,512}")
"""An id that can be sent back in a header; with any other the stream cannot be resumed."""
_DIGITS = re.compile(rb"[0-9]{1,9}")


class EventDecoder:
    """Turns a byte stream into the data of its ``message`` events.

    Events of another type, comments and events without data (the priming event of MCP 2025-11-25) are skipped, but
    for the id that they have.

    Args:
        limit: the most bytes one event may have, line ends not counted.
        last_id: id of the last event of the stream that this one goes on with.
    """

    def __init__(self, limit: int, last_id: str = "") -> None:
        self.last_id = last_id
        """What the stream can be asked to go on after; empty where it cannot."""
        self.retry_ms: int | None = None
        """How long to wait before that; None where it did not say."""
        self._limit = limit
        self._id = last_id
        self._size = 0
        self._partial: list[bytes] = []
        self._data: list[bytes] = []
        self._event = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that ``chunk`` completes.

        Raises:
            UpstreamProtocolViolation: an event is larger than the limit.
        """
        if not chunk:
            return
        start = 1 if self._after_cr and chunk[:1] == b"\n" else 0
        self._after_cr = chunk.endswith(b"\r")
        for end in _LINE_END.finditer(chunk, start):
            self._hold(chunk[start : end.start()])
            start = end.end()
            data = self._line(b"".join(self._partial))
            self._partial.clear()
            if data:
                yield data
        self._hold(chunk[start:])

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise UpstreamProtocolViolation(f"a server-sent event of more than {self._limit} bytes")
        if piece:
            self._partial.append(piece)

    def _line(self, line: bytes) -> bytes:
        """Take one line in; return the event's data if the line ends an event that has some."""
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        match field:
            case b"data":
                self._data.append(value.removeprefix(b" "))
            case b"event":
                self._event = value.removeprefix(b" ")
            case b"id" if b"\0" not in value:
                found = value.removeprefix(b" ")
                self._id = found.decode() if _HEADER.fullmatch(found) else ""
            case b"retry" if _DIGITS.fullmatch(value.removeprefix(b" ")):
                self.retry_ms = int(value)
            case _:
                pass
        return b""

    def _dispatch(self) -> bytes:
        data = b"\n".join(self._data) if self._event in {b"", b"message"} else b""
        self.last_id = self._id
        self._data.clear()
        self._event = b""
        self._size = 0
        return data
