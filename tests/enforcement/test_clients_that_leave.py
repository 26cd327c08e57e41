"""Clients that leave: after every byte of what they send, and at any byte of what they are answered.

What was not sent to its end is not carried out, and nothing of it stays: no task, connection, stream, call under way or
byte of a body. Meanwhile another user is served, with nothing but what is meant for that user.
"""

import asyncio
import json
import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from sidecar.enforcement import notices
from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from tests.enforcement.streaming import ORDERS, Streaming, call, message, streaming
from tests.enforcement.test_confirmations import ELICITS, QUESTION, YES, Asked
from tests.patience import HANG_S
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

AT_ONCE = 40
"""Clients that leave before it is waited for that nothing of them is left; fewer than the listener's backlog."""
LEFT: JsonObject = {"name": "find", "arguments": {**ORDERS, "filter": {"of": "one who left"}, "limit": 1}}
OTHER: JsonObject = {"name": "find", "arguments": {**ORDERS, "filter": {"of": "another user"}, "limit": 1}}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
MIRRORED = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "find"}
LISTENING = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
LONG = "x" * 300_000
Endpoint = Callable[..., AbstractAsyncContextManager[Streaming]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=HANG_S) as running:
            yield running


@pytest.fixture(autouse=True)
def nothing_is_kept_for_those_who_might_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "KEEP_S", 0.0)


async def asking(permit: Permit) -> str:
    """A server that tells of a call and asks about it where it can; some answers are long."""
    if permit.tell is not None:
        permit.tell("notifications/progress", {"progress": 1})
    if permit.confirm is not None:
        answer = await permit.confirm(QUESTION)
        permit.leaving()
        return f"acted on {json.dumps(answer)}"
    return LONG if "long" in str(permit.call.arguments) else json.dumps(permit.call.arguments["filter"])


@pytest.fixture(scope="module")
def endpoint(opa, offered) -> Endpoint:
    def start(**changes: Any) -> AbstractAsyncContextManager[Streaming]:
        return streaming(opa, offered, asking, lasts_s=None, **changes)

    return start


def raw(
    run: Streaming,
    method: str,
    body: Any = None,
    session: str | None = None,
    more: dict[str, str] | None = None,
    *,
    chunked: bool = False,
) -> bytes:
    """Return the bytes of a request."""
    headers = {"Host": urlsplit(run.url).netloc, **run.headers(session), **(more or {})}
    text = b"" if body is None else json.dumps(body).encode()
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        text = b"".join(
            b"%x\r\n%b\r\n" % (len(text[at : at + 64]), text[at : at + 64]) for at in range(0, len(text), 64)
        )
        text += b"0\r\n\r\n"
    elif body is not None:
        headers["Content-Length"] = str(len(text))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} /mcp HTTP/1.1\r\n{lines}\r\n".encode() + text


def requests(run: Streaming, session: str) -> dict[str, bytes]:
    """Return one request of each kind; a call can be told by what it looks for."""
    stateless = message("tools/call", {**LEFT, "_meta": ENVELOPE})
    listening = message("subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": ENVELOPE})
    return {
        "a call": raw(run, "POST", call(params=LEFT), session),
        "a call in chunks": raw(run, "POST", call(params=LEFT), session, chunked=True),
        "a call that wants progress": raw(run, "POST", call(params=LEFT, token="t"), session),
        "a call of the stateless revision": raw(run, "POST", stateless, None, MIRRORED),
        "a call of the stateless revision in chunks": raw(run, "POST", stateless, None, MIRRORED, chunked=True),
        "a handshake": raw(run, "POST", message("initialize", INITIALIZE)),
        "a request for events": raw(run, "GET", None, session),
        "a request to listen": raw(run, "POST", listening, None, LISTENING),
    }


def leave(run: Streaming, data: bytes, *, reset: bool) -> None:
    """Send bytes and leave at once: with what TCP calls an end, or without a word (a reset)."""
    address = urlsplit(run.url)
    assert address.port is not None
    with socket.create_connection(("127.0.0.1", address.port), timeout=HANG_S) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(data)


def left_over(run: Streaming) -> dict[str, int]:
    """Return what there still is of clients."""
    [bodies] = [hook.__self__._bodies for hook in run.runner.app.on_shutdown if hasattr(hook, "__self__")]
    server: Any = run.runner.server
    return {
        "connections": len(server.connections),
        "bytes of bodies": bodies._in_all,
        "calls": run.pep._calls._under_way._calls.total(),
        "answers": len(run.pep._answering._under_way),
        "streams": len(run.pep._notices),
        "subscriptions": len(run.pep._subscriptions),
        "tasks": len(asyncio.all_tasks()),
    }


