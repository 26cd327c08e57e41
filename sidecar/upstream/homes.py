"""The private folders that children live in, and those of a sidecar that was killed.

A folder is in use for as long as its sidecar holds a lock on a file in it, and that ends with the process, however it
ends (``flock(2)``). After that, no caller can ask for the exports and logs in it, and the next sidecar of the same user
deletes it. The file is locked before it has its name, so that none is ever seen unlocked.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.system import ended, in_thread

_PREFIX: Final = "mcp-sidecar-"
_IN_USE: Final = "in-use"
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class ChildHome:
    """One folder, which only this user can enter. Everything here blocks.

    Raises:
        OSError: there is no place for it.
    """

    def __init__(self) -> None:
        _delete_left_behind()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        made = self.path / f"{_IN_USE}.new"
        self._lock = os.open(made, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.path / _IN_USE)

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


async def own_home() -> ChildHome:
    """Make a folder; where that is cancelled, none is left.

    Raises:
        ConfigurationError: there is no place for it.
    """
    making = asyncio.ensure_future(asyncio.to_thread(ChildHome))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        with suppress(asyncio.CancelledError):
            await ended(making)
        if making.exception() is None:
            await in_thread(making.result().remove)
        raise
    except OSError as error:
        raise ConfigurationError(f"no private folder for its process can be made: {error.strerror}") from error


def _delete_left_behind() -> None:
    """Delete the folders of this user that are in use no longer; what is not known to have been one stays."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, no folder of a child, or gone by now
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            lock = os.open(path / _IN_USE, _FLAGS)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
