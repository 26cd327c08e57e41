"""The deadline of a question: from its sending, and never against an answer that is there and was not yet read.

When our own event loop is late, a timer and the answer are often due in the same turn of the loop, and the timer wins.
Then a healthy OPA would count as slow, just when there is much to do. So the time is counted in steps, each of which
counts once however late the loop comes to it, and a last step that comes late waits a moment longer, for what has
arrived meanwhile to be read. Where the loop was away for much of the time, what did not come says nothing of OPA, which
may have been kept waiting by the same thing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sidecar.fair_line import LATE_S

GRACE_S: Final = 0.05
"""How long what has arrived may take to be read."""

_GRACES: Final = 8
"""How often the loop may be late in a row, so that every deadline ends."""

_STEPS: Final = 4
_MUCH: Final = 0.25
"""The share of a deadline for which the loop may be away, and a time-out still tells of OPA."""


@dataclass(slots=True)
class Presence:
    """How much the loop was there to read an answer.

    Args:
        seconds: of the deadline.
    """

    seconds: float
    away_s: float = 0.0

    @property
    def tells(self) -> bool:
        """Whether a time-out says something of OPA."""
        return self.away_s < self.seconds * _MUCH


@asynccontextmanager
async def answered_within(seconds: float, presence: Presence | None = None) -> AsyncIterator[None]:
    """Cancel the block after ``seconds`` in which the loop was there to read an answer.

    Args:
        seconds: of the deadline.
        presence: where it is noted how much the loop was there; for who wants to know what a time-out tells.

    Raises:
        TimeoutError: as ``asyncio.timeout``.
    """
    loop = asyncio.get_running_loop()
    noted = Presence(seconds) if presence is None else presence
    async with asyncio.timeout(None) as deadline:
        timer: asyncio.TimerHandle | None = None

        def set_for(at: float, steps: int, graces: int) -> None:
            nonlocal timer
            timer = loop.call_at(at, due, at, steps, graces)

        def due(at: float, steps: int, graces: int) -> None:
            late = loop.time() - at
            on_time = late <= LATE_S
            if not on_time:
                noted.away_s += late
            if steps > 1:
                set_for((at if on_time else loop.time()) + seconds / _STEPS, steps - 1, graces)
            elif graces and not on_time:
                set_for(loop.time() + GRACE_S, 1, graces - 1)
            else:
                deadline.reschedule(loop.time())

        set_for(loop.time() + seconds / _STEPS, _STEPS, _GRACES)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
