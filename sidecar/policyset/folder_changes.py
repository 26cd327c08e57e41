"""Notices that a policy folder has changed, by looking.

Polling and not ``inotify``: it is the same on every system, and a ConfigMap, a network file system or a container's
mount often sends no events. One look costs one ``stat`` per file.
"""

import contextlib
import os
from pathlib import Path

Snapshot = tuple[tuple[str, int, int, int, int], ...]
"""Path, size, modification and change time in nanoseconds, and inode of every file, sorted. The change time cannot be
set by the writer of the file, so that an edit of equal size with a restored date is still seen."""


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
