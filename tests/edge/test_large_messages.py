"""Large messages take turns: callers one after the other, with a rest where others call too."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from sidecar.edge.large_messages import REST, LargeMessages
from sidecar.fair_turns import MAX_WAITING, TooManyWaiting


async def test_one_large_message_begins_at_a_time_and_callers_take_turns() -> None:
    large, order, under_way = LargeMessages(), [], 0

    async def send(caller: str, number: int) -> None:
        nonlocal under_way
        async with large.turn(caller):
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
        async with large.turn("loader") as sent:
            sent()
            sent()  # a second time is nothing
            await answered.wait()

    first = asyncio.create_task(slow())
    await asyncio.sleep(0)
    async with large.turn("other"):
        assert not first.done()
    answered.set()
    await first


async def test_there_is_a_rest_only_where_others_called(monkeypatch) -> None:
    large, loop = LargeMessages(), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def begins_at_once_after(held_s: float, *, others: bool) -> bool:
        nonlocal now
        async with large.turn("loader"):
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
    async with large.turn("loader"):
        begun.append("loader")
        async with large.turn("other"):
            begun.append("other")
    assert begun == ["loader", "other"], "the second began while the first was not over"


async def test_a_message_that_fails_gives_its_turn_on() -> None:
    large = LargeMessages()
    with pytest.raises(ValueError, match="broken"):
        async with large.turn("loader"):
            raise ValueError("broken")
    async with large.turn("loader"):
        pass


async def test_one_that_waits_and_is_cancelled_leaves_the_line() -> None:
    large = LargeMessages()
    async with large.turn("loader"):
        waiting = asyncio.create_task(enter(large))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await enter(large)


async def enter(large: LargeMessages) -> None:
    async with large.turn("loader"):
        pass


async def test_a_caller_can_let_only_so_many_wait() -> None:
    large = LargeMessages()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(large.turn("loader"))
        waiting = [asyncio.create_task(enter(large)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaiting):
            await enter(large)
        other = asyncio.create_task(enter(large))
        for task in (*waiting, other):
            task.cancel()
        await asyncio.gather(*waiting, other, return_exceptions=True)
