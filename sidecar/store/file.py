"""The audit chain in one local file: one JSON line for each record, appended, never rewritten.

The rules, and why:

- One process for each chain. The file is held under an exclusive ``flock`` for as long as the sink lives; two writers
  would fork the chain.
- A receipt means stored. A record is one ``write``; a short write is cut back before anything else happens. With
  ``sync`` a receipt also means ``fsync``; calls that wait at the same time share one (group commit), in a thread.
- The chain never runs ahead of the file. Nothing advances unless the write held; when an ``fsync`` fails, the file is
  cut back to what was durable before (after a failed ``fsync`` the kernel may have dropped the pages and report success
  the next time, see fsync(2) and "fsyncgate"), and every caller that waited is refused.
- The file is the one at the path. If another program removes, renames, replaces, cuts or writes it, evidence would go
  to a file that no reader opens. So every append fails until the path is the held file again, as the sidecar left it.
- A crash may tear the last line. The torn bytes were never acknowledged; they are kept in ``<file>.torn-<offset>`` and
  the chain goes on from the last whole record. With anything else at its end the sidecar does not start: the file is
  damaged, or the wrong file.

Without ``sync`` the receipt outlives the process but not the machine. Rotation is a restart with the file moved away.
"""

import asyncio
import fcntl
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.audit import BEGINNING, GENESIS, BrokenRecord, chain
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.model import JsonObject
from sidecar.ports import AuditReceipt

_LOG = logging.getLogger(__name__)

_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 24
"""Bytes. A request is at most a megabyte and its record little more, so a longer last line is not a record."""

_TRIAL = bytes(4096)
"""One block: a disk that is full may take less. Where a crash leaves it, the next start sets it aside as a torn end."""

_FOREIGN_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """The end of the chain: bytes in the file, number and hash of the last record."""

    size: int = 0
    seq: int = 0
    head: str = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiter:
    receipt: AuditReceipt
    stored: asyncio.Future[None]


