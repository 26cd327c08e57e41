"""The deadline of a question: from its sending, and never against an answer that is there and was not yet read.

When our own event loop is late, a timer and the answer are often due in the same turn of the loop, and the timer wins.
Then a healthy OPA would count as slow, just when there is much to do. So a timer that fires late itself waits a moment
longer, for what has arrived meanwhile to be read.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

LATE_S: Final = 0.02
"""A timer that fires later than this says that the loop was busy with something else."""

GRACE_S: Final = 0.05
"""How long what has arrived may take to be read."""

_GRACES: Final = 8
"""How often the loop may be late in a row, so that every deadline ends."""


@asynccontextmanager
async def answered_within(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after ``seconds`` in which the loop was there to read an answer.

    Raises:
        TimeoutError: as ``asyncio.timeout``.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as deadline:
        timer: asyncio.TimerHandle | None = None

        def set_for(at: float, graces: int) -> None:
            nonlocal timer
            timer = loop.call_at(at, due, at, graces)

        def due(at: float, graces: int) -> None:
            if graces and loop.time() - at > LATE_S:
                set_for(loop.time() + GRACE_S, graces - 1)
            else:
                deadline.reschedule(loop.time())

        set_for(loop.time() + seconds, _GRACES)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
