"""Waiting for the end of tasks that clear up."""

import asyncio

import pytest

from sidecar.system import ended


async def test_a_wait_that_is_cancelled_goes_on_until_the_tasks_have_cleared_up_and_is_cancelled_then() -> None:
    begun, may_end, cleared = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            begun.set()
            await may_end.wait()
            cleared.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    waiting = asyncio.create_task(ended(task))
    await begun.wait()
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cleared.is_set()


async def test_errors_of_the_tasks_are_not_raised() -> None:
    async def fail() -> None:
        raise ValueError

    failing, other = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    await ended(failing, other)
    assert (failing.done(), other.done()) == (True, True)
