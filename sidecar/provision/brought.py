"""Where brought programs are. Every command looks there, so this needs nothing that is slow to load."""

import os
import stat
from pathlib import Path
from typing import Final

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def programs_folder(data: Path) -> Path | None:
    """Return the folder of brought programs; None if there is none, or another user could have changed it."""
    folder = data / "bin"
    return folder if all(is_own(one) for one in (data, folder)) else None


def is_own(folder: Path) -> bool:
    """Whether a folder is there, is this user's, and nobody else can change it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
