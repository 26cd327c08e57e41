"""Records put together to calls: what was decided, and what became of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from sidecar.audit import AuditEntry, record
from sidecar.model import JsonObject

MOST_OPEN: Final = 10_000
"""Calls whose outcome is awaited at the same time; beyond, the oldest is told without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call, or one refused request."""

    entry: AuditEntry
    """The intent or the refusal."""
    outcome: AuditEntry | None = None

    @property
    def ended(self) -> str:
        """How it ended, in one word."""
        last = self.outcome or self.entry
        if last.outcome is None:
            return "no outcome"
        return last.outcome.status

    def document(self) -> JsonObject:
        """Render it as JSON."""
        entry = self.entry
        decision, last = entry.decision, (self.outcome or entry).outcome
        return {
            "seq": entry.seq,
            "time": entry.time,
            "request_id": entry.request_id,
            "trace_id": entry.trace_id,
            "user": entry.user,
            "issuer": entry.subject.issuer if entry.subject is not None else "",
            "agent": entry.agent,
            "method": entry.method,
            "tool": entry.tool,
            "server": entry.server,
            "accesses": [
                {"kind": each.kind, "database": each.database, "collection": each.collection}
                if each.target is None
                else {"kind": each.kind, "target": {"kind": each.target.kind, "id": each.target.id}}
                for each in entry.accesses or ()
            ],
            "decision": "allow" if entry.event == record.Event.INTENT else "deny",
            "reasons": [*entry.codes],
            "grants": [*(decision.grants if decision is not None else ())],
            "teams": [*entry.teams],
            "revision": decision.revision if decision is not None else None,
            "opa_decision_id": decision.opa_decision_id if decision is not None else None,
            "status": self.ended,
            "error": last.error if last is not None else None,
            "documents": last.documents if last is not None else None,
            "bytes": last.bytes if last is not None else None,
            "duration_ms": last.duration_ms if last is not None else None,
        }


async def calls(
    batches: AsyncIterator[list[tuple[AuditEntry, bytes]]], *, until: str = ""
) -> AsyncIterator[RecordedCall]:
    """Yield calls as they end; those without an outcome last.

    Args:
        batches: records in their order, and beyond ``until`` so far that the outcomes of what began before are there.
        until: the first moment at which no call counts any more, as records have it; empty for none.
    """
    pending: dict[str, RecordedCall] = {}
    async for batch in batches:
        for entry, _ in batch:
            if until and entry.time >= until and entry.event != record.Event.OUTCOME:
                continue
            match entry.event:
                case record.Event.INTENT:
                    pending[entry.request_id] = RecordedCall(entry=entry)
                    if len(pending) > MOST_OPEN:
                        yield pending.pop(next(iter(pending)))
                case record.Event.OUTCOME:
                    # Without its intent it is one whose intent is before the time that was asked about.
                    begun = pending.pop(entry.request_id, None)
                    if begun is not None:
                        yield replace(begun, outcome=entry)
                case record.Event.REFUSAL:
                    yield RecordedCall(entry=entry)
                case _:
                    pass
    for each in pending.values():
        yield each