class FileAuditSink:
    """Appends records to one file (``sidecar.ports.AuditSink``). To be used from one event loop.

    Args:
        path: the file; created with mode 0600 if it is not there.
        sync: whether a receipt waits for ``fsync``.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: the file cannot be opened, is not a regular file, may be written by others, belongs to
            another running sidecar, or its last record does not hold.
    """

    def __init__(self, path: Path, *, sync: bool = False, flush: Callable[[int], None] = os.fsync) -> None:
        self._path = path
        self._sync = sync
        self._flush = flush
        self._fd = _open(path)
        try:
            self._written = _recover(self._fd, path, flush)
            if sync:
                flush(self._fd)
                _flush_directory(path.parent, flush)
        except OSError as error:
            os.close(self._fd)
            raise ConfigurationError(f"audit file {path}: {_why(error)}") from error
        except ConfigurationError:
            os.close(self._fd)
            raise
        self._identity = _identity(os.fstat(self._fd))
        self._durable = self._written
        self._overrun = False
        """Bytes past ``_written`` may be in the file and must be cut off before the next record."""
        self._failing = False
        self._waiting: list[_Waiter] = []
        self._flusher: asyncio.Task[None] | None = None

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that was stored; 0 and GENESIS before the first."""
        return (self._durable.seq, self._durable.head)

    @property
    def ready(self) -> bool:
        """Whether the last record or the last look found that records are stored."""
        return not self._failing

    async def look(self) -> None:
        """See whether the next record would be stored.

        Where the last one was not, try it with zeros that are cut off again: if calls stopped because nothing
        is stored, nothing else would find out that the disk has room again.
        """
        try:
            self._check_file()
            if self._failing:
                self._put(_TRIAL)
                self._cut()
                if self._sync:
                    await asyncio.to_thread(self._flush, self._fd)
        except OSError as error:
            self._unavailable(_why(error))
        else:
            self._works_again()

    async def append(self, record: JsonObject) -> AuditReceipt:
        """Number, link and store one record; return only when it is stored.

        Raises:
            AuditUnavailable: it is not stored, and the chain stands where it stood. Works again by itself when the
                disk does.
        """
        receipt = self._write(record)
        if not self._sync:
            self._durable = self._written
            return receipt
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(receipt=receipt, stored=stored))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._group_commit())
        await stored
        return receipt

    async def close(self) -> None:
        """Wait for what is being made durable, then release the file. Appending afterwards is refused."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, record: JsonObject) -> AuditReceipt:
        try:
            line, digest = chain.link(record, self._written.seq + 1, self._written.head)
        except (ValueError, RecursionError) as error:
            raise AuditUnavailable(f"the record has no canonical form: {error}") from error
        line += b"\n"
        try:
            self._check_file()
            self._put(line)
        except OSError as error:
            raise self._unavailable(_why(error)) from error
        self._works_again()
        self._written = _Position(size=self._written.size + len(line), seq=self._written.seq + 1, head=digest)
        return AuditReceipt(id=str(record["id"]), seq=self._written.seq, hash=digest)

    def _works_again(self) -> None:
        if self._failing:
            self._failing = False
            _LOG.warning("the audit file can be written again", extra={"path": str(self._path)})

    def _check_file(self) -> None:
        """Refuse unless the path is the held file, with the length that the last append left.

        Raises:
            OSError: it is not, or cannot be had.
        """
        if self._fd < 0:
            raise OSError("the sink is closed")
        if self._overrun:
            os.ftruncate(self._fd, self._written.size)
            self._overrun = False
        found = self._path.stat()
        if _identity(found) != self._identity:
            raise OSError("another file is at the path")
        if found.st_size != self._written.size:
            raise OSError("another program changed the file's length")

    def _put(self, line: bytes) -> None:
        """Write one whole line or none.

        Raises:
            OSError: nothing of the line counts.
        """
        self._overrun = True
        try:
            count = os.write(self._fd, line)
        except OSError:
            self._cut()
            raise
        if count != len(line):
            self._cut()
            raise OSError("the disk took only a part of the record")
        self._overrun = False

    def _cut(self) -> None:
        """Cut the file back to the end of the chain; if that fails too, the next append tries again first."""
        self._overrun = True
        try:
            os.ftruncate(self._fd, self._written.size)
        except OSError as error:
            _LOG.error(
                "the audit file cannot be cut back to its last whole record",
                extra={"path": str(self._path), "error": error.strerror},
            )
        else:
            self._overrun = False

    def _unavailable(self, why: str) -> AuditUnavailable:
        """Say once, when it begins, that the file cannot be written; each refused call says so to its own log."""
        if not self._failing:
            self._failing = True
            _LOG.error("the audit file cannot be written", extra={"path": str(self._path), "error": why})
        return AuditUnavailable(f"audit file {self._path}: {why}")

    async def _group_commit(self) -> None:
        """Flush until no call waits. A flush covers everything that was written before it began."""
        try:
            while self._waiting:
                target, waiters, self._waiting = self._written, self._waiting, []
                try:
                    await asyncio.to_thread(self._flush, self._fd)
                except OSError as error:
                    self._abandon(waiters, error)
                else:
                    self._durable = target
                    for waiter in waiters:
                        if not waiter.stored.done():
                            waiter.stored.set_result(None)
        finally:
            self._flusher = None

    def _abandon(self, waiters: list[_Waiter], error: OSError) -> None:
        """Forget every record that is not durable, those written during the flush too: they link to the others."""
        waiters, self._waiting = waiters + self._waiting, []
        self._written = self._durable
        self._cut()
        for waiter in waiters:
            if not waiter.stored.done():
                waiter.stored.set_exception(self._unavailable(f"fsync: {_why(error)}"))


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _open(path: Path) -> int:
    """Open and lock the file. O_NONBLOCK: a FIFO at the path must be refused, not waited for."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError as error:
        raise ConfigurationError(f"audit file {path}: there is no folder {path.parent}; make it") from error
    except OSError as error:
        raise ConfigurationError(f"audit file {path}: {_why(error)}") from error
    try:
        _admit(os.fstat(fd), path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ConfigurationError:
        os.close(fd)
        raise
    except OSError as error:
        os.close(fd)
        raise ConfigurationError(
            f"audit file {path}: in use by another process ({error.strerror}); give each sidecar its own file"
        ) from error
    return fd


def _admit(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"audit file {path}: not a regular file")
    if status.st_mode & _FOREIGN_WRITE:
        raise ConfigurationError(f"audit file {path}: other users can write it; run chmod 600")


def _recover(fd: int, path: Path, flush: Callable[[int], None]) -> _Position:
    """Find the end of the chain, putting a torn last line aside."""
    size = os.fstat(fd).st_size
    whole = _last_break(fd, size)
    if whole < size:
        _set_aside(fd, path, whole, flush)
    if whole == 0:
        return _Position()
    start = _last_break(fd, whole - 1)
    try:
        entry = chain.read(_read_at(fd, start, whole - 1))
    except BrokenRecord as broken:
        raise ConfigurationError(
            f"audit file {path}: the last record is not valid ({broken}); restore the file or start a new one"
        ) from broken
    return _Position(size=whole, seq=entry.seq, head=entry.hash)


def _last_break(fd: int, end: int) -> int:
    """Return the offset just after the last line break before ``end``, or 0 where there is none."""
    position = end
    while position > 0:
        if end - position > _LONGEST_LINE:
            raise ConfigurationError("the audit file's last line is longer than a record can be; name another file")
        start = max(0, position - _BLOCK)
        found = _read_at(fd, start, position).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _read_at(fd: int, start: int, end: int) -> bytes:
    chunks = []
    while start < end:
        chunk = os.pread(fd, end - start, start)
        if not chunk:
            break
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)


def _set_aside(fd: int, path: Path, whole: int, flush: Callable[[int], None]) -> None:
    """Move the torn end into a separate file, durably, before it is cut off here."""
    torn = _read_at(fd, whole, os.fstat(fd).st_size)
    begun = torn.rstrip(b"\0")[: len(BEGINNING)]  # some file systems leave zeros after a loss of power
    if not BEGINNING.startswith(begun):
        raise ConfigurationError(f"audit file {path}: its end is not part of a record; name another file")
    aside, copy = _create_aside(path, whole)
    try:
        rest = memoryview(torn)
        while rest:
            rest = rest[os.write(copy, rest) :]
        flush(copy)
    finally:
        os.close(copy)
    _flush_directory(path.parent, flush)
    os.ftruncate(fd, whole)
    flush(fd)
    _LOG.warning(
        "the audit file ended in a torn record, which was put aside",
        extra={"path": str(path), "aside": str(aside), "bytes": len(torn)},
    )


def _create_aside(path: Path, whole: int) -> tuple[Path, int]:
    """Create ``<file>.torn-<offset>``; where an earlier crash left one, the next free name."""
    aside, number = path.with_name(f"{path.name}.torn-{whole}"), 0
    while True:
        try:
            return aside, os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            number += 1
            aside = path.with_name(f"{path.name}.torn-{whole}-{number}")


def _flush_directory(directory: Path, flush: Callable[[int], None]) -> None:
    """Make a new directory entry durable; a file's own fsync does not (fsync(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush(fd)
    finally:
        os.close(fd)
