"""A server behind HTTP that asks as it should not: too much, too often, too late, or what was not offered.

The servers are staged; ``tests/integration/test_server_questions.py`` has a real one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import msgspec
import pytest
from aiohttp import web

from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused
from sidecar.model import JsonObject, Permit, ToolCall
from sidecar.questions import CallQuestions, ClientLacks, QuestionKind, QuestionUnanswered, ServerQuestion
from sidecar.upstream.asking import MAX_OPEN, MAX_REQUESTS, CallTime
from sidecar.upstream.http import HttpUpstream
from tests import parts
from tests.patience import HANG_S

META = "io.modelcontextprotocol/"
FORM: Any = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
YES: Any = {"action": "accept", "content": {"name": "a"}}
FORMS = frozenset({QuestionKind.ELICITATION})


class Session:
    """A server of the handshake revisions; a call sends these requests, waits for so many answers, and is answered."""

    def __init__(self, requests: list[Any], answers: int) -> None:
        self.requests = requests
        self.expected = answers
        self.answers: list[Any] = []
        self.capabilities: list[Any] = []
        self.cancelled: list[Any] = []
        self.enough = asyncio.Event()
        self.after: list[Any] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=200)
        message = msgspec.json.decode(await request.read())
        match message:
            case {"method": "initialize", "id": number, "params": params}:
                self.capabilities.append(params["capabilities"])
                result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
                headers = {"Mcp-Session-Id": f"session-{len(self.capabilities)}"}
                return web.json_response({"jsonrpc": "2.0", "id": number, "result": result}, headers=headers)
            case {"method": "tools/call", "id": number}:
                return await self.called(request, number)
            case {"method": "notifications/cancelled", "params": params}:
                self.cancelled.append(params)
            case {"method": _}:
                pass
            case answer:
                self.answers.append((request.headers["Mcp-Session-Id"], answer))
                if len(self.answers) >= self.expected:
                    self.enough.set()
        return web.Response(status=202)

    async def called(self, request: web.Request, number: int) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)

        async def send(message: Any) -> None:
            await stream.write(b"data: " + msgspec.json.encode({"jsonrpc": "2.0", **message}) + b"\n\n")

        for asked in self.requests:
            await send(asked)
        await self.enough.wait()
        await send({"id": number, "result": {"content": []}})
        for asked in self.after:
            await send(asked)
        return stream


class Modern:
    """A server of 2026-07-28; each call is answered with the next result, the last one again and again."""

    def __init__(self, *results: Any) -> None:
        self.results = [*results]
        self.calls: list[Any] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = msgspec.json.decode(await request.read())
        match message["method"]:
            case "server/discover":
                result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            case "tools/call":
                self.calls.append(message["params"])
                result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
            case _:
                error = {"code": -32601, "message": "no"}
                return web.json_response({"jsonrpc": "2.0", "id": message.get("id"), "error": error}, status=404)
        if "error" in result:
            return web.json_response({"jsonrpc": "2.0", "id": message["id"], **result}, status=400)
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})


@asynccontextmanager
async def before(server: Session | Modern) -> AsyncIterator[HttpUpstream]:
    application = web.Application()
    application.router.add_route("*", "/mcp", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    port = parts.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    upstream = HttpUpstream("own", f"http://127.0.0.1:{port}/mcp", {}, timeout_s=HANG_S)
    try:
        await upstream.start()
        yield upstream
    finally:
        await upstream.stop()
        await runner.cleanup()


class AskedClient:
    """The client of a call, which answers every form alike, or nothing."""

    def __init__(self, answer: JsonObject | None = YES, *, stateless: bool = False) -> None:
        self.answer = answer
        self.asked: list[ServerQuestion] = []
        self.ended: list[Any] = []
        self.waiting = asyncio.Event()
        self.withdrawn = 0
        self.questions = CallQuestions(kinds=FORMS, stateless=stateless, ask=self.ask, end=self.end)

    async def ask(self, question: ServerQuestion) -> JsonObject:
        self.asked.append(question)
        if self.answer is not None:
            return self.answer
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise
        raise AssertionError("nobody answers")

    def end(self, asked: Mapping[str, ServerQuestion], state: str | None) -> NoReturn:
        self.ended.append((dict(asked), state))
        raise QuestionUnanswered("the call ends here")


def permit(client: AskedClient | None) -> Permit:
    questions = None if client is None else client.questions
    call = ToolCall(name="own", arguments={})
    return Permit(server="own", call=call, request_id="r", audit_id="a", questions=questions)


def form(number: Any, **changes: Any) -> Any:
    return {"id": number, "method": "elicitation/create", "params": FORM | changes}


async def test_a_question_is_answered_in_the_session_that_was_told_of_its_kind_and_of_no_other():
    server = Session([form("q"), {"id": 5, "method": "roots/list"}], 2)
    async with before(server) as upstream:
        await upstream.forward(permit(AskedClient()))
    assert server.capabilities == [{}, {"elicitation": {"form": {}}}], "the session of other calls is told of nothing"
    answers = {answer["id"]: answer for _, answer in server.answers}
    assert {session for session, _ in server.answers} == {"session-2"}
    assert answers["q"]["result"] == YES
    assert answers[5]["error"]["code"] == -32601


async def test_a_call_that_may_not_be_asked_about_takes_no_question():
    server = Session([form("q")], 1)
    async with before(server) as upstream:
        await upstream.forward(permit(None))
    assert server.answers[0][1]["error"]["code"] == -32601


async def test_a_flood_of_questions_ends_the_call_and_few_are_open_at_once():
    server, client = (
        Session([form(number) for number in range(MAX_REQUESTS)], MAX_REQUESTS - MAX_OPEN),
        AskedClient(None),
    )
    async with before(server) as upstream:
        await upstream.forward(permit(client))
        assert (len(client.asked), client.withdrawn) == (MAX_OPEN, MAX_OPEN), "the answer withdraws what is open"
    flood = Session([form(number) for number in range(MAX_REQUESTS + 1)], 1_000)
    async with before(flood) as upstream:
        with pytest.raises(UpstreamProtocolViolation):
            await upstream.forward(permit(AskedClient(None)))


async def test_a_huge_question_or_one_of_another_form_is_taken_to_nobody():
    server, client = Session([form(1, message="x" * 70_000), form(2, mode="url"), form(3, message=1)], 3), AskedClient()
    async with before(server) as upstream:
        await upstream.forward(permit(client))
    assert client.asked == []
    assert {answer["error"]["code"] for _, answer in server.answers} == {-32601}


async def test_a_question_after_the_answer_is_taken_to_nobody():
    server, client = Session([], 0), AskedClient()
    server.enough.set()
    server.after = [form("late")]
    async with before(server) as upstream:
        await upstream.forward(permit(client))
        await upstream.forward(permit(client))
    assert (client.asked, server.answers) == ([], [])


async def test_a_call_that_is_cancelled_withdraws_its_question():
    server, client = Session([form("q")], 1), AskedClient(None)
    async with before(server) as upstream:
        call = asyncio.create_task(upstream.forward(permit(client)))
        await asyncio.wait_for(client.waiting.wait(), HANG_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.withdrawn == 1


async def test_while_a_client_is_asked_the_time_of_the_call_does_not_count():
    async with asyncio.timeout(HANG_S) as limit:
        await asyncio.sleep(0)
        time = CallTime(limit)
        before_it = limit.when()
        with time.stopped():
            with time.stopped():
                assert limit.when() is None
            assert limit.when() is None, "another question is still open"
        assert before_it is not None
        assert (limit.when() or 0) >= before_it


def required(state: str | None = None, **requests: Any) -> Any:
    more = {} if state is None else {"requestState": state}
    return {"resultType": "input_required", "inputRequests": requests, **more}


ASKS: Any = {"method": "elicitation/create", "params": FORM}
DONE: Any = {"resultType": "complete", "content": []}


async def test_a_client_with_a_session_is_asked_what_a_server_without_one_wants():
    server, client = Modern(required("s1", who=ASKS), required(None, who=ASKS, what=ASKS), DONE), AskedClient()
    async with before(server) as upstream:
        await upstream.forward(permit(client))
    first, second, third = server.calls
    assert first["_meta"][f"{META}clientCapabilities"] == {"elicitation": {"form": {}}}
    assert "inputResponses" not in first
    assert (second["inputResponses"], second["requestState"]) == ({"who": YES}, "s1")
    assert (third["inputResponses"], "requestState" in third) == ({"who": YES, "what": YES}, False)
    assert len(client.asked) == 3


async def test_a_client_without_a_session_is_given_the_questions():
    server, client = Modern(required("s1", who=ASKS)), AskedClient(stateless=True)
    async with before(server) as upstream:
        with pytest.raises(QuestionUnanswered):
            await upstream.forward(permit(client))
    assert (len(client.asked), len(server.calls)) == (0, 1)
    [(asked, state)] = client.ended
    assert (asked["who"].params, state) == (FORM, "s1")


async def test_a_server_that_asks_again_and_again_is_stopped():
    server = Modern(required("s", who=ASKS))
    async with before(server) as upstream:
        with pytest.raises(UpstreamRefused, match="again and again"):
            await upstream.forward(permit(AskedClient()))
    assert len(server.calls) == 8


@pytest.mark.parametrize(
    "result",
    [
        required(None, roots={"method": "roots/list"}),
        required(None, who=ASKS, roots={"method": "roots/list"}),
        required(None, who={"method": "tools/call", "params": {}}),
        required(None),
        {"resultType": "task", "task": {}},
    ],
    ids=lambda result: str(result)[:80],
)
async def test_what_was_not_offered_is_asked_of_nobody(result):
    server, client = Modern(result), AskedClient()
    async with before(server) as upstream:
        with pytest.raises(UpstreamProtocolViolation):
            await upstream.forward(permit(client))
    assert (client.asked, len(server.calls)) == ([], 1)


async def test_a_server_asks_nothing_where_nothing_may_be_asked():
    async with before(Modern(required("s", who=ASKS))) as upstream:
        with pytest.raises(UpstreamProtocolViolation):
            await upstream.forward(permit(None))


@pytest.mark.parametrize(
    ("data", "lacks"),
    [
        ({"requiredCapabilities": {"sampling": {}, "other": {}}}, {"sampling"}),
        ({"requiredCapabilities": {"other": {}}}, None),
        ({"requiredCapabilities": ["sampling"]}, None),
        (None, None),
    ],
)
async def test_what_a_server_needs_of_a_client_is_known_by_kind_or_not_at_all(data, lacks):
    error = {"code": -32021, "message": "no", **({} if data is None else {"data": data})}
    async with before(Modern({"error": error})) as upstream:
        with pytest.raises(UpstreamRefused) as refused:
            await upstream.forward(permit(None))
    assert isinstance(refused.value, ClientLacks) is (lacks is not None)
    assert lacks is None or (isinstance(refused.value, ClientLacks) and refused.value.kinds == lacks)
