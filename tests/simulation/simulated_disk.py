"""Files as the product writes them, on a disk that fails, tears what is written, and loses what was not flushed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sidecar.store import file


class SimulatedDisk:
    """The disk of one run.

    Args:
        random: decides which writes and flushes fail.
        audit: the audit file.
    """

    def __init__(self, random: Random, audit: Path) -> None:
        self._random = random
        self.audit = audit
        self.durable = 0
        """Bytes of the audit file that outlive a loss of power."""
        self.fails = 0.0
        """How often a write or a flush fails, of one."""

    def flush(self, fd: int) -> None:
        """Make a file durable, or fail; then nobody knows what of it is."""
        if self._bad():
            raise OSError(errno.EIO, "staged: no flush")
        found = os.fstat(fd)
        if os.path.samestat(found, self.audit.stat()):
            self.durable = found.st_size

    def write(self, fd: int, data: bytes) -> int:
        """Write all, a part, or nothing."""
        if not self._bad():
            return os.write(fd, data)
        if self._random.random() < 0.5:
            raise OSError(errno.ENOSPC, "staged: no room")
        return os.write(fd, data[: self._random.randrange(len(data))])

    def cut(self, fd: int, length: int) -> None:
        """Cut a file, or fail."""
        if self._bad():
            raise OSError(errno.EIO, "staged: no cut")
        os.ftruncate(fd, length)

    def after_a_loss_of_power(self) -> bytes:
        """Return what may be left of the audit file: what was durable, and a part of what was not."""
        text = self.audit.read_bytes()
        return text[: self._random.randint(min(self.durable, len(text)), len(text))]

    def _bad(self) -> bool:
        return self.fails > 0.0 and self._random.random() < self.fails


class _SystemWith:
    """The ``os`` module, with this disk's writes."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.write, self.ftruncate = disk.write, disk.cut

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@contextmanager
def mounted(disk: SimulatedDisk) -> Iterator[None]:
    """Have the audit file written to this disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "os", _SystemWith(disk))
        yield