async def nothing_left(run: Streaming, before: dict[str, int]) -> None:
    """Return when all that there is was there before."""
    try:
        async with asyncio.timeout(HANG_S):
            while any(left_over(run)[name] > most for name, most in before.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        assert left_over(run) == before, [task.get_name() for task in asyncio.all_tasks()]


async def another_user(run: Streaming, session: str, served: list[int]) -> None:
    """Call over and over, and get nothing but one's own answers."""
    number = 0
    while True:
        number += 1
        async with run.post(session, call(number, params=OTHER), "bob") as answer:
            body = only_answer(await answer.text())
        assert (body["id"], body["result"]["content"][0]["text"]) == (number, '{"of": "another user"}')
        served.append(number)
        await asyncio.sleep(0.02)


def only_answer(body: str) -> Any:
    """Return the answer in a body that is JSON, or in the last event of one that is a stream."""
    return json.loads(body.strip().rpartition("data: ")[2])  # noqa: TID251 - our own answer


@asynccontextmanager
async def beside_another(run: Streaming) -> Any:
    """Have another user served meanwhile; yields what is left when nobody else is there."""
    session, served = await run.open("bob"), list[int]()
    before = left_over(run)
    calling = asyncio.create_task(another_user(run, session, served))
    try:
        yield before
        so_far = len(served)
        async with asyncio.timeout(HANG_S):
            while len(served) < so_far + 2:
                assert not calling.done()
                await asyncio.sleep(0.01)
    finally:
        calling.cancel()
        [outcome] = await asyncio.gather(calling, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError), outcome
    await nothing_left(run, before)


async def leave_everywhere(run: Streaming, data: bytes, before: dict[str, int], *, both_ways: bool) -> None:
    """Send each beginning of a request and leave: at every other byte with an end, at the rest without a word."""
    some = {**before, "connections": before["connections"] + 2, "tasks": before["tasks"] + 8, "calls": 1, "answers": 1}
    for at in range(len(data)):
        for reset in (True, False) if both_ways else (at % 2 == 0,):
            leave(run, data[:at], reset=reset)
            await asyncio.sleep(0)
        if at % AT_ONCE == AT_ONCE - 1:
            await nothing_left(run, some)


def carried_out(run: Streaming) -> int:
    return sum(permit.call.arguments == LEFT["arguments"] for permit in run.server.permits)


WAYS = [pytest.param(False, id="by turns"), pytest.param(True, id="both ways", marks=pytest.mark.nightly)]


@pytest.mark.parametrize("both_ways", WAYS)
async def test_a_request_that_was_not_sent_to_its_end_is_not_carried_out_and_leaves_nothing(
    endpoint: Endpoint, both_ways: bool
) -> None:
    async with endpoint() as run:
        session = await run.open()
        for kind, data in requests(run, session).items():
            sessions = len(run.pep._sessions)
            async with beside_another(run) as before:
                await leave_everywhere(run, data, before, both_ways=both_ways)
            assert carried_out(run) == 0, kind
            assert len(run.pep._sessions) == sessions + 1, f"{kind}: no session but that of the other user"
        ended = raw(run, "DELETE", None, session)
        async with beside_another(run) as before:
            await leave_everywhere(run, ended, before, both_ways=both_ways)
        async with run.post(session, message("ping")) as answer:
            assert answer.status == 200, "the session is still there"
        leave(run, ended, reset=False)
        await nothing_left(run, before)
        async with run.post(session, message("ping")) as answer:
            assert answer.status == 404, "a whole request is carried out, though nobody waits for its answer"


async def test_a_whole_request_of_one_who_left_is_carried_out_at_most_once_and_leaves_nothing(
    endpoint: Endpoint,
) -> None:
    async with endpoint() as run:
        session = await run.open()
        for number, (kind, data) in enumerate(requests(run, session).items()):
            done, sessions = carried_out(run), len(run.pep._sessions)
            async with beside_another(run) as before:
                leave(run, data, reset=False)
                await nothing_left(run, {**before, "tasks": before["tasks"] + 8, "calls": 1, "answers": 1})
            expected = {1} if number < 2 else {0, 1} if "call" in kind else {0}
            assert carried_out(run) - done in expected, kind
            assert len(run.pep._sessions) - sessions <= 1 + (kind == "a handshake"), kind


@pytest.mark.parametrize("both_ways", WAYS)
async def test_an_answer_to_a_question_counts_when_it_was_sent_to_its_end(endpoint: Endpoint, both_ways: bool) -> None:
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        async with Asked(run, session) as asked:
            reply = raw(run, "POST", {"jsonrpc": "2.0", "id": asked.question["id"], "result": YES}, session)
            async with beside_another(run) as before:
                await leave_everywhere(run, reply, before, both_ways=both_ways)
            assert not run.outcomes() or "acted" not in str(run.outcomes())
            leave(run, reply, reset=False)
            assert "acted on" in await asked.answer()
            assert await asked.reply(YES) == 202, "and once"
        assert len([permit for permit in run.server.permits if permit.confirm is not None]) == 1


@pytest.mark.parametrize("stall_s", [30.0, 0.0], ids=["one body", "events"])
async def test_one_who_leaves_while_reading_takes_nothing_from_others_and_leaves_nothing(
    endpoint: Endpoint, stall_s: float
) -> None:
    long: JsonObject = {"name": "find", "arguments": {**ORDERS, "filter": {"of": "long"}, "limit": 1}}
    async with endpoint(stall_s=stall_s) as run:
        session = await run.open()
        address = urlsplit(run.url)
        async with beside_another(run) as before:
            for number, size in enumerate((0, 1, 9, 17, 40, 200, 400, 1_000, 70_000, 250_000)):
                of_session = raw(run, "POST", call(number, token="t", params=long), session)
                stateless = raw(run, "POST", message("tools/call", {**long, "_meta": ENVELOPE}, number), None, MIRRORED)
                for data in (of_session, stateless):
                    reader, writer = await asyncio.open_connection(address.hostname, address.port)
                    writer.write(data)
                    async with asyncio.timeout(HANG_S):
                        received = await reader.readexactly(size)
                    assert size < 9 or received.startswith(b"HTTP/1.1 ")
                    assert b"another user" not in received
                    writer.transport.abort()
        assert left_over(run)["calls"] == 0
        assert before["calls"] == 0


def stateless_requests(run: Streaming) -> dict[str, bytes]:
    """Return what is answered without a session: by one body, by events, and by a stream that lasts."""
    listening = message("subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": ENVELOPE})
    progress = {**ENVELOPE, "progressToken": "t"}
    return {
        "one body": raw(run, "POST", message("tools/call", {**LEFT, "_meta": ENVELOPE}), None, MIRRORED),
        "events": raw(run, "POST", message("tools/call", {**LEFT, "_meta": progress}), None, MIRRORED),
        "a stream": raw(run, "POST", listening, None, LISTENING),
    }


