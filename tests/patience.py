"""How long a test waits for what must happen.

No test measures the machine: a wait of this length only tells what hangs from what is slow. At a load of 20 on two
cores a start of the sidecar has taken more than a minute.
"""

import asyncio
from collections.abc import Callable
from typing import Final

HANG_S: Final = 300.0
"""Seconds after which something counts as hung; below the 600 s that pytest gives a whole test."""


async def until(true: Callable[[], object]) -> None:
    """Wait for what says nothing when it happens, such as a line in a log, or what another process does.

    Raises:
        TimeoutError: it hangs.
    """
    async with asyncio.timeout(HANG_S):
        while not true():  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.01)
