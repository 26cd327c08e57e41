"""Starts that a test expects to be refused."""

from typing import Protocol


class Startable(Protocol):
    """A part that is started and stopped."""

    async def start(self) -> None:
        """Start it."""

    async def stop(self) -> None:
        """Stop it."""


async def start_and_stop(part: Startable) -> None:
    """Start a part and stop it: one whose start is not refused, as the test expects, leaves nothing running.

    A start that fails is left as it is, so that the test sees what it leaves.
    """
    await part.start()
    await part.stop()
