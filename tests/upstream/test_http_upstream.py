"""The server behind Streamable HTTP: the real one, and a double that stages faults."""

import asyncio
import contextlib
import logging
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from sidecar.errors import (
    ConfigurationError,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.server_session import PLAIN
from tests import parts
from tests.patience import HANG_S
from tests.starting import start_and_stop

SECRET = {"x-sidecar-secret": "correct-horse"}


# --- the real server --------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sse", "json"])
async def real_url(request, database, mcp_server_command, tmp_path_factory) -> AsyncIterator[str]:
    port = parts.free_port()
    home = tmp_path_factory.mktemp("home")
    environment = mongodb_environment(database, read_only=False) | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_TRANSPORT": "http",
        "MDB_MCP_HTTP_PORT": str(port),
        "MDB_MCP_HTTP_HEADERS": msgspec.json.encode(SECRET).decode(),
        "MDB_MCP_HTTP_RESPONSE_TYPE": request.param,
    }
    process = await asyncio.create_subprocess_exec(
        *mcp_server_command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(HANG_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        await process.wait()


def session_of(upstream: HttpUpstream) -> str:
    session_id = upstream._sessions[PLAIN].id
    assert session_id is not None
    return session_id


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
async def test_calls_through_one_session_get_their_own_answers(real_url, permit, structured, database_name):
    upstream = HttpUpstream("double", real_url, SECRET, timeout_s=30)
    await upstream.start()
    try:
        target = {"connectionId": "preconfigured", "database": database_name, "collection": "c"}
        inserted = await upstream.forward(permit("insert-many", **target, documents=[{"n": n} for n in range(50)]))
        assert inserted.documents == 50
        calls = [upstream.forward(permit("find", **target, filter={"n": n}, projection={"_id": 0})) for n in range(50)]
        answers = await asyncio.gather(*calls)
        assert [structured(answer)["documents"] for answer in answers] == [[{"n": n}] for n in range(50)]
        assert "find" in {tool["name"] for tool in await upstream.tools()}
        with pytest.raises(UpstreamRefused):
            await upstream.forward(permit("no-such-tool"))
        assert upstream.healthy
    finally:
        await upstream.stop()


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
async def test_the_real_server_is_called_without_a_session_where_that_is_preferred(
    real_url, permit, structured, database_name
):
    upstream = HttpUpstream("double", real_url, SECRET, timeout_s=30, prefer_stateless=True)
    await upstream.start()
    try:
        session = upstream._sessions[PLAIN]
        assert (session.revision, session.id) == ("2026-07-28", None)
        target = {"connectionId": "preconfigured", "database": database_name, "collection": "c"}
        await upstream.forward(permit("insert-many", **target, documents=[{"n": n} for n in range(20)]))
        calls = [upstream.forward(permit("find", **target, filter={"n": n}, projection={"_id": 0})) for n in range(20)]
        answers = await asyncio.gather(*calls)
        assert [structured(answer)["documents"] for answer in answers] == [[{"n": n}] for n in range(20)]
        assert "find" in {tool["name"] for tool in await upstream.tools()}
        with pytest.raises(UpstreamRefused):
            await upstream.forward(permit("no-such-tool"))
        assert upstream.healthy
    finally:
        await upstream.stop()


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("headers", [{}, {"x-sidecar-secret": "wrong"}, {"x-other": "correct-horse"}], ids=repr)
async def test_without_the_shared_secret_the_start_fails(real_url, headers):
    upstream = HttpUpstream("double", real_url, headers, timeout_s=30)
    with pytest.raises(UpstreamUnreachable, match="403"):
        await start_and_stop(upstream)
    assert not upstream.healthy


@pytest.mark.real
@pytest.mark.asyncio(loop_scope="module")
async def test_a_session_that_was_ended_is_opened_again_by_itself(real_url, permit, database_name):
    upstream = HttpUpstream("double", real_url, SECRET, timeout_s=30)
    await upstream.start()
    try:
        ended = session_of(upstream)
        async with (
            aiohttp.ClientSession() as outside,
            outside.delete(real_url, headers=SECRET | {"mcp-session-id": ended}) as response,
        ):
            assert response.status == 200
        target = {"connectionId": "preconfigured", "database": database_name, "collection": "c"}
        results = await asyncio.gather(*(upstream.forward(permit("count", **target)) for _ in range(8)))
        assert not [result for result in results if result.failed]
        assert session_of(upstream) != ended
    finally:
        await upstream.stop()


# --- a double that stages faults --------------------------------------------------------------------------------------

Fault = Callable[[web.Request, dict], Awaitable[web.StreamResponse]]


class Double:
    """A Streamable HTTP server that answers ``initialize`` and hands everything else to the test's fault."""

    def __init__(self) -> None:
        self.seen: list[tuple[web.Request, dict]] = []
        self.sessions = 0
        self.fault: Fault = self.fine
        self.url = ""
        self.replaced = False
        self.deaf = False
        self.of_replies = 202
        """The status with which what answers one of its own requests is taken."""
        self.resumed: Fault = self.fine
        """Answers who asks for the rest of a stream."""

    def methods(self) -> list[str]:
        return [message.get("method", "reply") for _, message in self.seen]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = msgspec.json.decode(await request.read() or b"{}")
        self.seen.append((request, message))
        if message.get("method") == "initialize":
            self.sessions += 1
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            return web.json_response(body, headers={"mcp-session-id": f"s{self.sessions}"})
        if "id" in message and "method" not in message:
            return web.Response(status=self.of_replies)
        if "Last-Event-ID" in request.headers:
            return await self.resumed(request, message)
        if "id" not in message:
            return web.Response(status=500 if self.deaf else 202)
        return await self.fault(request, message)

    async def fine(self, request: web.Request, message: dict) -> web.StreamResponse:
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}})


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    double = Double()
    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{any:.*}", double.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = parts.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    double.url = f"http://127.0.0.1:{port}/mcp"
    yield double
    await runner.cleanup()


