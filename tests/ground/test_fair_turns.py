"""One at a time, and no place waits longer because another waits with more."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.fair_turns import MAX_WAITING, FairTurns, TooManyWaiting
from tests.patience import HANG_S


async def in_order(places: list[str]) -> list[str]:
    """Ask for these turns while somebody has one, and return in which order they came."""
    turns, order = FairTurns(), []

    async def wait(place: str) -> None:
        async with turns.turn(place):
            order.append(place)

    async with turns.turn("first"):
        waiting = [asyncio.create_task(wait(place)) for place in places]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    return order


async def test_places_take_turns() -> None:
    assert await in_order(["slow", "slow", "slow", "quick", "other"]) == ["slow", "quick", "other", "slow", "slow"]


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_every_turn_comes_and_nobody_is_overtaken_twice(places: list[str]) -> None:
    order = asyncio.run(in_order(places))
    assert sorted(order) == sorted(places)
    for place in set(places):
        before = order[: order.index(place)]
        assert all(before.count(other) <= 1 for other in set(before))


async def test_one_has_a_turn_at_a_time() -> None:
    turns, there = FairTurns(), 0

    async def use(place: int) -> None:
        nonlocal there
        async with turns.turn(place % 3):
            there += 1
            assert there == 1
            await asyncio.sleep(0)
            there -= 1

    await asyncio.gather(*map(use, range(40)))
    async with turns.turn("again"):
        assert there == 0


@pytest.mark.parametrize("moment", [0, 1, 2, 3])
async def test_who_gives_up_costs_nobody_a_turn(moment: int) -> None:
    turns = FairTurns()

    async def wait(place: str) -> str:
        async with turns.turn(place):
            await asyncio.sleep(0)
            return place

    async with turns.turn("first"):
        leaving, staying = (asyncio.create_task(wait(place)) for place in ("a", "b"))
        await asyncio.sleep(0)
        if not moment:
            leaving.cancel()
    for _ in range(moment - 1):
        await asyncio.sleep(0)
    leaving.cancel()
    async with asyncio.timeout(HANG_S):
        assert await staying == "b"
        async with turns.turn("next"):
            pass
    assert not turns._row.callers


async def test_what_waits_at_one_place_is_bounded_and_others_still_may() -> None:
    turns = FairTurns()

    async def wait(place: str) -> None:
        async with turns.turn(place):
            pass

    async with turns.turn("first"):
        waiting = [asyncio.create_task(wait("many")) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaiting):
            await wait("many")
        other = asyncio.create_task(wait("other"))
        await asyncio.sleep(0)
    await asyncio.gather(*waiting, other)
