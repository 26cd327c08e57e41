"""So many at a time and no more, nobody waits in vain or for too long, and no caller pushes another out."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.fair_line import LONGEST_HINT_S, FairLine, LineClosed, NoPlace
from tests.examples import examples
from tests.patience import HANG_S
from tests.simulation.simulated_loop import SimulatedLoop

WAIT_S = 1.0


def simulated(story: Callable[[], Awaitable[None]], seed: int = 0) -> None:
    """Play a story by a clock of its own."""
    loop = SimulatedLoop(Random(seed))  # noqa: S311 - of a story
    asyncio.set_event_loop(None)
    try:
        loop.run_until_complete(story())
        assert not loop.faults, loop.faults
    finally:
        loop.close()


@dataclass(frozen=True)
class Visit:
    caller: str
    comes_s: float
    stays_s: float
    gives_up_s: float | None
    """When it is cancelled; None: never."""


@dataclass
class World:
    """Plays visits, and holds each moment against what is claimed of the line."""

    line: FairLine
    at_once: int
    inside: int = 0
    most_waiting: int = 0
    let_in: list[str] = field(default_factory=list)
    """The callers who were let in after they had waited, in order."""
    gave_up: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    hints: set[int] = field(default_factory=set)
    longest_s: float = 0.0
    """That one waited who was refused."""

    async def play(self, visit: Visit) -> None:
        task = asyncio.create_task(self.visit(visit))

        def give_up() -> None:
            if not task.done():
                self.gave_up[visit.caller] += 1
                task.cancel()

        if visit.gives_up_s is not None:
            asyncio.get_running_loop().call_later(visit.gives_up_s, give_up)
        await asyncio.wait({task})
        if task.cancelled():
            self.outcomes["gave up"] += 1
        elif (error := task.exception()) is not None:
            raise error

    async def visit(self, visit: Visit) -> None:
        await asyncio.sleep(visit.comes_s)
        loop, line = asyncio.get_running_loop(), self.line
        came, waits = loop.time(), line.inside >= self.at_once
        own = line._row.of(visit.caller) + 1
        seen, lost = len(self.let_in), self.gave_up[visit.caller]
        woken = line.inside - self.inside  # were let in before this one came, and are noted after it
        try:
            await line.enter(visit.caller)
        except NoPlace as refused:
            self.hints.add(refused.retry_after_s)
            self.longest_s = max(self.longest_s, loop.time() - came)
            self.outcomes["refused"] += 1
            return
        self.inside += 1
        try:
            assert self.inside <= self.at_once
            assert self.inside <= line.inside, "who is let in and was not woken yet has a place as well"
            assert loop.time() - came <= WAIT_S + 1e-9
            if waits:
                others = Counter(self.let_in[seen:])
                turns = own + self.gave_up[visit.caller] - lost + woken
                self.let_in.append(visit.caller)
                assert all(number <= turns for one, number in others.items() if one != visit.caller)
            await asyncio.sleep(visit.stays_s)
            self.outcomes["served"] += 1
        finally:
            self.inside -= 1
            line.leave()


VISITS = st.lists(
    st.builds(
        Visit,
        caller=st.sampled_from("aaaabbc"),
        comes_s=st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5]),
        stays_s=st.sampled_from([0.0, 0.01, 0.1, 0.4]),
        gives_up_s=st.sampled_from([None, None, None, 0.0, 0.1, 0.11, 0.4, 0.5, 1.0]),
    ),
    max_size=40,
)


@settings(max_examples=examples(200))
@given(visits=VISITS, at_once=st.integers(1, 4), most=st.sampled_from([3, 10, 1024]), seed=st.integers(0, 9))
def test_whatever_comes_the_line_holds_what_it_promises(visits: list[Visit], at_once: int, most: int, seed: int):
    line = FairLine(at_once, wait_s=WAIT_S, most=most)
    world = World(line, at_once)

    async def story() -> None:
        await asyncio.gather(*map(world.play, visits))
        assert line.waiting <= most

    simulated(story, seed)
    assert (line.inside, line.waiting, line._row.callers) == (0, 0, 0), "nothing is left behind"
    assert world.outcomes.total() == len(visits), "every visit has an end"
    assert world.longest_s <= WAIT_S + 1e-9
    assert all(1 <= hint <= LONGEST_HINT_S for hint in world.hints)


async def crowd(line: FairLine, caller: str, number: int, order: list[str]) -> list["asyncio.Task[None]"]:
    """Let so many of one caller wait."""

    async def wait() -> None:
        await line.enter(caller)
        order.append(caller)

    tasks = [asyncio.create_task(wait()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def dismissed(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_flood_of_one_caller_takes_no_turn_of_another() -> None:
    line = FairLine(1, wait_s=HANG_S)
    order: list[str] = []
    assert line.enter_at_once()
    flood = await crowd(line, "loader", 500, order)
    honest = await crowd(line, "analyst", 2, order)
    for _ in range(5):
        line.leave()
        await asyncio.sleep(0)
    assert order == ["loader", "analyst", "loader", "analyst", "loader"]
    await dismissed(*flood, *honest)
    assert line.waiting == 0


async def test_where_the_line_is_full_who_has_most_in_it_makes_room() -> None:
    line = FairLine(1, wait_s=HANG_S, most=4)
    order: list[str] = []
    assert line.enter_at_once()
    flood = await crowd(line, "loader", 4, order)
    honest = await crowd(line, "analyst", 2, order)
    for last in flood[2:]:
        with pytest.raises(NoPlace, match="have asked for less"):
            await last
    assert (line.waiting, [task.done() for task in flood]) == (4, [False, False, True, True])
    for caller in ("loader", "analyst"):
        with pytest.raises(NoPlace, match="too much waits"):
            await line.enter(caller)  # none of both has more than the other
    await dismissed(*flood, *honest)


async def test_callers_without_end_leave_nothing_behind() -> None:
    line = FairLine(1, wait_s=HANG_S, most=8)
    assert line.enter_at_once()
    tasks = [task for number in range(200) for task in await crowd(line, f"caller {number}", 1, [])]
    assert (line.waiting, line._row.callers) == (8, 8)
    assert sum(task.done() for task in tasks) == 192
    await dismissed(*tasks)
    assert (line.waiting, line._row.callers, line.inside) == (0, 0, 1)


def test_who_would_wait_too_long_is_refused_at_once_and_the_hint_is_when_the_line_has_moved() -> None:
    line = FairLine(1, wait_s=WAIT_S)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        assert line.enter_at_once()
        flood = await crowd(line, "loader", 40, order)
        for _ in range(10):
            await asyncio.sleep(0.05)
            line.leave()
        await asyncio.sleep(0)
        assert len(order) == 10
        before = loop.time()
        with pytest.raises(NoPlace, match="would be too long") as refused:
            await line.enter("loader")  # 30 before it, each of 50 ms
        assert loop.time() == before
        assert refused.value.retry_after_s == 2
        honest = await crowd(line, "analyst", 1, order)
        await asyncio.sleep(0.05)
        line.leave()
        line_after = len(order)
        await asyncio.sleep(0.05)
        line.leave()
        await asyncio.sleep(0)
        assert "analyst" in order[line_after - 1 :], "one of another caller has its turn all the same"
        await dismissed(*flood, *honest)

    simulated(story)


def test_when_a_flood_is_over_the_next_one_goes_in_without_a_wait() -> None:
    line = FairLine(2, wait_s=WAIT_S)

    async def one(caller: str) -> None:
        await line.enter(caller)
        await asyncio.sleep(0.1)
        line.leave()

    async def story() -> None:
        loop = asyncio.get_running_loop()
        flood = await asyncio.gather(*(one("loader") for _ in range(200)), return_exceptions=True)
        assert {type(found) for found in flood} == {type(None), NoPlace}
        assert line.enter_at_once(), "nothing of the flood is left"
        line.leave()
        before = loop.time()
        await one("analyst")
        assert loop.time() - before == pytest.approx(0.1)

    simulated(story)


def test_a_line_that_everybody_has_left_has_no_pace_any_more() -> None:
    line = FairLine(1, wait_s=WAIT_S)

    async def story() -> None:
        order: list[str] = []
        assert line.enter_at_once()
        flood = await crowd(line, "loader", 40, order)
        for _ in range(10):
            await asyncio.sleep(0.01)
            line.leave()
            await asyncio.sleep(0)
        for waiting in flood:
            waiting.cancel()
        line.leave()  # in the moment in which all of them leave
        await asyncio.gather(*flood, return_exceptions=True)
        assert (line.inside, line.waiting) == (0, 0)
        await asyncio.sleep(3600)
        await line.enter("analyst")
        first, second = await crowd(line, "analyst", 2, order)
        line.leave()
        await first
        last = await crowd(line, "analyst", 1, order)
        await asyncio.sleep(0)
        assert (second.done(), last[0].done(), line.waiting) == (False, False, 2), "nobody is refused at once"
        await dismissed(second, *last)

    simulated(story)


def test_nobody_waits_longer_than_the_deadline() -> None:
    line = FairLine(1, wait_s=WAIT_S)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert line.enter_at_once()
        with pytest.raises(NoPlace, match="was too long"):
            await line.enter("analyst")
        assert loop.time() == WAIT_S
        line.leave()
        assert (line.inside, line.waiting) == (0, 0)

    simulated(story)


async def test_a_loop_that_was_late_costs_nobody_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place was given back, and the deadline passed, while the loop did something else."""
    line, loop = FairLine(1, wait_s=60.0), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    assert line.enter_at_once()
    [waiting] = await crowd(line, "analyst", 1, [])
    now += 100.0
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    line.leave()
    await waiting
    [again] = await crowd(line, "analyst", 1, [])
    for _ in range(2):
        now += 100.0
        for _ in range(3):
            await asyncio.sleep(0)
    with pytest.raises(NoPlace):
        await again


async def test_a_line_that_is_closed_sends_away_who_waits_and_who_comes() -> None:
    line = FairLine(1, wait_s=HANG_S)
    await line.enter("first")
    waiting = await crowd(line, "analyst", 3, [])
    line.close()
    assert {type(found) for found in await asyncio.gather(*waiting, return_exceptions=True)} == {LineClosed}
    assert not line.enter_at_once()
    with pytest.raises(LineClosed):
        await line.enter("analyst")
    line.leave()
    assert (line.inside, line.waiting) == (0, 0)
