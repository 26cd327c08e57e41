"""One small file that is written whole, for one process.

A new file replaces the old one by ``rename`` once it is durable, so that a crash leaves one or the other. The file
names the SHA-256 of its content: a damaged one must not be read as one with less in it. One process for each file, held
by a lock beside it.
"""

import contextlib
import fcntl
import json
import os
import stat
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.model import JsonValue

LONGEST: Final = 64 * 2**20
"""Bytes; what is kept with the longest names takes less."""

_FOREIGN_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class WholeFile:
    """Keeps one list in a file; every method blocks.

    Args:
        path: the file; it is created with mode 0600.
        content: what the list is called in the file.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: another sidecar has the file, or its folder cannot be written.
    """

    def __init__(self, path: Path, content: str, *, flush: Callable[[int], None] = os.fsync) -> None:
        self.path = path
        self._content = content
        self._flush = flush
        self._lock = _locked(path.with_name(f"{path.name}.lock"))
        self._turn = threading.Lock()
        self._saved = b""
        self._stamp: tuple[int, ...] = ()

    def read(self) -> list[JsonValue]:
        """Return what was written last.

        Raises:
            FileNotFoundError: nothing ever was.
            OSError: the file cannot be read, or may be written by others.
            ValueError: it is not what was written.
        """
        text, stamp = _read(self.path)
        try:
            entries = self._parse(text)
        except (RecursionError, msgspec.DecodeError) as error:
            raise ValueError("it is damaged") from error
        self._saved, self._stamp = sha256(text).digest(), stamp
        return entries

    def write(self, entries: list[JsonValue]) -> None:
        """Keep exactly these instead; return only when they are durable.

        Raises:
            OSError: they are not; what was written before stands.
        """
        body = json.dumps(entries, sort_keys=True)
        text = msgspec.json.encode({"v": 1, "sha256": sha256(body.encode()).hexdigest(), self._content: body}) + b"\n"
        with self._turn:
            self._put(text)

    def intact(self) -> bool:
        """Whether the file is still what was read or written last; read only where it was touched since."""
        with self._turn:
            if not self._saved:
                return False
            try:
                if _stamp(self.path.lstat()) != self._stamp:
                    text, stamp = _read(self.path)
                    if sha256(text).digest() != self._saved:
                        return False
                    self._stamp = stamp
            except OSError:
                return False
            return True

    def forget(self) -> None:
        """Count as not read: what stands there is of another form."""
        self._saved = b""

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._lock)

    def _parse(self, text: bytes) -> list[JsonValue]:
        whole: JsonValue = msgspec.json.decode(text)
        if not isinstance(whole, dict) or whole.keys() != {"v", "sha256", self._content} or whole["v"] != 1:
            raise ValueError(f"not a file of {self._content}")
        body = whole[self._content]
        if not isinstance(body, str) or sha256(body.encode()).hexdigest() != whole["sha256"]:
            raise ValueError("its digest does not match its content")
        entries: JsonValue = msgspec.json.decode(body)
        if not isinstance(entries, list):
            raise ValueError("not a list")  # noqa: TRY004 - a fault of the file like the others
        return entries

    def _put(self, text: bytes) -> None:
        beside = self.path.with_name(f"{self.path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()  # what a crash left; O_EXCL below refuses everything else that could be there
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(fd, rest) :]
            self._flush(fd)
            beside.replace(self.path)
            stamp = _stamp(os.fstat(fd))  # of this very file, after the rename, which counts as a change
        finally:
            os.close(fd)
        self._saved, self._stamp = sha256(text).digest(), stamp
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._flush(folder)
        finally:
            os.close(folder)


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
