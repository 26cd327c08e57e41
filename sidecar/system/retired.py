"""Connections that others have taken the place of: each is closed once what is under way over it has had its time."""

import asyncio
from collections.abc import Awaitable, Callable


class Retired:
    """Closes what is retired, a while later or with its owner.

    Args:
        after_s: seconds until one is closed.
        what: names the tasks.
    """

    def __init__(self, after_s: float, what: str) -> None:
        self._after_s = after_s
        self._what = what
        self._waiting: dict[asyncio.Task[None], Callable[[], Awaitable[None]]] = {}

    def put(self, close: Callable[[], Awaitable[None]]) -> None:
        """Retire one connection; ``close`` closes it, and may be called twice."""
        task = asyncio.create_task(self._close_later(close), name=f"{self._what}: a connection before")
        self._waiting[task] = close
        task.add_done_callback(self._waiting.pop)

    async def close(self) -> None:
        """Close all of them now."""
        waiting = dict(self._waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for close in waiting.values():
            await close()

    async def _close_later(self, close: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._after_s)
        await close()
