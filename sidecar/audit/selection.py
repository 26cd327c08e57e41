"""Which records a question is about, in a form that every store can look for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from sidecar.audit.entry import AuditEntry
from sidecar.audit.record import Event
from sidecar.printing import escaped


class Verdict(StrEnum):
    """How a call was decided."""

    ALLOW = "allow"
    """It was about to be forwarded, or was."""
    DENY = "deny"
    """It was refused, by policy or before policy was asked."""


Needles = tuple[tuple[bytes, ...], ...]
"""Texts of stored lines: a record that matches has one of each group at least; one that has them need not match."""

_ALLOWED: Final = frozenset({Event.INTENT.value, Event.OUTCOME.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What has to hold of a record; empty members are not looked at, and of several values one is enough."""

    users: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    databases: frozenset[str] = frozenset()
    collections: frozenset[tuple[str, str]] = frozenset()
    """Database and collection."""
    tools: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    """Codes of policy, or labels of errors."""
    requests: frozenset[str] = frozenset()
    """Request or trace ids."""
    verdict: Verdict | None = None
    since: str = ""
    """RFC 3339 in UTC with microseconds, as records have it: such texts sort as the times do."""
    until: str = ""
    """The first moment that is not meant."""

    def matches(self, entry: AuditEntry) -> bool:
        """Whether a record is meant."""
        return (
            (not self.since or entry.time >= self.since)
            and (not self.until or entry.time < self.until)
            and (self.verdict is None or _decided(entry, self.verdict))
            and (not self.users or entry.user in self.users)
            and (not self.issuers or (entry.subject is not None and entry.subject.issuer in self.issuers))
            and (not self.agents or entry.agent in self.agents)
            and (not self.tools or (entry.tool or "") in self.tools)
            and (not self.requests or entry.request_id in self.requests or (entry.trace_id or "") in self.requests)
            and self._touches(entry)
            and (not self.reasons or not self.reasons.isdisjoint(_codes(entry)))
        )

    def _touches(self, entry: AuditEntry) -> bool:
        if not self.databases and not self.collections:
            return True
        return any(
            each.database in self.databases or (each.database, each.collection) in self.collections
            for each in entry.accesses or ()
        )

    @property
    def needles(self) -> Needles:
        """What a matching line has to hold, where that is sure; canonical JSON has one spelling for each value."""
        groups = [
            _members("id", self.users),
            _members("issuer", self.issuers),
            _members("id", self.agents),
            _members("tool", self.tools),
            _members("code", self.reasons) + _members("error", self.reasons),
            tuple(_text(name) for name in self.requests),
            _members("database", self.databases | {database for database, _ in self.collections}),
            _members("collection", {collection for _, collection in self.collections}) if not self.databases else (),
            _members("event", {Event.REFUSAL.value}) if self.verdict is Verdict.DENY else (),
        ]
        return tuple(group for group in groups if group)


def _decided(entry: AuditEntry, verdict: Verdict) -> bool:
    match verdict:
        case Verdict.ALLOW:
            return entry.event in _ALLOWED
        case Verdict.DENY:
            return entry.event == Event.REFUSAL.value


def _codes(entry: AuditEntry) -> set[str]:
    return {*entry.codes, *([entry.outcome.error] if entry.outcome is not None and entry.outcome.error else [])}


def _text(value: str) -> bytes:
    return msgspec.json.encode(escaped(value))


def _members(name: str, values: frozenset[str] | set[str]) -> tuple[bytes, ...]:
    return tuple(b'"%b":%b' % (name.encode(), _text(value)) for value in sorted(values))
