"""Connections that others have taken the place of are closed: in time, and at the latest with their owner."""

import asyncio

from sidecar.system import Retired
from tests.patience import HANG_S


async def test_a_retired_connection_is_closed_when_its_time_is_over() -> None:
    retired, closed = Retired(0.01, "store"), asyncio.Event()

    async def close() -> None:
        closed.set()

    retired.put(close)
    assert not closed.is_set(), "what is under way has its time"
    async with asyncio.timeout(HANG_S):
        await closed.wait()


async def test_what_is_not_closed_yet_is_closed_with_its_owner() -> None:
    retired, closed = Retired(10 * HANG_S, "store"), list[str]()

    async def close() -> None:
        closed.append("connection")

    retired.put(close)
    await asyncio.sleep(0)
    assert not closed
    await retired.close()
    assert closed == ["connection"]
    await retired.close()
    assert closed == ["connection"], "it is forgotten then"
