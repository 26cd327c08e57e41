"""``mcp-sidecar replay``: recorded calls decided again under a candidate policy set, and how that differs.

The chain is read once, record by record, and verified on the way; only the differences are kept. Reading ends at the
first line that does not verify: nothing after it is proven.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import BinaryIO, Final

import msgspec

from sidecar.audit import ReadProgress, StoredChain, Verification
from sidecar.authoring.candidate_answers import Candidate, CandidateAnswer, CandidateAnswers, Unavailable
from sidecar.authoring.records import DecisionOutcome, RecordedDecision, RecordedQuestion
from sidecar.authoring.replay_sums import ReplaySums
from sidecar.authoring.taped import RecordTape, batches, chain_of
from sidecar.model import JsonObject, JsonValue, Reason

KEPT_BYTES: Final = 4 << 20
"""Of distinct differences as JSON, some ten thousand. A file can be made of nothing but differences."""

LONGEST_NAME: Final = 256
"""Characters of a name in a report, as in a record (``sidecar.audit.record``)."""

HINT: Final = """decisions have no question and cannot be replayed: set audit.question (SIDECAR_AUDIT__QUESTION=true; \
questions with arguments of generic tools are never recorded) \
on the sidecar that records them"""


class ReplayVerdict(StrEnum):
    """How the candidate's decision stands to the recorded one."""

    SAME = "same"
    WOULD_ALLOW = "would_allow"
    WOULD_DENY = "would_deny"
    CHANGED = "changed"
    """Allowed or denied as before, but with another server, other grants, reasons or obligations."""
    UNAVAILABLE = "unavailable"
    """The candidate gives no valid answer; enforcement would refuse."""
    UNDECIDED = "undecided"
    """OPA gave no decision then, so there is nothing to compare with."""
    NOT_RECORDED = "not_recorded"
    """There was a decision, and its question was not recorded."""
    NOT_ASKED = "not_asked"
    """Refused before policy was asked."""


_DIFFERENT: Final = (
    ReplayVerdict.WOULD_ALLOW,
    ReplayVerdict.WOULD_DENY,
    ReplayVerdict.UNAVAILABLE,
    ReplayVerdict.CHANGED,
)
"""In the order in which they are listed: the costliest mistakes first."""

_TURNED: Final = (ReplayVerdict.WOULD_ALLOW, ReplayVerdict.WOULD_DENY, ReplayVerdict.UNAVAILABLE)
"""What is let through on one side only; without a valid answer it is refused."""

_COMPARED: Final = (ReplayVerdict.SAME, *_DIFFERENT)


@dataclass(slots=True, kw_only=True)
class DifferenceRow:
    """One distinct difference."""

    comparison: ReplayVerdict
    document: JsonObject
    first: JsonObject
    """Where the first such call is: line, time, request id."""
    calls: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a replay found."""

    revision: str
    """Of the candidate set."""
    proof: Verification
    unfinished_line: bool
    """The file ends in the beginning of a record, as if it is still being written."""
    counts: Mapping[ReplayVerdict, int]
    questions: int
    """How many distinct questions were put to the candidate."""
    rows: tuple[DifferenceRow, ...]
    """Distinct differences, those of one kind with the most frequent first."""
    not_listed: int
    """Calls that differ and are in no row."""
    sums: JsonObject
    """Who would newly be denied or allowed: calls by team, user, agent and collection."""

    @property
    def compared(self) -> int:
        """How many decisions could be compared."""
        return sum(self.counts[comparison] for comparison in _COMPARED)

    @property
    def ok(self) -> bool:
        """Whether the chain holds, something was compared, and nothing differs (law 3)."""
        return self.proof.holds and bool(self.compared) and not any(self.counts[each] for each in _DIFFERENT)

    def document(self) -> JsonObject:
        """Render it as JSON."""
        fault = self.proof.fault
        document: JsonObject = {
            "ok": self.ok,
            "audit": {
                "records": self.proof.records,
                "head": self.proof.head,
                "broken": None if fault is None else {"line": fault.line, "what": fault.what},
                "unfinished_line": self.unfinished_line,
            },
            "revision": self.revision,
            "compared": self.compared,
            "questions": self.questions,
            "counts": {comparison.value: self.counts[comparison] for comparison in ReplayVerdict},
            "differences": [{**row.document, "calls": row.calls, "first": row.first} for row in self.rows],
            "not_listed": self.not_listed,
            "by": self.sums,
        }
        if self.counts[ReplayVerdict.NOT_RECORDED]:
            document["notes"] = [f"{self.counts[ReplayVerdict.NOT_RECORDED]} {HINT}"]
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWanted:
    """Which records are compared, and what is told of them."""

    limit: int
    """How many distinct differences are listed."""
    since: str = ""
    """The first moment that is meant, as records have it; empty for the first."""
    until: str = ""
    """The first that is not; empty for none."""
    progress: ReadProgress | None = None
    """Takes how many bytes were read, of how many."""


async def replay(
    source: BinaryIO | StoredChain,
    candidate: Candidate,
    *,
    servers: Collection[str],
    titles: Mapping[str, str],
    wanted: ReplayWanted,
) -> ReplayReport:
    """Decide the questions of recorded calls again.

    Args:
        source: a file of records, from the first one of a chain on; or a chain as its store has it.
        candidate: asked each distinct question once.
        servers: the names of servers that an allow may go to.
        titles: what reason codes mean.
        wanted: which records are compared, and what is told of them.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    chain = source if isinstance(source, StoredChain) else chain_of(source)
    tape = RecordTape(chain)
    decisions, tally = CandidateAnswers(candidate, servers), _Tally(titles)
    async for batch in batches(tape.records(since=wanted.since, until=wanted.until)):
        answers = await decisions.of(
            one.asked for _, one in batch if one.asked is not None and one.standing is not None
        )
        for line, one in batch:
            tally.add(line, one, answers)
        if wanted.progress is not None:
            wanted.progress(tape.size, chain.size)
    rows = sorted(tally.rows.values(), key=lambda row: (_DIFFERENT.index(row.comparison), -row.calls))[: wanted.limit]
    return ReplayReport(
        revision=candidate.revision,
        proof=tape.proof(),
        unfinished_line=tape.unfinished,
        counts=tally.counts,
        questions=decisions.asked,
        rows=tuple(rows),
        not_listed=sum(tally.counts[each] for each in _DIFFERENT) - sum(row.calls for row in rows),
        sums=tally.sums.document(),
    )