async def read_of(run: Streaming, data: bytes, most: int | None) -> bytes:
    """Send a request, read so many bytes of its answer, and leave; or all until a stream has told of a change."""
    address = urlsplit(run.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    try:
        async with asyncio.timeout(HANG_S):
            if most is not None:
                return await reader.readexactly(most)
            received = b""
            while not received.endswith((b"}", b"0\r\n\r\n")) and b"tools/list_changed" not in received:
                received += await reader.read(65_536)
                if b"acknowledged" in received:
                    run.pep.tools_changed()
            return received
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "step",
    [pytest.param(9, id="every ninth byte"), pytest.param(1, id="every byte", marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("kind", ["one body", "events", "a stream"])
async def test_one_without_a_session_may_leave_at_any_byte_of_the_answer_and_nothing_is_left(
    endpoint: Endpoint, kind: str, step: int
) -> None:
    async with endpoint(stall_s=30.0) as run:
        data = stateless_requests(run)[kind]
        whole = await read_of(run, data, None)
        assert (b"text/event-stream" in whole) is (kind != "one body")
        async with beside_another(run) as before:
            some = {**before, "connections": before["connections"] + 2, "tasks": before["tasks"] + 8}
            # What comes before a change of tools, of a stream that tells of none.
            last = whole.index(b"acknowledged") if kind == "a stream" else len(whole)
            for number, at in enumerate(range(0, last, step)):
                received = await read_of(run, data, at)
                assert b"another user" not in received
                if number % AT_ONCE == AT_ONCE - 1:
                    await nothing_left(run, {**some, "calls": 1, "answers": 1, "streams": 1, "subscriptions": 1})
        assert carried_out(run) <= len(range(0, last, step)) + 1
        again = await read_of(run, data, None)
        assert again.partition(b"\r\n")[0] == whole.partition(b"\r\n")[0] == b"HTTP/1.1 200 OK"
