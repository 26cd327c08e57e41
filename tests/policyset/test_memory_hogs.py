"""A team whose policy ends OPA: nobody else's decisions wait for it, and it does not go on for long.

No lint tells such a policy from an honest one, and no deadline interrupts it: memory is asked for within one builtin.
"""

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.blame import LISTS, MAX_REMEMBERED, TERM_S, Blame, Member, PendingQuestion, places
from sidecar.opa.hot_standby import HotStandby
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import Question
from tests import parts
from tests.patience import HANG_S, until
from tests.policyset.questions import ALLOWED_BLUE, allows, question

HOG = (
    'package mcp.teams.red\n\ngrant contains {"id": "x"} if {\n\tinput.access.collection == "hog"\n'
    '\ta0 := concat("", [input.actor.id, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])\n'
    + "".join(f'\ta{number + 1} := concat("", [a{number}, a{number}])\n' for number in range(28))
    + "\tcount(a28) < 0\n}\n"
)
HOGGING = question(("red", "hog", "read"))
HARMLESS_RED = question(("red", "orders", "read"))
PATIENT_S = HANG_S


@pytest.fixture
async def opa(policies: Path, team_file: Callable[[str, str], Path], runtime: Path) -> AsyncIterator[ManagedOpa]:
    team_file("more.rego", HOG)
    managed = ManagedOpa(
        str(parts.installed("opa")),
        policies,
        directory=runtime,
        timeout_s=PATIENT_S,  # however busy the machine: what ends a hog is its memory
        start_timeout_s=PATIENT_S,
        reload_s=0.1,
    )
    await managed.start(standby=True)
    try:
        yield managed
    finally:
        await managed.stop()


def pair(opa: ManagedOpa) -> HotStandby:
    current = opa._current
    assert isinstance(current, HotStandby)
    return current


async def fault_of(asking: Awaitable[object]) -> PdpFault:
    with pytest.raises(DecisionUnavailable) as caught:
        await asking
    return caught.value.fault


def one_is_gone(opa: ManagedOpa, before: tuple[int, ...]) -> bool:
    return not set(before) <= set(pair(opa).pids)


async def two_of_them(opa: ManagedOpa) -> None:
    await until(lambda: len(pair(opa).pids) == 2)


async def test_what_ends_an_opa_ends_no_decision_of_another_team(opa: ManagedOpa):
    first, second = pair(opa).pids
    await fault_of(opa.ask(Question.DECISION, HOGGING))
    await until(lambda: first not in pair(opa).pids)
    assert pair(opa).pid == second, "the one that stood by decides at once"
    assert await allows(opa, ALLOWED_BLUE)


async def test_the_next_one_ends_only_the_one_that_stands_by_and_then_no_more(opa: ManagedOpa):
    first, second = pair(opa).pids
    await fault_of(opa.ask(Question.DECISION, HOGGING))
    await until(lambda: first not in pair(opa).pids)
    await two_of_them(opa)
    third = pair(opa).pids[1]
    await fault_of(opa.ask(Question.DECISION, HOGGING))
    await until(lambda: third not in pair(opa).pids)
    assert pair(opa).pid == second
    for _ in range(3):
        assert await fault_of(opa.ask(Question.DECISION, HOGGING)) is PdpFault.SET_ASIDE
        assert await allows(opa, ALLOWED_BLUE)
    assert await fault_of(opa.ask(Question.DECISION, HARMLESS_RED)) is PdpFault.SET_ASIDE
    assert await fault_of(opa.ask(Question.DECISION, question(("blue", "orders", "read"), ("red", "orders", "read"))))
    await two_of_them(opa)
    assert pair(opa).pid == second


async def test_nobody_is_set_aside_for_being_named_beside_it(opa: ManagedOpa):
    """Whoever writes such a policy can name another team's database in the same call."""
    both = question(("blue", "orders", "read"), ("red", "hog", "read"))
    for _ in range(2):
        before = pair(opa).pids
        await fault_of(opa.ask(Question.DECISION, both))
        await until(partial(one_is_gone, opa, before))
        await two_of_them(opa)
    assert await fault_of(opa.ask(Question.DECISION, HARMLESS_RED)) is PdpFault.SET_ASIDE
    assert await fault_of(opa.ask(Question.DECISION, both)) is PdpFault.SET_ASIDE
    assert await allows(opa, ALLOWED_BLUE)


async def test_a_call_on_two_suspected_databases_that_harms_nobody_is_answered(opa: ManagedOpa):
    first, _ = pair(opa).pids
    await fault_of(opa.ask(Question.DECISION, question(("blue", "orders", "read"), ("red", "hog", "read"))))
    await until(lambda: first not in pair(opa).pids)
    await two_of_them(opa)
    assert await allows(opa, question(("blue", "orders", "read"), ("red", "orders", "read")))


