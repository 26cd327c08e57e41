"""``mcp-sidecar audit report``: a period summed up, and how it differs from the one of the same length before."""

from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, TypeVar

from sidecar.audit import AuditEntry, record
from sidecar.model import JsonObject, JsonValue

MOST_KEYS: Final = 100_000
"""Of one table; what comes later under further names is counted together."""

K = TypeVar("K", bound=Hashable)


class _BoundedCounts(Generic[K]):
    """Counts, under a bounded number of names."""

    def __init__(self) -> None:
        self.counts: Counter[K] = Counter()
        self.further = 0

    def add(self, key: K) -> None:
        """Count one."""
        if key in self.counts or len(self.counts) < MOST_KEYS:
            self.counts[key] += 1
        else:
            self.further += 1


UserAndAgent = tuple[str, str]
"""User and agent."""


@dataclass(slots=True, kw_only=True)
class _Period:
    """What happened in a period."""

    calls: int = 0
    refusals: int = 0
    allowed: "_BoundedCounts[UserAndAgent]" = field(default_factory=_BoundedCounts)
    refused: "_BoundedCounts[UserAndAgent]" = field(default_factory=_BoundedCounts)
    reasons: "_BoundedCounts[tuple[str, str, str]]" = field(default_factory=_BoundedCounts)
    """User, agent, reason."""
    touched: "_BoundedCounts[tuple[str, str, str, str]]" = field(default_factory=_BoundedCounts)
    """User, agent, kind, place; of calls that were let through."""
    teams: "_BoundedCounts[tuple[str, bool]]" = field(default_factory=_BoundedCounts)
    """Team, and whether it was let through."""

    def add(self, entry: AuditEntry) -> None:
        """Take a record; of a call that was let through its intent, so that each counts once."""
        person = entry.user, entry.agent
        match entry.event:
            case record.Event.INTENT:
                self.calls += 1
                self.allowed.add(person)
                for access in entry.accesses or ():
                    self.touched.add((*person, access.kind, access.place))
            case record.Event.REFUSAL:
                self.refusals += 1
                self.refused.add(person)
                for code in entry.codes:
                    self.reasons.add((*person, code))
            case _:
                return
        for team in entry.teams:
            self.teams.add((team, entry.event == record.Event.INTENT))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Two periods compared."""

    since: str
    until: str
    before: _Period
    now: _Period

    def document(self, most: int) -> JsonObject:
        """Render it as JSON, with so many rows of each table."""
        now, before = self.now, self.before
        return {
            "since": self.since,
            "until": self.until,
            "allowed": now.calls,
            "refused": now.refusals,
            "before": {"allowed": before.calls, "refused": before.refusals},
            "most_refused": [
                {"user": user, "agent": agent, "reason": code, "refused": count}
                for (user, agent, code), count in now.reasons.counts.most_common(most)
            ],
            "newly_refused": [*islice(self._newly(), most)],
            "stopped_working": [*islice(self._stopped(), most)],
            "touched": [
                {"user": user, "agent": agent, "kind": kind, "place": place, "calls": count}
                for (user, agent, kind, place), count in now.touched.counts.most_common(most)
            ],
            "teams": [*islice(self._teams(), most)],
            "not_told_apart": sum(
                tally.further for tally in (now.allowed, now.refused, now.reasons, now.touched, now.teams)
            ),
        }

    def _newly(self) -> Iterator[JsonObject]:
        """Yield who was refused for a reason for which they were not refused in the period before."""
        for (user, agent, code), count in self.now.reasons.counts.most_common():
            if (user, agent, code) not in self.before.reasons.counts:
                yield {"user": user, "agent": agent, "reason": code, "refused": count}

    def _stopped(self) -> Iterator[JsonObject]:
        """Yield who had calls let through in the period before, and has none in this one."""
        reasons: dict[UserAndAgent, list[JsonValue]] = {}
        for user, agent, code in self.now.reasons.counts:
            reasons.setdefault((user, agent), []).append(code)
        for (user, agent), count in self.before.allowed.counts.most_common():
            if (user, agent) not in self.now.allowed.counts:
                yield {
                    "user": user,
                    "agent": agent,
                    "allowed_before": count,
                    "refused": self.now.refused.counts[user, agent],
                    "reasons": reasons.get((user, agent), []),
                }

    def _teams(self) -> Iterator[JsonObject]:
        counts = self.now.teams.counts
        for team in sorted({team for team, _ in counts}, key=lambda team: (-counts[team, False], team)):
            yield {"team": team, "allowed": counts[team, True], "refused": counts[team, False]}


async def report(batches: AsyncIterator[list[tuple[AuditEntry, bytes]]], *, middle: str, until: str) -> AuditReport:
    """Sum up the records of two periods.

    Args:
        batches: from the beginning of the first to the end of the second.
        middle: when the second begins.
        until: when it ends.
    """
    before, now = _Period(), _Period()
    async for batch in batches:
        for entry, _ in batch:
            (now if entry.time >= middle else before).add(entry)
    return AuditReport(since=middle, until=until, before=before, now=now)
