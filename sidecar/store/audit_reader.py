"""Reading the files of a chain for questions (``sidecar.audit.AuditReader``).

Where a question names something, its text is looked for in whole blocks of the file, in C, and only lines that have it
are decoded: a gigabyte takes a second or two. Files, and parts of files, outside of the time that is asked about are
not read, found by bisection; records are in the order in which they were stored, and their time is when the call came,
so ``SLACK`` is read beside. So there is no index that could say something else than the file.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from sidecar.audit import (
    AuditEntry,
    ChainReport,
    HeldAgainst,
    Needles,
    ReadProgress,
    Selection,
    StoredChain,
    Unreadable,
    read_entry,
)
from sidecar.errors import ConfigurationError
from sidecar.store.audit_opening import LONGEST_LINE, identity
from sidecar.store.audit_proof import OpenSegment, open_segments, verify_chain

BLOCK: Final = 8 << 20
"""Bytes that are searched at a time."""

BATCH: Final = 4096
"""Records that are handed on at a time, at most."""

SLACK: Final = timedelta(hours=1)
"""How much later than it came a call may be recorded; one that waits longer is found by a question without a time."""

POLL_S: Final = 0.2
"""How often a file that is followed is looked at."""

_STEP: Final = 1 << 16


class FileAuditReader:
    """Reads one chain of files.

    Args:
        path: the file that is, or was, written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(
        self, selection: Selection, progress: ReadProgress | None = None
    ) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield the records that are meant, in their order, some at a time.

        Raises:
            ConfigurationError: a file cannot be read, or a line is not a record.
        """
        with ExitStack() as stack:
            spans = _spans(open_segments(self._path, stack), selection)
            total, done = sum(span.end - span.start for span in spans), 0
            for span in spans:
                for lines, size in _blocks(span, selection.needles):
                    for found in _batches(span, lines, selection):
                        yield found
                    done += size
                    if progress is not None:
                        progress(done, total)
                    await asyncio.sleep(0)

    async def follow(self, selection: Selection) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield records that are stored from now on, across rotations, without end.

        Raises:
            ConfigurationError: the file cannot be read, or a line is not a record.
        """
        with ExitStack() as stack:
            held = open_segments(self._path, stack)[-1]
            place = held.size
            while True:
                grown = replace(held, size=_size(held))
                gone = _replaced(self._path, held)  # before the rest is read: afterwards nothing is written to it
                if gone:
                    grown = replace(held, size=_size(held))
                lines = [line[:-1] for line in grown.lines(place) if line.endswith(b"\n")]
                place += sum(len(line) + 1 for line in lines)
                for found in _batches(_PartOfFile(segment=grown, start=0, end=0), iter(lines), selection):
                    yield found
                if gone:
                    held, place = _next(self._path, held, stack), 0
                    continue
                await asyncio.sleep(POLL_S)

    async def verify(self, against: HeldAgainst, progress: ReadProgress | None = None) -> tuple[ChainReport, ...]:
        """Prove the chain of these files.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        report = verify_chain(
            self._path,
            head=against.head,
            checkpoints=tuple(map(Path, against.checkpoints)),
            verifier=against.verifier,
            progress=progress,
        )
        return (report,)

    async def chains(self) -> tuple[StoredChain, ...]:
        """Return the chain of these files, as long as it is now.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        stack = ExitStack()
        files = open_segments(self._path, stack)
        size = sum(each.size for each in files)
        return (StoredChain(name=str(self._path), lines=_all_lines(files, stack), size=size),)


async def _all_lines(files: list[OpenSegment], stack: ExitStack) -> AsyncIterator[bytes]:
    with stack:
        for each in files:
            for line in each.lines():
                yield line


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartOfFile:
    """A part of a file that is read."""

    segment: OpenSegment
    start: int
    end: int


class _Timed(msgspec.Struct):
    time: str


def _spans(files: list[OpenSegment], selection: Selection) -> list[_PartOfFile]:
    since = _moved(selection.since, -SLACK)
    until = _moved(selection.until, SLACK)
    spans = [
        _PartOfFile(
            segment=each,
            start=_first(each, since) if since else 0,
            end=_last(each, until) if until else each.size,
        )
        for each in files
        if each.size
    ]
    return [span for span in spans if span.start < span.end]


