"""How many calls are with each child: one that is replaced ends when those that it has are answered."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from sidecar.upstream.child import Child


class CallsAtWork:
    """The calls of one server's children, the retired ones too."""

    def __init__(self) -> None:
        self._calls: Counter[Child] = Counter()
        self._freed = asyncio.Event()
        """The last call of a child was answered."""

    @property
    def total(self) -> int:
        """How many there are."""
        return self._calls.total()

    @contextlib.contextmanager
    def at(self, child: Child) -> Iterator[None]:
        """Note that a call is with a child, which is not ended before it is answered."""
        self._calls[child] += 1
        try:
            yield
        finally:
            self._calls[child] -= 1
            if not self._calls[child]:
                del self._calls[child]
                self._freed.set()

    async def idle(self, child: Child) -> None:
        """Return when no call is with a child."""
        while self._calls[child]:
            self._freed.clear()
            await self._freed.wait()
