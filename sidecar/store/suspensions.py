"""Suspensions in one local file, written whole (``sidecar.ports.SuspensionStore``).

A new file replaces the old one by ``rename`` once it is durable, so that a crash leaves one or the other. The file
names its own SHA-256: a damaged one must not be read as one with fewer suspensions. One process for each file, held by
a lock beside it.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from sidecar.enforcement import Suspensions
from sidecar.errors import ConfigurationError, SuspensionsUnavailable
from sidecar.identity import Suspendable, Suspension, read_suspension
from sidecar.model import JsonValue
from sidecar.ports import SuspensionStore

_LOG = logging.getLogger(__name__)

LONGEST: Final = 64 * 2**20
"""Bytes; the most suspensions with the longest names take less."""

LOOK_S: Final = 1.0
"""How often what is kept is looked at."""

_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class FileSuspensions:
    """Keeps suspensions in a file.

    Args:
        path: the file; it is created with mode 0600.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: another sidecar has the file, or its folder cannot be written.
    """

    def __init__(self, path: Path, *, flush: Callable[[int], None] = os.fsync) -> None:
        self._path = path
        self._flush = flush
        self._lock = _locked(path.with_name(f"{path.name}.lock"))
        self._turn = threading.Lock()
        self._saved = b""
        self._stamp: tuple[int, ...] = ()

    async def load(self) -> tuple[Suspension, ...]:
        """Return what was saved last, without sessions: these ended with the process that had them.

        Raises:
            SuspensionsUnavailable: the file cannot be read, may be written by others, or is not what was saved.
        """
        try:
            text, stamp = _read(self._path)
        except FileNotFoundError:
            await self.save(())
            return ()
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        try:
            found = tuple(one for one in _parse(text) if one.target.kind is not Suspendable.SESSION)
        except (ValueError, RecursionError, msgspec.DecodeError) as error:
            raise self._unavailable("it is damaged") from error
        self._saved, self._stamp = sha256(text).digest(), stamp
        return found

    async def save(self, suspensions: tuple[Suspension, ...]) -> None:
        """Keep exactly these instead; return only when they are durable.

        Raises:
            SuspensionsUnavailable: they are not; what was saved before stands.
        """
        try:
            await asyncio.to_thread(self._replace, _render(suspensions))
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    async def intact(self) -> bool:
        """See ``ports.SuspensionStore``. Reads the file only where it was touched since the last look."""
        return await asyncio.to_thread(self._intact)

    def _intact(self) -> bool:
        with self._turn:
            if not self._saved:
                return False
            try:
                if _stamp(self._path.lstat()) != self._stamp:
                    text, stamp = _read(self._path)
                    if sha256(text).digest() != self._saved:
                        return False
                    self._stamp = stamp
            except OSError:
                return False
            return True

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._lock)

    def _replace(self, text: bytes) -> None:
        with self._turn:
            self._put(text)

    def _put(self, text: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # what a crash left; O_EXCL below refuses everything else that could be there
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(fd, rest) :]
            self._flush(fd)
            beside.replace(self._path)
            stamp = _stamp(os.fstat(fd))  # of this very file, after the rename, which counts as a change
        finally:
            os.close(fd)
        self._saved, self._stamp = sha256(text).digest(), stamp
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flush(folder)
        finally:
            os.close(folder)

    def _unavailable(self, why: str) -> SuspensionsUnavailable:
        _LOG.error("the file of suspensions cannot be used", extra={"path": str(self._path), "error": why})
        return SuspensionsUnavailable(f"the file of suspensions {self._path}: {why}")


async def guard(suspensions: Suspensions, store: SuspensionStore) -> None:
    """Refuse everybody while what is kept is not what was saved: a restart would read something else."""
    while True:
        intact = await store.intact()
        if intact != suspensions.known:
            _LOG.error("suspensions: what is kept is %s what was saved", "again" if intact else "no longer")
            suspensions.set_known(intact)
        await asyncio.sleep(LOOK_S)


def _locked(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ConfigurationError(f"{path}: another process has it; give each sidecar its own file") from error
    return fd


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another; the mode too, since others could write it.

    The change time above all: a writer can put the modification time back, and nobody the change time.
    """
    return status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(fd, "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if status.st_mode & _FOREIGN_WRITE or status.st_uid not in {os.geteuid(), 0}:
            raise OSError("other users can write it; run chmod 600, and chown it to the sidecar's user")
        if status.st_size > LONGEST:
            raise OSError("larger than the sidecar ever writes it; restore it")
        return file.read(), _stamp(status)


def _render(suspensions: tuple[Suspension, ...]) -> bytes:
    body = json.dumps([suspension.document() for suspension in suspensions], sort_keys=True)
    return msgspec.json.encode({"v": 1, "sha256": sha256(body.encode()).hexdigest(), "suspensions": body}) + b"\n"


def _parse(text: bytes) -> tuple[Suspension, ...]:
    whole: JsonValue = msgspec.json.decode(text)
    if not isinstance(whole, dict) or whole.keys() != {"v", "sha256", "suspensions"} or whole["v"] != 1:
        raise ValueError("not a file of suspensions")
    body = whole["suspensions"]
    if not isinstance(body, str) or sha256(body.encode()).hexdigest() != whole["sha256"]:
        raise ValueError("its digest does not match its content")
    entries: JsonValue = msgspec.json.decode(body)
    if not isinstance(entries, list):
        raise ValueError("not a list")  # noqa: TRY004 - a fault of the file like the others
    return tuple(read_suspension(entry) for entry in entries)