@pytest.fixture
async def upstream(double: Double) -> AsyncIterator[HttpUpstream]:
    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=2.0)
    await upstream.start()
    yield upstream
    await upstream.stop()


def stream(*events: object, end: bool = True, raw: bytes = b"") -> Fault:
    async def fault(request: web.Request, message: dict) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            text = msgspec.json.encode(event).replace(b'"ID"', str(message["id"]).encode())
            await response.write(b"event: message\ndata: " + text + b"\n\n")
        await response.write(raw)
        if not end:
            await asyncio.Event().wait()
        return response

    return fault


ANSWER = {"jsonrpc": "2.0", "id": "ID", "result": {"content": []}}


async def test_exactly_the_permitted_call_and_our_own_headers_are_sent(upstream, double, permit):
    await upstream.forward(permit("find", traceparent="00-1-2-01", a={"b": [1.0]}))
    request, message = double.seen[-1]
    assert message["params"] == {
        "name": "find",
        "arguments": {"a": {"b": [1.0]}},
        "_meta": {"traceparent": "00-1-2-01"},
    }
    assert {name.lower(): value for name, value in request.headers.items() if name.lower() != "content-length"} == {
        "host": request.host,
        "x-sidecar-secret": "correct-horse",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "mcp-sidecar",
        "mcp-protocol-version": "2025-11-25",
        "mcp-session-id": "s1",
    }
    assert request.path_qs == "/mcp"


async def test_the_session_is_ended_on_stop(upstream, double):
    await upstream.stop()
    assert double.seen[-1][0].method == "DELETE"
    assert double.seen[-1][0].headers["mcp-session-id"] == "s1"


