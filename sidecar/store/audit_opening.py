"""Opening an audit file: who may hold it, and where its chain ends after the last process has ended.

A crash may tear the last line, or fall between the steps of a rotation (``audit_segments``). The torn bytes were never
acknowledged; they are kept in ``<file>.torn-<offset>`` and the chain goes on from the last whole record. With
anything else at its end the sidecar does not start: the file is damaged, or the wrong file.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidecar.audit import BEGINNING, GENESIS, BrokenRecord, chain
from sidecar.errors import ConfigurationError
from sidecar.store.audit_segments import rotated

_LOG = logging.getLogger(__name__)

_BLOCK: Final = 1 << 16

LONGEST_LINE: Final = 1 << 24
"""Bytes. A request is at most a megabyte and its record little more, so a longer last line is not a record."""

_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """The end of the chain: bytes in the file, number and hash of the last record."""

    size: int = 0
    seq: int = 0
    head: str = GENESIS
    first_seq: int = 1
    """Number of the first record of the file, or of the one that will be."""
    begun: str = ""
    """The time of that record; empty where there is none yet."""
    time: str = ""
    """The time of the last record."""


def open_held(path: Path, *, fresh: bool = False) -> int:
    """Open and lock the file. O_NONBLOCK: a FIFO at the path must be refused, not waited for.

    Args:
        path: the file; created with mode 0600 if it is not there.
        fresh: it must not be there.

    Raises:
        ConfigurationError: it cannot be had.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_EXCL if fresh else 0)
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError as error:
        raise ConfigurationError(f"audit file {path}: there is no folder {path.parent}; make it") from error
    except OSError as error:
        raise ConfigurationError(f"audit file {path}: {why(error)}") from error
    try:
        _admit(os.fstat(fd), path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if identity(path.stat()) != identity(os.fstat(fd)):  # it was rotated away by who holds the next one
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
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


def open_chain(
    path: Path, flush: Callable[[int], None], *, durable: bool = True, called: str = "audit file"
) -> tuple[int, ChainEnd]:
    """Open, lock and recover the file of a chain; return its descriptor and where the chain ends.

    Args:
        path: the file.
        flush: makes what was written to a descriptor durable.
        durable: what is there is durable when this returns.
        called: what messages call the file.

    Raises:
        ConfigurationError: it cannot be had, or is damaged.
    """
    fd = open_held(path)
    try:
        end = recover(fd, path, flush)
        if durable:
            flush(fd)
            flush_directory(path.parent, flush)
    except OSError as error:
        os.close(fd)
        raise ConfigurationError(f"{called} {path}: {why(error)}") from error
    except ConfigurationError:
        os.close(fd)
        raise
    return fd, end


def recover(fd: int, path: Path, flush: Callable[[int], None]) -> ChainEnd:
    """Find the end of the chain, putting a torn last line aside.

    Raises:
        ConfigurationError: the last record does not hold.
        OSError: the file cannot be read or mended.
    """
    _undo_half_rotation(fd, path, flush)
    size = os.fstat(fd).st_size
    whole = _last_break(fd, size)
    if whole < size:
        _set_aside(fd, path, whole, flush)
    if whole:
        last = _last_record(fd, whole, path)
        first = _first_record(fd, whole, path)
        return ChainEnd(size=whole, seq=last.seq, head=last.hash, first_seq=first.seq, begun=first.time, time=last.time)
    if not (before := rotated(path)):
        return ChainEnd()
    newest = before[-1]
    older = os.open(newest, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _admit(os.fstat(older), newest)
        last = _last_record(older, os.fstat(older).st_size, newest)
    finally:
        os.close(older)
    return ChainEnd(seq=last.seq, head=last.hash, first_seq=last.seq + 1, time=last.time)


class _RecordPlace(msgspec.Struct):
    seq: int
    hash: str
    time: str


def _last_record(fd: int, whole: int, path: Path) -> _RecordPlace:
    line = _read_at(fd, _last_break(fd, whole - 1), whole - 1)
    try:
        chain.read(line)
        return msgspec.json.decode(line, type=_RecordPlace)
    except (BrokenRecord, msgspec.DecodeError) as broken:
        raise ConfigurationError(
            f"audit file {path}: the last record is not valid ({broken}); restore the file or start a new one"
        ) from broken


def _first_record(fd: int, whole: int, path: Path) -> _RecordPlace:
    """Read what the file begins with; its hash is for ``audit verify`` to check."""
    end = 0
    begun = b""
    while b"\n" not in begun and end < min(whole, LONGEST_LINE):
        upto = min(whole, end + _BLOCK)
        begun += _read_at(fd, end, upto)
        end = upto
    try:
        return msgspec.json.decode(begun.partition(b"\n")[0], type=_RecordPlace)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise ConfigurationError(
            f"audit file {path}: the first record cannot be read; restore the file or start a new one"
        ) from broken


def _undo_half_rotation(fd: int, path: Path, flush: Callable[[int], None]) -> None:
    """Take back the first step of a rotation that a crash interrupted: the file has both names then."""
    for name in rotated(path):
        if identity(name.lstat()) == identity(os.fstat(fd)):
            name.unlink()
            flush_directory(path.parent, flush)


def _last_break(fd: int, end: int) -> int:
    """Return the offset just after the last line break before ``end``, or 0 where there is none."""
    position = end
    while position > 0:
        if end - position > LONGEST_LINE:
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
    flush_directory(path.parent, flush)
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


def flush_directory(directory: Path, flush: Callable[[int], None]) -> None:
    """Make a new directory entry durable; a file's own fsync does not (fsync(2))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush(fd)
    finally:
        os.close(fd)


def why(error: OSError) -> str:
    """Return what the system says of an error."""
    return error.strerror or str(error)


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells one file from another."""
    return (status.st_dev, status.st_ino)
