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
from collections.abc import Hashable
from typing import Final

from sidecar.fair_turns import FairRow, WaitingTurn

MOST_WAITING: Final = 1024
"""Of all callers together."""
LONGEST_HINT_S: Final = 30
_SAMPLES: Final = 32
"""Over how many that left the pace is reckoned."""
_ENOUGH: Final = 8
"""With fewer of them nobody is refused early."""
LATE_S: Final = 0.02
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
        self._row = FairRow()
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
        return self._row.waiting

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
        mine = self._row.join(caller)
        timer = loop.call_later(self._wait_s, self._time_is_up, caller, mine, loop.time() + self._wait_s)
        try:
            await self._row.turn(caller, mine, self.leave)
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give a place back; the next one in the line gets it."""
        if self._row.waiting:
            self._move()
        else:
            self._is_free()

    def close(self) -> None:
        """Send everybody away who waits or comes; who has a place keeps it."""
        self._closed = True
        for waiter in self._row.take_all():
            if not waiter.done():
                waiter.set_exception(LineClosed())

    def _move(self) -> None:
        """Let in who has the next turn, and note the pace."""
        now = asyncio.get_running_loop().time()
        if self._moved_at is not None:
            self._samples = min(self._samples + 1, _SAMPLES)
            self._pace_s += (now - self._moved_at - self._pace_s) / self._samples
        self._moved_at = now
        if not self._row.next_turn():
            self._is_free()

    def _is_free(self) -> None:
        """Nobody waits for the place; with that the line has no pace any more."""
        self._inside -= 1
        self._moved_at = None
        self._samples = 0

    def _make_room(self, caller: Hashable) -> None:
        """Refuse who would wait for too long, or has as much in a full line as anybody."""
        own = self._row.of(caller)
        ahead = min(self._row.waiting, (own + 1) * self._row.callers)
        if self._samples >= _ENOUGH and (ahead + 1) * self._pace_s > self._wait_s:
            raise self._refusal("the wait would be too long")
        if self._row.waiting < self._most:
            return
        greediest, most = self._row.greediest()
        if most <= own + 1:
            raise self._refusal("too much waits already")
        last = self._row.take_last(greediest)
        if not last.done():
            last.set_exception(self._refusal("others, who have asked for less, go first"))

    def _time_is_up(self, caller: Hashable, waiter: WaitingTurn, due: float | None) -> None:
        """Refuse one that has waited for too long; where the event loop itself was late, once not."""
        if waiter.done():
            return
        loop = asyncio.get_running_loop()
        if due is not None and (late := loop.time() - due) > LATE_S:
            loop.call_later(min(late, self._wait_s), self._time_is_up, caller, waiter, None)
            return
        self._row.take_out(caller, waiter)
        waiter.set_exception(self._refusal("the wait was too long"))

    def _refusal(self, why: str) -> NoPlace:
        """Return a refusal; those who wait now will have had a turn by then."""
        return NoPlace(why, min(max(1, math.ceil(self._row.waiting * self._pace_s)), LONGEST_HINT_S))
