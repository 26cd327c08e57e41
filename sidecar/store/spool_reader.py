"""Reading what waits in a spool, beside the process that holds it.

That process appends to the file, and empties it when everything is in the store. So a reader opens the spool first and
asks the store afterwards how far it is: what has left the spool by then is in the store. A spool that is emptied while
it is read is noticed, and the store asked for the rest.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.store.audit_opening import LONGEST_LINE

_BLOCK: Final = 1 << 20
_BEGINNING: Final = 1 << 14
"""Bytes by which the content is known again: a hash is among them, or so much of a long line that it is as good."""


class _Numbered(msgspec.Struct):
    seq: int


class SeenSpool:
    """A spool as it was when it was opened.

    Args:
        fd: the open file; -1 where there is none.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size if fd >= 0 else 0
        self._beginning = self._first_bytes() if fd >= 0 else b""

    def lines(self) -> Iterator[bytes]:
        """Yield what waits, each line without its line break, until the end or until the spool is emptied."""
        place, rest = 0, b""
        while place < self._size:
            block = os.pread(self._fd, min(_BLOCK, self._size - place), place)
            if not block or self.emptied or len(rest) > LONGEST_LINE:
                return
            place += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines

    @property
    def emptied(self) -> bool:
        """Whether what was there has been shipped since."""
        if self._fd < 0:
            return False
        return os.fstat(self._fd).st_size < self._size or self._first_bytes() != self._beginning

    def _first_bytes(self) -> bytes:
        return os.pread(self._fd, min(_BEGINNING, self._size), 0)


class SpoolReader:
    """Reads the records of one chain that wait for its store.

    Args:
        path: the spool; where there is none, nothing waits.
        instance: the chain.
    """

    def __init__(self, path: Path, instance: str) -> None:
        self.path = path
        self.instance = instance

    @contextmanager
    def opened(self) -> Iterator[SeenSpool]:
        """Open the spool.

        Raises:
            ConfigurationError: it cannot be read.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            yield SeenSpool(-1)
            return
        except OSError as error:
            raise ConfigurationError(f"audit.spool: {self.path}: {error.strerror or error}") from error
        try:
            yield SeenSpool(fd)
        finally:
            os.close(fd)

    def count(self) -> int:
        """Return how many records wait.

        Raises:
            ConfigurationError: the spool cannot be read.
        """
        with self.opened() as seen:
            return sum(1 for _ in seen.lines())


def number_of(line: bytes) -> int:
    """Return a record's number; 0 of what is none."""
    try:
        return msgspec.json.decode(line, type=_Numbered).seq
    except (ValueError, RecursionError):
        return 0
