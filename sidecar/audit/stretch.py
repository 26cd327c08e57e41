"""A stretch of a chain, proven without what stands before it: several processes prove one file at the same time.

A stretch is proven or it is not; where one is not, or two do not fit together, the whole is walked line by line
(``survey``), which tells what is wrong. So nothing here has a reason to give.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

from sidecar.audit.chain import GENESIS, BrokenRecord, Link, read
from sidecar.audit.record import Event
from sidecar.audit.typed_lines import TypedLine, typed


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
    met: Mapping[str, int]
    """Which of the expected heads are here, each with its number."""


def prove(blocks: Iterable[bytes], *, heads: frozenset[str] = frozenset()) -> ProvenStretch | None:
    """Prove a stretch; None where anything is wrong with it, or it is empty.

    Args:
        blocks: some whole lines each, each with its line break.
        heads: remembered hashes to look for.
    """
    first: TypedLine | Link | None = None
    seq, head = 0, GENESIS
    turns = _Turns()
    met: dict[str, int] = {}
    try:
        for block in blocks:
            for entry in typed(block) or _one_by_one(block):
                if first is None:
                    first = entry
                elif entry.seq != seq + 1 or entry.prev != head:
                    return None
                seq, head = entry.seq, entry.hash
                if not turns.fits(entry.event, entry.request_id):
                    return None
                if head in heads:
                    met[head] = seq
    except BrokenRecord:
        return None
    if first is None:
        return None
    return ProvenStretch(
        first_seq=first.seq,
        first_prev=first.prev,
        last_seq=seq,
        last_hash=head,
        awaited=tuple(turns.awaited),
        unfinished=tuple(turns.unfinished),
        intents=turns.intents,
        met=met,
    )


def _one_by_one(block: bytes) -> Iterator[Link]:
    """Read the lines of a block where one is of another form than most.

    Raises:
        BrokenRecord: one is no record.
    """
    *lines, rest = block.split(b"\n")
    if rest:
        raise BrokenRecord("truncated: the last line has no line break")
    yield from map(read, lines)


class _Turns:
    """Which intents and outcomes belong together."""

    def __init__(self) -> None:
        self.awaited: dict[str, None] = {}
        self.unfinished: dict[str, None] = {}
        self.intents: array[int] = array("I")

    def fits(self, event: Event, request: str) -> bool:
        """Take one record; return whether it can stand where it stands."""
        match event:
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
    met: dict[str, int] = {}
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
