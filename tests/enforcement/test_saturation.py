"""More calls than OPA decides in time: real policies in a real OPA that is stopped and goes on, seen from outside."""

import asyncio
import json
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.audit import record
from sidecar.commands import derive
from sidecar.enforcement import budget, offloading
from sidecar.enforcement.budget import PER_ADDRESS
from sidecar.fair_line import FairLine
from sidecar.identity.suspension import Suspendable, SuspensionTarget
from sidecar.mcp import jsonrpc
from sidecar.model import Permit
from sidecar.opa.instance import Instance
from sidecar.opa.managed import ManagedOpa
from tests.enforcement.streaming import FIND, ORDERS, Streaming, call, message, streaming
from tests.enforcement.test_confirmations_stateless import post as post_stateless
from tests.enforcement.test_streams import suspend
from tests.patience import HANG_S, until
from tests.policy_sets import served
from tests.standing_still import standing_still

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

AT_ONCE = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary) -> AsyncIterator[ManagedOpa]:
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(
            opa_binary, served(), directory=Path(folder), timeout_s=HANG_S, probe_interval_s=HANG_S
        ) as running:
            yield running


@pytest.fixture
def line(opa) -> Callable[[float], FairLine]:
    """Puts a line in front of OPA in which calls wait for so long."""

    def put(wait_s: float = HANG_S) -> FairLine:
        assert isinstance(opa._current, Instance)
        found = opa._current.client._line = FairLine(AT_ONCE, wait_s=wait_s)
        return found

    return put


def stopped(opa: ManagedOpa) -> AbstractContextManager[None]:
    assert opa.pid is not None
    return standing_still(opa.pid)


async def acts(permit: Permit) -> str:
    permit.leaving()
    return "acted"


async def result(run: Streaming, session: str, user: str, number: int = 1) -> Any:
    async with run.post(session, call(number), user) as answer:
        assert answer.status == 200
        return (await answer.json())["result"]


def calls(run: Streaming, session: str, user: str, number: int, first: int = 100) -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(result(run, session, user, first + one)) for one in range(number)]


def refusals(run: Streaming) -> list[Any]:
    rows = [json.loads(line) for line in run.audit.read_bytes().splitlines()]  # noqa: TID251 - our own file
    return [row for row in rows if row["event"] == "refusal"]


def decision(answer: Any) -> Any:
    assert answer["isError"], answer
    return answer["_meta"]["mcp-sidecar/decision"]


async def test_a_flood_of_one_user_takes_no_turn_of_another(opa, offered, line) -> None:
    waiting = line()
    async with streaming(opa, offered, acts) as run:
        alice, bob = await run.open("alice"), await run.open("bob")
        with stopped(opa):
            flood = calls(run, alice, "alice", 30)
            await until(lambda: waiting.waiting == 30 - AT_ONCE)
            honest = calls(run, bob, "bob", 2)
            await until(lambda: waiting.waiting == 32 - AT_ONCE)
        answers = await asyncio.gather(*flood, *honest)
        assert not any(answer.get("isError") for answer in answers), "everybody is answered in the end"
        order = [permit.caller[1] for permit in run.server.permits]
        assert Counter(order) == {"alice": 30, "bob": 2}
        assert order[: order.index("bob")].count("alice") <= 3 * AT_ONCE
        assert (waiting.inside, waiting.waiting) == (0, 0)


async def test_what_would_wait_too_long_is_refused_with_a_hint_and_the_next_call_after_it_is_answered(
    opa, offered, line
) -> None:
    waiting = line(0.1)
    async with streaming(opa, offered, acts) as run:
        alice, bob = await run.open("alice"), await run.open("bob")
        with stopped(opa):
            flood = calls(run, alice, "alice", AT_ONCE)
            await until(lambda: waiting.inside == AT_ONCE)
            answer = await result(run, bob, "bob")
            status, stateless = await post_stateless(run, user="bob")
            async with run.post(bob, message("tools/list"), "bob") as listed:
                error = (await listed.json())["error"]
            assert not run.server.permits, "nothing was forwarded"
        said = decision(answer)
        assert said["reasons"] == [{"code": "overloaded", "source": "opa.overloaded", "access": None}]
        assert said["retry_after_s"] >= 1
        assert answer["content"][0]["text"].endswith(f"again in {said['retry_after_s']} second.")
        assert status == 200
        assert decision(stateless["result"])["retry_after_s"] >= 1
        assert (error["code"], error["data"]["retry_after_s"] >= 1) == (1503, True)
        assert {(row["subject"]["id"], row["outcome"]["error"]) for row in refusals(run)} == {("bob", "overloaded")}
        await asyncio.gather(*flood)
        assert not (await result(run, bob, "bob")).get("isError"), "the flood is over, and so is its effect"


