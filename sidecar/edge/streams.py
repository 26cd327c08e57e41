"""The open GET streams: one for each session, all of them ended on shutdown."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self, TypeAlias

from sidecar.errors import StreamConflict

StreamKey: TypeAlias = Hashable
"""What has one stream at a time: a session with the caller's own identity, so that no caller blocks another's stream or
learns of it; or the answer to one request, which is its own key."""

KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment line; clients ignore it (M-08)."""


class Streams:
    """Which streams are open, and the signal that ends each."""

    def __init__(self) -> None:
        self._open: dict[StreamKey, asyncio.Event] = {}
        self._closing = False

    @contextmanager
    def claim(self, key: StreamKey) -> Iterator[asyncio.Event]:
        """Hold a session's one stream, which ends an earlier one; the event says when it has to end.

        Raises:
            StreamConflict: the listener is shutting down.
        """
        if self._closing:
            raise StreamConflict("shutting down")
        if (earlier := self._open.get(key)) is not None:
            earlier.set()
        ending = self._open[key] = asyncio.Event()
        try:
            yield ending
        finally:
            if self._open.get(key) is ending:
                del self._open[key]

    def close(self) -> None:
        """End all streams and accept no more."""
        self._closing = True
        for ending in self._open.values():
            ending.set()

    def __len__(self) -> int:
        return len(self._open)


def frame(message: bytes) -> bytes:
    """Return one encoded JSON-RPC message as a server-sent event; a line break in it cannot end the event early."""
    data = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"event: message\ndata: " + data + b"\n\n"


class StreamMessages:
    """The messages for one stream, always with the next one already asked for.

    So that waiting for a message can be given up (a keep-alive is due, the client has left) without losing it. Use as
    ``async with``.
    """

    def __init__(self, messages: AsyncIterator[bytes]) -> None:
        self._messages = messages
        self._pending = asyncio.ensure_future(self._next())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.cancel()
        await asyncio.wait({self._pending})
        if not self._pending.cancelled():
            self._pending.exception()  # seen, so that asyncio does not report it as lost
        if isinstance(self._messages, AsyncGenerator):
            with suppress(RuntimeError):  # it is still running only if it ignored its cancellation
                await self._messages.aclose()

    async def events(
        self, ending: asyncio.Event, gone: Callable[[], bool], *, silence_s: float, look_s: float
    ) -> AsyncGenerator[bytes | None]:
        """Yield each message, and None whenever there was none for ``silence_s``.

        Ends with the messages, with ``ending``, or at most ``look_s`` after ``gone`` says so.

        Raises:
            SidecarError: the session has ended in a way that is an error.
        """
        clock = asyncio.get_running_loop().time
        ended = asyncio.ensure_future(ending.wait())
        spoke = clock()
        try:
            while not ending.is_set() and not gone():
                await asyncio.wait(
                    {self._pending, ended}, timeout=min(look_s, silence_s), return_when=asyncio.FIRST_COMPLETED
                )
                if self._pending.done():
                    message = self._pending.result()
                    if message is None:
                        return
                    self._pending = asyncio.ensure_future(self._next())
                elif clock() - spoke >= silence_s:
                    message = None
                else:
                    continue
                yield message
                spoke = clock()
        finally:
            ended.cancel()

    async def _next(self) -> bytes | None:
        return await anext(self._messages, None)
