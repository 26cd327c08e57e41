"""Proving the files of one chain: in several processes where they are large, line by line where something is wrong."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sidecar.audit import (
    GENESIS,
    ChainFinding,
    ChainReport,
    Checkpoint,
    CheckpointSignatures,
    CheckpointVerifier,
    ProvenStretch,
    ReadProgress,
    Survey,
    fit,
    prove,
)
from sidecar.errors import ConfigurationError
from sidecar.store.audit_opening import LONGEST_LINE, identity
from sidecar.store.audit_segments import checkpoints_of, segments
from sidecar.store.checkpoints import read_checkpoints

STRETCH: Final = 16 << 20
"""Bytes that one process proves at a time."""

BLOCK: Final = 1 << 18
"""Bytes that are read at a time, some two hundred records."""

_WORTH_IT: Final = 16 * STRETCH
"""Below this, starting processes takes about as long as the proof."""

_MOST_WORKERS: Final = 8
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSegment:
    """One file of the chain, as long as it was when it was opened."""

    path: Path
    file: BinaryIO
    size: int
    identity: tuple[int, int]

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the lines between two places; the last one may lack its line break."""
        place, end = start, self.size if end is None else end
        self.file.seek(start)
        while place < end:
            line = self.file.readline(min(end - place, LONGEST_LINE))
            if not line:
                return
            place += len(line)
            yield line

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield whole lines between two places, many at a time; the last one may lack its line break."""
        place = start
        self.file.seek(start)
        while place < end:
            block = self.file.read(min(BLOCK, end - place))
            if not block.endswith(b"\n"):
                block += self.file.readline(min(end - place - len(block), LONGEST_LINE))
            if not block:
                return
            place += len(block)
            yield block


def open_segments(path: Path, stack: ExitStack) -> list[OpenSegment]:
    """Open the files of a chain, oldest first. One that is rotated meanwhile is neither missed nor there twice.

    Raises:
        ConfigurationError: there is none, or one cannot be read.
    """
    try:
        for _ in range(_TRIES):
            with ExitStack() as attempt:
                names = segments(path)
                found = [_open(name, attempt) for name in names]
                last = {each.identity for each in found}
                if names == segments(path) and len(last) == len(found):
                    stack.push(attempt.pop_all())
                    break
        else:
            raise ConfigurationError(f"{path}: its files change faster than they can be opened")
    except OSError as error:
        raise ConfigurationError(f"{error.filename or path}: {error.strerror or error}") from error
    if not found:
        raise ConfigurationError(f"{path}: there is no such audit file")
    return found


def _open(path: Path, stack: ExitStack) -> OpenSegment:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    file = stack.enter_context(os.fdopen(fd, "rb", buffering=1 << 20))
    status = os.fstat(fd)
    return OpenSegment(path=path, file=file, size=status.st_size, identity=identity(status))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHeads:
    """What the files are held against."""

    published: Mapping[int, str]
    proven: Mapping[int, str]
    """Those of them whose signature holds: a chain may begin behind one."""
    findings: tuple[ChainFinding, ...]


def known_heads(path: Path, others: tuple[Path, ...], verifier: CheckpointVerifier | None) -> KnownHeads:
    """Read the published heads of an audit file: those beside it, and those that were kept elsewhere.

    Raises:
        ConfigurationError: one of the other files cannot be read.
    """
    published: dict[int, str] = {}
    proven: dict[int, str] = {}
    findings: list[ChainFinding] = []
    kept: list[tuple[str, int, Checkpoint]] = []
    beside = checkpoints_of(path)
    for source in (*([beside] if beside.exists() else []), *others):
        try:
            found, foreign = read_checkpoints(source)
        except OSError as error:
            raise ConfigurationError(f"{source}: {error.strerror or error}") from error
        if foreign:
            findings.append(ChainFinding(file=source.name, line=0, what=f"{foreign} lines are no checkpoints"))
        kept += [(source.name, number, each) for number, each in enumerate(found, start=1)]
    signatures = CheckpointSignatures([each for _, _, each in kept], verifier)
    for file, number, each in kept:
        fault = signatures.fault(each)
        if not fault and published.get(each.seq, each.head) != each.head:
            fault = f"another checkpoint has another hash for record {each.seq}"
        if fault:
            findings.append(ChainFinding(file=file, line=number, what=fault))
            continue
        published[each.seq] = each.head
        if verifier is not None:
            proven[each.seq] = each.head
    return KnownHeads(published=published, proven=proven, findings=tuple(findings))


def verify_chain(
    path: Path,
    *,
    head: str | None = None,
    checkpoints: tuple[Path, ...] = (),
    verifier: CheckpointVerifier | None = None,
    workers: int | None = None,
    progress: ReadProgress | None = None,
) -> ChainReport:
    """Prove all files of a chain.

    Args:
        path: the file that is, or was, written.
        head: a remembered hash that must be among the records.
        checkpoints: files of published heads, besides the one beside the file.
        verifier: checks their signatures.
        workers: processes; the number of processors where it is not given.
        progress: is told how far it is.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    known = known_heads(path, checkpoints, verifier)  # first: what is published later is not in what is opened now
    heads = frozenset([head] if head and head != GENESIS else [])
    with ExitStack() as stack:
        files = open_segments(path, stack)
        begun = _beginning(files, known.proven)
        expected = _after(begun, known.published)
        count = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
        report = _proven(files, begun, heads, expected, count, progress)
        if report is None:
            report = _line_by_line(files, begun, heads, expected, progress)
    return replace(report, findings=(*known.findings, *report.findings))


