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
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import ConfigurationError, SuspensionsUnavailable
from sidecar.identity import Suspendable, Suspension, read_suspension
from sidecar.model import JsonValue

_LOG = logging.getLogger(__name__)

LONGEST: Final = 64 * 2**20
"""Bytes; the most suspensions with the longest names take less."""

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

    async def load(self) -> tuple[Suspension, ...]:
        """Return what was saved last, without sessions: these ended with the process that had them.

        Raises:
            SuspensionsUnavailable: the file cannot be read, may be written by others, or is not what was saved.
        """
        try:
            text = _read(self._path)
        except FileNotFoundError:
            await self.save(())
            return ()
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        try:
            return tuple(one for one in _parse(text) if one.target.kind is not Suspendable.SESSION)
        except (ValueError, RecursionError, msgspec.DecodeError) as error:
            raise self._unavailable("it is damaged") from error

    async def save(self, suspensions: tuple[Suspension, ...]) -> None:
        """Keep exactly these instead; return only when they are durable.

        Raises:
            SuspensionsUnavailable: they are not; what was saved before stands.
        """
        try:
            await asyncio.to_thread(self._replace, _render(suspensions))
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._lock)

    def _replace(self, text: bytes) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # what a crash left; O_EXCL below refuses everything else that could be there
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(fd, rest) :]
            self._flush(fd)
        finally:
            os.close(fd)
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flush(folder)
        finally:
            os.close(folder)

    def _unavailable(self, why: str) -> SuspensionsUnavailable:
        _LOG.error("the file of suspensions cannot be used", extra={"path": str(self._path), "error": why})
        return SuspensionsUnavailable(f"the file of suspensions {self._path}: {why}")


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


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(fd, "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if status.st_mode & _FOREIGN_WRITE or status.st_uid not in {os.geteuid(), 0}:
            raise OSError("other users can write it; run chmod 600, and chown it to the sidecar's user")
        if status.st_size > LONGEST:
            raise OSError("larger than the sidecar ever writes it; restore it")
        return file.read()


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
