"""The same as ``crash_rounds``, with the evidence in a MongoDB that is away, slow or stepping down again and again.

Run by ``test_audit_crashes_mongodb``: ``crash_rounds_mongodb.py URI WAY FOLDER ROUNDS SEED ON_FAILURE``; ``WAY`` is
the connection string over an unsteady way. A call may be refused then; one that is forwarded has its intent before.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import msgspec

from sidecar.audit import HeldAgainst, Selection, read_entry
from sidecar.model import JsonObject
from sidecar.store import AuditSpool, MongoAuditReader, MongoAuditSink, MongoHeads, MongoStore
from sidecar.system.clock import SystemClock
from tests.enforcement.crash_rounds import call_without_end

DATABASE = "evidence_crashes"
TIMEOUT_S = 0.2
LONGEST_S = 3.0
"""Of a round in which the store does not come back."""


def sink_on(store: MongoStore, folder: Path, *, spooled: bool) -> MongoAuditSink:
    """The sink of the one instance."""
    return MongoAuditSink(
        store,
        folder.name,
        instance="one",
        clock=SystemClock(),
        heads=MongoHeads(store, folder.name, "one", None, None),
        spool=AuditSpool(folder / "spool.jsonl", most=10_000_000) if spooled else None,
    )


async def load(uri: str, folder: Path, pipe: int, offered: tuple[JsonObject, ...], *, spooled: bool) -> None:
    """Call without end."""
    audit = sink_on(MongoStore(uri, DATABASE, timeout_s=TIMEOUT_S), folder, spooled=spooled)
    await audit.start()
    await call_without_end(audit, pipe, offered, audit.look)


def one_round(uri: str, folder: Path, offered: tuple[JsonObject, ...], after: int, *, spooled: bool) -> list[str]:
    """Let a process work until it has forwarded ``after`` calls, kill it, and return what it told."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            asyncio.run(load(uri, folder, write, offered, spooled=spooled))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            raise
        finally:
            os._exit(1)
    os.close(write)
    os.set_blocking(read, False)
    told, begun = b"", time.monotonic()
    with os.fdopen(read, "rb", buffering=0) as pipe:
        # Not a deadline of the claim: how long one round is waited for while the store is away.
        while told.count(b"F ") < after and time.monotonic() - begun < LONGEST_S:
            told += pipe.read(65536) or b""
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while more := pipe.read(65536):
            told += more
    assert os.WIFSIGNALED(status), told[-400:]
    return told.decode().splitlines()


async def left(uri: str, folder: Path, *, spooled: bool) -> dict[str, object]:
    """Start once more, on a store that is there, and say what the chain holds."""
    store = MongoStore(uri, DATABASE, timeout_s=60)
    sink = sink_on(store, folder, spooled=spooled)
    await sink.start()
    reached, _ = sink.head
    assert not sink.spooling
    await sink.close()
    reader = MongoAuditReader(store, folder.name, instance="one", clock=SystemClock(), keep=None)
    [report] = await reader.verify(HeldAgainst())
    rows = [read_entry(line) async for batch in reader.read(Selection()) for _, line in batch]
    await store.close()
    return {
        "findings": [finding.what for finding in report.findings],
        "records": report.records,
        "head": reached,
        "intents": [row.request_id for row in rows if row.event == "intent"],
        "outcomes": [row.request_id for row in rows if row.event == "outcome"],
        "unfinished": len(report.unfinished),
    }


def main() -> None:
    """Play the rounds; print what was seen, as JSON."""
    uri, way, folder, rounds, seed, on_failure = sys.argv[1:]
    offered: tuple[JsonObject, ...] = tuple(msgspec.json.decode(sys.stdin.buffer.read()))
    chance = random.Random(int(seed))  # noqa: S311 - a seed reproduces a run
    spooled = on_failure == "spool"
    told: list[str] = []
    waiting = 0
    for _ in range(int(rounds)):
        told += one_round(way, Path(folder), offered, chance.randint(1, 60), spooled=spooled)
        file = Path(folder) / "spool.jsonl"
        waiting += file.exists() and file.stat().st_size > 0
    found = asyncio.run(left(uri, Path(folder), spooled=spooled))
    print(  # noqa: T201 - read by the test
        json.dumps(
            {
                **found,
                "forwarded": [line[2:] for line in told if line.startswith("F ") and len(line) > 10],
                "replies": told.count("R ok"),
                "refused": [line for line in told if line.startswith("X ")],
                "rounds that left a spool": waiting,
            }
        )
    )


if __name__ == "__main__":
    main()
