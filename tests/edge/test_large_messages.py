"""Large messages take turns, with a rest where others call too, and nobody has more of their bytes than a share."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.edge.large_messages import REST, LargeMessages
from sidecar.fair_turns import MAX_WAITING
from sidecar.saturation import ByteBudgetSpent

SIZE = 100_000


async def test_one_large_message_begins_at_a_time_and_callers_take_turns() -> None:
    large, order, under_way = LargeMessages(), [], 0

    async def send(caller: str, number: int) -> None:
        nonlocal under_way
        async with large.turn(caller, SIZE):
            under_way += 1
            assert under_way == 1
            order.append((caller, number))
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(send("loader", number) for number in range(5)), send("other", 0))
    assert order.index(("other", 0)) <= 2, "one message of another caller does not wait for five of the loader's"


async def test_a_turn_ends_once_the_message_is_on_its_way() -> None:
    large, answered = LargeMessages(), asyncio.Event()

    async def slow() -> None:
        async with large.turn("loader", SIZE) as sent:
            sent()
            sent()  # a second time is nothing
            await answered.wait()

    first = asyncio.create_task(slow())
    await asyncio.sleep(0)
    async with large.turn("other", SIZE):
        assert not first.done()
    answered.set()
    await first


async def test_there_is_a_rest_only_where_others_called(monkeypatch) -> None:
    large, loop = LargeMessages(), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def begins_at_once_after(held_s: float, *, others: bool) -> bool:
        nonlocal now
        async with large.turn("loader", SIZE):
            now += held_s
            if others:
                large.pass_by()
        following = asyncio.create_task(enter(large))
        for _ in range(3):
            await asyncio.sleep(0)
        at_once = following.done()
        now += REST * held_s
        await following
        return at_once

    assert await begins_at_once_after(0.1, others=False)
    assert not await begins_at_once_after(0.1, others=True)


async def test_a_message_that_waits_for_something_else_does_not_keep_its_turn() -> None:
    large, begun = LargeMessages(), []
    async with large.turn("loader", SIZE):
        begun.append("loader")
        async with large.turn("other", SIZE):
            begun.append("other")
    assert begun == ["loader", "other"], "the second began while the first was not over"


async def test_a_message_that_fails_gives_its_turn_on() -> None:
    large = LargeMessages()
    with pytest.raises(ValueError, match="broken"):
        async with large.turn("loader", SIZE):
            raise ValueError("broken")
    async with large.turn("loader", SIZE):
        pass


async def test_one_that_waits_and_is_cancelled_leaves_the_line() -> None:
    large = LargeMessages()
    async with large.turn("loader", SIZE):
        waiting = asyncio.create_task(enter(large))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await enter(large)


async def enter(large: LargeMessages) -> None:
    async with large.turn("loader", SIZE):
        pass


async def test_a_caller_can_let_only_so_many_wait() -> None:
    large = LargeMessages()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(large.turn("loader", SIZE))
        waiting = [asyncio.create_task(enter(large)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ByteBudgetSpent):
            await enter(large)
        other = asyncio.create_task(enter(large))
        for task in (*waiting, other):
            task.cancel()
        await asyncio.gather(*waiting, other, return_exceptions=True)


async def test_one_caller_has_only_so_many_bytes_under_way_and_another_has_its_own() -> None:
    large = LargeMessages(bytes_of_one=2 * SIZE, bytes_in_all=100 * SIZE)
    async with large.turn("loader", SIZE), large.turn("loader", SIZE):
        with pytest.raises(ByteBudgetSpent) as spent:
            async with large.turn("loader", 1):
                raise AssertionError("it has a turn")
        assert spent.value.retry_after_s >= 1
        async with large.turn("other", 2 * SIZE):
            pass
    async with large.turn("loader", 2 * SIZE):
        pass
    assert (large._in_all, not large._under_way) == (0, True)


async def test_what_waits_for_its_turn_counts_and_what_gives_up_does_not() -> None:
    large = LargeMessages(bytes_of_one=2 * SIZE)
    async with large.turn("loader", SIZE):
        waiting = asyncio.create_task(enter(large))
        await asyncio.sleep(0)
        with pytest.raises(ByteBudgetSpent):
            await enter(large)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert large._in_all == SIZE
    await enter(large)
    assert (large._in_all, not large._under_way) == (0, True)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40), st.booleans()), max_size=60))
def test_the_bytes_under_way_are_bounded_and_there_is_room_for_who_has_none(
    messages: list[tuple[int, int, bool]],
) -> None:
    """Of 100 bytes in all, one has 40 at most; each step begins a message, or ends the caller's oldest."""
    assert asyncio.run(left_of(messages)) == (0, True)


async def left_of(messages: list[tuple[int, int, bool]]) -> tuple[int, bool]:
    """Play them, and return how many bytes are under way at the end, and whether of nobody."""
    large, held = LargeMessages(bytes_of_one=40, bytes_in_all=100), Counter[int]()
    under_way: dict[int, list[tuple[int, AsyncExitStack]]] = {}
    for caller, size, ends in messages:
        mine = under_way.setdefault(caller, [])
        if ends and mine:
            ended, stack = mine.pop(0)
            await stack.aclose()
            held[caller] -= ended
            continue
        free, stack = 100 - held.total(), AsyncExitStack()
        try:
            sent = await stack.enter_async_context(large.turn(caller, size))
        except ByteBudgetSpent:
            assert held[caller] + size > min(40, free), "it is refused for its own size, or for want of room"
            assert held[caller] or size > free, "who has nothing under way is only refused for want of room"
        else:
            sent()
            mine.append((size, stack))
            held[caller] += size
        assert held.total() <= 100
        assert max(held.values()) <= 40
    for caller, rest in under_way.items():
        for size, stack in rest:
            await stack.aclose()
            held[caller] -= size
    return large._in_all, not large._under_way
