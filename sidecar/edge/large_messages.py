"""Large messages take turns, so that a caller who sends many of them keeps no other waiting.

To read, derive, hash and encode a message of 900 kB takes the event loop some 30 ms, in which it answers nobody
(measured). Sixteen in a row are within the limits of one caller, and are half a second. So a large message begins in
its turn only, callers one after the other, and its turn ends once it is on its way to the server or answered, and at
the latest after a quarter of a second, since it may wait for others first. Where other messages came meanwhile, the
next turn begins after a rest of twice the time that this one took: large messages together have a third of the loop's
time then, and all of it where there is nothing else (``bench/calls.py --beside`` measures an analyst beside it).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final

from sidecar.fair_turns import FairTurns

LARGE_BYTES: Final = 65_536
"""A smaller message takes the loop less than three milliseconds."""
REST: Final = 2.0
LONGEST_REST_S: Final = 0.5
LONGEST_TURN_S: Final = 0.25


class LargeMessages:
    """Gives turns to large messages; to be used from one event loop."""

    def __init__(self) -> None:
        self._turns = FairTurns()
        self._others = 0
        """Other messages that came so far."""
        self._others_before = 0
        """The same when the last turn ended."""

    def pass_by(self) -> None:
        """Count a message that is not large."""
        self._others += 1

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncIterator[Callable[[], None]]:
        """Wait for a turn; yields what ends it, which the end of the block does otherwise.

        Raises:
            TooManyWaiting: too many messages of this caller wait already.
        """
        await self._turns.take(caller)
        loop = asyncio.get_running_loop()
        began: float | None = loop.time()

        def end() -> None:
            nonlocal began
            if began is None:
                return
            took, began = loop.time() - began, None
            latest.cancel()
            alone = self._others == self._others_before
            self._others_before = self._others
            if alone:
                self._turns.pass_on()
            else:
                loop.call_later(min(REST * took, LONGEST_REST_S), self._turns.pass_on)

        latest = loop.call_later(LONGEST_TURN_S, end)
        try:
            yield end
        finally:
            end()
