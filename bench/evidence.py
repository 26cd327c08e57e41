"""What evidence costs: writing records, proving files, asking them, deciding them again; and the spans of a call.

Measured in time of the processor, of all processes together: other work on the machine then counts little. What works
in several processes is measured by the clock too: a person waits that long.

Run: python bench/evidence.py [--records N] [--decisions N] [--keep DIR] [--json]. A million records take 1.2 GB.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.table import show  # noqa: E402
from sidecar.audit import Selection, Verdict, record  # noqa: E402
from sidecar.authoring import ReplayWanted, replay_evidence  # noqa: E402
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
from sidecar.telemetry import OtelTracer, build_tracer_provider  # noqa: E402
from tests import parts  # noqa: E402
from tests.authoring.traffic import ANALYST, HR, POLICIES, STRANGER, Book, decided, text  # noqa: E402

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


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Return what work gives, with its seconds of the processor and of the clock."""
    before, began = spent(), time.perf_counter()
    found = work()
    return found, spent() - before, time.perf_counter() - began


class Rows:
    """What was measured."""

    def __init__(self) -> None:
        self.all: list[dict[str, object]] = []

    def rate(self, what: str, count: int, seconds: float, bound: str, clock: float | None = None) -> None:
        """Add how many a second."""
        by_clock = "" if clock is None else round(count / clock)
        self._add(what, count, seconds, f"{round(count / seconds)}/s", by_clock, bound)

    def cost(self, what: str, count: int, seconds: float, bound: str) -> None:
        """Add what one costs."""
        self._add(what, count, seconds, f"{seconds / count * 1e6:.1f} µs", "", bound)

    def _add(self, what: str, count: int, seconds: float, each: str, by_clock: object, bound: str) -> None:
        self.all.append({
            "what": what,
            "count": count,
            "CPU s": round(seconds, 2),
            "by CPU": each,
            "a second by the clock": by_clock,
            "bound": bound,
        })  # fmt: skip


