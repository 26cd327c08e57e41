"""A line in front of what takes few at a time: fair turns, a deadline, and an early no.

Who comes while there is room goes in, for the price of a counter. Who comes later waits; callers take turns, so that
one who asks for much waits behind what it asked for, and not the others. Nobody waits for longer than the deadline, and
who would wait for longer than that is told so at once. The line is bounded: where it is full, the last of the caller
who has most in it makes room for one who has less.

How long a wait is going to be is reckoned from the pace of the line while it moves: the time between one that leaves
and the next, while everything is taken. So nothing is measured where nobody waits.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from operator import itemgetter
from typing import Final

MOST_WAITING: Final = 1024
"""Of all callers together."""
LONGEST_HINT_S: Final = 30
_SAMPLES: Final = 32
"""Over how many that left the pace is reckoned."""
_ENOUGH: Final = 8
"""With fewer of them nobody is refused early."""
_LATE_S: Final = 0.02
"""A timer that fires later than this says that the event loop was busy; nobody loses a place by that."""


class NoPlace(Exception):
    """There is no place in time.

    Args:
        why: for the log.
        retry_after_s: in how many seconds there may be one; from 1.
    """

    def __init__(self, why: str, retry_after_s: int) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after_s = retry_after_s


class LineClosed(Exception):
    """What the line leads to is not to be used any more; nothing was done."""


_Waiting = asyncio.Future[None]


class FairLine:
    """Lets in so many at a time; to be used from one event loop.

    Args:
        at_once: how many have a place at a time.
        wait_s: seconds that one waits for a place, at most.
        most: how many wait, at most.
    """

    def __init__(self, at_once: int, *, wait_s: float, most: int = MOST_WAITING) -> None:
        self._at_once = at_once
        self._wait_s = wait_s
        self._most = most
        self._inside = 0
        self._row: OrderedDict[Hashable, deque[_Waiting]] = OrderedDict()
        """By caller, the next one first. A caller of whom nothing waits is not in it."""
        self._waiting = 0
        self._pace_s = 0.0
        self._samples = 0
        self._moved_at: float | None = None
        """When the last one was let in from the line, if everything has been taken since."""
        self._closed = False

    @property
    def inside(self) -> int:
        """How many have a place now."""
        return self._inside

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._waiting

    def enter_at_once(self) -> bool:
        """Take a place if there is one; ``leave`` gives it back. While another caller waits there is none."""
        if self._inside >= self._at_once or self._closed:
            return False
        self._inside += 1
        return True

    async def enter(self, caller: Hashable) -> None:
        """Wait for a place; ``leave`` gives it back.

        Raises:
            NoPlace: there is none in time.
            LineClosed: there is none any more.
        """
        if self._closed:
            raise LineClosed
        if self.enter_at_once():
            return
        self._make_room(caller)
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._row.setdefault(caller, deque()).append(mine)
        self._waiting += 1
        timer = loop.call_later(self._wait_s, self._time_is_up, caller, mine, loop.time() + self._wait_s)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.done() or mine.cancelled():
                self._take_out(caller, mine)
            elif mine.exception() is None:
                self.leave()  # the place came in the moment of the cancellation
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give a place back; the next one in the line gets it."""
        if self._waiting:
            self._move()
            return
        self._inside -= 1
        self._moved_at = None
        self._samples = 0

    def close(self) -> None:
        """Send everybody away who waits or comes; who has a place keeps it."""
        self._closed = True
        row, self._row, self._waiting = self._row, OrderedDict(), 0
        for queue in row.values():
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(LineClosed())

    def _move(self) -> None:
        """Let in the first that waits of the next caller; that caller goes to the end of the row."""
        now = asyncio.get_running_loop().time()
        if self._moved_at is not None:
            self._samples = min(self._samples + 1, _SAMPLES)
            self._pace_s += (now - self._moved_at - self._pace_s) / self._samples
        self._moved_at = now
        while self._row:
            caller, queue = self._row.popitem(last=False)
            following = queue.popleft()
            self._waiting -= 1
            if queue:
                self._row[caller] = queue
            if not following.done():
                following.set_result(None)
                return
        self._inside -= 1

    def _make_room(self, caller: Hashable) -> None:
        """Refuse who would wait for too long, or has as much in a full line as anybody."""
        own = len(self._row.get(caller, ()))
        ahead = min(self._waiting, (own + 1) * len(self._row))
        if self._samples >= _ENOUGH and (ahead + 1) * self._pace_s > self._wait_s:
            raise self._refusal("the wait would be too long")
        if self._waiting < self._most:
            return
        most, greediest = max(((len(queue), one) for one, queue in self._row.items()), key=itemgetter(0))
        if most <= own + 1:
            raise self._refusal("too much waits already")
        last = self._row[greediest][-1]
        self._take_out(greediest, last)
        if not last.done():
            last.set_exception(self._refusal("others, who have asked for less, go first"))

    def _time_is_up(self, caller: Hashable, waiter: _Waiting, due: float | None) -> None:
        """Refuse one that has waited for too long; where the event loop itself was late, once not."""
        if waiter.done():
            return
        loop = asyncio.get_running_loop()
        if due is not None and (late := loop.time() - due) > _LATE_S:
            loop.call_later(min(late, self._wait_s), self._time_is_up, caller, waiter, None)
            return
        self._take_out(caller, waiter)
        waiter.set_exception(self._refusal("the wait was too long"))

    def _take_out(self, caller: Hashable, waiter: _Waiting) -> None:
        queue = self._row.get(caller)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        self._waiting -= 1
        if not queue:
            del self._row[caller]

    def _refusal(self, why: str) -> NoPlace:
        """Return a refusal; those who wait now will have had a turn by then."""
        return NoPlace(why, min(max(1, math.ceil(self._waiting * self._pace_s)), LONGEST_HINT_S))
