"""Files of secrets that are read again when they change, so that each is replaced without a restart.

By looking, as everywhere (``sidecar.policyset.folder_changes`` says why). What cannot be used changes nothing, and is
told once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from sidecar.errors import ConfigurationError
from sidecar.system.backoff import BackOff

_LOG = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""How often files are looked at."""

_LONGEST_PAUSE_S: Final = 30.0
"""How often a changed connection that could not be taken up is tried at last."""

T = TypeVar("T")


class FollowedFiles(Generic[T]):
    """What some files hold, as they were when they last could be used.

    Args:
        setting: what the log calls them.
        paths: the files, which are read together.
        read: reads them; a ConfigurationError says why they cannot be used.

    Raises:
        ConfigurationError: they cannot be used now.
    """

    def __init__(self, setting: str, paths: Collection[Path], read: Callable[[], T]) -> None:
        self._setting = setting
        self._paths = tuple(paths)
        self._read = read
        self._seen = stamps(self._paths)
        self._told = self._seen
        self.value = read()
        """As they are now; the last good one where they are damaged."""
        self.error = ""
        """Why the files as they are now are not used; empty where they are."""
        self.taken_up: Callable[[T], None] = lambda _: None
        """Told what a change has brought; from the thread of ``refresh``."""

    def refresh(self) -> None:
        """Take up files that changed; what cannot be used is tried again with the next look. Blocking."""
        seen = stamps(self._paths)
        if seen == self._seen:
            return
        try:
            fresh = self._read()
            self.taken_up(fresh)
            self.value = fresh
        except Exception as error:  # noqa: BLE001 - one that nobody thought of must not end the following
            self.error = _why(error)
            why = self.error.removeprefix(f"{self._setting}: ")
            if seen != self._told:
                _LOG.error("%s: what changed is not used, what was there before is: %s", self._setting, why)
            self._told = seen
        else:
            self._seen, self.error = seen, ""
            _LOG.info("%s: what changed is used from now on", self._setting)


async def follow_files(files: FollowedFiles[Any]) -> None:
    """Keep looking at files, for as long as the sidecar runs."""
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(files.refresh)


async def follow_connection(
    setting: str, present: T, read: Callable[[], T], renew: Callable[[T], Awaitable[None]]
) -> None:
    """Go over to another connection string when its file changes and the database takes it, while the sidecar runs.

    Args:
        setting: what the log calls it.
        present: what is connected with.
        read: reads the files; blocking.
        renew: goes over to what was read; a ConfigurationError says why the connection before goes on. It is tried
            again: the user may not be there yet.
    """
    back_off = BackOff(LOOK_S, _LONGEST_PAUSE_S)
    told, tried, pause = "", present, LOOK_S
    while True:
        await asyncio.sleep(pause)
        try:
            found = await asyncio.to_thread(read)
            if found == present:
                told, tried, pause = "", found, LOOK_S
                continue
            if found != tried:
                back_off.reset()
            tried, pause = found, back_off.pause()
            await renew(found)
        except Exception as error:  # noqa: BLE001 - one that nobody thought of must not end the following
            if (why := _why(error)) != told:
                _LOG.error("%s: what changed is not used, what was there before is: %s", setting, why)
            told = why
        else:
            told, present, pause = "", found, LOOK_S
            _LOG.info("%s: what changed is used from now on", setting)


def _why(error: Exception) -> str:
    """Return why files cannot be used; of an error that is no report of that, its type: its text may quote a secret."""
    return error.detail if isinstance(error, ConfigurationError) else type(error).__name__


def stamps(paths: Collection[Path]) -> tuple[object, ...]:
    """Return what tells one state of files from another.

    Links are followed, so that one that leads elsewhere is a change. The change time is in it, because a writer can put
    the modification time back.
    """
    found: list[object] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            found.append((path, type(error).__name__))
        else:
            found.append((path, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size))
    return tuple(found)
