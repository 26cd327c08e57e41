"""The files that the children of one server write exports to: each goes with its session, all of one with their child.

MongoDB MCP server 3.0.4 writes ``<its exports path>/<an id of its own>/<name of the export>.json``, and opens that file
after it has answered. It looks for what has expired every two minutes, and a child that is killed deletes nothing. So
each child gets a folder of its own, in the private folder of its server, and the files are deleted from here. An export
that is still being written goes on without a name, and takes no room once that ends.

Only names are deleted that an export of this server was linked by, only in folders that a child was given, and no link
is followed: what is in there was written by a program that serves many callers.
"""

import asyncio
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Final

from sidecar.mcp import resources
from sidecar.system import BackOff

PATIENCE_S: Final = 60.0
"""How long a file is waited for that was not opened yet. A child that has done nothing by then does not answer a ping
either, and is ended with all that it has."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
"""Between two looks for such a file."""

MAX_WAITING: Final = 4096
"""Files that are waited for; the oldest is then left to the server."""

MAX_FOLDERS: Final = 64
"""Folders that are looked into at each level: there is one for each child, and one in that."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ExportFiles:
    """What the children of one server have written of exports."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._numbers = count(1)
        self._doomed: dict[str, float] = {}
        """Until when each is looked for, by the clock of the loop."""
        self._deleting: asyncio.Task[None] | None = None

    def of_a_child(self, home: Path) -> Path:
        """Return the folder of the next child, which makes it when it needs it.

        Args:
            home: the private folder of the server.
        """
        self._folder = home / "exports"
        return self._folder / str(next(self._numbers))

    def discard(self, uri: str) -> None:
        """Delete the file of an export soon; nobody can read it any more."""
        name = resources.export_file(uri)
        if not name or self._folder is None:
            return
        self._doomed[name] = asyncio.get_running_loop().time() + PATIENCE_S
        if len(self._doomed) > MAX_WAITING:
            del self._doomed[next(iter(self._doomed))]
        if self._deleting is None or self._deleting.done():
            self._deleting = asyncio.create_task(self._delete(self._folder), name="files of exports")

    async def stop(self) -> None:
        """Delete nothing more; the folders go with what started the children."""
        self._folder = None
        if self._deleting is not None:
            self._deleting.cancel()
            await asyncio.wait({self._deleting})

    async def _delete(self, folder: Path) -> None:
        clock, back_off = asyncio.get_running_loop().time, BackOff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while names := [*self._doomed]:
            gone = await asyncio.to_thread(delete, folder, names)
            now = clock()
            for name in names:
                if name in gone or self._doomed.get(name, now) <= now:
                    self._doomed.pop(name, None)
            if self._doomed:
                await asyncio.sleep(back_off.pause())


def delete(folder: Path, names: Collection[str]) -> set[str]:
    """Delete files of these names in the folders of children, and return which were there. Blocking."""
    found: set[str] = set()
    with suppress(OSError), _opened(folder) as exports:
        for child in _folders_in(exports):
            for place in _folders_in(child):
                found.update(name for name in names if _unlinked(name, place))
    return found


def _folders_in(folder: int) -> Iterator[int]:
    """Open the folders in a folder, one at a time; one that is a link, or gone by now, is none."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MAX_FOLDERS)]
    for name in names:
        with suppress(OSError), _opened(name, folder) as opened:
            yield opened


@contextmanager
def _opened(path: Path | str, folder: int | None = None) -> Iterator[int]:
    opened = os.open(path, _FOLDER, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


def _unlinked(name: str, folder: int) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:  # it is not here, or no file
        return False
    return True
