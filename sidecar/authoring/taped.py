"""The records of a chain, read once and verified on the way, for ``replaying``."""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import BinaryIO, Final

from sidecar.audit import BEGINNING, ChainFault, StoredChain, Verification, Walk
from sidecar.authoring.records import RecordedDecision, UnreadableRecord, read_record
from sidecar.errors import ConfigurationError

LONGEST_LINE: Final = 1 << 24
"""Bytes, as in ``sidecar.store.file``."""

BATCH: Final = 32
"""Records that are decided at the same time at most; more than OPA has threads gains nothing."""

BATCH_BYTES: Final = 4_000_000
"""Of the lines of a batch; a line more may begin it or end it."""


def chain_of(file: BinaryIO) -> StoredChain:
    """Return what a file holds as a chain that begins with its first line."""
    size = 0
    with suppress(OSError):  # what is no file has no descriptor
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return StoredChain(name=str(getattr(file, "name", "")), lines=_lines_of(file), size=size)


async def _lines_of(file: BinaryIO) -> AsyncIterator[bytes]:
    while True:
        try:
            line = file.readline(LONGEST_LINE)
        except OSError as error:
            raise ConfigurationError(f"the audit file cannot be read: {error.strerror or error}") from error
        if not line:
            return
        yield line


class RecordTape:
    """Reads a chain from its beginning to its end or its first fault."""

    def __init__(self, chain: StoredChain) -> None:
        self._lines = chain.lines
        self._walk = Walk(seq=chain.seq, head=chain.head)
        self._fault: ChainFault | None = None
        self.unfinished = False
        self.size = 0
        """Bytes that were read."""

    def proof(self) -> Verification:
        """Return what the lines read so far prove."""
        return self._walk.verdict(self._fault)

    async def records(self, *, since: str = "", until: str = "") -> AsyncIterator[tuple[int, int, RecordedDecision]]:
        """Yield the number of each line that holds an intent or a refusal, its bytes, and what it says.

        Args:
            since: the first moment that is meant, as records have it; what was before is proven all the same.
            until: the first that is not; empty for none.
        """
        number = 0
        async for line in self._lines:
            number += 1
            self.size += len(line)
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE and BEGINNING.startswith(line[: len(BEGINNING)]):
                self.unfinished = True
                return
            what, one = self._read(line)
            if what:
                self._fault = ChainFault(line=number, what=what)
                return
            if one is not None and since <= one.time and (not until or one.time < until):
                yield number, len(line), one

    def _read(self, line: bytes) -> tuple[str, RecordedDecision | None]:
        """Return what is wrong with a line, or what it says."""
        if len(line) == LONGEST_LINE:
            return "the line is longer than a record can be", None
        if what := self._walk.step(line):
            return what, None
        try:
            return "", read_record(self._walk.record)
        except UnreadableRecord as error:
            return str(error), None


async def batches(
    records: AsyncIterator[tuple[int, int, RecordedDecision]],
) -> AsyncIterator[list[tuple[int, RecordedDecision]]]:
    """Yield records, each with its line, as many at a time as are decided together."""
    batch: list[tuple[int, RecordedDecision]] = []
    size = 0
    async for line, length, one in records:
        batch.append((line, one))
        size += length
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
