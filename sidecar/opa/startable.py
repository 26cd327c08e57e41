"""What starts and stops together with a block of code."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """Starts where an ``async with`` block begins, and stops where it ends."""

    @abstractmethod
    async def start(self) -> None:
        """Start; raises as the class says."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop; stopping twice changes nothing."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
