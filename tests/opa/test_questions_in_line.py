"""More questions than OPA takes at a time: users take turns, nobody waits in vain, and no other set answers.

OPA itself is slow only if it is made to be, so in most tests an HTTP server stands in its place; the last ones stop the
real one.
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.errors import DecisionUnavailable
from sidecar.fair_line import LineClosed
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa import client as client_module
from sidecar.opa.client import OpaClient
from sidecar.opa.hot_standby import HotStandby
from sidecar.opa.instance import LineLimits
from sidecar.opa.managed import ManagedOpa
from sidecar.opa.memo import Memo
from sidecar.ports import PdpAnswer, Question
from sidecar.saturation import Overloaded
from tests.opa.small_policies import MAIN
from tests.opa.test_opa_client import PATIENT_S, never, peer, properly
from tests.patience import HANG_S
from tests.standing_still import standing_still

AWAY_TIMEOUT_S = 0.04
"""A fourth of it is shorter than our own loop is held at a time."""


def asked_by(user: str, number: int = 0) -> JsonObject:
    return {"subject": {"issuer": "https://idp.example", "id": user}, "number": number}


async def fault_of(asked: "asyncio.Future[PdpAnswer]") -> PdpFault | None:
    try:
        await asked
    except DecisionUnavailable as error:
        return error.fault
    return None


async def test_users_take_turns_whoever_asks_for_more() -> None:
    first, order = asyncio.Event(), []

    async def one_by_one(request: web.Request) -> web.Response:
        order.append(json.loads(await request.read())["input"]["subject"]["id"])  # noqa: TID251 - our own question
        await first.wait()
        return await properly(request)

    async with peer(one_by_one) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=1) as client:
        flood = [asyncio.create_task(client.ask(Question.DECISION, asked_by("loader", n))) for n in range(30)]
        await stand_in.was_asked(1)
        approver = asyncio.create_task(client.ask(Question.APPROVER, asked_by("approver")))
        await asyncio.sleep(0)
        first.set()
        await asyncio.gather(*flood, approver)
    assert order.index("approver") <= 2, "an approver is not kept waiting by whom the approval is for"


async def test_one_that_was_not_sent_in_time_is_refused_with_a_hint_and_opa_never_saw_it() -> None:
    async with peer(never) as stand_in:
        async with OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=1, queue_s=0.05) as client:
            first = asyncio.create_task(client.ask(Question.DECISION, asked_by("loader")))
            await stand_in.was_asked(1)
            with pytest.raises(Overloaded) as refused:
                await client.ask(Question.DECISION, asked_by("analyst"))
            assert (refused.value.fault, refused.value.retry_after_s >= 1) == (PdpFault.OVERLOADED, True)
            assert len(stand_in.asked) == 1
        assert await fault_of(first) is not None


async def test_who_shares_the_question_of_another_is_refused_with_it_and_with_the_hint() -> None:
    async with peer(never) as stand_in:
        memo = Memo(PATIENT_S, lambda: True)
        async with OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=1, queue_s=0.2, memo=memo) as client:
            first = asyncio.create_task(client.ask(Question.DECISION, asked_by("loader")))
            await stand_in.was_asked(1)
            equal = [asyncio.create_task(client.ask(Question.DECISION, asked_by("analyst"))) for _ in range(2)]
            refused = await asyncio.gather(*equal, return_exceptions=True)
            assert [type(one) for one in refused] == [Overloaded, Overloaded]
        assert await fault_of(first) is not None


async def test_those_that_give_up_leave_no_place_taken() -> None:
    async with peer(never) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=2) as client:
        tasks = [asyncio.create_task(client.ask(Question.DECISION, asked_by("loader", n))) for n in range(9)]
        await stand_in.was_asked(2)
        assert (client._line.inside, client._line.waiting) == (2, 7)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (client._line.inside, client._line.waiting) == (0, 0)


async def test_what_waits_for_an_opa_that_is_superseded_is_not_put_to_it() -> None:
    answer = asyncio.Event()

    async def later(request: web.Request) -> web.Response:
        await answer.wait()
        return await properly(request)

    async with peer(later) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=1) as client:
        sent = asyncio.create_task(client.ask(Question.DECISION, asked_by("analyst", 1)))
        await stand_in.was_asked(1)
        waiting = asyncio.create_task(client.ask(Question.DECISION, asked_by("analyst", 2)))
        await asyncio.sleep(0)
        client.supersede()
        answer.set()
        with pytest.raises(LineClosed):
            await waiting
        with pytest.raises(LineClosed):
            await client.ask(Question.DECISION, asked_by("analyst", 3))
        assert (await sent).result == {"allow": False}, "what was sent is answered"
    assert len(stand_in.asked) == 1


async def test_a_question_is_told_of_when_it_is_sent_and_not_where_the_answer_is_known() -> None:
    told: list[float] = []
    memo = Memo(PATIENT_S, lambda: True)
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, memo=memo) as client:
        for _ in range(2):
            await client.ask(Question.DECISION, asked_by("analyst"), lambda: told.append(time.monotonic()))
    assert len(told) == 1


async def test_a_time_out_while_our_own_loop_was_away_says_nothing_of_opa() -> None:
    async def away() -> None:
        while True:
            time.sleep(0.035)  # noqa: ASYNC251 - our own loop is held: that is what is staged
            await asyncio.sleep(0)

    async with peer(never) as stand_in, OpaClient(stand_in.url, timeout_s=AWAY_TIMEOUT_S) as client:
        holding = asyncio.create_task(away())
        try:
            assert await client.probe() is None
            assert not await client.healthy(), "it has never said that it is well"
            with pytest.raises(Overloaded) as late:
                await client.ask(Question.DECISION, asked_by("analyst"))
            assert late.value.fault is PdpFault.LAGGING
        finally:
            holding.cancel()


async def test_while_our_own_loop_is_away_the_last_word_on_opa_stands() -> None:
    silent = asyncio.Event()

    async def until_silent(request: web.Request) -> web.StreamResponse:
        return await (never if silent.is_set() else properly)(request)

    async def away() -> None:
        while True:
            time.sleep(0.035)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0)

    async with peer(until_silent) as stand_in, OpaClient(stand_in.url, timeout_s=AWAY_TIMEOUT_S) as client:
        while not await client.probe():
            pass
        silent.set()
        holding = asyncio.create_task(away())
        try:
            assert await client.healthy()
        finally:
            holding.cancel()


async def test_an_opa_that_gives_no_answer_is_silent_whatever_was_before() -> None:
    async with peer(never) as stand_in, OpaClient(stand_in.url, timeout_s=AWAY_TIMEOUT_S) as client:
        while await client.probe() is None:
            pass
        assert not await client.healthy()


async def stands_in(pair: HotStandby, *, inside: int, waiting: int = 0) -> None:
    def is_so() -> bool:
        line = pair._first.instance.client._line if pair._first is not None else None
        return line is not None and (line.inside, line.waiting) == (inside, waiting)

    async with asyncio.timeout(HANG_S):
        while not is_so():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@pytest.mark.real
async def test_a_question_that_waits_while_the_policies_change_is_decided_by_the_new_ones(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path
) -> None:
    root = make_policies()
    managed = ManagedOpa(
        opa_binary,
        root,
        directory=runtime,
        timeout_s=HANG_S,
        start_timeout_s=HANG_S,
        probe_interval_s=HANG_S,
        reload_s=0.1,
    )
    await managed.start(standby=True, line=LineLimits(at_once=1, queue_s=HANG_S))
    before, pair = managed.revision, managed._current
    assert isinstance(pair, HotStandby)
    try:
        with standing_still(*pair.pids):
            sent = asyncio.create_task(managed.ask(Question.DECISION, asked_by("loader")))
            await stands_in(pair, inside=1)
            waiting = [asyncio.create_task(managed.ask(Question.DECISION, asked_by(f"user {n}"))) for n in range(5)]
            await stands_in(pair, inside=1, waiting=5)
            (root / "platform" / "main.rego").write_text(MAIN.replace('"small"', '"other"'))
            answers = await asyncio.gather(*waiting)
            assert managed.revision != before
            assert {answer.revision for answer in answers} == {managed.revision}
    finally:
        await managed.stop()
    assert await fault_of(sent) in {None, PdpFault.UNREACHABLE, PdpFault.INCOMPLETE, PdpFault.TIMEOUT}


def test_the_defaults_are_those_of_the_settings() -> None:
    from sidecar.opa_settings import Opa  # noqa: PLC0415 - beside the claim

    assert Opa().queue_ms / 1000 == client_module.QUEUE_S
