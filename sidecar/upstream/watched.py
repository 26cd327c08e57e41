"""What a server was asked to tell of: resources that callers watch, and what it says of them.

A subscription is the connection's, and so is gone with a child or a session; it is made again for as long as
they do. Who that is, and whether they may still read, is known to enforcement only.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from sidecar.errors import UpstreamError, UpstreamRefused
from sidecar.model import Permit
from sidecar.upstream.messages import Outgoing, ServerNotification

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"

MAX_BYTES: Final = 16 * 1024
"""Parameters of one notification; longer ones are dropped."""

FAREWELLS_AT_ONCE: Final = 4
"""Subscriptions that are taken back at the same time; further ones wait."""


class _Updated(msgspec.Struct, gc=False):
    uri: str


_decode = msgspec.json.Decoder(_Updated).decode


def read_updated(params: bytes) -> str | None:
    """Return the URI of which a server says that it changed; None where it says something else."""
    if len(params) > MAX_BYTES:
        return None
    try:
        return _decode(params).uri
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class WatchedResources:
    """The resources of one server that callers watch.

    Args:
        send: sends a request to the server as it is now.
    """

    def __init__(self, send: Callable[[Outgoing], Awaitable[bytes]]) -> None:
        self._send = send
        self._wanted: dict[str, None] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._prompt_callbacks: list[Callable[[], None]] = []
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(FAREWELLS_AT_ONCE)
        self._renewing: asyncio.Task[None] | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        """What is watched."""
        return tuple(self._wanted)

    def on_update(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the URI of each watched resource that may have changed."""
        self._callbacks.append(callback)

    def on_prompts_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the list of prompts may have changed."""
        self._prompt_callbacks.append(callback)

    def heard(self, told: ServerNotification) -> None:
        """Take what the server says; of a resource that nobody watches it is nothing."""
        match told.method:
            case "notifications/resources/updated":
                uri = read_updated(told.params)
                if uri is not None and uri in self._wanted:
                    self._tell(uri)
            case "notifications/prompts/list_changed":
                for callback in self._prompt_callbacks:
                    asyncio.get_running_loop().call_soon(callback)
            case _:
                pass

    @asynccontextmanager
    async def asked(self, permit: Permit) -> AsyncIterator[None]:
        """Let a permitted call go to the server; where it asks to be told of a resource, that is watched from now on.

        What was taken back before is taken back at the server before, too.
        """
        uri = permit.call.arguments.get("uri") if permit.method == SUBSCRIBE else None
        if not isinstance(uri, str):
            yield
            return
        while (farewell := self._farewells.get(uri)) is not None:
            await asyncio.wait({farewell})
        self._wanted[uri] = None
        try:
            yield
        finally:
            if uri not in self._wanted:  # it was taken back meanwhile, perhaps before the server was asked
                self._bid_farewell(uri)

    def unwatch(self, uri: str) -> None:
        """Nobody watches it any more."""
        if uri in self._wanted:
            del self._wanted[uri]
            self._bid_farewell(uri)

    def renew(self, *, asking: bool = True) -> None:
        """Ask another child, or within another session, for all that is watched; it may have changed meanwhile.

        Args:
            asking: false where it is asked for in another way.
        """
        if self._renewing is not None:
            self._renewing.cancel()
        if self._wanted and asking:
            self._renewing = asyncio.create_task(self._renew(), name="watched resources")
        else:
            self.told_all()

    def told_all(self) -> None:
        """The server could not tell of anything for a while."""
        for uri in self.uris:
            self._tell(uri)

    async def stop(self) -> None:
        """Ask for nothing more."""
        tasks = {*self._farewells.values(), *([] if self._renewing is None else [self._renewing])}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _renew(self) -> None:
        for uri in self.uris:
            if uri in self._wanted:
                with suppress(UpstreamError):
                    await self._send(Outgoing(method=SUBSCRIBE, params={"uri": uri}))
                self._tell(uri)

    def _tell(self, uri: str) -> None:
        """Callbacks run in a later turn of the loop, so that a failure in one stops nothing here."""
        for callback in self._callbacks:
            asyncio.get_running_loop().call_soon(callback, uri)

    def _bid_farewell(self, uri: str) -> None:
        if uri not in self._farewells:
            task = self._farewells[uri] = asyncio.create_task(self._farewell(uri), name="unwatched resource")
            task.add_done_callback(lambda _task: self._farewells.pop(uri, None))

    async def _farewell(self, uri: str) -> None:
        def leaving() -> None:
            if uri in self._wanted:
                raise UpstreamRefused("it is watched again")

        async with self._turns:
            with suppress(UpstreamError):
                await self._send(Outgoing(method=UNSUBSCRIBE, params={"uri": uri}, leaving=leaving))
