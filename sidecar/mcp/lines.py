"""Newline framing of the stdio transport, without I/O (MCP 2025-11-25, transports, stdio: one message per line)."""

from collections.abc import Iterator
from dataclasses import dataclass

_TAIL_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OversizeLine:
    """A line that was longer than the limit; its bytes were discarded as they came, except the last few."""

    tail: bytes


class LineFraming:
    """Cuts a byte stream into lines and never holds more than ``limit`` bytes of one.

    A line over the limit costs that line only: the stream stays in step, so one caller's huge answer cannot end the
    calls of the others.

    Args:
        limit: the longest line in bytes, without its newline.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[bytes | OversizeLine]:
        """Yield every line that ``data`` completes, without its newline."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            yield self._complete()
            start = end + 1
        self._hold(data[start:])

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._parts.append(piece)
            return
        self._tail = (self._tail + b"".join(self._parts)[-_TAIL_BYTES:] + piece)[-_TAIL_BYTES:]
        self._parts.clear()

    def _complete(self) -> bytes | OversizeLine:
        line: bytes | OversizeLine = (
            b"".join(self._parts) if self._size <= self._limit else OversizeLine(tail=self._tail)
        )
        self._parts.clear()
        self._size = 0
        self._tail = b""
        return line
