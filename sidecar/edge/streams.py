"""Server-sent events to one client: how they are written, and when there is nobody left to write them to."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from sidecar.enforcement import StreamEvent

KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment line; clients ignore it (WHATWG HTML, 9.2.6)."""


def frame(event: StreamEvent) -> bytes:
    """Return one server-sent event; a line break in its message cannot end it early.

    One without a message only tells its id (MCP 2025-11-25, transports, sending messages to the server).
    """
    head = b"id: %b\n" % event.id.encode() if event.id else b""
    if event.retry_ms is not None:
        head += b"retry: %d\n" % event.retry_ms
    if not event.message:
        return head + b"data: \n\n"
    data = event.message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return head + b"event: message\ndata: " + data + b"\n\n"


class PendingEvents:
    """The events of one stream, always with the next one already asked for.

    So that waiting for an event can be given up (a keep-alive is due, the client has left) without losing it. Use as
    ``async with``.
    """

    def __init__(self, events: AsyncIterator[StreamEvent]) -> None:
        self._events = events
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
        if isinstance(self._events, AsyncGenerator):
            with suppress(RuntimeError):  # it is still running only if it ignored its cancellation
                await self._events.aclose()

    async def until(self, gone: asyncio.Future[None], *, silence_s: float) -> AsyncGenerator[StreamEvent | None]:
        """Yield each event, and None whenever there was none for ``silence_s``; end with them, or when ``gone``."""
        while not gone.done():
            either: set[asyncio.Future[Any]] = {self._pending, gone}
            await asyncio.wait(either, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED)
            if self._pending.done():
                event = self._pending.result()
                if event is None:
                    return
                self._pending = asyncio.ensure_future(self._next())
                yield event
            elif not gone.done():
                yield None

    async def _next(self) -> StreamEvent | None:
        return await anext(self._events, None)