async def test_an_unknown_session_is_opened_once_more_for_all_and_the_call_sent_again(upstream, double, permit):
    async def fault(request, message):
        return (
            web.Response(status=404)
            if request.headers["mcp-session-id"] == "s1"
            else await double.fine(request, message)
        )

    double.fault = fault
    results = await asyncio.gather(*(upstream.forward(permit("echo")) for _ in range(10)))
    assert len(results) == 10
    assert double.sessions == 2
    numbers = [message["id"] for _, message in double.seen if "id" in message]
    assert len(numbers) == len(set(numbers))


def replaceable(double: Double, **newer_schema: object) -> Fault:
    """A server that ``double.replaced`` ends the first session of; in later ones, its tool has this schema besides."""

    async def fault(request: web.Request, message: dict) -> web.StreamResponse:
        newer = request.headers["mcp-session-id"] != "s1"
        if not newer and double.replaced:
            return web.Response(status=404)
        if message["method"] != "tools/list":
            answer: web.StreamResponse = await double.fine(request, message)
            return answer
        schema = {"type": "object"} | (newer_schema if newer else {})
        tools = [{"name": "find", "inputSchema": schema}]
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools}})

    return fault


async def test_a_call_that_meets_a_new_session_with_other_tools_is_not_sent(upstream, double, permit):
    double.fault = replaceable(double, minProperties=0)
    reviewed = await upstream.tools()
    await upstream.forward(replace(permit("find"), reviewed=reviewed))
    double.replaced = True
    left: list[str] = []
    call = replace(permit("find"), reviewed=reviewed, leaving=lambda: left.append("find"))
    with pytest.raises(UpstreamUnreachable, match="other tools"):
        await upstream.forward(call)
    with pytest.raises(UpstreamUnreachable, match="other tools"):
        await upstream.forward(call)
    sent = [
        request.headers["mcp-session-id"] for request, message in double.seen if message.get("method") == "tools/call"
    ]
    assert sent == ["s1", "s1"], "the second was refused with its session, before the tools were looked at"
    assert left == ["find"]
    await upstream.forward(replace(permit("find"), reviewed=await upstream.tools()))


async def test_calls_that_meet_a_new_session_with_the_reviewed_tools_are_sent(double, permit):
    """With one place: calls that look at the tools, and those who ask for the list, wait for no place they hold."""
    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=5.0, max_in_flight=1)
    await upstream.start()
    try:
        double.fault = replaceable(double)
        reviewed = await upstream.tools()
        double.replaced = True
        calls = [upstream.forward(replace(permit("find"), reviewed=reviewed)) for _ in range(4)]
        lists = [upstream.tools() for _ in range(2)]
        results, listed = await asyncio.gather(asyncio.gather(*calls), asyncio.gather(*lists))
        assert [result.failed for result in results] == [False] * 4
        assert listed[0] == reviewed
        assert double.methods().count("tools/call") == 5
    finally:
        await upstream.stop()


async def test_a_session_that_is_unknown_twice_is_an_error_and_no_loop(upstream, double, permit):
    async def fault(request, message):
        return web.Response(status=404)

    double.fault = fault
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("echo"))
    assert [name for name in double.methods() if name == "tools/call"] == ["tools/call"] * 2


async def test_an_answer_in_a_stream_is_found_among_other_messages(upstream, double, permit):
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    double.fault = stream(note, ANSWER, raw=b": bye\n\n")
    assert (await upstream.forward(permit("echo"))).result == b'{"content":[]}'


async def test_a_stream_that_stays_open_after_the_answer_holds_nobody(upstream, double, permit):
    double.fault = stream(ANSWER, end=False)
    assert not (await upstream.forward(permit("echo"))).failed


def polled(*, rest: Fault, retry: bytes = b"retry: 1\n") -> tuple[Fault, Fault]:
    """A server that ends the stream of a call after its first event, and what it answers to who asks for the rest."""

    async def fault(request: web.Request, message: dict) -> web.StreamResponse:
        number.append(message["id"])
        return await stream(raw=b"id: e1\n" + retry + b"data:\n\n")(request, message)

    async def resumed(request: web.Request, message: dict) -> web.StreamResponse:
        return await rest(request, {"id": number[-1]})

    number: list[int] = []
    return fault, resumed