class _FirstRecord(msgspec.Struct):
    seq: int
    prev: str


def _beginning(files: list[OpenSegment], proven: Mapping[int, str]) -> tuple[int, str]:
    """Return number and hash of the record before the first: of a signed checkpoint, or those of a whole chain."""
    for line in files[0].lines():
        try:
            first = msgspec.json.decode(line, type=_FirstRecord)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
        if proven.get(first.seq - 1) == first.prev:
            return first.seq - 1, first.prev
        break
    return 0, GENESIS


def _line_by_line(
    files: list[OpenSegment],
    begun: tuple[int, str],
    heads: frozenset[str],
    published: Mapping[int, str],
    progress: ReadProgress | None,
) -> ChainReport:
    survey = Survey(seq=begun[0], head=begun[1], published=published, heads=heads)
    total, before = sum(each.size for each in files), 0
    for each in files:
        survey.file(each.path.name, _told(each.lines(), progress, before, total))
        before += each.size
    return survey.report()


def _after(begun: tuple[int, str], published: Mapping[int, str]) -> Mapping[int, str]:
    return {seq: head for seq, head in published.items() if seq > begun[0]}


def _told(lines: Iterator[bytes], progress: ReadProgress | None, before: int, total: int) -> Iterator[bytes]:
    done = told = before
    for line in lines:
        yield line
        done += len(line)
        if progress is not None and done - told >= STRETCH // 4:
            told = done
            progress(done, total)


def _proven(
    files: list[OpenSegment],
    begun: tuple[int, str],
    heads: frozenset[str],
    published: Mapping[int, str],
    workers: int,
    progress: ReadProgress | None,
) -> ChainReport | None:
    """Prove the files stretch by stretch; None where one is not proven, and each line has to be looked at."""
    wanted = heads | frozenset(published.values())
    places = [(each, start, end) for each in files for start, end in _stretches(each)]
    total, done, stretches = sum(each.size for each in files), 0, []
    with ExitStack() as stack:
        found: Iterator[ProvenStretch | None]
        if workers > 1 and total >= _WORTH_IT:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            stack.callback(pool.shutdown, cancel_futures=True)
            jobs = [(str(each.path), each.identity, start, end, wanted) for each, start, end in places]
            found = pool.map(prove_part, jobs)
        else:
            found = (prove(each.blocks(start, end), heads=wanted) for each, start, end in places)
        try:
            for (_, start, end), one in zip(places, found, strict=True):
                if one is None:
                    return None
                stretches.append(one)
                done += end - start
                if progress is not None:
                    progress(done, total)
        except (BrokenProcessPool, OSError):
            return None
    whole = fit(stretches, seq=begun[0], head=begun[1])
    if whole is None or wanted - whole.met.keys() or any(whole.met[head] != seq for seq, head in published.items()):
        return None
    return ChainReport(
        files=tuple(each.path.name for each in files),
        records=whole.last_seq - begun[0],
        first=whole.first_seq,
        last=whole.last_seq,
        head=whole.last_hash,
        findings=(),
        more=0,
        unfinished=whole.unfinished,
        checkpoints=len(published),
    )


def _stretches(segment: OpenSegment) -> Iterator[tuple[int, int]]:
    start = 0
    while start < segment.size:
        segment.file.seek(min(start + STRETCH, segment.size))
        segment.file.readline(LONGEST_LINE)
        end = min(segment.file.tell(), segment.size)
        yield start, end
        start = end


def prove_part(job: tuple[str, tuple[int, int], int, int, frozenset[str]]) -> ProvenStretch | None:
    """Prove one stretch of one file, in a process of its own."""
    name, inode, start, end, heads = job
    try:
        with ExitStack() as stack:
            segment = _open(Path(name), stack)
            return prove(segment.blocks(start, end), heads=heads) if segment.identity == inode else None
    except OSError:
        return None