class _Tally:
    """Counts, and gathers like differences in one row."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles
        self._kept = 0
        self.counts: Counter[ReplayVerdict] = Counter()
        self.rows: dict[bytes, DifferenceRow] = {}
        self.sums = ReplaySums()

    def add(self, line: int, one: RecordedDecision, answers: Mapping[str, CandidateAnswer]) -> None:
        """Take one record."""
        comparison, after = _compare(one, answers)
        self.counts[comparison] += 1
        if comparison not in _DIFFERENT or one.asked is None or one.standing is None or after is None:
            return
        let_through = after if comparison is ReplayVerdict.WOULD_ALLOW else one.standing
        if comparison in _TURNED and isinstance(let_through, DecisionOutcome):
            self.sums.add(one.asked, let_through, newly_allowed=comparison is ReplayVerdict.WOULD_ALLOW)
        document = self._document(comparison, one.asked, one.standing, after)
        text = msgspec.json.encode(document)
        key = sha256(text).digest()
        if key in self.rows:
            self.rows[key].calls += 1
        elif self._kept + len(text) <= KEPT_BYTES:
            self._kept += len(text)
            first: JsonObject = {"line": line, "time": _cut(one.time), "request_id": _cut(one.request_id)}
            self.rows[key] = DifferenceRow(comparison=comparison, document=document, first=first)

    def _document(
        self, comparison: ReplayVerdict, asked: RecordedQuestion, before: DecisionOutcome, after: CandidateAnswer
    ) -> JsonObject:
        differs = [] if isinstance(after, Unavailable) else _differing(before, after)
        return {
            "difference": comparison.value,
            **{name: _short(value) for name, value in asked.shown.items()},
            "differs": [*differs],
            "before": self._shown(before),
            "after": {"unavailable": after.detail} if isinstance(after, Unavailable) else self._shown(after),
        }

    def _shown(self, standing: DecisionOutcome) -> JsonObject:
        reasons = sorted(
            standing.reasons, key=lambda one: (one.code, one.source, -1 if one.access is None else one.access)
        )
        return {
            "allow": standing.allow,
            "server": _cut(standing.server),
            "grants": [_cut(grant) for grant in sorted(standing.grants)],
            "reasons": [self._reason(reason) for reason in reasons],
            "obligations": [*sorted({f"{_cut(part)} of access {access}" for access, part, _ in standing.obligations})],
        }

    def _reason(self, reason: Reason) -> JsonObject:
        return {
            "code": _cut(reason.code),
            "source": _cut(reason.source),
            "access": reason.access,
            "title": self._titles.get(reason.code, ""),
        }


def _compare(
    one: RecordedDecision, answers: Mapping[str, CandidateAnswer]
) -> tuple[ReplayVerdict, CandidateAnswer | None]:
    """Compare the answer of policy then with its answer now."""
    match one.asked, one.standing:
        case None, None:
            return ReplayVerdict.NOT_ASKED, None
        case None, _:
            return ReplayVerdict.NOT_RECORDED, None
        case _, None:
            return ReplayVerdict.UNDECIDED, None
        case asked, before:
            after = answers[asked.text]
            return _between(before, after), after


def _between(before: DecisionOutcome, after: CandidateAnswer) -> ReplayVerdict:
    if isinstance(after, Unavailable):
        return ReplayVerdict.UNAVAILABLE
    if before.allow != after.allow:
        return ReplayVerdict.WOULD_ALLOW if after.allow else ReplayVerdict.WOULD_DENY
    return ReplayVerdict.SAME if before == after else ReplayVerdict.CHANGED


def _differing(before: DecisionOutcome, after: DecisionOutcome) -> list[str]:
    """Name the parts in which two decisions differ, obligations by access and part."""
    parts = {
        "allow": before.allow != after.allow,
        "server": before.server != after.server,
        "grants": before.grants != after.grants,
        "reasons": before.reasons != after.reasons,
    }
    obliged = {f"{_cut(part)} of access {access}" for access, part, _ in before.obligations ^ after.obligations}
    return [*(name for name, differs in parts.items() if differs), *sorted(obliged)]


def _short(value: JsonValue) -> JsonValue:
    """Cut every text inside a value."""
    match value:
        case str():
            return _cut(value)
        case list():
            return [_short(each) for each in value]
        case dict():
            return {name: _short(each) for name, each in value.items()}
        case _:
            return value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