def resumptions(double: Double) -> list[str]:
    return [one.headers["Last-Event-ID"] for one, _ in double.seen if "Last-Event-ID" in one.headers]


async def test_a_stream_that_its_server_ends_before_the_answer_is_gone_on_with(upstream, double, permit):
    told: list[object] = []
    pauses: list[int] = []
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "ID", "progress": 1}}
    once_more = stream(note, raw=b"id: e2\n\n")

    async def rest(request: web.Request, message: dict) -> web.StreamResponse:
        return await (once_more if len(resumptions(double)) == 1 else stream(ANSWER))(request, message)

    double.fault, double.resumed = polled(rest=rest)
    call = replace(permit("insert-many"), tell=lambda *said: told.append(said), paused=pauses.append)
    assert (await upstream.forward(call)).result == b'{"content":[]}'
    assert (resumptions(double), pauses) == (["e1", "e2"], [100, 1000])
    assert told == [("notifications/progress", {"progress": 1})]
    assert double.methods().count("tools/call") == 1
    asked = next(one for one, _ in double.seen if "Last-Event-ID" in one.headers)
    assert (asked.method, asked.headers["mcp-session-id"]) == ("GET", "s1")


@pytest.mark.parametrize("status", [400, 401, 404, 405, 503])
async def test_a_call_is_not_sent_again_because_its_stream_cannot_be_gone_on_with(upstream, double, permit, status):
    async def rest(_request: web.Request, _message: dict) -> web.StreamResponse:
        return web.Response(status=status)

    double.fault, double.resumed = polled(rest=rest)
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.forward(permit("insert-many"))
    assert caught.type is UpstreamUnreachable
    assert (double.methods().count("tools/call"), double.sessions) == (1, 1)


@pytest.mark.parametrize(
    "event_id", [b"", b"id: \n", b"id: two words\n", "id: é\n".encode(), b"id: " + b"x" * 513 + b"\n"]
)
async def test_a_stream_without_an_id_that_can_be_sent_back_is_not_asked_for_again(upstream, double, permit, event_id):
    double.fault = stream(raw=event_id + b"data:\n\n")
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("insert-many"))
    assert resumptions(double) == []


async def test_a_stream_that_never_comes_to_its_answer_takes_no_longer_than_a_call_may(double, permit):
    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=1.0)
    await upstream.start()
    double.fault, double.resumed = polled(rest=stream(raw=b"id: e1\nretry: 0\n\n"))
    with pytest.raises(UpstreamTimedOut):
        await upstream.forward(permit("insert-many"))
    assert 0 < len(resumptions(double)) <= 10, "a server that asks for no pause is not asked without one"
    await upstream.stop()


async def test_what_the_server_asks_in_a_stream_is_refused(upstream, double, permit):
    double.fault = stream({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {}}, ANSWER)
    await upstream.forward(permit("echo"))
    [reply] = [message for _, message in double.seen if "error" in message]
    assert (reply["id"], reply["error"]["code"]) == ("q", -32601)


@pytest.mark.parametrize("status", [404, 401, 403, 400, 500])
async def test_a_call_is_not_sent_again_because_an_answer_to_its_server_was_not_taken(upstream, double, permit, status):
    """The call is under way by then: only what was not looked at may be sent once more."""
    double.of_replies = status
    double.fault = stream({"jsonrpc": "2.0", "id": "q", "method": "ping"}, ANSWER)
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.forward(permit("insert-many"))
    assert caught.type is UpstreamUnreachable, "not one of those after which a call is sent again"
    assert double.methods().count("tools/call") == 1


async def test_a_server_that_only_asks_is_a_protocol_violation(upstream, double, permit):
    double.fault = stream(*[{"jsonrpc": "2.0", "id": n, "method": "roots/list"} for n in range(20)], ANSWER)
    with pytest.raises(UpstreamProtocolViolation):
        await upstream.forward(permit("echo"))


