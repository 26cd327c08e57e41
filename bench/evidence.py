"""What evidence costs: writing records, proving files, asking them.

Measured in time of the processor, of all processes together: other work on the machine then counts little.

Run: python bench/evidence.py [--records N] [--keep DIR] [--json]. A million records take 1.2 GB.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.table import show  # noqa: E402
from sidecar.audit import Selection, Verdict, record  # noqa: E402
from sidecar.model import (  # noqa: E402
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
from sidecar.store import AuditSync, FileAuditReader, FileAuditSink, Rotation  # noqa: E402
from sidecar.store.audit_proof import verify_chain  # noqa: E402

T = TypeVar("T")

WAITING = 64
"""Calls at the same time, where they share a flush."""

QUESTIONS = {
    "of one collection": Selection(collections=frozenset({("db7", "c47")})),
    "of one user's denials": Selection(users=frozenset({"user-9"}), verdict=Verdict.DENY),
    "of everything": Selection(),
}

USERS, AGENTS, PLACES = 500, 12, 200
BEGIN_NS = 1_790_000_000 * 10**9
STEP_NS = 500_000_000


def calls(count: int) -> Iterator[JsonObject]:
    """Records of calls: an intent and an outcome for most, a refusal for every tenth."""
    for number in range(count // 2):
        now = BEGIN_NS + number * STEP_NS
        facts = a_call(number)
        denied = number % 10 == 9
        decision = a_decision(number, allow=not denied)
        if denied:
            yield record.refusal(
                facts, "policy_denied", decision, record_id=f"a{number:012}", time_ns=now, duration_ms=2
            )
            yield record.refusal(
                facts, "policy_denied", decision, record_id=f"b{number:012}", time_ns=now, duration_ms=2
            )
            continue
        intent = record.intent(facts, decision, record_id=f"a{number:012}", time_ns=now)
        yield intent
        yield record.outcome(
            intent,
            record_id=f"b{number:012}",
            time_ns=now + 20_000_000,
            status=record.Status.OK,
            documents=number % 90,
            size=number % 9000,
            duration_ms=20,
        )


def a_call(number: int) -> record.Facts:
    user, agent, place = number % USERS, number * 7 % AGENTS, number * 13 % PLACES
    return record.Facts(
        request_id=f"01a7f-{number:020}",
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        identity=Identity(
            principal=Principal(
                issuer="https://idp.corp.example", subject=f"user-{user}", groups=(f"team-{user % 20}", "employees")
            ),
            actor=Actor(id=f"agent-{agent}", chain=()),
            expires_at=0,
            token=f"{user:032x}",
        ),
        client_ip="10.0.0.7",
        client_name="claude-code",
        protocol="2025-11-25",
        session=f"{user:016x}",
        method="tools/call",
        tool="find" if number % 3 else "aggregate",
        command=Command(
            tool="find",
            accesses=(
                Access(
                    kind=AccessKind.READ,
                    namespace=Namespace(database=f"db{place % 40}", collection=f"c{place}"),
                    via="/arguments/collection",
                ),
            ),
        ),
        arguments_sha256=f"{number:064x}",
    )


def a_decision(number: int, *, allow: bool) -> Decision:
    team = f"team-{number % 20}"
    return Decision(
        allow=allow,
        reasons=() if allow else (Reason(code="no_grant", source=team, access=0),),
        server="sales-ro",
        accesses=(AccessVerdict(owner=team, grants=("read",) if allow else (), max_documents=100),),
        revision="d" * 64,
        decision_id=f"{number:032x}",
    )


def spent() -> float:
    """Seconds of the processor that this process and those it waited for have taken."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


async def write(path: Path, count: int, sync: AuditSync, rotation: Rotation | None = None) -> float:
    """Processor seconds that records take, one after the other in the page cache, else many waiting together."""
    sink = FileAuditSink(path, sync=sync, rotation=rotation)
    entries = calls(count)
    began = spent()
    if sync is AuditSync.OS:
        for entry in entries:
            await sink.append(entry)
    else:
        while batch := [entry for _, entry in zip(range(WAITING), entries, strict=False)]:
            await asyncio.gather(*(sink.append(entry) for entry in batch))
    seconds = spent() - began
    await sink.close()
    return seconds


def made(count: int) -> float:
    """Processor seconds that making the records takes, which is not the store's."""
    began = spent()
    for _ in calls(count):
        continue
    return spent() - began


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = spent()
    found = work()
    return found, spent() - began


def measure(folder: Path, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []

    def tell(what: str, records: int, seconds: float, bound: str) -> None:
        rows.append({
            "what": what,
            "records": records,
            "CPU s": round(seconds, 2),
            "records per CPU s": round(records / seconds),
            "bound": bound,
        })  # fmt: skip

    few = min(count, 20_000)
    making = made(few)
    for sync in AuditSync:
        some = few if sync is not AuditSync.ALWAYS else few // 20
        tell(f"write, sync={sync}", some, asyncio.run(write(folder / f"{sync}.jsonl", some, sync)), "≥ 5,000/s")
    storing = asyncio.run(write(folder / "again.jsonl", few, AuditSync.OS)) - making
    rows.append({
        "what": "a call's two records, µs in the store",
        "records": few,
        "CPU s": round(storing, 2),
        "records per CPU s": round(2 * storing / few * 1e6, 1),
        "bound": "≤ 80 µs",
    })  # fmt: skip
    chain = folder / "audit.jsonl"
    if not chain.exists():
        asyncio.run(write(chain, count, AuditSync.OS, Rotation(max_bytes=256_000_000)))
    report, seconds = timed(lambda: verify_chain(chain))
    assert report.holds, report.findings
    tell("audit verify", report.records, seconds, "≥ 100,000/s")
    report, seconds = timed(lambda: verify_chain(chain, workers=1))
    tell("audit verify, one process", report.records, seconds, "")
    for what, wanted in QUESTIONS.items():
        answers, seconds = timed(partial(found_by, chain, wanted))
        assert answers > 0
        tell(f"audit query, {what} ({answers} found)", report.records, seconds, "a million in ≤ 30 s")
    return rows


def found_by(chain: Path, wanted: Selection) -> int:
    """How many records a question finds."""

    async def count() -> int:
        return sum([len(batch) async for batch in FileAuditReader(chain).read(wanted)])

    return asyncio.run(count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="A folder for the files; those of an earlier run are asked again.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        show(measure(folder, given.records), "Evidence", as_json=given.json)


if __name__ == "__main__":
    main()
