"""Limits on use: what a caller's counters hold, what a used up one refuses, and that no eviction frees a budget."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.limits import CallsUnderWay, CountersInMemory, Limits
from sidecar.errors import TooManyCalls
from sidecar.model import Actor, Identity, Principal, UpstreamResult
from sidecar.ports import UsageCounter
from sidecar.usage import LimitReached, LimitsUnavailable, UsageLimit, UsagePart, UsageUnit

NS = 1_000_000_000
MINUTE = UsageLimit(id="minute", per=(UsagePart.SUBJECT,), team="", window_s=60, most=((UsageUnit.CALLS, 3),))
DATA = replace(MINUTE, id="data", most=((UsageUnit.DOCUMENTS, 100), (UsageUnit.BYTES, 1000)))
NOON = 1_704_628_800
"""A full minute, seconds since the epoch."""


class Now:
    """A clock that stands still."""

    def __init__(self, second: int = NOON) -> None:
        self.second = second

    def time_ns(self) -> int:
        return self.second * NS

    def monotonic(self) -> float:
        return float(self.second)


class Refused:
    """What was counted as refused."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, str]] = []

    def refused(self, stage: str, error: str) -> None:
        self.labels.append((stage, error))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def caller(user: str = "ann", agent: str = "desk", issuer: str = "https://i.example") -> Identity:
    return Identity(
        principal=Principal(issuer=issuer, subject=user, groups=(), roles=(), scopes=(), claims={}),
        actor=Actor(id=agent, chain=()),
        expires_at=0,
    )


def limits(clock: Now | None = None) -> Limits:
    return Limits(CountersInMemory(), clock or Now(), Refused())


async def admitted(
    of: Limits, *which: UsageLimit, who: Identity | None = None, tool: str = "find", at: int = NOON
) -> bool:
    try:
        await of.admit(which, who or caller(), tool, at * NS)
    except LimitReached:
        return False
    return True


def answer(documents: int | None, size: int) -> UpstreamResult:
    return UpstreamResult(result=b"x" * size, failed=False, documents=documents)


async def test_calls_are_admitted_up_to_the_limit_and_again_in_the_next_window() -> None:
    of = limits()
    assert [await admitted(of, MINUTE, at=NOON + second) for second in (0, 1, 59, 59)] == [True, True, True, False]
    assert await admitted(of, MINUTE, at=NOON + 60)


async def test_a_refusal_says_which_limit_and_when_it_is_free_again() -> None:
    of = limits()
    for _ in range(3):
        await of.admit([MINUTE], caller(), "find", NOON * NS)
    with pytest.raises(LimitReached) as refused:
        await of.admit([MINUTE], caller(), "find", (NOON + 23) * NS + 999)
    assert (refused.value.limit, refused.value.unit, refused.value.most) == (MINUTE, UsageUnit.CALLS, 3)
    assert (refused.value.free_at, refused.value.wait_s) == (NOON + 60, 37)


async def test_of_several_used_up_limits_the_last_to_be_free_is_said() -> None:
    of, day = limits(), replace(MINUTE, id="day", window_s=86_400)
    for _ in range(3):
        await of.admit([MINUTE, day], caller(), "find", NOON * NS)
    with pytest.raises(LimitReached) as refused:
        await of.admit([MINUTE, day], caller(), "find", NOON * NS)
    assert refused.value.limit is day


async def test_a_call_that_one_limit_refuses_uses_nothing_of_another() -> None:
    of, one = limits(), replace(MINUTE, id="one", most=((UsageUnit.CALLS, 1),))
    assert await admitted(of, one)
    assert [await admitted(of, one, MINUTE) for _ in range(9)] == [False] * 9
    assert [await admitted(of, MINUTE) for _ in range(4)] == [True, True, True, False]


PARTS: dict[UsagePart, dict[str, Any]] = {
    UsagePart.SUBJECT: {"who": caller(user="bob")},
    UsagePart.AGENT: {"who": caller(agent="robot")},
    UsagePart.TOOL: {"tool": "count"},
}


@pytest.mark.parametrize("part", PARTS)
async def test_what_a_limit_counts_apart_has_a_budget_of_its_own(part: UsagePart) -> None:
    of, apart = limits(), replace(MINUTE, per=(part,))
    assert [await admitted(of, apart) for _ in range(4)] == [True, True, True, False]
    assert await admitted(of, apart, **PARTS[part])
    for other in PARTS.keys() - {part}:
        assert not await admitted(of, apart, **PARTS[other]), "it counts by nothing else"


async def test_a_user_of_another_issuer_is_another_user() -> None:
    of = limits()
    assert [await admitted(of, MINUTE) for _ in range(4)][-1] is False
    assert await admitted(of, MINUTE, who=caller(issuer="https://j.example"))


async def test_names_that_run_together_are_not_one() -> None:
    of, one = limits(), replace(MINUTE, per=(UsagePart.SUBJECT, UsagePart.AGENT), most=((UsageUnit.CALLS, 1),))
    assert await admitted(of, one, who=caller(user="ann", agent="desk"))
    assert await admitted(of, one, who=caller(user="annde", agent="sk"))
    assert await admitted(of, one, who=caller(user="ann\0desk", agent="\0"))
    assert not await admitted(of, one, who=caller(user="ann", agent="desk"))


async def test_each_team_has_a_budget_of_its_own() -> None:
    of = limits()
    red = replace(MINUTE, per=(UsagePart.TEAM,), team="red", most=((UsageUnit.CALLS, 1),))
    blue = replace(red, team="blue")
    assert await admitted(of, red)
    assert await admitted(of, blue)
    assert not await admitted(of, red, blue)


