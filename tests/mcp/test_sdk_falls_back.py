"""The official Python client, which probes for the stateless revision first, ends up in a session.

The server is a loopback stand-in for the edge: it answers with nothing but what ``sidecar.mcp`` says.
"""

from collections.abc import AsyncIterator

import mcp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.errors import MethodRefused, SidecarError
from sidecar.mcp import denials, jsonrpc, methods, revision, tools
from sidecar.mcp.jsonrpc import Request

SEEN: web.AppKey[list[tuple[str, str | None]]] = web.AppKey("seen")
CHECKS_ERA: web.AppKey[bool] = web.AppKey("checks_era")
SESSION = {"Mcp-Session-Id": "s1"}


def answer(message: Request) -> bytes:
    match message.method:
        case "initialize":
            agreed = revision.negotiate(tools.parse_initialize(message.params)[0])
            return jsonrpc.encode(tools.initialize_result(agreed, "0.1.0", "Ask first."))
        case "tools/list":
            tools.check_list_params(message.params)
            return tools.tools_list_result([{"name": "find", "inputSchema": {"type": "object"}}])
        case "tools/call":
            call = tools.parse_call(message.params)
            return denials.denial(f"Refused: {call.name}.", {denials.DECISION_KEY: {"allow": False}})
        case _:
            return b"{}"


async def post(request: web.Request) -> web.Response:
    message = jsonrpc.decode(await request.read())
    assert not isinstance(message, jsonrpc.Batch | jsonrpc.Response)
    request.app[SEEN].append((message.method, request.headers.get("MCP-Protocol-Version")))
    request_id = message.id if isinstance(message, Request) else None
    try:
        if request.app[CHECKS_ERA]:
            revision.check_era(request.headers.get("MCP-Protocol-Version"), message.params)
        if methods.classify(message) is methods.Treatment.REFUSE:
            raise MethodRefused
    except SidecarError as error:
        data = error.data if isinstance(error, revision.UnsupportedMcpRevision) else None
        body = jsonrpc.encode_error(request_id, error.code, error.public, data)
        return web.Response(body=body, content_type="application/json", status=400 if data else 404)
    if not isinstance(message, Request):
        return web.Response(status=202)
    body = jsonrpc.encode_result(message.id, answer(message))
    return web.Response(body=body, content_type="application/json", headers=SESSION)


async def not_allowed(_request: web.Request) -> web.Response:
    return web.Response(status=405)


@pytest.fixture(params=[True, False], ids=["era refused", "method refused"])
async def server(request) -> AsyncIterator[TestServer]:
    app = web.Application()
    app[SEEN], app[CHECKS_ERA] = [], request.param
    app.router.add_post("/mcp", post)
    app.router.add_get("/mcp", not_allowed)
    app.router.add_delete("/mcp", not_allowed)
    running = TestServer(app)
    await running.start_server()
    yield running
    await running.close()


async def test_a_client_in_mode_auto_probes_falls_back_and_works(server):
    async with mcp.Client(str(server.make_url("/mcp"))) as client:
        assert client.protocol_version == "2025-11-25"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["find"]
        result = await client.call_tool("find", {})
    assert result.is_error
    assert result.meta == {"mcp-sidecar/decision": {"allow": False}}
    assert server.app[SEEN][:2] == [("server/discover", "2026-07-28"), ("initialize", None)]
    assert ("tools/call", "2025-11-25") in server.app[SEEN]


async def test_a_client_that_only_speaks_the_handshake_works(server):
    async with mcp.Client(str(server.make_url("/mcp")), mode="legacy") as client:
        assert client.protocol_version == "2025-11-25"
        assert (await client.call_tool("find", {})).is_error


@pytest.mark.parametrize("server", [True], indirect=True)
async def test_a_client_pinned_to_the_stateless_revision_is_told_why_not(server):
    async with mcp.Client(str(server.make_url("/mcp")), mode="2026-07-28") as client:
        with pytest.raises(mcp.MCPError) as caught:
            await client.list_tools()
    assert caught.value.code == -32022
    assert caught.value.error.data == {"supported": ["2025-11-25"], "requested": "2026-07-28"}
