"""What a server behind a URL tells that belongs to no call, in both eras; with a server that does as a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgspec
import pytest
from aiohttp import web

from sidecar.errors import UpstreamRefused, UpstreamUnreachable
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.server_stream import MAX_EVENT_BYTES
from tests import parts
from tests.patience import HANG_S, until

pytestmark = pytest.mark.timeout(HANG_S)

CHANGED = {"method": "notifications/tools/list_changed"}
META = "io.modelcontextprotocol/subscriptionId"


def updated(uri: str) -> dict:
    return {"method": "notifications/resources/updated", "params": {"uri": uri}}


class Telling:
    """A server whose stream can be written to; it speaks with a handshake or without one."""

    def __init__(self) -> None:
        self.stateless = False
        self.refuses: int | None = None
        """The status that its stream is refused with."""
        self.honours: Callable[[str], bool] = lambda _uri: True
        self.streams: list[web.StreamResponse] = []
        self.filters: list[dict] = []
        self.open: set[int] = set()
        self.seen: list[dict] = []
        self.ended = asyncio.Event()
        self.url = ""
        self.stop: Callable[[], Awaitable[None]]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(status=405) if self.stateless else await self.stream(request, None)
        message = msgspec.json.decode(await request.read())
        self.seen.append(message)
        if "method" not in message:
            return web.Response(status=202)
        if message["method"] == "subscriptions/listen" and self.stateless:
            return await self.stream(request, message)
        if (message["method"] in {"initialize", "ping"} and self.stateless) or "id" not in message:
            return web.Response(status=404 if "id" in message else 202)
        result = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}},
            "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
            "tools/list": {"tools": [{"name": "find", "inputSchema": {}}]},
        }.get(message["method"], {})
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def stream(self, request: web.Request, listen: dict | None) -> web.StreamResponse:
        if self.refuses is not None:
            return web.Response(status=self.refuses)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        number = len(self.streams)
        self.streams.append(response)
        self.open.add(number)
        try:
            if listen is not None:
                wanted = listen["params"]["notifications"]
                self.filters.append(wanted)
                honoured = [uri for uri in wanted.get("resourceSubscriptions", ()) if self.honours(uri)]
                told = {"notifications": {"resourceSubscriptions": honoured}, "_meta": {META: listen["id"]}}
                await self.tell({"method": "notifications/subscriptions/acknowledged", "params": told})
            await self.ended.wait()
        finally:
            self.open.discard(number)
        return response

    async def tell(self, message: dict) -> None:
        await self.streams[-1].write(b"data: " + msgspec.json.encode({"jsonrpc": "2.0"} | message) + b"\n\n")

    def breaks(self) -> None:
        """Break every stream that there is off, as a proxy does with idle ones."""
        for number in self.open:
            request = self.streams[number]._req
            if request is not None and request.transport is not None:
                request.transport.abort()

    def end(self) -> None:
        """End every stream that there is."""
        self.ended.set()
        self.ended = asyncio.Event()

    def asked(self, method: str) -> list[dict]:
        return [one for one in self.seen if one.get("method") == method]


@pytest.fixture
async def server() -> AsyncIterator[Telling]:
    server = Telling()
    application = web.Application()
    application.router.add_route("*", "/mcp", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = parts.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    server.url = f"http://127.0.0.1:{port}/mcp"
    server.stop = runner.cleanup
    yield server
    await runner.cleanup()


@pytest.fixture(autouse=True)
def promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("recovery", "server_stream"):
        monkeypatch.setattr(f"sidecar.upstream.{module}.FIRST_BACKOFF_S", 0.01)


@asynccontextmanager
async def started(server: Telling, *, stateless: bool) -> AsyncIterator[HttpUpstream]:
    server.stateless = stateless
    upstream = HttpUpstream("double", server.url, {}, timeout_s=5.0, prefer_stateless=stateless)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()
        await until(lambda: not server.open)


async def watch(upstream: HttpUpstream, permit, uri: str) -> None:
    await upstream.forward(replace(permit("name", uri=uri), method="resources/subscribe"))


@pytest.mark.parametrize("stateless", [False, True])
async def test_a_change_of_tools_is_known_without_a_call(server, stateless):
    async with started(server, stateless=stateless) as upstream:
        changes: list[int] = []
        upstream.on_tools_changed(lambda: changes.append(1))
        await upstream.tools()
        await until(lambda: server.open)
        await server.tell(CHANGED)
        await until(lambda: changes)
        await upstream.tools()
        assert len(server.asked("tools/list")) == 2


@pytest.mark.parametrize("stateless", [False, True])
async def test_what_is_watched_is_told_and_nothing_else(server, permit, stateless):
    async with started(server, stateless=stateless) as upstream:
        told: list[str] = []
        upstream.on_updated(told.append)
        for uri in ("x://1", "x://2"):
            await watch(upstream, permit, uri)
        await until(lambda: len(server.open) == 1)
        for uri in ("x://2", "x://3", "x://1"):
            await server.tell(updated(uri))
        await until(lambda: len(told) == 2)
        assert told == ["x://2", "x://1"]
        upstream.unwatch("x://2")
        for uri in ("x://2", "x://1"):
            await server.tell(updated(uri))
        await until(lambda: len(told) == 3)
        assert told[-1] == "x://1"
        if stateless:
            assert server.filters[-1] == {
                "toolsListChanged": True,
                "promptsListChanged": True,
                "resourceSubscriptions": ["x://1", "x://2"],
            }
            assert not server.asked("resources/subscribe")
        else:
            await until(lambda: server.asked("resources/unsubscribe"))
            assert [one["params"] for one in server.asked("resources/unsubscribe")] == [{"uri": "x://2"}]


async def test_what_a_server_does_not_honour_is_refused(server, permit):
    async with started(server, stateless=True) as upstream:
        server.honours = lambda uri: uri == "x://1"
        await watch(upstream, permit, "x://1")
        with pytest.raises(UpstreamRefused):
            await watch(upstream, permit, "x://2")
        upstream.unwatch("x://2")
        server.refuses = 400
        with pytest.raises(UpstreamUnreachable):
            await watch(upstream, permit, "x://3")


@pytest.mark.parametrize("stateless", [False, True])
async def test_a_stream_that_ends_is_opened_again_and_what_is_watched_may_have_changed(server, permit, stateless):
    async with started(server, stateless=stateless) as upstream:
        told: list[str] = []
        upstream.on_updated(told.append)
        await watch(upstream, permit, "x://1")
        await until(lambda: len(server.open) == 1)
        before = len(server.streams)
        server.end()
        await until(lambda: len(server.streams) > before and told)
        assert told == ["x://1"]
        await until(lambda: server.open)
        await server.tell(updated("x://1"))
        await until(lambda: len(told) == 2)
        assert upstream.healthy


@pytest.mark.parametrize("stateless", [False, True])
async def test_a_stream_that_breaks_is_opened_again_and_the_server_counts_as_well(server, stateless):
    async with started(server, stateless=stateless) as upstream:
        await until(lambda: server.open)
        alive = "server/discover" if stateless else "ping"
        pings = len(server.asked(alive))
        for _ in range(3):
            before = len(server.streams)
            server.breaks()
            await until(lambda: len(server.streams) > before and upstream.healthy)  # noqa: B023 - awaited at once
        assert len(server.asked(alive)) == pings


async def test_a_server_that_went_away_is_known_to_be_away_without_a_call(server):
    async with started(server, stateless=False) as upstream:
        await until(lambda: server.open)
        server.refuses = 503
        server.breaks()
        await until(lambda: server.asked("ping"))
        assert not upstream.refusing, "it answers pings"
        await server.stop()
        await until(lambda: upstream.refusing and not upstream.healthy)


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_server_without_a_stream_is_asked_once(server, status):
    server.refuses = status
    asked = 0

    async def counted(request: web.Request, listen: dict | None) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=status)

    server.stream = counted
    async with started(server, stateless=False) as upstream:
        await until(lambda: asked)
        await asyncio.sleep(0.1)
        assert (asked, upstream.healthy) == (1, True)
        await upstream.tools()


async def test_a_ping_on_the_stream_is_answered_and_nothing_else_is_asked_there(server):
    async with started(server, stateless=False):
        await until(lambda: server.open)
        await server.tell({"id": 1, "method": "ping"})
        await server.tell({"id": 2, "method": "elicitation/create", "params": {}})
        await server.tell({"id": 3, "method": "roots/list"})
        replies: list[dict] = []

        def come() -> bool:
            replies[:] = [one for one in server.seen if "method" not in one]
            return len(replies) == 3

        await until(come)
        assert replies[0]["result"] == {}
        assert [one["error"]["code"] for one in replies[1:]] == [-32601, -32601]


async def test_a_stream_of_garbage_ends_and_no_call_fails(server):
    async with started(server, stateless=False) as upstream:
        await until(lambda: server.open)
        for junk in (
            b"data: {]\n\n",
            b"\xff\xfe\n\n",
            b"data: [1]\n\n",
            b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n',
        ):
            await server.streams[-1].write(junk)
        before = len(server.streams)
        with suppress(ConnectionError):
            await server.streams[-1].write(b"data: " + b"x" * (MAX_EVENT_BYTES + 1))
        await until(lambda: len(server.streams) > before)
        assert len(await upstream.tools()) == 1
