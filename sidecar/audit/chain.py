"""The hash chain: each record carries the hash of the one before it, so that no record can be changed unnoticed.

What the chain proves: anyone who holds the hash of record *n* (a receipt, a span, a log line, a copy elsewhere) can
prove that records 1…*n* are the ones that were written, in that order, none changed, missing, added or moved.

What it does not prove on its own: that nothing was cut off after the last record of a file, and that the file was not
rewritten from some record on with every later hash recomputed. Both show only against a head that was kept outside the
file; so ``Verification`` gives the head, and ``verify`` takes the expected one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from json import JSONDecoder

from sidecar import strict_json
from sidecar.audit import quick
from sidecar.audit.canonical import canonical
from sidecar.audit.record import VERSION, Event
from sidecar.audit.typed_lines import body_of, typed
from sidecar.model import JsonObject, JsonValue

GENESIS = "0" * 64
"""``prev`` of the first record, whose ``seq`` is 1."""

FIELDS = frozenset({
    "v", "seq", "id", "time", "event", "request_id", "trace_id", "span_id", "subject", "actor", "client", "protocol",
    "session", "method", "tool", "server", "accesses", "traits", "arguments_sha256", "decision", "obligations",
    "outcome", "prev", "hash",
})  # fmt: skip
"""What every record has. Later versions may add fields; the hash covers those too."""

BEGINNING = b'{"accesses":'
"""How every line begins, since canonical keys are sorted; tells the rest of a torn record from another program's
file."""

_EVENTS = {event.value: event for event in Event}
_HASHED = FIELDS - {"hash"}
_LINKS = ("seq", "prev", "hash")
_HASH = re.compile("[0-9a-f]{64}")
_UNSAFE = 2**53
_SAFE_DIGITS = 16


class BrokenRecord(ValueError):
    """A line is not a record that ``link`` could have written. The message says why, never what the line holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A record's place in the chain, its hash checked."""

    seq: int
    prev: str
    hash: str
    event: Event
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFault:
    """The first thing that is wrong with a chain."""

    line: int
    """1 for the first; one past the last if the expected head is missing."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a file of evidence proves."""

    records: int
    """How many records hold, counted from the first."""
    head: str
    """The hash of the last record that holds; GENESIS where there is none."""
    fault: ChainFault | None
    unfinished: tuple[str, ...]
    """Request ids whose intent has no outcome among the records that hold: calls in flight when the process ended, or
    now. Whether they took effect is not known."""

    @property
    def holds(self) -> bool:
        """Whether the whole chain is as it was written. An empty file holds and proves nothing."""
        return self.fault is None


def link(record: JsonObject, seq: int, prev: str) -> tuple[bytes, str]:
    """Give a record its place in the chain.

    Returns:
        The line to store, without a line break, and the record's hash. ``hash`` is the line's last member: the line is
        the hashed text with the hash put in, so that a line has exactly one valid spelling.

    Raises:
        ValueError: the record is already linked, or has no canonical form.
    """
    if any(key in record for key in _LINKS):
        msg = "the record is already linked"
        raise ValueError(msg)
    body = canonical({**record, "seq": seq, "prev": prev})
    digest = sha256(body).hexdigest()
    return _seal(body, digest), digest


def read(line: bytes) -> Link:
    """Check one line, without its line break, on its own: strict JSON, every field, its own hash.

    Raises:
        BrokenRecord: it is not a record that ``link`` could have written.
    """
    return _of_usual_form(line) or opened(line)[0]


def _of_usual_form(line: bytes) -> Link | None:
    """Return a line's place; None where it is not of the form of most, or does not hold."""
    match typed(line + b"\n"):
        case [one] if _HASH.fullmatch(one.prev):
            return Link(seq=one.seq, prev=one.prev, hash=one.hash, event=one.event, request_id=one.request_id)
        case _:
            return None


def line_of(record: JsonObject) -> bytes:
    """Return the line of a record that is already linked, for stores that keep its members.

    Raises:
        ValueError: a value has no canonical form. Whether the hash holds is for ``read`` to tell.
    """
    body = canonical({name: value for name, value in record.items() if name != "hash"})
    return _seal(body, str(record.get("hash")))


def opened(line: bytes) -> tuple[Link, JsonObject]:
    """Check one line on its own; return its place and the record without its hash.

    Raises:
        BrokenRecord: it is not a record that ``link`` could have written.
    """
    if (place := _of_usual_form(line)) is not None:
        return place, body_of(line)
    if (sealed := quick.opened(line)) is not None and sealed[0].keys() >= _HASHED:
        return _place(*sealed), sealed[0]
    record = _parse(line)
    missing = FIELDS - record.keys()
    if missing:
        raise BrokenRecord(f"missing fields: {', '.join(sorted(missing))}")
    stated = record.pop("hash")
    try:
        body = canonical(record)
    except (ValueError, RecursionError):
        raise BrokenRecord("a value has no canonical form") from None
    digest = sha256(body).hexdigest()
    if stated != digest:
        raise BrokenRecord("the hash does not match the record")
    # Equal values in another spelling (spaces, escapes, order, a key twice) were not written by ``link``.
    if line != _seal(body, digest):
        raise BrokenRecord(_misspelt(line))
    return _place(record, digest), record


