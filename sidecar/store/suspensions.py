"""Suspensions in one local file, written whole (``sidecar.ports.SuspensionStore``)."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.enforcement import Suspensions
from sidecar.errors import SuspensionsUnavailable
from sidecar.identity import Suspendable, Suspension, read_suspension
from sidecar.ports import SuspensionStore
from sidecar.store.whole_file import WholeFile

_LOG = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How often what is kept is looked at."""


class FileSuspensions:
    """Keeps suspensions in a file.

    Args:
        path: the file; it is created with mode 0600.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: another sidecar has the file, or its folder cannot be written.
    """

    def __init__(self, path: Path, *, flush: Callable[[int], None] = os.fsync) -> None:
        self._file = WholeFile(path, "suspensions", flush=flush)

    async def load(self) -> tuple[Suspension, ...]:
        """Return what was saved last, without sessions: these ended with the process that had them.

        Raises:
            SuspensionsUnavailable: the file cannot be read, may be written by others, or is not what was saved.
        """
        try:
            entries = self._file.read()
        except FileNotFoundError:
            await self.save(())
            return ()
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        except ValueError as error:
            raise self._unavailable("it is damaged") from error
        try:
            found = tuple(map(read_suspension, entries))
        except ValueError as error:
            self._file.forget()
            raise self._unavailable("it is damaged") from error
        return tuple(one for one in found if one.target.kind is not Suspendable.SESSION)

    async def save(self, suspensions: tuple[Suspension, ...]) -> None:
        """Keep exactly these instead; return only when they are durable.

        Raises:
            SuspensionsUnavailable: they are not; what was saved before stands.
        """
        try:
            await asyncio.to_thread(self._file.write, [suspension.document() for suspension in suspensions])
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    async def intact(self) -> bool:
        """See ``ports.SuspensionStore``. Reads the file only where it was touched since the last look."""
        return await asyncio.to_thread(self._file.intact)

    def close(self) -> None:
        """Let another process have the file."""
        self._file.close()

    def _unavailable(self, why: str) -> SuspensionsUnavailable:
        _LOG.error("the file of suspensions cannot be used", extra={"path": str(self._file.path), "error": why})
        return SuspensionsUnavailable(f"the file of suspensions {self._file.path}: {why}")


async def guard(suspensions: Suspensions, store: SuspensionStore) -> None:
    """Refuse everybody while what is kept is not what was saved: a restart would read something else."""
    while True:
        intact = await store.intact()
        if intact != suspensions.known:
            _LOG.error("suspensions: what is kept is %s what was saved", "again" if intact else "no longer")
            suspensions.set_known(intact)
        await asyncio.sleep(LOOK_S)
