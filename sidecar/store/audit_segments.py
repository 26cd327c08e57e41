"""The files of one chain: the one that is written, and those that were rotated away from it.

``audit.jsonl`` is written; ``audit.jsonl.000000000001`` and so on are those before, named after the number of their
first record, so that names sort as records do. A rotation is two steps: the file gets its second name (``link``), then
an empty, already locked file takes the first one (``rename``). So the path is never without a file, at which another
process could begin a second chain; and a crash between the two leaves one file with both names, which the next start
takes back.
"""

import os
import re
from pathlib import Path
from typing import Final

_NUMBERED: Final = re.compile(r"\.([0-9]{12,16})")


def rotated(path: Path) -> list[Path]:
    """Return the files that were rotated away, oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        entries = [entry.name for entry in os.scandir(path.parent)]
    except FileNotFoundError:
        return []
    found = [
        (int(match[1]), name)
        for name in entries
        if name.startswith(path.name) and (match := _NUMBERED.fullmatch(name, len(path.name)))
    ]
    return [path.with_name(name) for _, name in sorted(found)]


def segments(path: Path) -> list[Path]:
    """Return all files of the chain, oldest first; the last one is the one that is written.

    Raises:
        OSError: the folder cannot be read.
    """
    return [*rotated(path), *([path] if path.exists() else [])]


def name_of(path: Path, first_seq: int) -> Path:
    """Return the name under which the file is rotated away."""
    return path.with_name(f"{path.name}.{first_seq:012d}")


def checkpoints_of(path: Path) -> Path:
    """Return the file of the chain's checkpoints."""
    return path.with_name(f"{path.name}.checkpoints")
