"""MCP 2026-07-28 at the running endpoint: a client that leaves cancels its call; who listens is told until the end."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import mcp
import pytest
import pytest_asyncio
from mcp.client.streamable_http import streamable_http_client

from sidecar.enforcement import Caller, Exchange, Stream
from sidecar.enforcement.bounds import Bounds
from sidecar.identity import Suspendable, Suspension, SuspensionTarget
from sidecar.mcp import MirroredHeaders
from sidecar.model import AuthScheme, Credential, JsonObject, Permit, UnverifiedToken
from sidecar.opa.managed import ManagedOpa
from sidecar.telemetry import OtelMetrics
from tests.enforcement.streaming import FIND, NamedTokens, Script, Streaming, call, events, message, streaming
from tests.patience import HANG_S, until
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

Endpoints = Callable[..., AbstractAsyncContextManager[Streaming]]
REVISION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
META: JsonObject = {f"{PREFIX}protocolVersion": REVISION, f"{PREFIX}clientCapabilities": {}}
TOOLS: JsonObject = {"toolsListChanged": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary: str) -> AsyncIterator[ManagedOpa]:
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


@pytest.fixture(scope="module")
def endpoint(opa: ManagedOpa, offered: tuple[JsonObject, ...]) -> Endpoints:
    def start(script: Script, **changes: Any) -> AbstractAsyncContextManager[Streaming]:
        return streaming(opa, offered, script, **changes)

    return start


class Held:
    """Calls that end when the test says so."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Permit] = asyncio.Queue()
        self.release = asyncio.Event()

    async def __call__(self, permit: Permit) -> str:
        self.arrived.put_nowait(permit)
        await self.release.wait()
        return "done"


async def at_once(_permit: Permit) -> str:
    return "done"


def stateless(method: str, params: JsonObject, number: Any = 1, **meta: Any) -> Any:
    return message(method, {**params, "_meta": {**META, **meta}}, number)


def posted(run: Streaming, body: Any, user: str = "alice") -> Any:
    mirrored = {"MCP-Protocol-Version": REVISION, "Mcp-Method": body["method"]}
    name = body["params"].get("name")
    headers = run.headers(user=user, **mirrored, **({"Mcp-Name": name} if name else {}))
    return run.http.post(run.url, json=body, headers=headers)


@asynccontextmanager
async def listening(
    run: Streaming, wanted: JsonObject, number: Any = 1, user: str = "alice"
) -> AsyncIterator[AsyncIterator[JsonObject]]:
    """Open a subscription, and yield its messages."""
    async with posted(run, stateless("subscriptions/listen", {"notifications": wanted}, number), user) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert "mcp-session-id" not in {name.lower() for name in answer.headers}
        yield messages(answer)


async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[JsonObject]:
    async for event in events(answer):
        assert event.id == "", "nothing can be resumed"
        yield event.message


# --- a client that leaves ---------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_its_own_call_and_no_other(endpoint: Endpoints) -> None:
    held = Held()
    async with endpoint(held) as run:
        calls = [asyncio.create_task(answered(run, stateless("tools/call", FIND, 7))) for _ in range(2)]
        for _ in calls:
            await held.arrived.get()
        calls[0].cancel()
        await until(run.outcomes)
        assert run.outcomes() == [("cancelled", "cancelled")]
        held.release.set()
        assert "result" in await calls[1]
        await until(lambda: len(run.outcomes()) == 2)
        assert run.outcomes()[1] == ("ok", None)


async def test_a_client_that_leaves_within_a_session_cancels_nothing(endpoint: Endpoints) -> None:
    held = Held()
    async with endpoint(held) as run:
        session = await run.open()
        waiting = asyncio.create_task(answered(run, call(7), session))
        await held.arrived.get()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.release.set()
        await until(run.outcomes)
        assert run.outcomes() == [("ok", None)]


async def test_a_client_that_leaves_the_stream_of_its_answer_cancels_the_call(endpoint: Endpoints) -> None:
    held = Held()
    async with endpoint(held, stall_s=0.05) as run:
        async with posted(run, stateless("tools/call", FIND, 7)) as answer:
            assert answer.content_type == "text/event-stream"
            await held.arrived.get()
        await until(run.outcomes)
        assert run.outcomes() == [("cancelled", "cancelled")]
        assert len(run.pep._notices) == 0


