"""Fair turns: who waits with much does not keep waiting who waits with little.

A queue of all would serve a team with fifty slow questions before the one question of another. Here each place has a
queue of its own, and the places take turns. ``FairTurns`` is for one thing at a time; ``fair_line`` lets in several,
and refuses early.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Final, TypeAlias

MAX_WAITING: Final = 32
"""Turns that one place may be waiting for."""

WaitingTurn: TypeAlias = asyncio.Future[None]
"""Done when it has its turn, or is told why it gets none."""


class TooManyWaiting(Exception):
    """The place waits for as many turns as it may."""


class FairRow:
    """Those that wait, by caller, which is what has a queue of its own. Bounded by its user; for one event loop."""

    __slots__ = ("_queues", "waiting")

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[WaitingTurn]] = OrderedDict()
        """By caller, the next one first. A caller of whom nothing waits is not in it."""
        self.waiting = 0
        """Of all callers."""

    @property
    def callers(self) -> int:
        """Of how many callers something waits."""
        return len(self._queues)

    def of(self, caller: Hashable) -> int:
        """Return how many of one caller wait."""
        return len(self._queues.get(caller, ()))

    def join(self, caller: Hashable) -> WaitingTurn:
        """Begin to wait, as the last of a caller."""
        waiter = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(waiter)
        self.waiting += 1
        return waiter

    async def turn(self, caller: Hashable, waiter: WaitingTurn, give_back: Callable[[], None]) -> None:
        """Wait until it has its turn, or is told why it gets none; that is raised.

        Args:
            caller: whose it is.
            waiter: as ``join`` gave it.
            give_back: called where the turn came to one that does not want it any more.
        """
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                give_back()  # the turn came in the moment of the cancellation
            else:
                self.take_out(caller, waiter)
            raise

    def next_turn(self) -> bool:
        """Give a turn to the first of the next caller, who goes to the end of the row; False where none waits."""
        while self._queues:
            caller, queue = self._queues.popitem(last=False)
            following = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[caller] = queue
            if not following.done():
                following.set_result(None)
                return True
        return False

    def take_out(self, caller: Hashable, waiter: WaitingTurn) -> None:
        """Have one wait no longer; nothing where it does not."""
        queue = self._queues.get(caller)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self.waiting -= 1
        if not queue:
            del self._queues[caller]

    def greediest(self) -> tuple[Hashable, int]:
        """Return the caller of whom most wait, and how many do. One waits at least."""
        return max(((caller, len(queue)) for caller, queue in self._queues.items()), key=itemgetter(1))

    def take_last(self, caller: Hashable) -> WaitingTurn:
        """Have the last of a caller wait no longer, and return it. There is one at least."""
        last = self._queues[caller][-1]
        self.take_out(caller, last)
        return last

    def take_all(self) -> list[WaitingTurn]:
        """Have nobody wait any longer, and return who did."""
        queues, self._queues, self.waiting = self._queues, OrderedDict(), 0
        return [waiter for queue in queues.values() for waiter in queue]


class FairTurns:
    """Gives turns, one at a time."""

    def __init__(self) -> None:
        self._row = FairRow()
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
        if self._row.of(place) >= MAX_WAITING:
            raise TooManyWaiting
        await self._row.turn(place, self._row.join(place), self.pass_on)

    def pass_on(self) -> None:
        """Give the turn to who has the next one."""
        self._taken = self._row.next_turn()
