"""An event loop without a clock, sockets or threads, whose every coincidence comes from one seeded generator.

What is ready runs in the order in which it became ready, which asyncio promises and the product may rely on. All that
differs between two runs is what differs outside of a process: how long something takes, and which of two things that
are due at the same moment is first. So whatever goes wrong here could go wrong in service, and goes wrong again with
the same seed.
"""

import asyncio
import heapq
from collections.abc import Callable
from concurrent.futures import Executor
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from typing_extensions import override

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DELAYS_S = (0.0, 0.0, 0.001, 0.001, 0.002, 0.005, 0.02)
"""Few and small, so that different things are often due at the same moment."""


class NothingLeftToHappen(Exception):
    """Every task waits for something that never comes."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is due next, at once."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self._moment = 0.0
        self.faults: list[str] = []
        """What went wrong in a task that nobody waits for."""
        self.set_exception_handler(self._noted)

    @override
    def time(self) -> float:
        return self._moment

    def delay(self) -> float:
        """Return how long the next thing takes outside."""
        return self.random.choice(DELAYS_S)

    async def passes(self) -> None:
        """Wait as long as something outside takes."""
        await asyncio.sleep(self.delay())

    @override
    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do a thread's work at one later moment, and tell of it at another; it is done even if nobody waits."""
        future: asyncio.Future[T] = self.create_future()

        def tell(result: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # the result of the work
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = func(*args)
            except Exception as caught:  # noqa: BLE001 - handed to who waits, as a thread does
                error = caught
            self.call_later(self.delay(), tell, result, error)

        self.call_later(self.delay(), work)
        return future

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        if not ready:
            while timers and timers[0].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise NothingLeftToHappen
            self._moment = max(self._moment, timers[0].when())
        due = []
        while timers and timers[0].when() <= self._moment:
            due.append(heapq.heappop(timers))
        if len(due) > 1:
            self.random.shuffle(due)
        ready.extend(due)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing is counted: a cancelled timer is passed over when its moment comes."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets."""

    def _noted(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context['message']}: {error!r}")
