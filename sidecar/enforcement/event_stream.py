"""One stream of messages to one client: put in by a call or by the registry, read by one connection at a time.

::

    put ──▶ [4] [5] [6] ──▶ reader          the connection broke after 5: a new reader says "after 5" and gets 6
             └ read, still kept             a newer reader ends the one before it

A stream is ``complete`` once its last message is in, and ``closed`` once nothing may be read from it any more: its
session ended, its caller was suspended, or its bound was passed while nobody read.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sidecar.identity import CallerName
from sidecar.mcp import IdentityKey, McpRevision

MAX_KEPT: Final = 256
"""Messages of one stream that are held, read or not."""

MAX_KEPT_BYTES: Final = 1024 * 1024
"""Their size. Only the answer to a call may be larger, while it is read; it is not kept after that."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """What one server-sent event carries."""

    message: bytes
    """One JSON-RPC message; empty for the event that only carries an id (MCP 2025-11-25, transports: priming)."""
    id: str = ""
    """What a client resumes with; empty where it cannot."""
    retry_ms: int | None = None
    """Its connection ends here, and the client comes back after so long; None where it does not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOwner:
    """Whose a stream is: nobody else reads it, or learns that it is there."""

    session_id: str
    """Empty where there are no sessions."""
    key: IdentityKey
    names: tuple[CallerName, ...] = ()
    """What an operator can name the caller by."""


class EventStream:
    """The messages of one stream.

    Args:
        name: first part of its event ids; visible ASCII without a dot, and of no other stream.
        owner: whose it is.
        numbered: its events have ids, so that what was not received can be read again.
        primed: it begins with an event that has an id and no message.
    """

    def __init__(self, name: str, owner: StreamOwner, *, numbered: bool, primed: bool = False) -> None:
        self.name = name
        self.owner = owner
        self.complete = False
        self.closed = False
        self.size = 0
        """Bytes that are held."""
        self._numbered = numbered
        self._primed = primed
        self._kept: deque[tuple[int, bytes]] = deque()
        self._last = 0
        self._read = 0
        self._reader = 0
        self._reading = False
        self._retry_ms: int | None = None
        self._was_paused = False
        self._changed: asyncio.Event | None = None

    @property
    def is_read(self) -> bool:
        """Whether a connection reads it now."""
        return self._reading

    @property
    def is_left(self) -> bool:
        """Whether a connection read it, and none does now."""
        return self._reader > 0 and not self._reading

    @property
    def waiting(self) -> bool:
        """Whether it holds what was not read yet."""
        return self._last > self._read

    def had(self, number: int) -> bool:
        """Whether it had an event of this number; 0 is the one that it begins with."""
        return number <= self._last

    @property
    def resumable(self) -> bool:
        """Whether a later reader could get something from it."""
        return self._numbered and not self.closed and (not self.complete or bool(self._kept))

    def put(self, message: bytes) -> bool:
        """Add a message that can be done without; return whether there was room for it."""
        if self.closed or self.complete:
            return False
        self._trim(len(message))
        if len(self._kept) >= MAX_KEPT or self.size + len(message) > MAX_KEPT_BYTES:
            return False
        self._append(message)
        return True

    def put_news(self, message: bytes) -> bool:
        """Add a message as ``put`` does, unless the same one is there and was not read yet."""
        return any(held == message for number, held in self._kept if number > self._read) or self.put(message)

    def pause(self, retry_ms: int) -> bool:
        """Have its reader leave and come back, once all is read; return whether there is one that knows of that.

        Clients of MCP 2025-11-25 do (transports, sending messages to the server), which are those that are primed.
        """
        if self.closed or self.complete or self.is_left or not (self._numbered and self._primed):
            return False
        self._retry_ms = retry_ms
        self._was_paused = True
        self._wake()
        return True

    def finish(self, message: bytes) -> None:
        """Add the last message. Where nobody reads and it is too large to be kept, the stream is lost.

        A reader that was sent away comes back: for it any answer is kept, within what all streams hold together.
        """
        if self.closed or self.complete:
            return
        self._trim(len(message))
        large = self.size + len(message) > MAX_KEPT_BYTES and not self._was_paused
        if self.is_left and (not self._numbered or large):
            self.close()
            return
        self.complete = True
        self._append(message)

    def close(self) -> None:
        """End it at once, for its reader too; what is held goes."""
        self.closed = True
        self._kept.clear()
        self.size = 0
        self._wake()

    async def read(self, after: int | None, left_s: Callable[[], float]) -> AsyncGenerator[StreamEvent]:
        """Yield what comes after one number, until the stream ends, another reader comes, or the time is up.

        Args:
            after: number of the last event that was received; None for none.
            left_s: how long it may be read still.
        """
        self._reader += 1
        mine = self._reader
        self._reading = True
        self._wake()
        try:
            if after is None:
                after = 0
                if self._primed:
                    yield StreamEvent(b"", self._id(0))
            while (left := left_s()) > 0 and self._reader == mine and not self.closed:
                changed = self._changed = self._changed or asyncio.Event()
                found = self._following(after)
                if found is not None:
                    after, message = found
                    self._read = max(self._read, after)
                    self._trim(0)
                    yield StreamEvent(message, self._id(after))
                elif self.complete:
                    return
                elif self._retry_ms is not None:
                    retry_ms, self._retry_ms = self._retry_ms, None
                    yield StreamEvent(b"", self._id(after), retry_ms)
                    return
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await changed.wait()
        finally:
            if self._reader == mine:
                self._reading = False

    def _id(self, number: int) -> str:
        return f"{self.name}.{number}" if self._numbered else ""

    def _following(self, after: int) -> tuple[int, bytes] | None:
        """Return the first message that is held and comes after this number; numbers have no gaps."""
        if not self._kept:
            return None
        first = self._kept[0][0]
        index = max(0, after + 1 - first)
        return self._kept[index] if index < len(self._kept) else None

    def _append(self, message: bytes) -> None:
        self._last += 1
        self._kept.append((self._last, message))
        self.size += len(message)
        self._wake()

    def _trim(self, room: int) -> None:
        """Let go of what was read: at once where it cannot be read again, else as far as the bounds ask for."""
        while self._kept and self._kept[0][0] <= self._read:
            fits = len(self._kept) < MAX_KEPT and self.size + room <= MAX_KEPT_BYTES
            if self._numbered and fits:
                return
            _, message = self._kept.popleft()
            self.size -= len(message)

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def event_number(event_id: str) -> tuple[str, int] | None:
    """Return the stream's name and the number that an event id has; None where it is no event id."""
    name, dot, digits = event_id.rpartition(".")
    if not dot or not digits.isascii() or not digits.isdigit() or len(digits) > 9:  # noqa: PLR2004 -- fits any stream
        return None
    return name, int(digits)


def new_stream(name: str, owner: StreamOwner, revision: McpRevision) -> EventStream:
    """Return a stream as a revision has it: with ids where there are sessions, primed where clients know of that."""
    return EventStream(name, owner, numbered=bool(owner.session_id), primed=revision is McpRevision.V2025_11_25)