async def test_who_is_only_suspected_is_answered_by_the_one_that_stands_by(opa: ManagedOpa):
    first, second = pair(opa).pids
    await fault_of(opa.ask(Question.DECISION, HOGGING))
    await until(lambda: first not in pair(opa).pids)
    await two_of_them(opa)
    for _ in range(3):
        assert await allows(opa, HARMLESS_RED)
    assert pair(opa).pid == second


async def test_a_list_can_end_only_the_one_that_stands_by(opa: ManagedOpa):
    first, second = pair(opa).pids
    asked = {part: HOGGING[part] for part in ("subject", "actor")}
    await fault_of(pair(opa)._ask_alone(Question.DECISION, HOGGING, LISTS))
    await until(lambda: second not in pair(opa).pids)
    assert await fault_of(opa.ask(Question.RESIDUAL, asked)) is PdpFault.SET_ASIDE
    assert await allows(opa, ALLOWED_BLUE)
    assert await allows(opa, HARMLESS_RED)
    assert pair(opa).pid == first


async def test_a_new_policy_set_begins_without_suspicion(opa: ManagedOpa, policies: Path):
    first, _ = pair(opa).pids
    await fault_of(opa.ask(Question.DECISION, HOGGING))
    await until(lambda: first not in pair(opa).pids)
    before = opa.revision
    (policies / "teams" / "red" / "more.rego").unlink()
    await until(lambda: opa.revision != before)
    fresh = pair(opa).pid
    assert await allows(opa, HARMLESS_RED)
    assert not pair(opa)._suspected.holds(frozenset({"red"}))
    assert pair(opa).pid == fresh


async def test_a_killed_opa_is_replaced_without_a_pause(opa: ManagedOpa):
    first, second = pair(opa).pids
    os.kill(first, signal.SIGKILL)
    await until(lambda: pair(opa).pid == second)
    assert await allows(opa, ALLOWED_BLUE)
    await two_of_them(opa)
    assert first not in pair(opa).pids


async def test_both_come_back_where_both_are_killed(opa: ManagedOpa):
    for pid in pair(opa).pids:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not pair(opa).pid)
    assert await fault_of(opa.ask(Question.DECISION, ALLOWED_BLUE)) is PdpFault.UNREACHABLE
    assert not await opa.healthy()
    await two_of_them(opa)
    assert await allows(opa, ALLOWED_BLUE)
    assert await opa.healthy()


async def test_neither_outlives_the_end(opa: ManagedOpa):
    pids = pair(opa).pids
    assert len(pids) == 2
    await opa.stop()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((Question.DECISION, ALLOWED_BLUE), {"blue"}),
        ((Question.DECISION, question(("red", "a", "read"), ("blue", "b", "read"))), {"red", "blue"}),
        ((Question.VISIBILITY, {"tools": {}}), set()),
        ((Question.RESIDUAL, {"subject": {}}), set(LISTS)),
        ((Question.DECISION, {"accesses": 7}), set()),
    ],
    ids=["one", "two", "list", "partial", "no question"],
)
def test_a_question_is_about_its_databases(asked: tuple[Question, JsonObject], found: set[str]):
    assert places(*asked) == found


def test_a_term_ends_and_the_next_is_twice_as_long():
    now = [0.0]
    blame, red = Blame(lambda: now[0]), frozenset({"red"})
    assert not blame.holds(red)
    blame.put(red)
    now[0] = TERM_S - 1
    assert blame.holds(red)
    assert blame.holds(red | {"blue"})
    assert not blame.holds(frozenset({"blue"}))
    now[0] = TERM_S
    assert not blame.holds(red)
    blame.put(red)
    now[0] = 3 * TERM_S - 1
    assert blame.holds(red)
    now[0] = 3 * TERM_S
    assert not blame.holds(red)


@pytest.mark.parametrize(
    ("asked", "to_blame"),
    [
        ([], set()),
        ([("red", 1.0, None)], {"red"}),
        ([("red", 1.0, None), ("blue", 1.2, None)], {"red"}),
        ([("red", 1.0, None), ("blue", 1.01, None)], {"red", "blue"}),
        ([("red", 1.0, 9.5), ("blue", 9.0, None)], {"red"}),
        ([("green", 1.0, 3.0), ("red", 9.0, None)], {"red"}),
        ([("green", math.inf, None), ("red", 9.0, None)], {"red"}),
        ([("green", math.inf, None)], set()),
    ],
    ids=[
        "nothing",
        "one",
        "who waited is not",
        "together",
        "gave up a moment ago",
        "gave up long ago",
        "who was not sent is not",
        "nothing that was sent",
    ],
)
def test_the_oldest_question_without_an_answer_is_to_blame(
    asked: list[tuple[str, float, float | None]], to_blame: set[str]
):
    pending = [PendingQuestion(frozenset({name}), lambda: 10.0, at, failed) for name, at, failed in asked]
    member = Member(instance=None, asked=pending)  # type: ignore[arg-type]
    assert member.blamed(10.0) == to_blame