def measure(folder: Path, count: int, decisions: int) -> list[dict[str, object]]:
    rows = Rows()
    few = min(count, 20_000)
    making = made(few)
    for sync, bound in (
        (AuditSync.OS, "≥ 5,000/s (the default)"),
        (AuditSync.GROUP, "≥ 5,000/s"),
        (AuditSync.ALWAYS, "none: each record waits for a flush of its own"),
    ):
        some = few if sync is not AuditSync.ALWAYS else few // 20
        _, seconds, clock = timed(partial(asyncio.run, write(folder / f"{sync}.jsonl", some, sync)))
        rows.rate(f"write, sync={sync}", some, seconds, bound, clock)
    storing = asyncio.run(write(folder / "again.jsonl", few, AuditSync.OS)) - making
    rows.cost("a call's two records in the store", few // 2, storing, "≤ 80 µs")
    rows.cost("a call's spans, exported", few // 10, traced(few // 10), "≤ 150 µs")
    chain = folder / "audit.jsonl"
    if not chain.exists():
        asyncio.run(write(chain, count, AuditSync.OS, Rotation(max_bytes=256_000_000)))
    report, seconds, clock = timed(lambda: verify_chain(chain))
    assert report.holds, report.findings
    rows.rate("audit verify", report.records, seconds, "≥ 100,000/s", clock)
    report, seconds, clock = timed(lambda: verify_chain(chain, workers=1))
    rows.rate("audit verify, one process", report.records, seconds, "", clock)
    for what, wanted in QUESTIONS.items():
        answers, seconds, clock = timed(partial(found_by, chain, wanted))
        assert answers > 0
        bound = "a million in ≤ 30 s, warm in ≤ 5 s" if wanted != Selection() else "a million in ≤ 30 s"
        rows.rate(f"audit query, {what} ({answers} found)", report.records, seconds, bound, clock)
    for what, spread in (("calls of 300 people", 300), ("no question twice", 0)):
        recorded = folder / f"questions-{spread}.jsonl"
        some = decisions if spread else decisions // 10
        write_questions(recorded, some, spread)
        _, seconds, clock = timed(partial(replayed, recorded, some))
        rows.rate(f"replay, {what}", some, seconds, "≥ 2,000/s" if spread else "", clock)
    return rows.all


def write_questions(path: Path, count: int, people: int) -> None:
    """Write calls with their questions, every tenth refused: of so many people, else of another one each time."""
    known = asyncio.run(decided((ANALYST, STRANGER, HR)))
    book = Book()
    for number in range(count):
        kind = STRANGER if number % 10 == 9 else (ANALYST, HR)[number % 2]
        who = number % people if people else number
        call = replace(kind, subject=f"{kind.subject}-{who}", second=kind.second + number // 20)
        book.call(call, known[text(kind)])
    path.write_bytes(book.content)


def replayed(path: Path, count: int) -> None:
    """Decide again, with the policies of then; the start of OPA and the check of the set are part of it."""
    with path.open("rb") as records:
        found = asyncio.run(replay_evidence(records, POLICIES, str(parts.installed("opa")), ReplayWanted(limit=10)))
    assert (found.ok, found.compared) == (True, count), found.document()


RECEIVER = """
import socketserver, http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def receiving() -> Iterator[str]:
    """Receive spans in another process."""
    process = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().decode().strip()}"
    finally:
        parts.stop(process)


SPANS_OF_A_CALL = ("authenticate", "derive", "authorize", "audit", "forward", "audit")
"""Below that of the message."""

ATTRIBUTES: dict[str, str | int | tuple[str, ...]] = {
    "mcp.method.name": "tools/call",
    "mcp.session.id": "0123456789abcdef",
    "mcp.protocol.version": "2025-11-25",
    "jsonrpc.request.id": "41",
    "gen_ai.tool.name": "find",
    "gen_ai.operation.name": "execute_tool",
    "user.id": "alice",
    "user.type": "user",
    "gen_ai.agent.id": "claude-desktop",
    "db.system.name": "mongodb",
    "db.namespace": "sales",
    "db.collection.name": "orders",
    "db.operation.name": "find",
    "mcp_sidecar.accesses": ("read:sales.orders",),
    "mcp_sidecar.decision": "allow",
    "mcp_sidecar.reasons": (),
    "mcp_sidecar.grants": ("analytics/analysts-read-orders",),
    "mcp_sidecar.server": "demo-ro",
    "mcp_sidecar.policy.revision": "d" * 64,
    "mcp_sidecar.opa.decision_id": "0123456789abcdef0123456789abcdef",
    "network.transport": "tcp",
    "client.address": "10.0.0.7",
}
"""What the span of a call has (docs/traces.md)."""


def traced(count: int) -> float:
    """Processor seconds of the spans of calls, batches and their export included."""
    with receiving() as url:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_MAX_QUEUE_SIZE": str(10 * count)}
        os.environ.update(given)  # noqa: TID251 - read by the SDK alone
        tracer = OtelTracer(build_tracer_provider(endpoint_configured=True))
        began = spent()
        for number in range(count):
            with tracer.server("mcp", traceparent=None, link=None, start_ns=time.time_ns()) as call:
                call.rename("tools/call find")
                tracer.past(SPANS_OF_A_CALL[0], start_ns=time.time_ns(), end_ns=time.time_ns())
                for name in SPANS_OF_A_CALL[1:]:
                    with tracer.step(name, client=name in {"authorize", "forward"}) as step:
                        if name == "audit":
                            step.set({"mcp_sidecar.audit.seq": number, "mcp_sidecar.audit.hash": "0" * 64})
                call.set(ATTRIBUTES)
                call.set({"mcp_sidecar.audit.id": f"{number:032x}"})
            if not number % 64:
                time.sleep(0.005)  # as calls come: the exporter's thread has its turn
        assert tracer.shutdown(30)
        return spent() - began


def found_by(chain: Path, wanted: Selection) -> int:
    """How many records a question finds."""

    async def count() -> int:
        return sum([len(batch) async for batch in FileAuditReader(chain).read(wanted)])

    return asyncio.run(count())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--decisions", type=int, default=50_000)
    parser.add_argument("--keep", type=Path, help="A folder for the files; those of an earlier run are asked again.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        show(measure(folder, given.records, given.decisions), "Evidence", as_json=given.json)


if __name__ == "__main__":
    main()
