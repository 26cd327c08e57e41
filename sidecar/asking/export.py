"""Records in the forms of other programs: JSON lines, CSV, and OCSF 1.3 (class 6003, API Activity)."""

import csv
import io
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from sidecar import __version__
from sidecar.audit import AuditEntry, Verdict, record
from sidecar.model import JsonObject

COLUMNS: Final = (
    "seq", "time", "event", "request_id", "trace_id", "issuer", "user", "agent", "client_ip", "client", "method",
    "tool", "server", "accesses", "decision", "reasons", "grants", "teams", "revision", "status", "error", "documents",
    "bytes", "duration_ms", "hash",
)  # fmt: skip

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet runs if a cell begins with it (CWE-1236, OWASP CSV injection)."""

_READS: Final = frozenset({"read", "metadata", "connect"})
_ACTIVITIES: Final = {
    "create": 1,
    "index": 1,
    "insert": 1,
    "read": 2,
    "metadata": 2,
    "update": 3,
    "delete": 4,
    "drop": 4,
}
_OTHER_ACTIVITY: Final = 99
_API_ACTIVITY: Final = 6003


class Format(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    OCSF = "ocsf"


def head(form: Format) -> bytes:
    """Return what stands before the first record."""
    return _row(COLUMNS) if form is Format.CSV else b""


def rendered(form: Format, entry: AuditEntry, line: bytes) -> bytes:
    """Return one record, with its line break."""
    match form:
        case Format.JSONL:
            return line + b"\n"
        case Format.CSV:
            return _row(_cells(entry))
        case Format.OCSF:
            return msgspec.json.encode(ocsf(entry)) + b"\n"


def _row(cells: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([_harmless(cell) for cell in cells])
    return text.getvalue().encode()


def _harmless(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cells(entry: AuditEntry) -> tuple[object, ...]:
    decision, outcome, client = entry.decision, entry.outcome, entry.client
    return (
        entry.seq,
        entry.time,
        entry.event,
        entry.request_id,
        entry.trace_id,
        entry.subject.issuer if entry.subject is not None else None,
        entry.user,
        entry.agent,
        client.ip if client is not None else None,
        client.name if client is not None else None,
        entry.method,
        entry.tool,
        entry.server,
        " ".join(f"{each.kind}:{each.place}" for each in entry.accesses or ()),
        _decision(entry),
        " ".join(entry.codes),
        " ".join(decision.grants) if decision is not None else None,
        " ".join(entry.teams),
        decision.revision if decision is not None else None,
        outcome.status if outcome is not None else None,
        outcome.error if outcome is not None else None,
        outcome.documents if outcome is not None else None,
        outcome.bytes if outcome is not None else None,
        outcome.duration_ms if outcome is not None else None,
        entry.hash,
    )


def _decision(entry: AuditEntry) -> str | None:
    match entry.event:
        case record.Event.REFUSAL:
            return Verdict.DENY
        case record.Event.INTENT | record.Event.OUTCOME:
            return Verdict.ALLOW
        case _:
            return None


def ocsf(entry: AuditEntry) -> JsonObject:
    """Return a record as an event of the Open Cybersecurity Schema Framework; what it has no place for is unmapped."""
    activity = _activity(entry)
    decision, outcome = entry.decision, entry.outcome
    failed = outcome is not None and outcome.status != record.Status.OK
    event: JsonObject = {
        "class_uid": _API_ACTIVITY,
        "category_uid": 6,
        "activity_id": activity,
        "type_uid": _API_ACTIVITY * 100 + activity,
        "severity_id": 3 if entry.event == record.Event.REFUSAL else 1,
        "status_id": 0 if outcome is None else 2 if failed else 1,
        "time": int(datetime.fromisoformat(entry.time).timestamp() * 1000),
        "metadata": {
            "version": "1.3.0",
            "uid": entry.id,
            "sequence": entry.seq,
            "correlation_uid": entry.request_id,
            "product": {"name": "mcp-sidecar", "vendor_name": "mcp-sidecar", "version": __version__},
        },
        "actor": {
            "user": {
                "uid": entry.user,
                "domain": entry.subject.issuer if entry.subject is not None else "",
                "groups": [{"name": name} for name in (entry.subject.groups if entry.subject is not None else ())],
            },
            "app_uid": entry.agent,
            "session": {"uid": entry.session or ""},
            "authorizations": [
                {
                    "decision": "allow" if decision.allow else "deny",
                    "policy": {"name": " ".join(decision.grants or entry.codes), "uid": decision.revision},
                }
            ]
            if decision is not None
            else [],
        },
        "api": {
            "operation": entry.tool or entry.method or "unknown",
            "request": {"uid": entry.request_id},
            "service": {"name": entry.server or "mongodb"},
        },
        "src_endpoint": {"ip": (entry.client.ip if entry.client is not None else None) or "0.0.0.0"},  # noqa: S104 - unknown
        "resources": [
            {"name": each.place, "type": "collection" if each.collection else "database", "labels": [each.kind]}
            for each in entry.accesses or ()
        ],
        "unmapped": {"event": entry.event, "trace_id": entry.trace_id, "teams": [*entry.teams], "hash": entry.hash},
    }
    if outcome is not None:
        event["status"] = outcome.status
        event["status_detail"] = outcome.error
    return event


def _activity(entry: AuditEntry) -> int:
    kinds = {each.kind for each in entry.accesses or ()}
    found = {_ACTIVITIES.get(kind, _OTHER_ACTIVITY) for kind in kinds - _READS or kinds}
    return found.pop() if len(found) == 1 else _OTHER_ACTIVITY
