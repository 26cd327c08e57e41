"""One thing at a time, in fair turns: who waits with much does not keep waiting who waits with little.

A queue of all would serve a team with fifty slow questions before the one question of another. Here each place has a
queue of its own, and the places take turns.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

MAX_WAITING: Final = 32
"""Turns that one place may be waiting for."""


class TooManyWaiting(Exception):
    """The place waits for as many turns as it may."""


class FairTurns:
    """Gives turns, one at a time."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        """By place, the next one first. A place with nothing to wait for is not in it."""
        self._taken = False

    @asynccontextmanager
    async def turn(self, place: Hashable) -> AsyncIterator[None]:
        """Wait for a turn of this place, and have it for the block.

        Raises:
            TooManyWaiting: too much waits there already.
        """
        await self.take(place)
        try:
            yield
        finally:
            self.pass_on()

    async def take(self, place: Hashable) -> None:
        """Wait for a turn of this place; ``pass_on`` ends it.

        Raises:
            TooManyWaiting: too much waits there already.
        """
        if not self._taken:
            self._taken = True
            return
        queue = self._waiting.setdefault(place, deque())
        if len(queue) >= MAX_WAITING:
            raise TooManyWaiting
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.pass_on()  # the turn came in the moment of the cancellation
            else:
                self._leave(place, mine)
            raise

    def _leave(self, place: Hashable, mine: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(place)
        if queue is not None and mine in queue:
            queue.remove(mine)
            if not queue:
                del self._waiting[place]

    def pass_on(self) -> None:
        """Give the turn to the first that waits at the next place; that place goes to the end of the row."""
        while self._waiting:
            place, queue = self._waiting.popitem(last=False)
            following = queue.popleft()
            if queue:
                self._waiting[place] = queue
            if not following.done():
                following.set_result(None)
                return
        self._taken = False
