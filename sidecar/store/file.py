"""The audit chain in one local file: one JSON line for each record, appended, never rewritten.

The rules, and why:

- One process for each chain. The file is held under an exclusive ``flock`` for as long as the sink lives; two writers
  would fork the chain.
- A receipt means stored. A record is one ``write``; a short write is cut back before anything else happens. With
  ``group`` a receipt also means ``fsync``; calls that wait at the same time share one (group commit), in a thread.
- The chain never runs ahead of the file. Nothing advances unless the write held; when an ``fsync`` fails, the file is
  cut back to what was durable before (after a failed ``fsync`` the kernel may have dropped the pages and report success
  the next time, see fsync(2) and "fsyncgate"), and every caller that waited is refused.
- The file is the one at the path. If another program removes, renames, replaces, cuts or writes it, evidence would go
  to a file that no reader opens. So every append fails until the path is the held file again, as the sidecar left it.
- A crash loses nothing that was acknowledged (``audit_opening``).
- Rotation carries the chain: the next file's first record links to the last one of the file before
  (``audit_segments``). What is rotated away is durable first. If it fails, the chain goes on in the file that is there.
- The head is published (``checkpoints``), so that records cut off the end can be missed.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from sidecar.audit import Checkpoint, CheckpointSigner, chain
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.model import JsonObject
from sidecar.ports import AuditReceipt
from sidecar.store.audit_opening import ChainEnd, flush_directory, identity, open_chain, open_held, why
from sidecar.store.audit_segments import name_of
from sidecar.store.checkpoints import Checkpoints

_LOG = logging.getLogger(__name__)

_TRIAL = bytes(4096)
"""One block: a disk that is full may take less. Where a crash leaves it, the next start sets it aside as a torn end."""


class AuditSync(StrEnum):
    """What a receipt means."""

    ALWAYS = "always"
    """On the disk, each record before the next is written."""
    GROUP = "group"
    """On the disk; calls that wait at the same time share one ``fsync``."""
    OS = "os"
    """In the page cache: it outlives the process, and not the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is full; zero is never."""

    max_bytes: int = 0
    max_age_s: int = 0
    """From the time of the first record to that of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiter:
    receipt: AuditReceipt
    stored: asyncio.Future[None]


