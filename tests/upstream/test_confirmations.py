"""The real MongoDB MCP server asks for confirmations: whose question it is, and what each answer does."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from sidecar.commands import ToolGroup
from sidecar.errors import NotConfirmed, SidecarError, UpstreamRefused, UpstreamTimedOut, UpstreamUnreachable
from sidecar.model import JsonObject, Permit, ToolCall
from sidecar.upstream.agreeing import Opening
from sidecar.upstream.confirming import ConfirmingUpstream
from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.relayed import MAX_RELAYED_BYTES

SERVER = "server"
YES: JsonObject = {"action": "accept", "content": {"confirmation": "Yes"}}
FAULTS = Path(__file__).with_name("fault_server.py")
Confirm = Callable[[JsonObject], Awaitable[JsonObject]]


def deletes(
    database: str,
    collection: str,
    confirm: Confirm | None,
    leaving: Callable[[], None] | None = None,
    reviewed: tuple[JsonObject, ...] | None = None,
) -> Permit:
    arguments: JsonObject = {
        "connectionId": "preconfigured",
        "database": database,
        "collection": collection,
        "filter": {"n": {"$gte": 0}},
    }
    more: dict[str, Any] = {} if leaving is None else {"leaving": leaving}
    call = ToolCall(name="delete-many", arguments=arguments)
    return Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=confirm, reviewed=reviewed, **more)


def exports(database: str, collection: str, confirm: Confirm | None) -> Permit:
    arguments: JsonObject = {
        "connectionId": "preconfigured",
        "database": database,
        "collection": collection,
        "exportTitle": "a test",
        "exportTarget": [{"name": "find", "arguments": {"filter": {}}}],
    }
    call = ToolCall(name="export", arguments=arguments)
    return Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=confirm)


def uses(method: str, uri: str) -> Permit:
    """The use of an export; its call is named as the one that made it."""
    call = ToolCall(name="export", arguments={"uri": uri})
    return Permit(server=SERVER, call=call, method=method, request_id="r", audit_id="a")


def answering(answer: JsonObject, asked: list[JsonObject] | None = None) -> Confirm:
    async def confirm(question: JsonObject) -> JsonObject:
        if asked is not None:
            asked.append(question)
        return answer

    return confirm


def asks(call: ToolCall) -> bool:
    return call.name in {"delete-many", "aggregate", "export"}


@contextlib.asynccontextmanager
async def running(database: str, command: list[str], *, required: bool = False) -> AsyncIterator[ConfirmingUpstream]:
    environment = mongodb_environment(
        database, read_only=False, confirmed_tools=["delete-many", "export"], tool_groups=[ToolGroup.EXPORT]
    )
    plain, asking = (
        StdioUpstream(SERVER, command, environment, timeout_s=60, start_timeout_s=60, ready_wait_s=60, opening=opening)
        for opening in (Opening.HANDSHAKE, Opening.ASKING)
    )
    upstream = ConfirmingUpstream(plain, asking, asks, required=required)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(database, mcp_server_command) -> AsyncIterator[ConfirmingUpstream]:
    async with running(database, mcp_server_command) as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="module")
async def rows(database, database_name) -> AsyncIterator[Any]:
    async with AsyncMongoClient[dict[str, Any]](database) as client:
        yield client[database_name]


pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


async def filled(rows: Any, name: str) -> str:
    await rows[name].insert_many([{"n": n} for n in range(3)])
    return name


async def test_a_confirmed_export_is_found_by_later_reads_and_told_of(server, rows, database_name):
    name = await filled(rows, "exported")
    made = []
    for confirm in (None, answering(YES)):  # as a client that cannot be asked, and as one that can
        result = await server.forward(exports(database_name, name, confirm))
        assert not result.failed, result
        content = msgspec.json.decode(result.result)["content"]
        made.append(next(part["uri"] for part in content if part["type"] == "resource_link"))
    for uri in made:
        await server.forward(uses("resources/subscribe", uri))
        text = "still being generated"
        while "still being generated" in text:
            text = (await server.forward(uses("resources/read", uri))).result.decode()
        assert text.count('\\"n\\"') == 3, text
        server.unwatch(uri)
    assert (await server.forward(uses("resources/read", "exported-data://not-there.json"))).failed


async def test_an_export_that_was_not_confirmed_is_not_made(server, rows, database_name):
    name = await filled(rows, "not-exported")
    with contextlib.suppress(SidecarError):
        result = await server.forward(exports(database_name, name, answering({"action": "decline"})))
        assert result.failed
        assert b"resource_link" not in result.result


async def test_a_confirmed_call_is_carried_out_once_and_its_user_read_the_servers_question(server, rows, database_name):
    name = await filled(rows, "confirmed")
    asked: list[JsonObject] = []
    left: list[int] = []
    result = await server.forward(
        deletes(database_name, name, answering(YES, asked), leaving=lambda: left.append(len(asked)))
    )
    assert (result.failed, result.documents) == (False, 3)
    assert await rows[name].count_documents({}) == 0
    [found] = asked
    schema = found["requestedSchema"]
    assert isinstance(schema, dict)
    assert name in str(found["message"])
    assert schema["required"] == ["confirmation"]
    assert set(found) == {"message", "requestedSchema"}, "nothing of how the server counts its requests"
    assert left == [0, 1], "the permit was looked at before each time that the call left"


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "accept", "content": {"confirmation": "No"}},
        {"action": "accept", "content": {}},
        {"action": "accept"},
        {"action": "decline"},
        {"action": "cancel"},
        {},
        {"action": "ACCEPT", "content": {"confirmation": "Yes"}},
        {"content": {"confirmation": "Yes"}},
    ],
    ids=repr,
)
async def test_no_other_answer_deletes_anything(server, rows, database_name, answer):
    name = await filled(rows, f"kept-{abs(hash(repr(answer)))}")
    with contextlib.suppress(SidecarError):
        assert (await server.forward(deletes(database_name, name, answering(answer)))).failed
    assert await rows[name].count_documents({}) == 3


async def test_a_user_who_does_not_confirm_or_leaves_ends_the_call_before_it_is_sent_again(server, rows, database_name):
    async def refuses(_question: JsonObject) -> JsonObject:
        raise NotConfirmed

    name = await filled(rows, "refused")
    with pytest.raises(NotConfirmed):
        await server.forward(deletes(database_name, name, refuses))
    never = asyncio.Event()

    async def thinks(_question: JsonObject) -> JsonObject:
        never.set()
        await asyncio.Event().wait()
        return YES

    thinking = asyncio.create_task(server.forward(deletes(database_name, name, thinks)))
    await asyncio.wait_for(never.wait(), 60)
    thinking.cancel()
    await asyncio.wait({thinking})
    assert await rows[name].count_documents({}) == 3


async def test_while_one_user_thinks_others_are_asked_and_answered_and_nobody_gets_anothers_question(
    server, rows, database_name
):
    names = [await filled(rows, f"many{number}") for number in range(5)]
    slow = asyncio.Event()

    async def one(number: int) -> Any:
        async def confirm(question: JsonObject) -> JsonObject:
            assert f"many{number}" in str(question["message"])
            if number == 0:
                await slow.wait()
            return YES if number != 3 else {"action": "decline"}

        return await server.forward(deletes(database_name, names[number], confirm))

    first = asyncio.create_task(one(0))
    others = await asyncio.gather(*(one(number) for number in range(1, 5)))
    assert [result.failed for result in others] == [False, False, True, False]
    assert not first.done()
    slow.set()
    assert not (await first).failed
    assert [await rows[name].count_documents({}) for name in names] == [0, 0, 0, 3, 0]


async def test_a_client_that_cannot_be_asked_is_not_asked_or_where_it_is_required_refused(
    server, rows, database, database_name, mcp_server_command
):
    name = await filled(rows, "unasked")
    assert not (await server.forward(deletes(database_name, name, None))).failed
    assert await rows[name].count_documents({}) == 0
    await filled(rows, name)
    async with running(database, mcp_server_command, required=True) as strict:
        with pytest.raises(NotConfirmed):
            await strict.forward(deletes(database_name, name, None))
        assert await rows[name].count_documents({}) == 3
        assert not strict._begun, "nobody was asked, so there is no second child"


async def test_stages_that_write_are_asked_about_and_a_call_that_the_server_does_not_ask_about_is_carried_out_once(
    server, rows, database_name
):
    name = await filled(rows, "source")

    def aggregate(*stages: JsonObject) -> ToolCall:
        pipeline = [{"$match": {"n": 1}}, *stages]
        arguments = {"connectionId": "preconfigured", "database": database_name, "collection": name}
        return ToolCall(name="aggregate", arguments={**arguments, "pipeline": pipeline})  # type: ignore[dict-item]

    def permit(call: ToolCall, confirm: Confirm) -> Permit:
        return Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=confirm)

    asked: list[JsonObject] = []
    assert not (await server.forward(permit(aggregate(), answering(YES, asked)))).failed
    assert asked == []
    written = aggregate({"$out": "target"})
    assert (await server.forward(permit(written, answering({"action": "decline"}, asked)))).failed
    assert await rows["target"].count_documents({}) == 0
    assert not (await server.forward(permit(written, answering(YES, asked)))).failed
    assert (len(asked), await rows["target"].count_documents({})) == (2, 1)


# --- faults of a server, staged ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def staged(wait_s: float = 60.0) -> AsyncIterator[ConfirmingUpstream]:
    plain, asking = (
        StdioUpstream(SERVER, [sys.executable, str(FAULTS)], {}, timeout_s=20, opening=opening)
        for opening in (Opening.HANDSHAKE, Opening.ASKING)
    )
    upstream = ConfirmingUpstream(plain, asking, lambda _: True, required=True, wait_s=wait_s)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


async def test_a_call_waits_for_its_turn_for_no_longer_than_calls_may_take():
    sent: list[str] = []
    begun = asyncio.Event()

    def permit(call: ToolCall, name: str) -> Permit:
        def leaving() -> None:
            sent.append(name)
            begun.set()

        return Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=answering(YES), leaving=leaving)

    async with staged(wait_s=0.1) as upstream:
        first = asyncio.create_task(upstream.forward(permit(ToolCall(name="hold", arguments={}), "first")))
        await begun.wait()
        with pytest.raises(UpstreamTimedOut):
            await upstream.forward(permit(ToolCall(name="echo", arguments={}), "second"))
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await upstream.forward(permit(ToolCall(name="echo", arguments={}), "third"))
    assert sent == ["first", "third"], "the place of the call that gave up is nobody's"


async def test_a_second_child_with_other_tools_than_those_looked_at_gets_no_call():
    """The pins are held against the tools of the first child; the second may be another version when it starts."""
    other = FAULTS.with_name("telling_server.py")
    plain, asking = (
        StdioUpstream(SERVER, [sys.executable, str(program)], {}, timeout_s=20, opening=opening)
        for program, opening in ((FAULTS, Opening.HANDSHAKE), (other, Opening.ASKING))
    )
    upstream = ConfirmingUpstream(plain, asking, lambda _: True, required=True)
    await upstream.start()
    left: list[int] = []
    try:
        reviewed = await upstream.tools()
        with pytest.raises(UpstreamUnreachable):
            await upstream.forward(deletes("d", "c", answering(YES), lambda: left.append(1), reviewed))
    finally:
        await upstream.stop()
    assert left == []


def lines(*sent: str) -> ToolCall:
    return ToolCall(name="ask", arguments={"lines": [*sent]})


def question(message: str = "Sure?", number: object = 7, method: str = "elicitation/create", **more: Any) -> str:
    params = {"message": message, "requestedSchema": {"type": "object"}, **more}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lines(question("a"), question("b", 8)), UpstreamRefused),  # two questions
        (lines(question(), question(number=8)), UpstreamRefused),
    ],
)
async def test_more_than_one_question_about_a_call_is_taken_to_nobody(call, error):
    asked: list[JsonObject] = []
    async with staged() as upstream:
        with pytest.raises(error):
            await upstream.forward(
                Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=answering(YES, asked))
            )
    assert asked == []


@pytest.mark.parametrize(
    "line",
    [
        question(mode="url", url="https://evil.example"),
        question(method="sampling/createMessage"),
        question(method="roots/list"),
        question(message="x" * MAX_RELAYED_BYTES),
        question().replace('"message":"Sure?",', ""),
    ],
)
async def test_what_is_no_question_in_a_form_is_refused_at_the_server_and_taken_to_nobody(line):
    asked: list[JsonObject] = []
    async with staged() as upstream:
        result = await upstream.forward(
            Permit(server=SERVER, call=lines(line), request_id="r", audit_id="a", confirm=answering(YES, asked))
        )
    assert asked == []
    assert b'"code":-32601' in result.result


async def test_another_question_the_second_time_is_answered_with_cancel():
    async with staged() as upstream:
        call = ToolCall(name="ask-anew", arguments={})
        result = await upstream.forward(
            Permit(server=SERVER, call=call, request_id="r", audit_id="a", confirm=answering(YES))
        )
    assert b'"action":"cancel"' in result.result
    assert b'"accept"' not in result.result
