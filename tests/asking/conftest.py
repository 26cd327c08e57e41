"""A week of records, written by the sidecar's own store, over several files."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest_asyncio

from sidecar.audit import record
from sidecar.model import (
    Access,
    AccessKind,
    AccessVerdict,
    Actor,
    Command,
    Decision,
    Identity,
    JsonObject,
    Namespace,
    Principal,
    Reason,
)
from sidecar.store.file import FileAuditSink, Rotation

ISSUER = "https://idp.example"


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def facts(number: int, user: str, agent: str, place: str, tool: str) -> record.Facts:
    database, _, collection = place.partition(".")
    return record.Facts(
        request_id=f"req-{number:04}",
        trace_id=f"{number:032x}",
        identity=Identity(
            principal=Principal(issuer=ISSUER, subject=user, groups=("g",)), actor=Actor(id=agent), expires_at=0
        ),
        client_ip="10.0.0.7",
        client_name="claude-code",
        method="tools/call",
        tool=tool,
        command=Command(
            tool=tool,
            accesses=(
                Access(
                    kind=AccessKind.READ,
                    namespace=Namespace(database=database, collection=collection),
                    via="/arguments/collection",
                ),
            ),
        ),
    )


def decided(team: str, *, allow: bool) -> Decision:
    return Decision(
        allow=allow,
        reasons=() if allow else (Reason(code="not_granted", source="platform", access=0),),
        server="demo-ro",
        accesses=(AccessVerdict(owner=team, grants=("readers",) if allow else (), max_documents=10),),
        revision="c" * 64,
        decision_id="d",
    )


WEEK = (
    ("2026-11-16T09:00:00", "carol", "desk", "sales.orders", "find", True),
    ("2026-11-17T09:00:00", "ann", "desk", "sales.orders", "find", True),
    ("2026-11-18T09:00:00", "bob", "desk", "sales.orders", "find", False),
    ("2026-11-27T08:59:59", "ann", "desk", "hr.salaries", "aggregate", True),
    ("2026-11-27T09:00:00", "ann", "desk", "hr.salaries", "find", True),
    ("2026-11-27T10:00:00", "bob", "desk", "sales.orders", "find", False),
    ("2026-11-27T11:00:00", "carol", "desk", "sales.orders", "find", False),
    ("2026-11-27T11:00:01", "carol", "desk", "sales.orders", "find", False),
    ("2026-11-27T12:00:00", '=cmd|"x"', "-agent", "sales.=orders", "find", True),
    ("2026-11-28T09:00:00", "zoë\u202e", "bot", "sales.orders", "find", True),
)


def entries() -> Iterator[JsonObject]:
    for number, (time, user, agent, place, tool, allow) in enumerate(WEEK):
        now, decision = moment(time), decided(place.partition(".")[0], allow=allow)
        about = facts(number, user, agent, place, tool)
        if not allow:
            yield record.refusal(about, "policy_denied", decision, record_id=f"a{number}", time_ns=now)
            continue
        intent = record.intent(about, decision, record_id=f"a{number}", time_ns=now)
        yield intent
        if user != "zoë\u202e":
            yield record.outcome(
                intent,
                record_id=f"b{number}",
                time_ns=now + 10**9,
                status=record.Status.OK,
                documents=number,
                size=100,
                duration_ms=7,
            )
    nobody = record.Facts(request_id="req-nobody", client_ip="10.0.0.8", method="tools/call")
    yield record.refusal(nobody, "token_missing", record_id="n", time_ns=moment("2026-11-28T10:00:00"))


@pytest_asyncio.fixture
async def evidence(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    sink = FileAuditSink(path, rotation=Rotation(max_bytes=5_000))
    for entry in entries():
        await sink.append(entry)
    await sink.close()
    return path