async def test_without_parts_all_callers_share_one_budget() -> None:
    of, together = limits(), replace(MINUTE, per=())
    callers = [caller(user=f"user{number}", agent=f"agent{number}") for number in range(4)]
    assert [await admitted(of, together, who=who) for who in callers] == [True, True, True, False]


@pytest.mark.parametrize(("documents", "size"), [(100, 0), (None, 1000), (150, 5000)])
async def test_the_call_that_goes_over_is_answered_and_the_next_refused(documents: int | None, size: int) -> None:
    of = limits()
    await of.charge([DATA], caller(), "find", answer(99, 999))
    assert await admitted(of, DATA)
    await of.charge([DATA], caller(), "find", answer(documents, size))
    assert not await admitted(of, DATA)
    assert await admitted(of, DATA, who=caller(user="bob"))
    assert await admitted(of, DATA, at=NOON + 60)


async def test_an_answer_counts_in_the_window_in_which_it_came() -> None:
    clock = Now(NOON + 59)
    of = limits(clock=clock)
    assert await admitted(of, DATA, at=NOON + 59)
    clock.second = NOON + 61
    await of.charge([DATA], caller(), "find", answer(100, 1))
    assert not await admitted(of, DATA, at=NOON + 61)


class Broken:
    """A store that does not answer."""

    async def add(self, amounts: Mapping[UsageCounter, int]) -> Mapping[UsageCounter, int]:
        raise LimitsUnavailable


async def test_without_counts_no_call_is_admitted_and_an_answer_goes_out() -> None:
    refused = Refused()
    of = Limits(Broken(), Now(), refused)
    with pytest.raises(LimitsUnavailable):
        await of.admit([MINUTE], caller(), "find", NOON * NS)
    await of.charge([DATA], caller(), "find", answer(1, 1))
    assert refused.labels == [("reply", "limits_unavailable")]
    await of.admit([], caller(), "find", NOON * NS)  # a call without limits does not ask


def counter(who: str, ends: int = NOON, unit: UsageUnit = UsageUnit.CALLS, limit: str = "l") -> UsageCounter:
    return UsageCounter(limit=limit, window_s=60, unit=unit, who=who, ends=ends)


additions = st.lists(st.tuples(st.integers(0, 20), st.integers(-1, 5)), max_size=200)


@given(additions, st.integers(1, 8))
async def test_no_eviction_makes_a_count_less_than_what_was_used(added: list[tuple[int, int]], most: int) -> None:
    kept = CountersInMemory(most)
    used: Counter[int] = Counter()
    told: list[int] = []
    true: list[int] = []
    sizes = [0]
    for who, amount in added:
        used[who] += amount
        told.append((await kept.add({counter(str(who)): amount}))[counter(str(who))])
        true.append(used[who])
        sizes.append(len(kept))
    at_the_end = {who: (await kept.add({counter(str(who)): 0}))[counter(str(who))] for who in used}
    assert [pair for pair in zip(told, true, strict=True) if pair[0] < pair[1]] == []
    assert [who for who, total in used.items() if at_the_end[who] < total] == []
    assert max(sizes) <= most


@given(additions)
async def test_with_room_for_all_counts_are_exact(added: list[tuple[int, int]]) -> None:
    kept, used, told = CountersInMemory(), Counter[int](), dict[int, int]()
    for who, amount in added:
        used[who] += amount
        told[who] = (await kept.add({counter(str(who)): amount}))[counter(str(who))]
    assert told == dict(used)


async def test_a_caller_who_makes_many_others_does_not_get_a_second_budget() -> None:
    """The attack: use a budget up, then drive its counter out with agents that were registered for it."""
    of, one = Limits(CountersInMemory(64), Now(), Refused()), replace(MINUTE, per=(UsagePart.AGENT,))
    assert [await admitted(of, one) for _ in range(4)][-1] is False
    for number in range(1000):
        await admitted(of, one, who=caller(agent=f"made-{number}"))
    assert not await admitted(of, one)


async def test_those_who_used_little_leave_first() -> None:
    """So many callers with one call each take one call from those who come new, and no more."""
    kept = CountersInMemory(64)
    await kept.add({counter("large"): 1000})
    for number in range(1000):
        await kept.add({counter(f"small{number}"): 1})
    assert await kept.add({counter("large"): 0}) == {counter("large"): 1000}
    assert (await kept.add({counter("new"): 1}))[counter("new")] < 1000 / 60 + 2


async def test_windows_that_ended_are_dropped_and_a_clock_that_is_set_back_frees_nothing() -> None:
    kept = CountersInMemory()
    await kept.add({counter("ann"): 5, counter("ann", limit="other"): 5})
    await kept.add({counter("ann", ends=NOON + 120): 1})
    assert len(kept) == 1
    assert await kept.add({counter("ann"): 1}) == {counter("ann"): 2}


async def test_reading_keeps_nothing() -> None:
    kept = CountersInMemory()
    assert await kept.add({counter(str(number)): 0 for number in range(10)}) == {
        counter(str(number)): 0 for number in range(10)
    }
    assert len(kept) == 0


def test_one_identity_has_so_many_calls_under_way_and_another_its_own() -> None:
    under_way = CallsUnderWay(1)
    with under_way.one(("i", "ann", "desk")):
        with pytest.raises(TooManyCalls), under_way.one(("i", "ann", "desk")):
            pass
        with under_way.one(("i", "ann", "robot")):
            pass
    with under_way.one(("i", "ann", "desk")):
        assert len(under_way._calls) == 1
    assert len(under_way._calls) == 0
