"""Answers that are streams, what they relay, and how they are resumed: each caller gets its own, and nobody else's."""

import asyncio
import gc
import json
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sidecar.audit import record
from sidecar.enforcement import Accepted, Caller, Exchange, Stream, channel, notices
from sidecar.enforcement.event_stream import MAX_KEPT_BYTES
from sidecar.identity import Suspendable, Suspension, SuspensionTarget
from sidecar.model import AuthScheme, Credential, Permit, UnverifiedToken
from sidecar.opa.managed import ManagedOpa
from tests.enforcement.streaming import NamedTokens, Script, Streaming, call, events, message, streaming
from tests.patience import HANG_S, until
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

Endpoints = Callable[..., AbstractAsyncContextManager[Streaming]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


@pytest.fixture(scope="module")
def endpoint(opa, offered) -> Endpoints:
    def start(script: Script, **changes: Any) -> AbstractAsyncContextManager[Streaming]:
        return streaming(opa, offered, script, **changes)

    return start


class Held:
    """Calls that end when the test says so; each answers with its own name."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Permit] = asyncio.Queue()
        self.release = asyncio.Event()
        self.text = ""

    async def __call__(self, permit: Permit) -> str:
        self.arrived.put_nowait(permit)
        await self.release.wait()
        return self.text or f"answer of {permit.call.arguments['collection']}"


async def at_once(permit: Permit) -> str:
    return "done"


def told(permit: Permit, progress: float, **more: Any) -> None:
    assert permit.tell is not None
    permit.tell("notifications/progress", {"progress": progress, **more})


def text(answer: Any) -> str:
    said: str = answer["result"]["content"][0]["text"]
    return said


async def test_nothing_of_a_call_stays_with_the_connection_on_which_others_follow(endpoint: Endpoints):
    """Its client may leave at any time, so a connection knows of calls; but only while they are under way."""

    def channels() -> int:
        gc.collect()
        return sum(type(one) is channel.CallChannel for one in gc.get_objects())  # isinstance asks a dead proxy

    async with endpoint(at_once) as run, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as kept:
        session = await run.open()
        before = channels()
        for number in range(20):
            async with kept.post(run.url, json=call(number), headers=run.headers(session)) as answer:
                assert text(await answer.json()) == "done"
        run.server.permits.clear()  # the double writes down what reached it
        assert channels() - before <= 1


# --- when an answer is a stream ---------------------------------------------------------------------------------------


async def test_a_call_that_is_quick_and_tells_nothing_has_a_plain_answer(endpoint: Endpoints):
    async with endpoint(at_once) as run:
        session = await run.open()
        async with run.post(session, call(token="t")) as answer:
            assert answer.content_type == "application/json"
            assert text(await answer.json()) == "done"
        assert len(run.pep._notices) == 0


async def test_a_call_that_stalls_becomes_a_stream_that_is_kept_alive_and_ends_with_its_answer(endpoint: Endpoints):
    held = Held()
    async with endpoint(held, stall_s=0.05, keep_alive_s=0.05) as run:
        session = await run.open()
        async with run.post(session, call(7)) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert "Content-Length" not in answer.headers
            assert answer.headers["X-Accel-Buffering"] == "no"
            for _ in range(3):
                assert await answer.content.readuntil(b": keep-alive\n\n")
            held.release.set()
            found = [event async for event in events(answer)]
        assert [event.message["id"] for event in found if event.message] == [7]
        assert run.outcomes() == [("ok", None)]


@pytest.mark.parametrize(
    ("revision", "primed"), [("2025-11-25", True), ("2025-06-18", False), ("2025-03-26", False), ("2024-11-05", False)]
)
async def test_only_clients_of_2025_11_25_are_primed_with_an_event_without_a_message(
    endpoint: Endpoints, revision, primed
):
    held = Held()
    held.release.set()

    async def script(permit: Permit) -> str:
        told(permit, 1)
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run:
        session = await run.open(revision=revision)
        async with run.post(session, call(token=1)) as answer:
            found = [event async for event in events(answer)]
    assert (found[0].message is None) is primed
    assert all(event.id for event in found)
    assert len({event.id for event in found}) == len(found)


async def test_refusals_keep_their_status_although_progress_was_asked_for(endpoint: Endpoints):
    async with endpoint(at_once, stall_s=0.001) as run:
        for session, user, status in [("none", "alice", 404), (await run.open(), "bob", 404), ("x", "mallory", 401)]:
            async with run.post(session, call(token=1), user) as answer:
                assert (answer.status, answer.content_type) == (status, "application/json")


async def test_a_batch_is_answered_with_one_array_whatever_its_calls_ask_for(endpoint: Endpoints):
    async def script(permit: Permit) -> str:
        assert permit.tell is None
        await asyncio.sleep(0.1)
        return "done"

    async with endpoint(script, stall_s=0.01) as run:
        session = await run.open(revision="2025-03-26")
        async with run.post(session, [call(1, token="a"), call(2, token="b")]) as answer:
            assert answer.content_type == "application/json"
            assert [one["id"] for one in await answer.json()] == [1, 2]


# --- progress and log messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["t-1", 17, 0, ""])
async def test_progress_reaches_the_token_that_asked_in_its_own_type(endpoint: Endpoints, token):
    async def script(permit: Permit) -> str:
        told(permit, 1, total=2)
        told(permit, 2, total=2, message="half and half")
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run:
        session = await run.open()
        async with run.post(session, call(3, token=token)) as answer:
            found = [event.message async for event in events(answer) if event.message]
    assert found[:2] == [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, **report}}
        for report in ({"progress": 1, "total": 2}, {"progress": 2, "total": 2, "message": "half and half"})
    ]
    assert type(found[0]["params"]["progressToken"]) is type(token)
    assert [one.get("id") for one in found] == [None, None, 3]


@pytest.mark.parametrize("meta", [{}, {"progressToken": None}, {"progressToken": True}, {"progressToken": 1.5},
                                  {"progressToken": ["t"]}, {"progressToken": "t" * 257}], ids=repr)  # fmt: skip
async def test_without_a_token_of_the_form_nothing_is_asked_for_and_the_call_goes_on(endpoint: Endpoints, meta):
    async with endpoint(at_once) as run:
        session = await run.open()
        body = call()
        body["params"]["_meta"] = meta
        async with run.post(session, body) as answer:
            assert text(await answer.json()) == "done"
        assert run.server.permits[0].tell is None


async def test_two_calls_hear_each_their_own(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()

        async def ask(number: int) -> list[Any]:
            body = call(number, token=f"t{number}")
            async with run.post(session, body) as answer:
                return [event.message async for event in events(answer) if event.message]

        asking = [asyncio.create_task(ask(number)) for number in range(4)]
        permits = [await held.arrived.get() for _ in asking]
        for permit in permits:
            told(permit, 0.5, message=permit.request_id)
        await asyncio.sleep(0.05)
        held.release.set()
        for number, found in enumerate(await asyncio.gather(*asking)):
            assert [one.get("id", one.get("params", {}).get("progressToken")) for one in found] == [
                f"t{number}",
                number,
            ]


async def test_what_is_told_after_the_answer_goes_nowhere(endpoint: Endpoints):
    async with endpoint(at_once) as run:
        session = await run.open()
        async with run.post(session, call(token="t")) as answer:
            await answer.json()
        [permit] = run.server.permits
        async with run.listen(session) as stream, run.post(session, message("ping")) as pong:
            told(permit, 2)
            run.pep.tools_changed()
            assert await pong.json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
            first = await anext(event async for event in events(stream) if event.message)
        assert first.message["method"] == "notifications/tools/list_changed"


async def test_what_is_told_of_one_call_is_bounded(endpoint: Endpoints):
    async def script(permit: Permit) -> str:
        for step in range(3 * channel.MAX_TOLD):
            told(permit, step)
            if not step % 50:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run:
        session = await run.open()
        async with run.post(session, call(token="t")) as answer:
            found = [event.message async for event in events(answer) if event.message]
    assert len(found) <= channel.MAX_TOLD + 1
    assert text(found[-1]) == "done"


async def test_log_messages_come_from_the_level_on_that_the_session_set_and_not_before(endpoint: Endpoints):
    async def script(permit: Permit) -> str:
        if permit.tell is None:
            return "nobody listens"
        for level in ("debug", "info", "warning", "emergency"):
            permit.tell("notifications/message", {"level": level, "data": level})
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run:
        session, other = await run.open(), await run.open()
        async with run.post(session, call()) as answer:
            assert text(await answer.json()) == "nobody listens"
        for level, status in [("loud", -32602), (None, -32602), ("warning", 0)]:
            async with run.post(session, message("logging/setLevel", {"level": level})) as answer:
                assert (await answer.json()).get("error", {}).get("code", 0) == status
        async with run.post(session, call()) as answer:
            found = [event.message async for event in events(answer) if event.message]
        assert [one["params"]["data"] for one in found[:-1]] == ["warning", "emergency"]
        async with run.post(other, call()) as answer:
            assert text(await answer.json()) == "nobody listens", "a level is the session's own"


# --- resumption -------------------------------------------------------------------------------------------------------


async def interrupted(run: Streaming, held: Held, session: str, user: str = "alice") -> str:
    """Begin a call, read its first progress, and lose the connection; return the id of the last event."""

    async def begin() -> Permit:
        permit = await held.arrived.get()
        told(permit, 1)
        return permit

    beginning = asyncio.create_task(begin())
    async with run.post(session, call(5, token="t"), user) as answer:
        permit = await beginning
        async for event in events(answer):
            if event.message:
                told(permit, 2)
                return event.id
    raise AssertionError("the stream ended")


async def test_a_client_that_lost_its_connection_gets_the_rest_of_its_stream_and_the_answer(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        last = await interrupted(run, held, session)
        async with run.listen(session, last) as stream:
            held.release.set()
            found = [event async for event in events(stream)]
        assert [event.message.get("id", event.message.get("params", {}).get("progress")) for event in found] == [2, 5]
        assert run.outcomes() == [("ok", None)], "to lose a connection is no cancellation in this era"
        async with run.listen(session, found[0].id) as stream:
            again = [event async for event in events(stream)]
        assert again == found[1:]


async def test_an_answer_that_came_while_nobody_read_is_kept_for_its_owner(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        last = await interrupted(run, held, session)
        held.release.set()
        await until(lambda: run.outcomes() == [("ok", None)])
        async with run.listen(session, last) as stream:
            found = [event.message async for event in events(stream)]
        assert text(found[-1]) == "answer of orders"


async def test_nobody_else_resumes_a_stream_and_learns_nothing_of_it(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session, other, foreign = await run.open(), await run.open(), await run.open("bob")
        last = await interrupted(run, held, session)
        held.release.set()
        await until(run.outcomes)
        async with run.listen(session, last, "bob") as stream:
            assert stream.status == 404, "the session is not bob's"
        name = last.rpartition(".")[0]
        for holder, user, event_id in [
            (foreign, "bob", last),
            (other, "alice", last),  # another session of the same caller
            (session, "alice", f"{name}.99"),
            (session, "alice", f"{name}x.1"),
            (session, "alice", "garbage"),
            (session, "alice", f"{name}.-1"),
        ]:
            async with run.listen(holder, event_id, user) as stream:
                assert stream.status == 200
                run.pep.tools_changed()
                found = await anext(event async for event in events(stream) if event.message)
            assert found.message["method"] == "notifications/tools/list_changed", "an ordinary new stream"
            assert not found.id.startswith(f"{name}.")
        async with run.listen(session, last) as stream:
            assert [event.message["id"] async for event in events(stream) if "id" in event.message] == [5]


async def test_news_of_no_call_go_to_the_general_stream_only_and_can_be_resumed_there(endpoint: Endpoints):
    held = Held()
    async with endpoint(held, stall_s=0.02) as run:
        session = await run.open()
        async with run.post(session, call(5)) as answer, run.listen(session) as general:
            first = await anext(aiter(events(general)))
            assert first.message is None
            run.pep.tools_changed()
            general.close()
            async with run.listen(session, first.id) as resumed:
                again = await anext(event async for event in events(resumed) if event.message)
            assert again.message["method"] == "notifications/tools/list_changed"
            held.release.set()
            found = [event.message async for event in events(answer) if event.message]
        assert [one.get("id") for one in found] == [5]


async def test_an_answer_that_is_too_large_is_not_kept_for_a_client_that_has_left(endpoint: Endpoints):
    held = Held()
    held.text = "x" * (MAX_KEPT_BYTES + 1)
    async with endpoint(held) as run:
        session = await run.open()
        last = await interrupted(run, held, session)
        held.release.set()
        await until(run.outcomes)
        await until(lambda: not len(run.pep._notices))
        async with run.listen(session, last) as stream:
            run.pep.tools_changed()
            found = await anext(event async for event in events(stream) if event.message)
        assert found.message["method"] == "notifications/tools/list_changed"


@pytest.mark.parametrize(
    ("size", "retry_ms", "told_ms"), [(4, 150, 150), (MAX_KEPT_BYTES + 1, 150, 150), (4, 999_999_999, 30_000)]
)
async def test_a_stream_that_the_server_ended_ends_for_its_client_too_which_comes_back_for_the_answer(
    endpoint: Endpoints, size, retry_ms, told_ms
):
    held = Held()
    held.text = "x" * size
    async with endpoint(held) as run:
        session = await run.open()

        async def end_its_stream() -> Permit:
            permit = await held.arrived.get()
            permit.paused(retry_ms)
            return permit

        ending = asyncio.create_task(end_its_stream())
        async with run.post(session, call(5)) as answer:
            assert answer.content_type == "text/event-stream"
            raw = (await answer.content.read()).decode()
        first = raw.partition("id: ")[2].partition("\n")[0]
        assert raw.endswith(f"id: {first}\ndata: \n\nid: {first}\nretry: {told_ms}\ndata: \n\n")
        (await ending).paused(150)  # its client is away already, and is not sent away when it comes back
        held.release.set()
        await until(run.outcomes)
        async with run.listen(session, first) as stream:
            assert f'"{held.text}"'.encode() in await stream.content.read()
        assert run.outcomes() == [("ok", None)]


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-03-26", "2024-11-05"])
async def test_a_client_that_does_not_know_of_streams_that_end_early_waits_on(endpoint: Endpoints, revision):
    async def script(permit: Permit) -> str:
        permit.paused(1)
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run:
        session = await run.open(revision=revision)
        async with run.post(session, call(5)) as answer:
            assert text(await answer.json()) == "done"


async def test_streams_that_nobody_reads_are_few_and_do_not_last(endpoint: Endpoints, monkeypatch):
    async def script(permit: Permit) -> str:
        told(permit, 1)
        await asyncio.sleep(0.02)
        return "done"

    monkeypatch.setattr(notices, "MAX_OF_SESSION", 3)
    async with endpoint(script) as run:
        session = await run.open()
        for number in range(6):
            async with run.post(session, call(number, token=number)) as answer:
                assert [event async for event in events(answer)]
            assert len(run.pep._notices) <= 3
        monkeypatch.setattr(notices, "KEEP_S", 0.0)
        async with run.post(session, call(9, token=9)) as answer:
            assert [event async for event in events(answer)]
        await until(lambda: not len(run.pep._notices))
        monkeypatch.setattr(notices, "KEEP_S", 60.0)
        monkeypatch.setattr(notices, "MAX_UNREAD_BYTES", 10)
        async with run.post(session, call(10, token=10)) as answer:
            assert [event async for event in events(answer)]
        await until(lambda: not len(run.pep._notices))


async def test_what_one_user_does_not_read_takes_no_place_of_another(endpoint: Endpoints, monkeypatch):
    async def script(permit: Permit) -> str:
        told(permit, 1)
        await asyncio.sleep(0.02)
        return "x" * 10_000

    monkeypatch.setattr(notices, "MAX_UNREAD_BYTES", 45_000)
    async with endpoint(script) as run:
        sessions = {user: await run.open(user) for user in ("alice", "bob")}
        first: dict[str, str] = {}
        for number, user in enumerate(("bob", *["alice"] * 8)):
            async with run.post(sessions[user], call(number, token=number), user) as answer:
                found = [event async for event in events(answer)]
            first.setdefault(user, found[0].id)
        async with run.listen(sessions["bob"], first["bob"], "bob") as stream:
            assert [event.message["id"] async for event in events(stream) if "id" in event.message] == [0]
        name = first["alice"].rpartition(".")[0]
        assert name not in run.pep._notices._streams, "the oldest of who holds most"


# --- where there are no sessions --------------------------------------------------------------------------------------

STATELESS = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}


def stateless(run: Streaming, number: int = 5, token: Any = None) -> Any:
    body = call(number)
    body["params"]["_meta"] = STATELESS | ({} if token is None else {"progressToken": token})
    mirrored = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "find"}
    return run.http.post(run.url, json=body, headers=run.headers(**mirrored))


async def test_a_stream_without_a_session_has_no_event_ids_and_ends_with_the_answer(endpoint: Endpoints):
    async def script(permit: Permit) -> str:
        assert permit.confirm is not None, "its client can be asked"
        told(permit, 1)
        await asyncio.sleep(0.05)
        return "done"

    async with endpoint(script) as run, stateless(run, token="t") as answer:
        found = [event async for event in events(answer)]
        assert [event.id for event in found] == ["", ""]
        assert found[0].message["params"] == {"progressToken": "t", "progress": 1}
        assert text(found[1].message) == "done"
        await until(lambda: not len(run.pep._notices))


@pytest.mark.parametrize("streamed", [True, False])
async def test_to_leave_is_to_cancel_where_there_is_no_session(endpoint: Endpoints, streamed: bool):
    held = Held()
    async with endpoint(held, stall_s=0.02 if streamed else 30.0) as run:
        if streamed:
            async with stateless(run) as answer:
                assert await answer.content.readuntil(b": keep-alive\n\n")
        else:
            asking = asyncio.ensure_future(stateless(run))
            await held.arrived.get()
            asking.cancel()
            await asyncio.wait({asking})
        await until(run.outcomes)
        assert run.outcomes() == [("cancelled", "cancelled")]
        await until(lambda: not len(run.pep._notices))


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "suspend-user", "suspend-session-of-nobody"])
async def test_the_end_of_a_session_or_of_its_caller_ends_streams_and_what_is_kept(endpoint: Endpoints, how):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        last = await interrupted(run, held, session)
        async with run.listen(session, last) as stream:
            match how:
                case "delete":
                    async with run.http.delete(run.url, headers=run.headers(session)) as answer:
                        assert answer.status == 204
                case "suspend-user":
                    target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice")
                    ended = run.pep.take_away(target)
                    assert (ended.sessions, ended.streams, ended.calls) == (1, 1, 1)
                case _:
                    run.pep.take_away(SuspensionTarget(kind=Suspendable.SESSION, digest="0" * 16))
                    held.release.set()
            found = [event.message async for event in events(stream)]
        kept = how == "suspend-session-of-nobody"
        assert any("result" in one for one in found) is kept
        held.release.set()
        await until(run.outcomes)
        assert len(run.pep._notices) == (1 if kept else 0)
        async with run.listen(session, last) as stream:
            assert stream.status == (200 if kept else 404)


@pytest.mark.parametrize("how", ["delete", "suspend-user", "nothing"])
async def test_what_ends_a_session_ends_the_rest_of_its_batch(endpoint: Endpoints, how):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open(revision="2025-03-26")
        calling = asyncio.create_task(batched(run, session, [call(number) for number in (1, 2, 3)]))
        await held.arrived.get()
        if how == "delete":
            async with run.http.delete(run.url, headers=run.headers(session)) as answer:
                assert answer.status == 204
        if how == "suspend-user":
            suspend(run, SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice"))
        held.release.set()
        status, body = await calling
        reached = len(run.server.permits)
        assert reached == (3 if how == "nothing" else 1), "what was not sent by then is not sent"
        if how == "delete":
            assert [("result" in one) for one in body] == [True, False, False], "the first was under way"
        else:
            assert status == (200 if how == "nothing" else 403)


async def batched(run: Streaming, session: str, messages: Any) -> tuple[int, Any]:
    async with run.post(session, messages) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("how", ["delete", "suspend-user", "suspend-session", "shut down", "nothing"])
async def test_what_ends_before_its_stream_begins_is_told_nothing_and_leaves_nothing(endpoint: Endpoints, how):
    """A transport begins to read some turns of the loop after the request was admitted; here they are held open."""
    async with endpoint(at_once) as run:
        session = await run.open()
        identity = await NamedTokens().verify(
            Credential(scheme=AuthScheme.BEARER, token=UnverifiedToken("alice"), method="GET", uri="")
        )
        caller = Caller(identity=identity, began_ns=1, ended_ns=2)
        exchange = Exchange(transport="http", client_ip="127.0.0.1", session_id=session)
        admitted = await run.pep.listen(exchange, caller)
        assert isinstance(admitted, Stream)
        user = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice")
        match how:
            case "delete":
                assert isinstance(await run.pep.end_session(exchange, caller), Accepted)
            case "suspend-user":
                suspend(run, user)
            case "suspend-session":
                suspend(run, SuspensionTarget(kind=Suspendable.SESSION, digest=record.session_digest(session)))
            case "shut down":
                run.pep.close_streams()
            case _:
                suspend(run, SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="bob"))
        async with asyncio.timeout(HANG_S):
            if how == "nothing":
                assert (await anext(aiter(admitted.events))).message == b"", "the near miss begins"
                run.pep.tools_changed()
                assert (await anext(aiter(admitted.events))).message
                suspend(run, user)
            assert [event async for event in admitted.events] == []
        assert len(run.pep._notices) == 0


def suspend(run: Streaming, target: SuspensionTarget) -> None:
    """Suspend as an operator does (``KillSwitch.suspend``)."""
    run.pep._suspensions.add(Suspension(target=target, until=None, reason="test", operator="test", since=0))
    run.pep.take_away(target)


async def test_a_cancelled_call_ends_its_stream_although_nobody_reads_it(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        last = await interrupted(run, held, session)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        async with run.post(session, cancel) as answer:
            assert answer.status == 202
        await until(run.outcomes)
        assert run.outcomes() == [("cancelled", "cancelled")]
        async with run.listen(session, last) as stream:
            found = [event.message async for event in events(stream)]
        assert found[-1]["id"] == 5
        assert found[-1]["result"]["isError"] is True


async def test_a_stream_lasts_no_longer_than_the_token_and_is_resumed_with_a_new_one(endpoint: Endpoints):
    held = Held()
    async with endpoint(held, stall_s=0.02) as run:
        session = await run.open()
        async with run.post(session, call(5), "alice-1") as answer:
            found = [event async for event in events(answer)]
            assert [event.message for event in found] == [None]
        held.release.set()
        async with run.listen(session, found[0].id) as stream:
            assert [event.message["id"] async for event in events(stream)] == [5]


async def test_shutting_down_ends_a_call_that_nobody_waits_for_and_records_it(endpoint: Endpoints):
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        await interrupted(run, held, session)
        async with asyncio.timeout(HANG_S):
            await run.runner.cleanup()
        assert run.outcomes() == [("cancelled", "cancelled")]


async def test_shutting_down_waits_for_a_streamed_call_whose_client_reads(endpoint: Endpoints):
    held = Held()
    async with endpoint(held, stall_s=0.02) as run:
        session = await run.open()
        async with run.post(session, call(5)) as answer, run.listen(session) as general:
            closing = asyncio.create_task(run.runner.cleanup())
            assert [event.message async for event in events(general)] == [None]
            held.release.set()
            assert [event.message["id"] async for event in events(answer) if event.message] == [5]
            await closing


async def test_a_crowd_of_streams_open_lost_and_resumed_crosses_nothing(endpoint: Endpoints):
    async def script(permit: Permit) -> str:
        for step in range(4):
            told(permit, step, message=str(permit.call.arguments["filter"]))
            await asyncio.sleep(0.01)
        return json.dumps(permit.call.arguments["filter"])

    async with endpoint(script, stall_s=0.005) as run:

        async def one(user: str, number: int) -> None:
            session = await run.open(user)
            body = call(number, token=f"{user}{number}")
            body["params"] = {**body["params"], "arguments": {**body["params"]["arguments"], "filter": {user: number}}}
            after, found = None, []
            async with run.post(session, body, user) as answer:
                async for event in events(answer):
                    after = event.id
                    if event.message:
                        found.append(event.message)
                        if number % 2:
                            break
            while not any("result" in one for one in found):
                async with run.listen(session, after, user) as stream:
                    async for event in events(stream):
                        after = event.id
                        found.append(event.message)
                        if number % 3 == 0:
                            break
            assert [one["params"]["progress"] for one in found[:-1]] == [0, 1, 2, 3]
            assert {one["params"]["progressToken"] for one in found[:-1]} == {f"{user}{number}"}
            assert {one["params"]["message"] for one in found[:-1]} == {str({user: number})}
            assert text(found[-1]) == json.dumps({user: number})

        crowd: list[Awaitable[None]] = [one(user, number) for number in range(1, 13) for user in ("alice", "bob")]
        await asyncio.gather(*crowd)