async def test_refusals_of_a_flood_have_a_bounded_number_of_records(opa, offered, line, monkeypatch) -> None:
    monkeypatch.setattr(budget, "WINDOW_S", 1e9)  # none begins meanwhile
    waiting = line(0.05)
    async with streaming(opa, offered, acts) as run:
        alice = await run.open("alice")
        with stopped(opa):
            flood = calls(run, alice, "alice", AT_ONCE)
            await until(lambda: waiting.inside == AT_ONCE)
            refused = 0
            for _ in range(2):
                answers = await asyncio.gather(*calls(run, alice, "alice", 25, first=500))
                refused += sum(decision(answer)["reasons"][0]["code"] == "overloaded" for answer in answers)
        await asyncio.gather(*flood)
        assert refused == 50
        assert len(refusals(run)) == PER_ADDRESS
        assert (waiting.inside, waiting.waiting) == (0, 0)


async def test_a_suspension_binds_a_call_that_waits_in_line(opa, offered, line) -> None:
    waiting = line()
    async with streaming(opa, offered, acts) as run:
        alice, bob = await run.open("alice"), await run.open("bob")
        with stopped(opa):
            flood = calls(run, alice, "alice", 6)
            honest = calls(run, bob, "bob", 1)
            await until(lambda: waiting.waiting == 7 - AT_ONCE)
            suspend(run, SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice"))
            await until(lambda: (waiting.inside, waiting.waiting) == (1, 0))
        [answered] = await asyncio.gather(*honest)
        assert not answered.get("isError")
        assert [decision(one)["reasons"][0]["code"] for one in await asyncio.gather(*flood)] == ["suspended"] * 6
        assert {permit.caller[1] for permit in run.server.permits} == {"bob"}


async def test_a_client_that_leaves_takes_its_place_in_line_with_it(opa, offered, line) -> None:
    waiting = line()
    async with streaming(opa, offered, acts) as run:
        alice = await run.open("alice")
        with stopped(opa):
            flood = calls(run, alice, "alice", AT_ONCE)
            await until(lambda: waiting.inside == AT_ONCE)
            leaving = [asyncio.create_task(post_stateless(run, user="bob")) for _ in range(3)]
            await until(lambda: waiting.waiting == 3)
            for task in leaving:
                task.cancel()
            await until(lambda: waiting.waiting == 0)
        await asyncio.gather(*flood)
        await asyncio.gather(*leaving, return_exceptions=True)
        assert not waiting.inside
        assert [row["outcome"]["error"] for row in refusals(run)] == ["cancelled"] * 3
        assert len(run.server.permits) == AT_ONCE


async def test_when_a_flood_of_everybody_is_over_nothing_is_left_of_it(opa, offered, line) -> None:
    waiting = line(0.2)
    async with streaming(opa, offered, acts) as run:
        users = {user: await run.open(user) for user in ("alice", "bob")}
        with stopped(opa):
            flood = [task for user, session in users.items() for task in calls(run, session, user, 25)]
            await until(lambda: sum(task.done() for task in flood) >= 50 - AT_ONCE)
        outcomes = Counter(bool(answer.get("isError")) for answer in await asyncio.gather(*flood))
        assert outcomes == {True: 50 - AT_ONCE, False: AT_ONCE}
        assert (waiting.inside, waiting.waiting, waiting._row.callers) == (0, 0, 0)
        again = await asyncio.gather(*(result(run, session, user) for user, session in users.items()))
        assert not any(answer.get("isError") for answer in again)


LARGE = 100_000


def padded(size: int = LARGE) -> Any:
    return {**FIND, "arguments": {**ORDERS, "filter": {"text": "x" * size}, "limit": 1}}


async def test_a_loader_has_only_so_many_bytes_under_way_and_another_user_has_its_own(opa, offered) -> None:
    answer = asyncio.Event()

    async def later(permit: Permit) -> str:
        permit.leaving()
        await answer.wait()
        return "acted"

    async def send(session: str, user: str, number: int) -> Any:
        async with run.post(session, call(number, params=padded()), user) as answered:
            assert answered.status == 200
            return (await answered.json())["result"]

    async with streaming(opa, offered, later, large_bytes_of_one=5 * LARGE // 2) as run:
        alice, bob = await run.open("alice"), await run.open("bob")
        under_way = [asyncio.create_task(send(alice, "alice", number)) for number in range(2)]
        await until(lambda: len(run.server.permits) == 2)
        spent = decision(await send(alice, "alice", 7))
        assert spent["reasons"] == [{"code": "byte_budget", "source": "sidecar", "access": None}]
        assert spent["retry_after_s"] >= 1
        status, stateless = await post_stateless(run, padded())
        assert (status, decision(stateless["result"])["reasons"][0]["code"]) == (200, "byte_budget")
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
        listing = message("tools/list", {"_meta": {"x.example/padding": "x" * LARGE}})
        async with run.http.post(run.url, json=listing, headers=run.headers(**headers)) as refused:
            assert (refused.status, int(refused.headers["Retry-After"]) >= 1) == (429, True)
            assert (await refused.json())["error"]["data"]["retry_after_s"] >= 1
        small = asyncio.create_task(result(run, alice, "alice", 9))
        other = asyncio.create_task(send(bob, "bob", 8))
        await until(lambda: len(run.server.permits) == 4)
        answer.set()
        answers = await asyncio.gather(*under_way, small, other)
        assert not any(one.get("isError") for one in answers)
        assert not (await send(alice, "alice", 10)).get("isError"), "what is answered leaves room"
        assert {row["outcome"]["error"] for row in refusals(run)} == {"byte_budget"}


def awkward(size: int) -> Any:
    """A call whose numbers have to be looked at one by one when it is decoded, and again when it is digested."""
    numbers = [1e300, 123456789012345.5, 1e22] * (size // 48)
    return {**FIND, "arguments": {**ORDERS, "filter": {"n": {"$in": numbers}}, "limit": 1}}


async def test_a_large_message_is_worked_on_beside_the_loop_and_a_small_one_where_it_is(
    opa, offered, monkeypatch
) -> None:
    beside: dict[str, bool] = {}

    def noted(name: str, work: Any) -> Any:
        def run(*args: Any, **named: Any) -> Any:
            beside[name] = threading.current_thread() is not threading.main_thread()
            return work(*args, **named)

        return run

    monkeypatch.setattr(jsonrpc, "decode", noted("decode", jsonrpc.decode))
    monkeypatch.setattr(offloading, "derive", noted("derive", derive))
    monkeypatch.setattr(record, "arguments_digest", noted("digest", record.arguments_digest))
    async with streaming(opa, offered, acts) as run:
        alice = await run.open("alice")
        for params, is_large in ((awkward(900_000), True), (awkward(4_800), False)):
            beside.clear()
            async with run.post(alice, call(1, params=params), "alice") as answer:
                assert not (await answer.json())["result"].get("isError")
            assert beside == dict.fromkeys(("decode", "derive", "digest"), is_large)


async def test_a_large_message_that_is_refused_is_refused_in_the_same_words(opa, offered) -> None:
    async with streaming(opa, offered, acts) as run:
        alice, said = await run.open("alice"), []
        for size in (100, LARGE):
            params = padded(size)
            params["arguments"]["filter"]["$where"] = "1"
            params["arguments"]["unknown"] = 1
            async with run.post(alice, call(1, params=params), "alice") as answer:
                said.append((await answer.json())["result"]["content"])
        assert said[0] == said[1]
        assert not run.server.permits
