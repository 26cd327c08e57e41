"""Notices that a policy folder has changed and has come to rest, by looking.

Polling and not ``inotify``: it is the same on every system, and a ConfigMap, a network file system or a container's
mount often sends no events. One look costs one ``stat`` per file.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Final

Snapshot = tuple[tuple[str, int, int, int, int], ...]
"""Path, size, modification and change time in nanoseconds, and inode of every file, sorted. The change time cannot be
set by the writer of the file, so that an edit of equal size with a restored date is still seen."""

_LOOKS: Final = 4
"""In the time for which a folder has to be at rest."""
_SHORTEST_S: Final = 0.02
"""Between two looks; the times in a snapshot may be 10 ms apart for two writes (Linux, ``CONFIG_HZ=100``)."""
_SHARE: Final = 50
"""Looking takes no more than this part of the time: 2,000 files take 13 ms a look (measured)."""


class FolderWatch:
    """What is known of a folder from one look to the next.

    Args:
        root: the folder.
        rest_s: seconds without a change after which it counts as at rest.
        seen: what the first look showed.
    """

    def __init__(self, root: Path, *, rest_s: float, seen: Snapshot) -> None:
        self._root = root
        self._rest_s = rest_s
        self._now = asyncio.get_running_loop().time
        self._changed_at = self._restless_since = float("-inf")
        self.seen = seen
        self.look_s = 0.0
        """Of this process's work, what the last look took."""

    @property
    def still_s(self) -> float:
        """Seconds since the look that showed the last change."""
        return self._now() - self._changed_at

    @property
    def at_rest(self) -> bool:
        """Whether the last look showed what all looks before it did, for long enough."""
        return self.still_s >= self._rest_s

    @property
    def restless_s(self) -> float:
        """Seconds for which the folder has not been at rest; 0 where it is."""
        return 0.0 if self.at_rest else self._now() - self._restless_since

    def pause_s(self) -> float:
        """Return the seconds until the next look; not beyond the moment from which the folder counts as at rest."""
        pause_s = min(self._rest_s, max(_SHORTEST_S, self._rest_s / _LOOKS, self.look_s * _SHARE))
        until_rest_s = self._rest_s - self.still_s
        return min(pause_s, until_rest_s) if until_rest_s > 0 else pause_s

    async def look(self) -> bool:
        """Wait until it is time for the next look; return whether it shows another folder than the last one."""
        await asyncio.sleep(self.pause_s())
        before, was_at_rest = self.seen, self.at_rest
        self.seen, self.look_s = await asyncio.to_thread(_timed, self._root)
        if self.seen != before:
            self._changed_at = self._now()
            self._restless_since = self._changed_at if was_at_rest else self._restless_since
        return self.seen != before


def _timed(root: Path) -> tuple[Snapshot, float]:
    """Return one look and the seconds of this thread's work that it took."""
    began = time.thread_time()
    return snapshot(root), time.thread_time() - began


def snapshot(root: Path) -> Snapshot:
    """Look at every file below ``root``; links are followed. Blocking file access.

    What cannot be looked at is left out: the set is then read, and the reader refuses it.
    """
    found = []
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  # one look is thousands of these
            with contextlib.suppress(OSError):
                status = os.stat(path)  # noqa: PTH116  # the same
                found.append((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return tuple(sorted(found))