async def test_a_changed_tool_list_is_fetched_again(upstream, double, permit):
    async def tools(request, message):
        names = [{"name": f"t{len(double.seen)}"}]
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": names}})

    double.fault = tools
    first = await upstream.tools()
    assert await upstream.tools() is first, "the same object says that nothing changed"
    double.fault = stream({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}, ANSWER)
    await upstream.forward(permit("echo"))
    double.fault = tools
    assert await upstream.tools() != first


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Fault:
    async def fault(request: web.Request, message: dict) -> web.StreamResponse:
        text = body.replace(b"ID", str(message["id"]).encode())
        return web.Response(status=status, body=text, headers={key.replace("_", "-"): headers[key] for key in headers})

    return fault


JSON = {"content_type": "application/json"}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (answering(302, location="http://127.0.0.1:1/"), UpstreamProtocolViolation),
        (answering(307, location="/elsewhere"), UpstreamProtocolViolation),
        (answering(204), UpstreamProtocolViolation),
        (answering(400, b"{}", **JSON), UpstreamRefused),
        (answering(413), UpstreamRefused),
        (answering(401), UpstreamUnreachable),
        (answering(403), UpstreamUnreachable),
        (answering(500), UpstreamUnreachable),
        (answering(503), UpstreamUnreachable),
        (
            answering(200, b'{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}', content_type="text/html"),
            UpstreamProtocolViolation,
        ),
        (
            answering(200, b'{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}', **JSON, content_encoding="gzip"),
            UpstreamProtocolViolation,
        ),
        (answering(200, b'{"jsonrpc":"2.0","id":999,"result":{"content":[]}}', **JSON), UpstreamProtocolViolation),
        (answering(200, b'{"jsonrpc":"2.0","id":"ID","result":{"content":[]}}', **JSON), UpstreamProtocolViolation),
        (answering(200, b'[{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}]', **JSON), UpstreamProtocolViolation),
        (answering(200, b"", **JSON), UpstreamProtocolViolation),
        (answering(202), UpstreamProtocolViolation),
        (answering(200, b'{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"m"}}', **JSON), UpstreamRefused),
        (stream(), UpstreamUnreachable),
        (stream({"jsonrpc": "2.0", "id": 999, "result": {"content": []}}), UpstreamProtocolViolation),
        (stream(raw=b"data: {\n\n"), UpstreamProtocolViolation),
        (stream(end=False), UpstreamTimedOut),
    ],
)
async def test_an_answer_that_is_none_ends_in_its_own_error_and_the_next_call_works(
    upstream, double, permit, fault, error
):
    double.fault = fault
    with pytest.raises(error):
        await upstream.forward(permit("echo"))
    assert "/elsewhere" not in {request.path for request, _ in double.seen}
    double.fault = double.fine
    assert not (await upstream.forward(permit("echo"))).failed


async def test_an_answer_over_the_limit_is_a_protocol_violation(double, permit):
    async def huge(request, message):
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        for _ in range(65):
            await response.write(b" " * 2**20)
        return response

    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=60)
    await upstream.start()
    double.fault = huge
    with pytest.raises(UpstreamProtocolViolation):
        await upstream.forward(permit("echo"))
    await upstream.stop()


async def test_a_call_that_was_lost_with_its_connection_is_not_sent_again(upstream, double, permit):
    async def drop(request, message):
        request.transport.close()
        return web.Response()

    double.fault = drop
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("insert-many"))
    assert double.methods().count("tools/call") == 1


async def test_health_follows_the_server_and_returns_by_itself(upstream, double, permit, until):
    assert upstream.healthy
    double.fault = answering(503)
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("echo"))
    assert not upstream.healthy
    double.fault = double.fine
    await until(lambda: upstream.healthy)