class FileAuditSink:
    """Appends records to one file (``sidecar.ports.AuditSink``). To be used from one event loop.

    Args:
        path: the file; created with mode 0600 if it is not there.
        sync: what a receipt means.
        rotation: when the next file begins.
        checkpoint_s: how often a head is published while records come, seconds.
        signer: signs published heads, where they are signed.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: the file cannot be opened, is not a regular file, may be written by others, belongs to
            another running sidecar, or its last record does not hold.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: AuditSync = AuditSync.OS,
        rotation: Rotation | None = None,
        checkpoint_s: float = 60.0,
        signer: CheckpointSigner | None = None,
        flush: Callable[[int], None] = os.fsync,
    ) -> None:
        self._path = path
        self._name = str(path)
        self._sync = sync
        self._rotation = rotation or Rotation()
        self._flush = flush
        self._fd, self._written = open_chain(path, flush, durable=sync is not AuditSync.OS)
        self._identity = identity(os.fstat(self._fd))
        self._durable = self._written
        self._overrun = False
        """Bytes past ``_written`` may be in the file and must be cut off before the next record."""
        self._failing = False
        self._waiting: list[_Waiter] = []
        self._flusher: asyncio.Task[None] | None = None
        self._one_by_one = asyncio.Lock()
        self._room = self._rotation.max_bytes
        """Bytes beyond which the next file begins; 0 for any."""
        self._due = False
        self._checkpoints = Checkpoints(path, signer)
        self._checkpoint_s = checkpoint_s
        self._published_at = float("-inf")
        self._compare_with_published()

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that was stored; 0 and GENESIS before the first."""
        return (self._durable.seq, self._durable.head)

    @property
    def ready(self) -> bool:
        """Whether the last record or the last look found that records are stored."""
        return not self._failing

    @property
    def spool(self) -> None:
        """Where records wait for their store: nowhere, the file is on this machine."""

    async def look(self) -> None:
        """See whether the next record would be stored.

        Where the last one was not, try it with zeros that are cut off again: if calls stopped because nothing
        is stored, nothing else would find out that the disk has room again. Publishes the head when that is due.
        """
        try:
            self._check_file()
            if self._failing:
                self._put(_TRIAL)
                self._cut()
                if self._sync is not AuditSync.OS:
                    await asyncio.to_thread(self._flush, self._fd)
        except OSError as error:
            self._unavailable(why(error))
        else:
            self._works_again()
        now = asyncio.get_running_loop().time()
        if self._durable.seq > self._checkpoints.last and now - self._published_at >= self._checkpoint_s:
            self._published_at = now
            self._publish("periodic")

    async def append(self, record: JsonObject) -> AuditReceipt:
        """Number, link and store one record; return only when it is stored.

        Raises:
            AuditUnavailable: it is not stored, and the chain stands where it stood. Works again by itself when the
                disk does.
        """
        match self._sync:
            case AuditSync.ALWAYS:
                async with self._one_by_one:
                    return await self._flushed(record)
            case AuditSync.GROUP:
                return await self._flushed(record)
            case AuditSync.OS:
                if self._full(record):
                    self._rotate()
                receipt = self._write(record)
                self._durable = self._written
                return receipt

    async def _flushed(self, record: JsonObject) -> AuditReceipt:
        self._due = self._due or self._full(record)
        receipt = self._write(record)
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
            if self._durable.seq > self._checkpoints.last:
                self._publish("end")
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
            raise self._unavailable(why(error)) from error
        self._works_again()
        before, time = self._written, str(record["time"])
        self._written = ChainEnd(
            size=before.size + len(line),
            seq=before.seq + 1,
            head=digest,
            first_seq=before.first_seq,
            begun=before.begun or time,
            time=time,
        )
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
        found = os.stat(self._name)  # noqa: PTH116 -- a path of pathlib takes three times as long, for each record
        if identity(found) != self._identity:
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
                    if self._due:
                        # The few records of the meantime too, on the loop: afterwards there is another file.
                        target, waiters, self._waiting = self._written, waiters + self._waiting, []
                        self._flush(self._fd)
                except OSError as error:
                    self._abandon(waiters, error)
                else:
                    self._durable = target
                    for waiter in waiters:
                        if not waiter.stored.done():
                            waiter.stored.set_result(None)
                    if self._due:
                        self._rotate()
        finally:
            self._flusher = None

    def _abandon(self, waiters: list[_Waiter], error: OSError) -> None:
        """Forget every record that is not durable, those written during the flush too: they link to the others."""
        waiters, self._waiting = waiters + self._waiting, []
        self._written = self._durable
        self._cut()
        for waiter in waiters:
            if not waiter.stored.done():
                waiter.stored.set_exception(self._unavailable(f"fsync: {why(error)}"))

    def _full(self, record: JsonObject) -> bool:
        """Whether the file has reached its size, or is too old for the record."""
        if self._room and self._written.size >= self._room:
            return True
        age_s, begun = self._rotation.max_age_s, self._written.begun
        if not age_s or not begun:
            return False
        with contextlib.suppress(ValueError):
            age = datetime.fromisoformat(str(record["time"])) - datetime.fromisoformat(begun)
            return age.total_seconds() >= age_s
        return False

    def _rotate(self) -> None:
        """Begin the next file. Everything that was written is durable, and nothing waits."""
        self._due = False
        ended, beside = self._written, self._path.with_name(f"{self._path.name}.next")
        if not ended.size:
            return
        away = name_of(self._path, ended.first_seq)
        try:
            self._check_file()
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()  # what a crash left
            fresh = open_held(beside, fresh=True)
            try:
                os.link(self._path, away)
                beside.replace(self._path)
                if self._sync is not AuditSync.OS:
                    flush_directory(self._path.parent, self._flush)
            except OSError:
                os.close(fresh)
                self._take_back(away)
                raise
        except (OSError, ConfigurationError) as error:
            # Not tried again with every record.
            self._room += self._rotation.max_bytes
            self._written = self._durable = replace(ended, begun=ended.time)
            _LOG.error(
                "the audit file cannot be rotated; it goes on",
                extra={"path": str(self._path), "error": why(error) if isinstance(error, OSError) else error.detail},
            )
            return
        os.close(self._fd)
        self._fd, self._identity, self._room = fresh, identity(os.fstat(fresh)), self._rotation.max_bytes
        self._written = self._durable = replace(ended, size=0, first_seq=ended.seq + 1, begun="")
        self._publish("rotation")
        _LOG.info("the audit file was rotated", extra={"path": str(self._path), "away": str(away)})

    def _take_back(self, away: Path) -> None:
        with contextlib.suppress(OSError):
            if identity(away.lstat()) == self._identity == identity(self._path.stat()):
                away.unlink()

    def _publish(self, reason: str) -> None:
        end = self._durable
        self._checkpoints.publish(Checkpoint(seq=end.seq, head=end.head, time=end.time, why=reason))

    def _compare_with_published(self) -> None:
        """Say at the start that records which were published are not there; ``audit verify`` says more."""
        newest = self._checkpoints.newest()
        if newest is None:
            return
        if newest.seq > self._written.seq:
            _LOG.error(
                "audit records that were published are missing at the end of the file",
                extra={"path": str(self._path), "last": self._written.seq, "published": newest.seq},
            )
        elif (newest.seq, newest.head) == (self._written.seq, self._written.head):
            self._checkpoints.last = newest.seq