def verify(lines: Iterable[bytes], *, head: str | None = None) -> Verification:
    """Prove a chain from its first record, in one pass; memory grows with the calls in flight only.

    Args:
        lines: as a binary file iterates: each with its line break.
        head: a remembered hash that must be among the records, where there is one; without it, records cut off the end
            cannot be noticed.
    """
    walk = Walk(awaited=head)
    number = 0
    for number, line in enumerate(lines, start=1):
        fault = walk.step(line)
        if fault:
            return walk.verdict(ChainFault(line=number, what=fault))
    if walk.awaited is not None and walk.awaited != GENESIS:
        return walk.verdict(
            ChainFault(line=number + 1, what="no record has the expected head: the end was cut off or rewritten")
        )
    return walk.verdict(None)


class Walk:
    """A verification in progress, for callers that use the records on the way; all others call ``verify``.

    Args:
        awaited: a remembered hash; None again once it was met.
        seq: number of the record before the first; above 0, outcomes may be of intents that are not here.
        head: its hash.
    """

    def __init__(self, *, awaited: str | None = None, seq: int = 0, head: str = GENESIS) -> None:
        self.awaited = awaited
        self.record: JsonObject = {}
        """The last record that holds, without its hash."""
        self._begun = seq
        self._records = seq
        self._head = head
        self._open: dict[str, None] = {}

    def step(self, line: bytes) -> str:
        """Take one line; return what is wrong with it, or nothing."""
        if not line.endswith(b"\n"):
            return "truncated: the last line has no line break"
        try:
            entry, record = opened(line[:-1])
        except BrokenRecord as broken:
            return str(broken)
        fault = self._out_of_place(entry) or self._out_of_turn(entry)
        if not fault:
            self._records, self._head, self.record = entry.seq, entry.hash, record
            if entry.hash == self.awaited:
                self.awaited = None
        return fault

    def _out_of_place(self, entry: Link) -> str:
        if entry.seq != self._records + 1:
            return f"sequence gap: seq is {entry.seq} where {self._records + 1} was expected"
        if entry.prev != self._head:
            return "broken link: prev is not the hash of the previous record"
        return ""

    def _out_of_turn(self, entry: Link) -> str:
        match entry.event:
            case Event.INTENT if entry.request_id in self._open:
                return "a second intent for one request"
            case Event.INTENT:
                self._open[entry.request_id] = None
            case Event.OUTCOME if entry.request_id not in self._open and not self._begun:
                return "an outcome without its intent"
            case Event.OUTCOME:
                self._open.pop(entry.request_id, None)
            case Event.REFUSAL | Event.CONTROL | Event.APPROVAL:
                pass
        return ""

    def verdict(self, fault: ChainFault | None) -> Verification:
        """Return what was proven so far, with the fault that ended it."""
        return Verification(records=self._records, head=self._head, fault=fault, unfinished=tuple(self._open))


def _seal(body: bytes, digest: str) -> bytes:
    return b'%b,"hash":"%b"}' % (body[:-1], digest.encode("ascii"))


def _place(record: JsonObject, digest: str) -> Link:
    """Read a record's place. Anyone can compute a valid hash, so types are checked as well."""
    seq, prev, event, request_id = record["seq"], record["prev"], record["event"], record["request_id"]
    if record["v"] != VERSION or isinstance(record["v"], bool):
        raise BrokenRecord("unknown version")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1:
        raise BrokenRecord("seq is not a positive integer")
    if not isinstance(prev, str) or not _HASH.fullmatch(prev):
        raise BrokenRecord("prev is not a hash")
    if not isinstance(request_id, str) or not request_id:
        raise BrokenRecord("request_id is not a text, or is empty")
    if not isinstance(event, str) or (known := _EVENTS.get(event)) is None:
        raise BrokenRecord("unknown event")
    return Link(seq=seq, prev=prev, hash=digest, event=known, request_id=request_id)


def _integer(digits: str) -> int | float:
    """Read a number without fraction: RFC 8785 writes doubles below 1e21 that way, and integers only below 2**53."""
    if len(digits) < _SAFE_DIGITS:
        return int(digits)
    number = int(digits)
    return number if abs(number) < _UNSAFE else float(digits)


_DECODER = JSONDecoder(parse_constant=strict_json.refuse_constant, parse_int=_integer)


def read_value(text: str) -> JsonValue:
    """Read a value back from its canonical text, with the numbers that it had.

    Raises:
        ValueError: it is not JSON.
    """
    value: JsonValue = _DECODER.decode(text)
    return value


def _parse(line: bytes) -> JsonObject:
    try:
        record = _DECODER.decode(line.decode("utf-8"))
    except strict_json.NotANumber as constant:
        raise BrokenRecord(f"not JSON: {constant}") from None
    except (ValueError, RecursionError):
        raise BrokenRecord("not JSON") from None
    if not isinstance(record, dict):
        raise BrokenRecord("not an object")
    return record


def _misspelt(line: bytes) -> str:
    """Say why a line with the right value has the wrong bytes. Only called then, because the hook is slow."""
    try:
        strict_json.DECODER.decode(line.decode("utf-8"))
    except strict_json.DuplicateName:
        return "a key occurs twice"
    return "not the canonical spelling"