def _moved(text: str, by: timedelta) -> str:
    if not text:
        return ""
    try:
        moved = datetime.fromisoformat(text) + by
    except OverflowError:
        return ""
    return f"{moved:%Y-%m-%dT%H:%M:%S}.{moved.microsecond:06d}Z"


def _first(segment: OpenSegment, since: str) -> int:
    """Return the beginning of a line before which every record is older than a time."""
    found = _step_at(segment, since)
    return _time_after(segment, (found - 1) * _STEP)[1] if found else 0


def _last(segment: OpenSegment, until: str) -> int:
    """Return the beginning of a line from which on every record is at a time or later; the file's end for none."""
    found = _step_at(segment, until)
    return _time_after(segment, found * _STEP)[1] if found * _STEP < segment.size else segment.size


def _step_at(segment: OpenSegment, time: str) -> int:
    steps = range(0, segment.size, _STEP)
    return bisect_left(steps, time, key=lambda place: _time_after(segment, place)[0])


def _time_after(segment: OpenSegment, place: int) -> tuple[str, int]:
    """Return the time of the first whole line after a place, and where it begins; the end sorts last."""
    segment.file.seek(place)
    if place:
        segment.file.readline(LONGEST_LINE)
    begin = segment.file.tell()
    line = segment.file.readline(LONGEST_LINE)
    try:
        return msgspec.json.decode(line, type=_Timed).time, begin
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "~", min(begin, segment.size)


def _blocks(span: _PartOfFile, needles: Needles) -> Iterator[tuple[Iterator[bytes], int]]:
    """Yield the lines of each block that have the needles, and the block's bytes."""
    place = span.start
    span.segment.file.seek(place)
    while place < span.end:
        block = span.segment.file.read(min(BLOCK, span.end - place))
        if not block:
            return
        if not block.endswith(b"\n"):
            block += span.segment.file.readline(LONGEST_LINE)
        block = block[: span.segment.size - place]
        yield candidates(block, needles), len(block)
        place += len(block)


def candidates(block: bytes, needles: Needles) -> Iterator[bytes]:
    """Yield the lines of a block that have one needle of each group; the last line may be unfinished and is not one."""
    block = block[: block.rfind(b"\n") + 1]
    single = max((group[0] for group in needles if len(group) == 1), key=len, default=b"")
    others = [group for group in needles if group != (single,)]
    lines = _with(block, single) if single else iter(block.split(b"\n")[:-1])
    for line in lines:
        if all(any(needle in line for needle in group) for group in others):
            yield line


def _with(block: bytes, needle: bytes) -> Iterator[bytes]:
    found = block.find(needle)
    while found >= 0:
        begin = block.rfind(b"\n", 0, found) + 1
        end = block.find(b"\n", found)
        yield block[begin:end]
        found = block.find(needle, end)


def _batches(
    span: _PartOfFile, lines: Iterator[bytes], selection: Selection
) -> Iterator[list[tuple[AuditEntry, bytes]]]:
    batch: list[tuple[AuditEntry, bytes]] = []
    for line in lines:
        try:
            entry = read_entry(line)
        except Unreadable as fault:
            name = span.segment.path
            raise ConfigurationError(f"{name}: {fault}; mcp-sidecar audit verify tells which line") from None
        if selection.matches(entry):
            batch.append((entry, line))
            if len(batch) >= BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _size(segment: OpenSegment) -> int:
    return segment.file.seek(0, 2)


def _replaced(path: Path, segment: OpenSegment) -> bool:
    """Whether another file is written by now: the one that is held may have been rotated away several files ago."""
    try:
        return identity(path.stat()) != segment.identity
    except FileNotFoundError:
        return True


def _next(path: Path, held: OpenSegment, stack: ExitStack) -> OpenSegment:
    """Return the file that was begun after one: that may have been rotated away too by now."""
    files = open_segments(path, stack)
    places = [number for number, each in enumerate(files) if each.identity == held.identity]
    following = places[-1] + 1 if places else len(files) - 1
    held.file.close()
    return files[min(following, len(files) - 1)]
