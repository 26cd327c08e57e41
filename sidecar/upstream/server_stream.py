"""What a server behind a URL tells that belongs to no call: one stream of it, for as long as the server has one.

Within a session that is the GET leg (MCP 2025-11-25, transports), else ``subscriptions/listen`` (MCP 2026-07-28). A
server need not have either. A stream that ends is opened again, later each time it did not last. Where that fails, the
server is pinged, as after a call that failed (``recovery``); that a stream broke says little: proxies end idle ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from sidecar.errors import UpstreamError, UpstreamRefused, UpstreamUnreachable
from sidecar.mcp import EventDecoder
from sidecar.system import BackOff
from sidecar.upstream.answers import check_identity
from sidecar.upstream.connections import ServerAnswer
from sidecar.upstream.recovery import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, Recovery
from sidecar.upstream.server_session import ServerSession, SessionGone

MAX_EVENT_BYTES: Final = 64 * 1024
"""One message on such a stream; none that is acted on is longer."""

STABLE_S: Final = 60.0
"""A stream that lasted this long was well; the next one is opened promptly again."""


class ServerStream:
    """The stream of one server.

    Args:
        name: the server's.
        opened: opens it; raises UpstreamRefused or SessionGone where the server has none.
        take: acts on one message; returns the resources that the server says it will tell of, where it says that.
        missed: called where the stream was away for a while.
        recovery: told where the stream cannot be opened again.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], AbstractAsyncContextManager[tuple[ServerAnswer, ServerSession]]],
        take: Callable[[bytes, ServerSession], Awaitable[frozenset[str] | None]],
        missed: Callable[[], None],
        recovery: Recovery,
    ) -> None:
        self._name = name
        self._opened = opened
        self._take = take
        self._missed = missed
        self._recovery = recovery
        self._reading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._agreeing = asyncio.Lock()

    def begin(self) -> None:
        """Listen, within what is agreed with the server now."""
        self._replace(self._start(None))

    async def again(self) -> frozenset[str]:
        """Listen on another stream, which asks for what is wanted now; return the resources that are told of.

        The one before it is read until the server has agreed.

        Raises:
            UpstreamUnreachable: there is no such stream.
        """
        async with self._agreeing:
            agreed: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
            task = self._start(agreed)
            try:
                found = await agreed
            except asyncio.CancelledError:
                task.cancel()
                raise
            self._replace(task)
            return found

    async def stop(self) -> None:
        """Listen no more."""
        tasks = {*self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, agreed: asyncio.Future[frozenset[str]] | None) -> asyncio.Task[None]:
        task = asyncio.create_task(self._listen(agreed), name=f"stream of {self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _replace(self, task: asyncio.Task[None]) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = task

    async def _listen(self, agreed: asyncio.Future[frozenset[str]] | None) -> None:
        try:
            await self._reopened(agreed)
        finally:
            if agreed is not None and not agreed.done():
                agreed.set_exception(UpstreamUnreachable("the server has no stream for what it tells"))

    async def _reopened(self, agreed: asyncio.Future[frozenset[str]] | None) -> None:
        clock = asyncio.get_running_loop().time
        back_off = BackOff(FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
        openings = 0
        while True:
            began, before = clock(), openings
            try:
                async with self._opened() as (response, session):
                    openings += 1
                    if openings > 1:
                        self._missed()
                    await self._read(response, session, agreed)
            except (UpstreamRefused, SessionGone):
                return
            except (UpstreamError, OSError):
                if 0 < openings == before:
                    self._recovery.begin()
            if clock() - began >= STABLE_S:
                back_off.reset()
            await asyncio.sleep(back_off.pause())

    async def _read(
        self, response: ServerAnswer, session: ServerSession, agreed: asyncio.Future[frozenset[str]] | None
    ) -> None:
        check_identity(response)
        if response.content_type != "text/event-stream":
            raise UpstreamRefused("the answer is no event stream")
        decoder = EventDecoder(MAX_EVENT_BYTES)
        async for chunk in response.content.iter_any():
            for data in decoder.feed(chunk):
                resources = await self._take(data, session)
                if resources is not None and agreed is not None and not agreed.done():
                    agreed.set_result(resources)
