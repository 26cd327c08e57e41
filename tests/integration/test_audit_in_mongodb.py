"""A serving sidecar with its evidence in MongoDB; what its callers may use most by policy is its own database here."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from sidecar.audit import HeldAgainst, Selection
from sidecar.demo.identities import LOADER
from sidecar.store import MongoAuditReader, MongoStore
from sidecar.system import SystemClock
from tests import parts
from tests.integration.deployment import deployed, search_path, wait_until
from tests.observability.test_one_trace import families
from tests.patience import HANG_S
from tests.store.shared_database import Way

OWN = "sales"
PLACE = {"connectionId": "preconfigured", "database": OWN, "collection": "evidence"}
NEAR = {**PLACE, "database": "staging", "collection": "orders"}

SPELLINGS = {
    "find": ("find", PLACE),
    "another case": ("count", {**PLACE, "database": "SALES"}),
    "its checkpoints": ("find", {**PLACE, "collection": "evidence.checkpoints"}),
    "schema": ("collection-schema", PLACE),
    "collections": ("list-collections", {"connectionId": "preconfigured", "database": OWN}),
    "explain": ("explain", {**PLACE, "method": [{"name": "find", "arguments": {"filter": {}}}]}),
    "lookup": (
        "aggregate",
        {**NEAR, "pipeline": [{"$lookup": {"from": {"db": OWN, "coll": "evidence"}, "pipeline": [], "as": "x"}}]},
    ),
    "union inside a facet": (
        "aggregate",
        {**NEAR, "pipeline": [{"$lookup": {"from": "a", "as": "x", "pipeline": [
            {"$unionWith": {"db": OWN, "coll": "evidence"}}]}}]},
    ),
    "out": ("aggregate", {**NEAR, "pipeline": [{"$out": {"db": OWN, "coll": "evidence"}}]}),
    "merge": ("aggregate", {**NEAR, "pipeline": [{"$merge": {"into": {"db": OWN, "coll": "evidence"}}}]}),
    "insert": ("insert-many", {**PLACE, "documents": [{"instance": "one"}]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def way(database):
    """A way to the store that can be taken away, on a loop of its own: starting a sidecar blocks the test's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    way = Way(database)

    def step(work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(HANG_S)

    step(way.appear())
    yield way, step
    step(way.vanish())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory, database, way):
    folder = tmp_path_factory.mktemp("serving")
    (folder / "store").write_text(way[0].uri)
    (folder / "straight").write_text(database)
    extra = f'[mongodb]\nuri_file = "{folder}/store"\ndatabase = "{OWN}"\ntimeout_ms = 1000\n'
    audit = {
        "STORE": "mongodb:evidence",
        "INSTANCE": folder.name,
        "ON_FAILURE": "spool",
        "SPOOL": str(folder / "spool.jsonl"),
    }
    environment = {f"SIDECAR_AUDIT__{name}": value for name, value in audit.items()}
    with deployed(folder, database, extra=extra, environment=environment) as deployment:
        yield deployment


async def entries(serving):
    store = MongoStore((serving.folder / "straight").read_text(), OWN, timeout_s=30)
    reader = MongoAuditReader(store, "evidence", instance=serving.folder.name, clock=SystemClock(), keep=None)
    [report] = await reader.verify(HeldAgainst())
    assert report.holds, report.findings
    found = [msgspec.json.decode(line) async for batch in reader.read(Selection()) for _, line in batch]
    await store.close()
    return found


async def asked(serving, *words: str) -> list[dict[str, Any]]:
    """A command's rows, asked of the store itself beside the sidecar, which does not reach it."""
    environment = {**serving.environment, "PATH": search_path(), "SIDECAR_CONFIG": str(serving.folder / "sidecar.toml")}
    environment["SIDECAR_MONGODB__URI_FILE"] = str(serving.folder / "straight")
    command = [sys.executable, "-m", "sidecar", *words, "--json"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=parts.ROOT, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    assert process.returncode == 0
    rows: list[dict[str, Any]] = [msgspec.json.decode(line) for line in told.splitlines()]
    return rows


async def test_each_call_has_its_intent_and_its_outcome_in_the_collection(serving):
    wait_until(serving.ready, "the sidecar to be ready")
    async with serving.plain(LOADER) as client:
        await client.initialize()
        answer = await client.call("count", {**NEAR, "query": {}})
        assert not answer.result.get("isError"), answer
    found = [row for row in await entries(serving) if row["tool"] == "count"]
    assert [(row["event"], row["subject"]["id"]) for row in found][-2:] == [
        ("intent", LOADER.user),
        ("outcome", LOADER.user),
    ]
    assert not (serving.folder / "audit.jsonl").exists()
    assert (serving.folder / "spool.jsonl").read_bytes() == b""


async def test_calls_go_on_while_the_store_is_away_and_their_records_arrive(serving, way):
    about, step = way
    async with serving.plain(LOADER) as client:
        await client.initialize()
        assert not (await client.call("count", {**NEAR, "query": {}})).result.get("isError")
        before = len(await entries(serving))
        step(about.vanish())
        for _ in range(2):
            answer = await client.call("count", {**NEAR, "query": {}})
            assert not answer.result.get("isError"), answer
        assert "audit_spool" in serving.admin("/readyz")[1]
        assert serving.admin("/readyz")[0] == 200
        assert (serving.folder / "spool.jsonl").read_bytes().count(b"\n") == 4
        told = families(serving)
        assert told["mcp_sidecar_audit_spool_records"].samples[0].value == 4
        assert told["mcp_sidecar_audit_spool_bytes"].samples[0].value == (serving.folder / "spool.jsonl").stat().st_size
        assert told["mcp_sidecar_audit_spool_age_seconds"].samples[0].value > 0
        waiting = [row["request_id"] for row in await asked(serving, "audit", "query")][-2:]
        assert len(waiting) == 2
        step(about.appear())
        wait_until(lambda: "audit_spool" not in serving.admin("/readyz")[1], "the spool to be shipped")
    found = (await entries(serving))[before:]
    assert [(row["event"], row["request_id"]) for row in found] == [
        (event, request) for request in waiting for event in ("intent", "outcome")
    ]
    assert families(serving)["mcp_sidecar_audit_spool_records"].samples[0].value == 0
    assert (serving.folder / "spool.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", SPELLINGS)
async def test_no_spelling_of_the_evidence_reaches_the_server(serving, name):
    tool, arguments = SPELLINGS[name]
    before = len(serving.all_reached())
    async with serving.plain(LOADER) as client:
        await client.initialize()
        answer = await client.call(tool, arguments)
    assert answer.status == 200
    assert len(serving.all_reached()) == before
    last = (await entries(serving))[-1]
    assert (last["event"], last["outcome"]["error"]) == ("refusal", "own_database")