SLOW = (
    'package mcp.teams.red\n\ngrant contains {"id": "slow"} if {\n\tinput.access.collection == "slow"\n'
    "\tdigits := [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n\tcount([1 | "
    + "; ".join(f"some a{number} in digits" for number in range(9))
    + "]) > 0\n}\n"
)
SLOW_RED = question(("red", "slow", "read"))


@pytest.fixture
async def slowed(policies: Path, team_file: Callable[[str, str], Path], runtime: Path) -> AsyncIterator[ManagedOpa]:
    team_file("more.rego", SLOW)
    managed = ManagedOpa(
        str(parts.installed("opa")), policies, directory=runtime, timeout_s=1.0, start_timeout_s=PATIENT_S, reload_s=0.1
    )
    await managed.start(standby=True)
    try:
        yield managed
    finally:
        await managed.stop()


async def test_a_slow_team_takes_no_call_from_another(slowed: ManagedOpa):
    """Calls of both, the other's 10 ms after the slow one's, so that nothing but the answers tells them apart."""

    async def slow() -> PdpFault:
        return await fault_of(slowed.ask(Question.DECISION, SLOW_RED))

    async def honest() -> bool:
        await asyncio.sleep(0.01)
        return await allows(slowed, ALLOWED_BLUE)

    for _ in range(4):
        answers = await asyncio.gather(*(one() for _ in range(3) for one in (slow, honest)))
        assert all(answers[1::2])
        assert set(answers[::2]) <= {PdpFault.TIMEOUT, PdpFault.OVERLOADED}
    assert pair(slowed)._suspected.holds(frozenset({"red"}))
    assert not pair(slowed)._suspected.holds(frozenset({"blue"}))


async def test_who_was_blamed_by_chance_is_not_once_a_question_is_answered_alone(slowed: ManagedOpa):
    pair(slowed)._suspected.put(frozenset({"blue", "red"}))
    slow = [asyncio.create_task(fault_of(slowed.ask(Question.DECISION, SLOW_RED))) for _ in range(5)]
    await asyncio.sleep(0)
    assert await allows(slowed, ALLOWED_BLUE), "its turn comes after one of the slow ones, not after all of them"
    assert not pair(slowed)._suspected.holds(frozenset({"blue"}))
    assert pair(slowed)._suspected.holds(frozenset({"red"}))
    await asyncio.gather(*slow)
    assert pair(slowed)._suspected.holds(frozenset({"red"}))


def test_a_second_term_is_not_lifted_and_what_is_remembered_is_bounded():
    now = [0.0]
    blame, red = Blame(lambda: now[0]), frozenset({"red"})
    blame.put(red)
    blame.lift(red | {"nobody"})
    assert not blame.holds(red)
    blame.put(red)
    blame.lift(red)
    assert blame.holds(red)
    for number in range(MAX_REMEMBERED):
        blame.put(frozenset({str(number)}))
    assert not blame.holds(red)
    assert blame.holds(frozenset({"0"}))


def test_a_question_is_slow_by_itself_where_a_later_one_was_answered_at_once():
    now = [0.0]
    member = Member(instance=None)  # type: ignore[arg-type]

    def ask(asked_at: float, took: float) -> PendingQuestion:
        one = PendingQuestion(frozenset({"x"}), lambda: now[0], asked_at)
        now[0] = asked_at + took
        with member.asking(one, 1.0):
            pass
        return one

    slow = PendingQuestion(frozenset({"red"}), lambda: now[0], 10.0)
    assert not member.is_slow(slow)
    ask(9.9, 0.01)
    assert not member.is_slow(slow), "asked before it"
    ask(10.1, 0.6)
    assert not member.is_slow(slow), "slow as well: the machine is busy"
    ask(math.inf, 0.0)
    assert not member.is_slow(slow), "the answer was remembered, and says nothing of the process"
    ask(10.1, 0.2)
    assert member.is_slow(slow)
    assert not member.is_slow(PendingQuestion(frozenset({"red"}), lambda: now[0])), "it waits to be sent"
