"""A server that failed is pinged until it answers; while it does not, calls are refused at once (a circuit breaker).

The second ping in a row without an answer opens the circuit: one slow call, or one connection that was lost, refuses
nobody. A call that would wait its whole time for a server that is away holds one of the places of calls under way, so a
server that hangs would slow down every caller who also has calls for another one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from sidecar.errors import UpstreamError, UpstreamUnreachable
from sidecar.system import BackOff, Outage

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 30.0
_SILENT_PINGS: Final = 2


class Recovery:
    """Knows whether a server answers.

    Args:
        name: the server's.
        ping: returns when the server answered; raises UpstreamError where it did not.
        outage: told when it is away and back.
    """

    def __init__(self, name: str, ping: Callable[[], Awaitable[None]], outage: Outage) -> None:
        self._name = name
        self._ping = ping
        self._outage = outage
        self._task: asyncio.Task[None] | None = None
        self._silent = 0
        self._last: UpstreamError | None = None

    @property
    def under_way(self) -> bool:
        """Whether the server failed, and did not answer since."""
        return self._task is not None

    @property
    def is_open(self) -> bool:
        """Whether calls are refused at once."""
        return self._silent >= _SILENT_PINGS

    def require_closed(self) -> None:
        """Return if calls may be sent.

        Raises:
            UpstreamUnreachable: the server did not answer the last pings.
        """
        if self.is_open:
            raise UpstreamUnreachable(f"not sent, because the server did not answer the last ping: {self._last}")

    def begin(self) -> None:
        """Note that something went wrong: ping the server until it answers."""
        if self._task is None:
            self._task = asyncio.create_task(self._recover(), name=f"recovery {self._name}")

    async def stop(self) -> None:
        """End the pings."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _recover(self) -> None:
        back_off = BackOff(FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
        try:
            while True:
                try:
                    await self._ping()
                except UpstreamError as error:
                    self._last = error
                    self._silent += 1
                    self._outage.begins(error)
                else:
                    break
                await asyncio.sleep(back_off.pause())
            self._outage.ends()
        finally:
            self._silent = 0
            self._task = None
