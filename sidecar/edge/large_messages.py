"""Large messages take turns within a budget, so that a caller who sends many of them keeps no other waiting.

To read, derive, hash and encode a message of 900 kB takes some 15 ms of a processor, and a multiple of that where it is
written in an unusual way. Most of it goes on beside the event loop (``sidecar.enforcement.offloading``), which gets
slower by it. Sixteen in a row are within the limits of one caller. So a large message begins in its turn only, callers
one after the other. Its turn ends once it is on its way to the server or answered, and at the latest after a quarter of
a second, since it may wait for others first. Where other messages came meanwhile, the next turn begins after a rest of
twice the time that this one took: large messages together have a third of the loop's time then, and all of it where
there is nothing else (``bench/calls.py --beside`` measures an analyst beside it).

From its arrival to its answer a large message counts against the bytes that its caller may have under way, and against
those of all callers. What is left of the second bounds the first: a caller has at most as much as is free, so that one
loader leaves three quarters of the room, two leave half, and there is always some for who has none (the dynamic
threshold of Choudhury and Hahne, 1998, with a factor of one).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from sidecar.fair_turns import FairTurns, TooManyWaiting
from sidecar.saturation import ByteBudgetSpent

REST: Final = 2.0
LONGEST_REST_S: Final = 0.5
LONGEST_TURN_S: Final = 0.25
BYTES_OF_ONE: Final = 32_000_000
"""Of one caller's large messages under way: as many of the largest size as it may have calls under way."""
BYTES_IN_ALL: Final = 4 * BYTES_OF_ONE


class LargeMessages:
    """Gives turns to large messages; to be used from one event loop.

    Args:
        bytes_of_one: of large messages that one caller has under way.
        bytes_in_all: the same of all callers together.
    """

    def __init__(self, bytes_of_one: int = BYTES_OF_ONE, bytes_in_all: int = BYTES_IN_ALL) -> None:
        self._bytes_of_one = bytes_of_one
        self._bytes_in_all = bytes_in_all
        self._under_way: Counter[Hashable] = Counter()
        """Bytes by caller; one without any is not in it."""
        self._in_all = 0
        self._turns = FairTurns()
        self._others = 0
        """Other messages that came so far."""
        self._others_before = 0
        """The same when the last turn ended."""

    def pass_by(self) -> None:
        """Count a message that is not large."""
        self._others += 1

    @asynccontextmanager
    async def turn(self, caller: Hashable, size: int) -> AsyncIterator[Callable[[], None]]:
        """Wait for a turn; yields what ends it, which the end of the block does otherwise.

        Args:
            caller: whose message it is.
            size: its bytes, which count for as long as the block.

        Raises:
            ByteBudgetSpent: too many bytes, or too many messages, of this caller or of everybody are under way.
        """
        with self._counting(caller, size):
            try:
                await self._turns.take(caller)
            except TooManyWaiting:
                raise ByteBudgetSpent("too many large messages of this caller wait") from None
            async with self._turn() as end:
                yield end

    @contextmanager
    def _counting(self, caller: Hashable, size: int) -> Iterator[None]:
        """Count a message while it is under way.

        Raises:
            ByteBudgetSpent: there is no room for it; it is not counted.
        """
        own = self._under_way[caller] + size
        if own > min(self._bytes_of_one, self._bytes_in_all - self._in_all):
            if not self._under_way[caller]:
                del self._under_way[caller]
            raise ByteBudgetSpent(f"{own} bytes under way would be more than this caller has room for")
        self._under_way[caller] = own
        self._in_all += size
        try:
            yield
        finally:
            self._in_all -= size
            self._under_way[caller] -= size
            if not self._under_way[caller]:
                del self._under_way[caller]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Callable[[], None]]:
        """Have the turn that was taken until its end."""
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