async def test_a_stalled_call_is_answered_on_a_stream_as_this_revision_has_it(endpoint: Endpoints) -> None:
    held = Held()
    async with endpoint(held, stall_s=0.05) as run, posted(run, stateless("tools/call", FIND, "a")) as answer:
        await held.arrived.get()
        held.release.set()
        [last] = [one async for one in messages(answer)]
        assert last["id"] == "a"
        assert isinstance(last["result"], dict)
        assert last["result"]["resultType"] == "complete"


async def answered(run: Streaming, body: Any, session: str | None = None) -> Any:
    asked = posted(run, body) if session is None else run.post(session, body)
    async with asked as answer:
        return await answer.json()


# --- log messages -----------------------------------------------------------------------------------------------------


async def test_log_messages_come_on_the_request_that_asks_for_them_and_on_no_other(endpoint: Endpoints) -> None:
    async def script(permit: Permit) -> str:
        if permit.tell is not None:
            for level in ("info", "error"):
                permit.tell("notifications/message", {"level": level, "data": level})
        return "nobody listens" if permit.tell is None else "told"

    async with endpoint(script) as run, listening(run, TOOLS, 9) as subscription:
        assert "acknowledged" in str((await anext(subscription))["method"])
        asks = stateless("tools/call", FIND, 1, **{f"{PREFIX}logLevel": "warning"})
        async with posted(run, asks) as answer:
            found: list[Any] = [one async for one in messages(answer)]
        assert [one.get("params", {}).get("data") for one in found] == ["error", None]
        async with posted(run, stateless("tools/call", FIND, 2)) as answer:
            assert "nobody listens" in await answer.text()
        run.pep.tools_changed()
        assert (await anext(subscription))["method"] == "notifications/tools/list_changed", "no log message came there"


# --- subscriptions/listen ---------------------------------------------------------------------------------------------


async def test_what_is_honoured_comes_first_and_every_message_names_the_request(endpoint: Endpoints) -> None:
    async with (
        endpoint(at_once) as run,
        listening(run, {**TOOLS, "resourceSubscriptions": ["a://b"]}, "mine") as stream,
    ):
        first = await anext(stream)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"] == {"notifications": TOOLS, "_meta": {f"{PREFIX}subscriptionId": "mine"}}
        run.pep.tools_changed()
        assert await anext(stream) == {
            "jsonrpc": "2.0",
            "method": "notifications/tools/list_changed",
            "params": {"_meta": {f"{PREFIX}subscriptionId": "mine"}},
        }


@pytest.mark.parametrize("wanted", [{}, {"toolsListChanged": False}, {"promptsListChanged": True}, {"taskIds": ["t"]}])
async def test_a_client_that_did_not_ask_is_not_told(endpoint: Endpoints, wanted: JsonObject) -> None:
    async with endpoint(at_once) as run, listening(run, wanted) as stream, listening(run, TOOLS) as other:
        assert (await anext(stream))["params"] == {"notifications": {}, "_meta": {f"{PREFIX}subscriptionId": 1}}
        await anext(other)
        run.pep.tools_changed()
        assert (await anext(other))["method"] == "notifications/tools/list_changed"
        run.pep.close_streams()
        assert [one.get("method") for one in [one async for one in stream]] == [None], "nothing but the answer"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": None},
        {"notifications": [TOOLS]},
        {"notifications": {"toolsListChanged": "yes"}},
        {"notifications": {"resourceSubscriptions": "a://b"}},
        {"notifications": {"resourceSubscriptions": [1]}},
        {"notifications": {"resourceSubscriptions": ["a://b"] * 257}},
        {"notifications": TOOLS, "more": 1},
    ],
)
async def test_what_is_no_subscription_is_refused_with_its_id(endpoint: Endpoints, params: JsonObject) -> None:
    async with endpoint(at_once) as run, posted(run, stateless("subscriptions/listen", params, 4)) as answer:
        found = await answer.json()
        assert (answer.status, found["id"], found["error"]["code"]) == (400, 4, -32602)


async def test_a_subscription_ends_with_its_answer_when_the_token_does(endpoint: Endpoints) -> None:
    async with endpoint(at_once) as run, listening(run, TOOLS, 3, "alice-1.5") as stream:
        _, last = [one async for one in stream]
        assert last["id"] == 3
        assert last["result"] == {
            "resultType": "complete",
            "_meta": {f"{PREFIX}serverInfo": {"name": "mcp-sidecar", "version": "0"}, f"{PREFIX}subscriptionId": 3},
        }
        assert (len(run.pep._subscriptions), len(run.pep._notices)) == (0, 0)


