"""A server behind HTTP that has no handshake (MCP 2026-07-28), and headers that change while it serves."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
from aiohttp import web

from sidecar.errors import ConfigurationError, UpstreamProtocolViolation, UpstreamRefused, UpstreamUnreachable
from sidecar.model import JsonObject
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.stateless import mirrored_headers, with_envelope
from tests import parts
from tests.starting import start_and_stop

REVISION = "2026-07-28"
META = "io.modelcontextprotocol/"
TOOLS: list[JsonObject] = [
    {
        "name": "find",
        "inputSchema": {
            "type": "object",
            "properties": {
                "database": {"type": "string", "x-mcp-header": "Database"},
                "limit": {"type": "integer", "x-mcp-header": "Limit"},
                "deep": {"type": "object", "properties": {"flag": {"type": "boolean", "x-mcp-header": "Flag"}}},
                "bad": {"type": "string", "x-mcp-header": "a b"},
            },
        },
    }
]


class Modern:
    """A server of 2026-07-28 that checks what it is sent, and whose era and secret can change."""

    def __init__(self) -> None:
        self.seen: list[tuple[web.Request, dict]] = []
        self.secret = "one"
        self.handshake = False
        self.result: dict = {"content": [], "resultType": "complete"}
        self.discovered: dict = {"supportedVersions": [REVISION], "capabilities": {"tools": {}}}
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = 0
        self.prompts: list[JsonObject] = [{"name": "summary", "description": "as reviewed"}]
        self.url = ""

    def methods(self) -> list[str]:
        """What it was asked, besides for a stream that it does not have."""
        found = [message.get("method", "reply") for _, message in self.seen]
        return [method for method in found if method != "subscriptions/listen"]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("x-secret") != self.secret:
            return web.Response(status=403)
        if request.method != "POST":
            return web.Response(status=405)
        message = msgspec.json.decode(await request.read())
        self.seen.append((request, message))
        return await (self.old(message) if self.handshake else self.modern(request, message))

    async def old(self, message: dict) -> web.StreamResponse:
        if message["method"] == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})
        if message["method"].startswith("notifications/"):
            return web.Response(status=202)
        if message.get("params", {}).get("_meta", {}).get(f"{META}protocolVersion"):
            return self.error(message, 400, -32022)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"content": [], "tools": TOOLS}})

    async def modern(self, request: web.Request, message: dict) -> web.StreamResponse:
        params = message.get("params", {})
        meta = params.get("_meta", {})
        if message["method"] == "initialize":
            return self.error(message, 404, -32601)
        if request.headers.get("MCP-Protocol-Version") != REVISION:
            return self.error(message, 400, -32022)
        mirrored = (request.headers.get("MCP-Protocol-Version"), request.headers.get("Mcp-Method"))
        if mirrored != (meta.get(f"{META}protocolVersion"), message["method"]) or mirrored[0] != REVISION:
            return self.error(message, 400, -32020)
        if message["method"] == "tools/call" and request.headers.get("Mcp-Name") != params["name"]:
            return self.error(message, 400, -32020)
        if meta.get(f"{META}clientCapabilities") != {} or "Mcp-Session-Id" in request.headers:
            return self.error(message, 400, -32602)
        match message["method"]:
            case "server/discover":
                result = self.discovered
            case "tools/list":
                result = {"tools": TOOLS, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
            case "prompts/list":
                result = {"prompts": self.prompts, "resultType": "complete"}
            case "prompts/get":
                result = {"messages": [], "resultType": "complete"}
            case "tools/call" if params["name"] == "find":
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.closed += 1
                    raise
                result = self.result
            case _:
                return self.error(message, 400, -32602)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def error(self, message: dict, status: int, code: int) -> web.Response:
        body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": "no"}}
        return web.json_response(body, status=status)


@pytest.fixture
async def modern() -> AsyncIterator[Modern]:
    modern = Modern()
    application = web.Application()
    application.router.add_route("*", "/mcp", modern.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = parts.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    modern.url = f"http://127.0.0.1:{port}/mcp"
    yield modern
    await runner.cleanup()


@pytest.fixture
async def upstream(modern: Modern) -> AsyncIterator[HttpUpstream]:
    upstream = HttpUpstream("double", modern.url, {"x-secret": "one"}, timeout_s=5.0)
    await upstream.start()
    yield upstream
    await upstream.stop()


async def test_a_prompt_that_changed_since_it_was_looked_at_is_not_asked_for(upstream, modern, permit):
    use = replace(permit("p", name="summary"), method="prompts/get", reviewed=await upstream.prompts())
    await upstream.forward(use)
    modern.prompts = [{"name": "summary", "description": "another one"}]
    with pytest.raises(UpstreamUnreachable, match="other prompts"):
        await upstream.forward(use)
    assert modern.methods().count("prompts/get") == 1
    await upstream.forward(replace(use, reviewed=await upstream.prompts()))


async def test_a_server_without_a_handshake_is_asked_what_it_speaks_and_called(upstream, modern, permit):
    await upstream.tools()
    result = await upstream.forward(
        permit("find", database="sälés", limit=5, deep={"flag": True}, bad="x", traceparent="00-" + "a" * 32)
    )
    assert not result.failed
    assert modern.methods() == ["initialize", "server/discover", "tools/list", "tools/call"]
    request, message = modern.seen[-1]
    assert message["params"]["arguments"] == {"database": "sälés", "limit": 5, "deep": {"flag": True}, "bad": "x"}
    assert message["params"]["_meta"]["traceparent"].startswith("00-")
    assert request.headers["Mcp-Param-Database"] == f"=?base64?{base64.b64encode('sälés'.encode()).decode()}?="
    assert (request.headers["Mcp-Param-Limit"], request.headers["Mcp-Param-Flag"]) == ("5", "true")
    assert not [name for name in request.headers if "a b" in name]
    assert upstream.healthy
    await upstream.stop()
    assert len(modern.methods()) == 4, "there is no session to end"


@pytest.mark.parametrize("kind", ["input_required", "task", "unheard-of"])
async def test_a_result_that_is_not_complete_is_a_violation(upstream, modern, permit, kind):
    modern.result = {"content": [], "resultType": kind, "inputRequests": {}}
    with pytest.raises(UpstreamProtocolViolation, match="complete"):
        await upstream.forward(permit("find"))
    modern.result = {"content": []}
    assert not (await upstream.forward(permit("find"))).failed, "an older result type is complete"


async def test_an_error_in_a_body_with_status_400_is_a_refusal(upstream, modern, permit):
    with pytest.raises(UpstreamRefused, match="-32602"):
        await upstream.forward(permit("no-such-tool"))
    assert upstream.healthy


async def test_a_cancelled_call_closes_its_connection_and_sends_nothing(upstream, modern, permit, until):
    modern.gate.clear()
    call = asyncio.create_task(upstream.forward(permit("find")))
    await until(lambda: "tools/call" in modern.methods())
    call.cancel()
    await until(lambda: modern.closed == 1)
    assert "notifications/cancelled" not in modern.methods()


async def test_a_server_of_the_other_era_that_takes_its_place_is_found_out_and_no_call_fails(upstream, modern, permit):
    await upstream.forward(permit("find"))
    modern.handshake = True
    assert not (await upstream.forward(permit("find"))).failed
    modern.handshake = False
    assert not (await upstream.forward(permit("find"))).failed
    assert upstream.healthy


@pytest.mark.parametrize(
    "discovered",
    [
        {"supportedVersions": ["2027-01-01"], "capabilities": {"tools": {}}},
        {"supportedVersions": [REVISION], "capabilities": {}},
        {"supportedVersions": REVISION, "capabilities": {"tools": {}}},
        {"capabilities": {"tools": {}}},
    ],
    ids=["revision", "no-tools", "type", "nothing"],
)
async def test_a_server_that_speaks_nothing_that_is_spoken_here_fails_the_start(modern, discovered):
    modern.discovered = discovered
    with pytest.raises(UpstreamRefused):
        await start_and_stop(HttpUpstream("double", modern.url, {"x-secret": "one"}, timeout_s=5.0))
    assert modern.methods() == ["initialize", "server/discover"]


# --- the headers change -----------------------------------------------------------------------------------------------


class Headers:
    """A file of headers."""

    def __init__(self) -> None:
        self.now = {"x-secret": "one"}
        self.read = 0
        self.damaged = False

    def __call__(self) -> dict[str, str]:
        self.read += 1
        if self.damaged:
            raise ConfigurationError("lines are Name: value")
        return self.now


@pytest.mark.parametrize("handshake", [True, False], ids=["handshake", "stateless"])
async def test_a_new_secret_is_taken_up_when_the_server_takes_no_other_and_no_call_fails(modern, permit, handshake):
    modern.handshake = handshake
    headers = Headers()
    upstream = HttpUpstream("double", modern.url, headers.now, timeout_s=5.0, renewed=headers)
    await upstream.start()
    try:
        for secret in ("two", "three"):
            headers.now = {"x-secret": secret}
            assert not (await upstream.forward(permit("find"))).failed, "the server still takes the old one"
            modern.secret = secret
            results = await asyncio.gather(*(upstream.forward(permit("find")) for _ in range(8)))
            assert not [result for result in results if result.failed]
            assert upstream.healthy
        calls = [message for _, message in modern.seen if message["method"] == "tools/call"]
        assert len(calls) == 18, "none was carried out twice"
    finally:
        await upstream.stop()


async def test_headers_that_are_refused_and_damaged_are_told_once_and_taken_up_when_mended(
    modern, permit, caplog, until
):
    headers = Headers()
    upstream = HttpUpstream("double", modern.url, headers.now, timeout_s=5.0, renewed=headers)
    await upstream.start()
    try:
        modern.secret = "two"
        headers.damaged = True
        for _ in range(5):
            with pytest.raises(UpstreamUnreachable, match="403"):
                await upstream.forward(permit("find"))
        assert sum("cannot be had" in record.message for record in caplog.records) == 1
        headers.damaged, headers.now = False, {"x-secret": "two"}
        await until(lambda: upstream.healthy)
        assert not (await upstream.forward(permit("find"))).failed
    finally:
        await upstream.stop()


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_the_envelope_is_added_to_what_is_there():
    found = with_envelope(
        {"name": "find", "_meta": {"progressToken": 7, f"{META}protocolVersion": "other"}}, frozenset()
    )
    meta = found.pop("_meta")
    assert isinstance(meta, dict)
    assert (meta["progressToken"], meta[f"{META}protocolVersion"]) == (7, REVISION)
    assert found == {"name": "find"}


@pytest.mark.parametrize("name", ["", " find", "fi\nnd", "f\u00fcnd", "=?base64?x?=", "find\t"])
def test_a_name_that_no_header_carries_is_encoded(name):
    value = mirrored_headers("tools/call", {"name": name, "arguments": {}}, [])["Mcp-Name"]
    assert value.isascii()
    assert value.isprintable()
    encoded = value.removeprefix("=?base64?").removesuffix("?=")
    assert base64.b64decode(encoded).decode() == name


@pytest.mark.parametrize(
    "arguments", [{}, {"database": None}, {"database": 1.5}, {"database": []}, {"deep": "x"}, {"deep": {"flag": {}}}]
)
def test_an_argument_that_has_no_header_form_is_not_repeated(arguments):
    found = mirrored_headers("tools/call", {"name": "find", "arguments": arguments}, TOOLS)
    assert not [header for header in found if header.startswith("Mcp-Param-")]