async def test_a_server_that_hangs_is_not_waited_for_by_every_call_and_is_found_again(double, permit, until):
    async def hang(request: web.Request, message: dict) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=0.5)
    await upstream.start()
    try:
        double.fault = hang
        with pytest.raises(UpstreamTimedOut):
            await upstream.forward(permit("find"))
        await until(lambda: upstream.refusing, 60)
        sent = double.methods().count("tools/call")
        for _ in range(20):
            with pytest.raises(UpstreamUnreachable, match="not sent"):
                await upstream.forward(permit("find"))
        assert double.methods().count("tools/call") == sent
        double.fault = double.fine
        await until(lambda: upstream.healthy, 60)
        assert not upstream.refusing
        await upstream.forward(permit("find"))
        assert double.methods().count("tools/call") == sent + 1
    finally:
        await upstream.stop()


async def test_one_slow_call_opens_no_circuit(double, permit, until):
    slow = asyncio.Event()

    async def once(request: web.Request, message: dict) -> web.StreamResponse:
        if message["method"] == "tools/call" and not slow.is_set():
            slow.set()
            await asyncio.Event().wait()
        answer: web.StreamResponse = await double.fine(request, message)
        return answer

    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=0.5)
    await upstream.start()
    try:
        double.fault = once
        with pytest.raises(UpstreamTimedOut):
            await upstream.forward(permit("find"))
        results = await asyncio.gather(*(upstream.forward(permit("find")) for _ in range(8)))
        assert not [result for result in results if result.failed]
        assert not upstream.refusing
        await until(lambda: upstream.healthy)
    finally:
        await upstream.stop()


async def test_a_cancelled_call_is_cancelled_at_the_server(upstream, double, permit, until):
    double.fault = stream(end=False)
    call = asyncio.create_task(upstream.forward(permit("echo")))
    await until(lambda: "tools/call" in double.methods())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: "notifications/cancelled" in double.methods())
    sent = {message["method"]: message for _, message in double.seen if "method" in message}
    assert sent["notifications/cancelled"]["params"] == {"requestId": sent["tools/call"]["id"]}


async def test_cancellations_that_cannot_be_delivered_do_not_fill_the_log(upstream, double, permit, until, caplog):
    double.fault = stream(end=False)
    double.deaf = True
    with caplog.at_level(logging.INFO):
        calls = [asyncio.create_task(upstream.forward(permit("echo"))) for _ in range(40)]
        await until(lambda: double.methods().count("tools/call") == 40)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not upstream._cancellations)
    said = [line for line in caplog.messages if "was not delivered" in line]
    assert 0 < len(said) <= 40 // 2
    assert double.methods().count("notifications/cancelled") == 40


async def test_nothing_listens_is_unreachable_and_nothing_is_left_open(permit):
    upstream = HttpUpstream("double", f"http://127.0.0.1:{parts.free_port()}/mcp", SECRET, timeout_s=5)
    with pytest.raises(UpstreamUnreachable):
        await start_and_stop(upstream)
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("echo"))


async def test_a_permit_for_another_server_is_refused(upstream, double, permit):
    with pytest.raises(UpstreamRefused):
        await upstream.forward(permit("echo", server="other"))
    assert "tools/call" not in double.methods()


async def test_proxies_of_the_environment_are_not_used(double, permit, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    upstream = HttpUpstream("double", double.url, SECRET, timeout_s=5)
    await upstream.start()
    await upstream.stop()


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://h/mcp", {}),
        ("mcp", {}),
        ("", {}),
        ("http://u:p@h/mcp", {}),
        ("http://h/mcp?mongodbMcpReadOnly=false", {}),
        ("http://h/mcp#x", {}),
        ("http://h/mcp", {"x y": "v"}),
        ("http://h/mcp", {"x": "v\r\nInjected: 1"}),
        ("http://h/mcp", {"x": ""}),
        ("http://h/mcp", {"x": "é"}),
        ("http://h/mcp", {"MCP-Session-Id": "v"}),
        ("http://h/mcp", {"Host": "v"}),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_a_configuration_error(url, headers):
    with pytest.raises(ConfigurationError):
        HttpUpstream("double", url, headers, timeout_s=1)