async def test_a_subscription_ends_with_the_suspension_of_its_caller_and_no_other_does(endpoint: Endpoints) -> None:
    async with (
        endpoint(at_once) as run,
        listening(run, TOOLS) as alices,
        listening(run, TOOLS, 1, "bob") as bobs,
    ):
        await anext(alices)
        await anext(bobs)
        target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice")
        assert run.pep.take_away(target).streams == 1
        assert [one async for one in alices] == []
        run.pep.tools_changed()
        assert (await anext(bobs))["method"] == "notifications/tools/list_changed"


@pytest.mark.parametrize("how", ["suspended", "shut down", "somebody else suspended"])
async def test_what_ends_before_a_subscription_begins_is_told_nothing(endpoint: Endpoints, how: str) -> None:
    """A transport begins to read some turns of the loop after the request was admitted; here they are held open."""
    async with endpoint(at_once) as run:
        identity = await NamedTokens().verify(
            Credential(scheme=AuthScheme.BEARER, token=UnverifiedToken("alice"), method="POST", uri="")
        )
        mirrored = MirroredHeaders(method="subscriptions/listen")
        exchange = Exchange(transport="http", client_ip="127.0.0.1", protocol=REVISION, mirrored=mirrored)
        body = json.dumps(stateless("subscriptions/listen", {"notifications": TOOLS})).encode()
        admitted = await run.pep.enforce(body, exchange, Caller(identity=identity, began_ns=1, ended_ns=2))
        assert isinstance(admitted, Stream)
        if how == "shut down":
            run.pep.close_streams()
        else:
            user = "alice" if how == "suspended" else "bob"
            target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject=user)
            run.pep._suspensions.add(Suspension(target=target, until=None, reason="t", operator="t", since=0))
            run.pep.take_away(target)
        reading = aiter(admitted.events)
        first = await anext(reading, None)
        assert (first is None) is (how != "somebody else suspended")
        assert len(run.pep._subscriptions) == len(run.pep._notices) == (first is not None)
        if isinstance(reading, AsyncGenerator):
            await reading.aclose()


async def test_one_identity_has_so_many_and_a_newer_one_ends_the_oldest(endpoint: Endpoints) -> None:
    async with endpoint(at_once) as run, listening(run, TOOLS, "first") as first, listening(run, {}, 0, "bob") as bobs:
        await anext(first)
        await anext(bobs)
        opened = [listening(run, TOOLS, number) for number in range(Bounds().listeners_per_identity)]
        streams = [await one.__aenter__() for one in opened]
        for stream in streams:
            assert (await anext(stream))["method"] == "notifications/subscriptions/acknowledged"
        assert [one["id"] for one in [one async for one in first]] == ["first"], "answered, and over"
        assert len(run.pep._subscriptions) == Bounds().listeners_per_identity + 1
        metrics = run.pep._ports.metrics
        assert isinstance(metrics, OtelMetrics)
        assert 'mcp_sidecar_evictions_total{what="listener"} 1.0' in metrics.render()[0].decode()
        for one in opened:
            await one.__aexit__(None, None, None)
        await until(lambda: len(run.pep._subscriptions) == 1)
        assert len(run.pep._notices) == 1, "of those that left nothing is kept"


async def test_the_official_client_hears_that_tools_changed_and_how_it_ends(endpoint: Endpoints) -> None:
    async with (
        endpoint(at_once) as run,
        httpx2.AsyncClient(headers={"Authorization": "Bearer alice"}, timeout=HANG_S) as http,
        mcp.Client(streamable_http_client(run.url, http_client=http), mode=REVISION) as client,
        client.listen(tools_list_changed=True, prompts_list_changed=True) as subscription,
    ):
        assert subscription.honored.tools_list_changed is True
        assert subscription.honored.prompts_list_changed is None
        run.pep.tools_changed()
        heard = [type(await anext(aiter(subscription))).__name__]
        run.pep.close_streams()
        heard += [type(one).__name__ async for one in subscription]
        assert heard == ["ToolsListChanged"], "and then it ends without an error"
