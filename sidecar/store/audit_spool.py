"""Records of a chain that wait on this machine's disk until their store is back.

One file of linked lines, appended and flushed (``fsync``) before anybody is told that they are stored. What holds for
an audit file holds here (``file``, ``audit_opening``): one process holds it, a short write is cut back, another file at
the path is refused, and a torn end is put aside at the next start. When everything is in the store, it is emptied.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidecar.store.audit_opening import LONGEST_LINE, ChainEnd, identity, open_chain

_LOG: Final = logging.getLogger(__name__)

_PIECE: Final = 1 << 14
"""Bytes that are read at a time to find the end of the oldest line."""


class SpoolFull(OSError):
    """No more records may wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRecords:
    """What waits in a spool."""

    records: int = 0
    size: int = 0
    """Bytes."""
    since: str = ""
    """When the call of the oldest one came (RFC 3339); empty where none waits, or it cannot be read."""


class _Dated(msgspec.Struct):
    time: str


class AuditSpool:
    """Keeps lines in one file.

    Args:
        path: the file; created with mode 0600 if it is not there.
        most: bytes that may wait.
        flush: makes a descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: the file cannot be had, or what it ends with is no record.
    """

    def __init__(self, path: Path, *, most: int, flush: Callable[[int], None] = os.fsync) -> None:
        self._path = path
        self._most = most
        self._flush = flush
        self.end: ChainEnd
        self._fd, self.end = open_chain(path, flush, called="spool")
        self._identity = identity(os.fstat(self._fd))
        self._size = self.end.size
        self._records = self.end.seq - self.end.first_seq + 1 if self.end.size else 0
        self._overrun = False
        self._shipped = 0
        """Bytes from the beginning of the file that are in the store."""

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def holds(self) -> bool:
        """Whether records wait."""
        return self._size > self._shipped

    @property
    def waiting(self) -> WaitingRecords:
        """How much waits, and since when."""
        if not self.holds:
            return WaitingRecords()
        return WaitingRecords(records=self._records, size=self._size - self._shipped, since=self._oldest())

    async def append(self, lines: list[bytes]) -> None:
        """Keep lines, all or none; return when the disk has them. To be called by one at a time.

        Raises:
            OSError: nothing is kept.
        """
        text = b"".join(line + b"\n" for line in lines)
        if self._size + len(text) > self._most:
            raise SpoolFull(f"the spool is full ({self._most} bytes)")
        self._check()
        self._overrun = True
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            await asyncio.to_thread(self._flush, self._fd)
        except BaseException:
            # Also where the wait was cancelled: nobody will be told that these are kept.
            self._cut()
            raise
        self._overrun = False
        self._size += len(text)
        self._records += len(lines)

    def next_lines(self, count: int, most: int) -> list[bytes]:
        """Return the oldest lines that wait, at least one where there is one.

        Args:
            count: lines at most.
            most: bytes at most.

        Raises:
            OSError: the file cannot be read, or nothing is there.
        """
        found: list[bytes] = []
        block = os.pread(self._fd, min(max(most, LONGEST_LINE), self._size - self._shipped), self._shipped)
        for line in block.split(b"\n")[:-1]:
            if found and (len(found) >= count or sum(map(len, found)) + len(line) > most):
                break
            found.append(line)
        if not found:
            raise OSError("the spool is shorter than it was")
        return found

    def shipped(self, lines: list[bytes]) -> None:
        """Note that the oldest lines are in the store; the last ones empty the file.

        Raises:
            OSError: it cannot be emptied; it is tried again with the next call.
        """
        self._shipped += sum(len(line) + 1 for line in lines)
        self._records -= len(lines)
        if not self.holds and self._size:
            os.ftruncate(self._fd, 0)
            self._flush(self._fd)
            self._size = self._shipped = 0

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def mend(self) -> None:
        """Cut off what could not be cut off when it failed to be kept: nobody was told that it is there.

        Raises:
            OSError: it still cannot be.
        """
        if self._overrun:
            os.ftruncate(self._fd, self._size)
            self._overrun = False

    def _oldest(self) -> str:
        line, place = b"", self._shipped
        try:
            while b"\n" not in line and len(line) < LONGEST_LINE:
                if not (piece := os.pread(self._fd, _PIECE, place)):
                    return ""
                line, place = line + piece, place + len(piece)
            return msgspec.json.decode(line.partition(b"\n")[0], type=_Dated).time
        except (OSError, ValueError, RecursionError):
            return ""

    def _check(self) -> None:
        if self._fd < 0:
            raise OSError("the spool is closed")
        self.mend()
        found = self._path.stat()
        if identity(found) != self._identity:
            raise OSError("another file is at the path of the spool")
        if found.st_size != self._size:
            raise OSError("another program changed the length of the spool")

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            _LOG.error("the spool cannot be cut back", extra={"path": str(self._path), "error": error.strerror})
        else:
            self._overrun = False
