"""A chain walked line by line to its end: where a record was altered, lost, added or moved, and why that shows.

``chain.Walk`` ends at the first fault, after which nothing is proven by its place alone. This goes on, so that the
report tells what is still there: a record after a fault holds if its own hash does, and its number tells where it
belongs. The rules, for a line where record *n* was expected:

- not a record: it stands for one. If the next record has number *n* + 1, one record was altered and none is missing.
- a number above *n*: the records between are missing.
- a number below *n*: the record is out of place or there twice, and *n* is still expected.
- number *n* with another ``prev`` than the hash before: one of the two was replaced by a record with a fresh hash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sidecar.audit.chain import GENESIS, BrokenRecord, Link, read
from sidecar.audit.record import Event

MOST_FAULTS: Final = 100
"""That are listed; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFinding:
    """One thing that is wrong with a chain."""

    file: str
    line: int
    """1 for the first of its file; one past the last where something is missing at the end."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What the files of a chain prove together."""

    files: tuple[str, ...]
    records: int
    """Whose own hash holds."""
    first: int
    """Number of the first record; above 1 where a checkpoint stands for those before."""
    last: int
    """Number of the last record."""
    head: str
    """Hash of the last record; GENESIS where there is none."""
    findings: tuple[ChainFinding, ...]
    more: int
    """Findings that are not listed."""
    unfinished: tuple[str, ...]
    """Request ids whose intent has no outcome: calls in flight when the process ended, or now. Whether they took effect
    is not known."""
    checkpoints: int
    """Published heads that were compared."""

    @property
    def holds(self) -> bool:
        """Whether everything is as it was written. No record holds and proves nothing."""
        return not self.findings


@dataclass(slots=True, kw_only=True)
class Survey:
    """A report in the making.

    Args:
        seq: number of the record before the first; 0 at the beginning of a chain.
        head: its hash.
        published: heads that were published, hash by number; each must be met.
        heads: remembered hashes of which no number is known; each must be met.
    """

    seq: int = 0
    head: str = GENESIS
    published: Mapping[int, str] = field(default_factory=dict)
    heads: frozenset[str] = frozenset()
    _records: int = 0
    _files: list[str] = field(default_factory=list)
    _findings: list[ChainFinding] = field(default_factory=list)
    _more: int = 0
    _lost: int = 0
    """Lines since the last record that are none."""
    _unfinished: dict[str, None] = field(default_factory=dict)
    _met: set[str] = field(default_factory=set)
    _begun: int = -1
    _line: int = 0

    def file(self, name: str, lines: Iterable[bytes]) -> None:
        """Walk one file, the next of the chain."""
        self.begin(name)
        for line in lines:
            self.take(line)

    def begin(self, name: str) -> None:
        """Begin with the next file of the chain, or what stands for one."""
        self._begun = self.seq if self._begun < 0 else self._begun
        self._files.append(name)
        self._line = 0

    def take(self, line: bytes) -> None:
        """Take the next line of it."""
        self._line += 1
        self._take(line)

    def report(self) -> ChainReport:
        """Return what was found, with what the published heads show to be missing at the end."""
        self._line += 1
        missing = [seq for seq, head in self.published.items() if seq > self.seq and head != GENESIS]
        if missing:
            self._find(f"records {self.seq + 1} to {max(missing)} are missing: the end was cut off (published head)")
        for head in sorted(self.heads - self._met - {GENESIS}):
            self._find(f"no record has the expected head {head}: the end was cut off or rewritten")
        begun = max(self._begun, 0)
        return ChainReport(
            files=tuple(self._files),
            records=self._records,
            first=begun + 1,
            last=self.seq,
            head=self.head,
            findings=tuple(self._findings),
            more=self._more,
            unfinished=tuple(self._unfinished),
            checkpoints=len(self.published),
        )

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            self._find("truncated: the last line has no line break")
            return
        try:
            entry = read(line[:-1])
        except BrokenRecord as broken:
            self._lost += 1
            self._find(str(broken))
            return
        self._records += 1
        if entry.hash in self.heads:
            self._met.add(entry.hash)
        if not self._stands_behind(entry):
            return
        self._turn(entry)
        self._lost, self.seq, self.head = 0, entry.seq, entry.hash
        expected = self.published.get(entry.seq)
        if expected is not None and expected != entry.hash:
            self._find(
                f"record {entry.seq} is not the one whose hash was published: it was rewritten from there or before"
            )

    def _stands_behind(self, entry: Link) -> bool:
        """Whether a record continues what stands before it, if with a gap."""
        due = self.seq + 1
        if entry.seq < due:
            twice = entry.hash == self.head
            self._find(f"record {entry.seq} {'is there twice' if twice else f'is out of place: {due} was expected'}")
            self._records -= 1
            return False
        gap = entry.seq - due - self._lost
        if gap > 0:
            missing = f"record {due}" if entry.seq - due == 1 else f"records {due} to {entry.seq - 1}"
            altered = f", of which {self._lost} may be the altered lines before" if self._lost else ""
            self._find(f"sequence gap: {missing} missing where {due} was expected{altered}")
        elif gap < 0:
            self._find(f"{-gap} of the lines before this one were added: record {due} was expected")
        elif not self._lost and entry.prev != self.head:
            self._find(
                f"broken link: prev of record {entry.seq} is not the hash of record {self.seq}: one was replaced"
            )
        return True

    def _turn(self, entry: Link) -> None:
        match entry.event:
            case Event.INTENT if entry.request_id in self._unfinished:
                self._find("a second intent for one request")
            case Event.INTENT:
                self._unfinished[entry.request_id] = None
            case Event.OUTCOME if entry.request_id in self._unfinished:
                del self._unfinished[entry.request_id]
            case Event.OUTCOME if not self._findings and self._begun == 0:
                # After a fault, or a checkpoint, its intent may be among the records that are not here.
                self._find("an outcome without its intent")
            case Event.OUTCOME | Event.REFUSAL | Event.CONTROL | Event.APPROVAL:
                pass

    def _find(self, what: str) -> None:
        if len(self._findings) >= MOST_FAULTS:
            self._more += 1
            return
        self._findings.append(ChainFinding(file=self._files[-1] if self._files else "", line=self._line, what=what))
