"""A stretch of a chain, proven without what stands before it: several processes prove one file at the same time.

A stretch is proven or it is not; where one is not, or two do not fit together, the whole is walked line by line
(``survey``), which tells what is wrong. So nothing here has a reason to give.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from sidecar.audit.chain import GENESIS, BrokenRecord, Link, read
from sidecar.audit.record import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenStretch:
    """What lines that follow each other prove on their own."""

    first_seq: int
    first_prev: str
    last_seq: int
    last_hash: str
    awaited: tuple[str, ...]
    """Requests whose outcome is here and whose intent must stand before."""
    unfinished: tuple[str, ...]
    """Requests whose intent is here and whose outcome may follow."""
    intents: "array[int]"
    """CRC-32 of each request that has an intent here: none of them may be unfinished before."""
    met: frozenset[str]
    """Which of the expected heads are here."""


def prove(lines: Iterable[bytes], *, heads: frozenset[str] = frozenset()) -> ProvenStretch | None:
    """Prove a stretch; None where anything is wrong with it, or it is empty.

    Args:
        lines: each with its line break.
        heads: remembered hashes to look for.
    """
    first = entry = None
    turns = _Turns()
    met: set[str] = set()
    for line in lines:
        try:
            following = read(line[:-1])
        except BrokenRecord:
            return None
        if entry is not None and (following.seq, following.prev) != (entry.seq + 1, entry.hash):
            return None
        if not line.endswith(b"\n") or not turns.fits(following):
            return None
        entry = following
        first = first or entry
        if entry.hash in heads:
            met.add(entry.hash)
    if first is None or entry is None:
        return None
    return ProvenStretch(
        first_seq=first.seq,
        first_prev=first.prev,
        last_seq=entry.seq,
        last_hash=entry.hash,
        awaited=tuple(turns.awaited),
        unfinished=tuple(turns.unfinished),
        intents=turns.intents,
        met=frozenset(met),
    )


class _Turns:
    """Which intents and outcomes belong together."""

    def __init__(self) -> None:
        self.awaited: dict[str, None] = {}
        self.unfinished: dict[str, None] = {}
        self.intents: array[int] = array("I")

    def fits(self, entry: Link) -> bool:
        """Take one record; return whether it can stand where it stands."""
        request = entry.request_id
        match entry.event:
            case Event.INTENT if request in self.unfinished:
                return False
            case Event.INTENT:
                self.unfinished[request] = None
                self.intents.append(crc32(request.encode()))
            case Event.OUTCOME if request in self.unfinished:
                del self.unfinished[request]
            case Event.OUTCOME if request in self.awaited:
                return False
            case Event.OUTCOME:
                self.awaited[request] = None
            case Event.REFUSAL | Event.CONTROL | Event.APPROVAL:
                pass
        return True


def fit(stretches: Iterable[ProvenStretch], *, seq: int = 0, head: str = GENESIS) -> ProvenStretch | None:
    """Put stretches together; None where one does not continue the one before.

    Args:
        stretches: in their order.
        seq: number of the record before the first, 0 where there is none; the intents of what ends later may be older.
        head: its hash.
    """
    unfinished: dict[str, None] = {}
    met: frozenset[str] = frozenset()
    begun = seq, head
    for each in stretches:
        if (each.first_seq, each.first_prev) != (seq + 1, head):
            return None
        for request in each.awaited:
            if request in unfinished:
                del unfinished[request]
            elif not begun[0]:
                return None
        if unfinished:
            seen = set(each.intents)
            if any(crc32(request.encode()) in seen for request in unfinished):
                return None
        unfinished |= dict.fromkeys(each.unfinished)
        met |= each.met
        seq, head = each.last_seq, each.last_hash
    return ProvenStretch(
        first_seq=begun[0] + 1,
        first_prev=begun[1],
        last_seq=seq,
        last_hash=head,
        awaited=(),
        unfinished=tuple(unfinished),
        intents=array("I"),
        met=met,
    )
