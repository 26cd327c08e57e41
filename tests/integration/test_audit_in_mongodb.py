"""A serving sidecar with its evidence in MongoDB; what its callers may use most by policy is its own database here."""

import msgspec
import pytest

from sidecar.audit import HeldAgainst, Selection
from sidecar.demo.identities import LOADER
from sidecar.store import MongoAuditReader, MongoStore
from sidecar.system import SystemClock
from tests.integration.deployment import deployed, wait_until

OWN = "sales"
PLACE = {"connectionId": "preconfigured", "database": OWN, "collection": "evidence"}
NEAR = {**PLACE, "database": "staging", "collection": "orders"}

SPELLINGS = {
    "find": ("find", PLACE),
    "another case": ("count", {**PLACE, "database": "SALES"}),
    "its checkpoints": ("find", {**PLACE, "collection": "evidence.checkpoints"}),
    "schema": ("collection-schema", PLACE),
    "indexes": ("collection-indexes", PLACE),
    "size": ("collection-storage-size", PLACE),
    "collections": ("list-collections", {"connectionId": "preconfigured", "database": OWN}),
    "statistics": ("db-stats", {"connectionId": "preconfigured", "database": OWN}),
    "explain": ("explain", {**PLACE, "method": [{"name": "find", "arguments": {"filter": {}}}]}),
    "export": (
        "export",
        {**PLACE, "exportTitle": "x", "exportTarget": [{"name": "find", "arguments": {"filter": {}}}]},
    ),
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
    "merge of another case": ("aggregate", {**NEAR, "pipeline": [{"$merge": {"into": {"db": "Sales", "coll": "x"}}}]}),
    "insert": ("insert-many", {**PLACE, "documents": [{"instance": "one"}]}),
    "update": ("update-many", {**PLACE, "filter": {}, "update": {"$set": {"tool": "x"}}}),
    "delete": ("delete-many", {**PLACE, "filter": {}}),
    "rename": ("rename-collection", {**PLACE, "newName": "elsewhere"}),
    "rename onto it": ("rename-collection", {**PLACE, "collection": "x", "newName": "evidence", "dropTarget": True}),
    "drop": ("drop-collection", PLACE),
    "drop database": ("drop-database", {"connectionId": "preconfigured", "database": OWN}),
    "create": ("create-collection", PLACE),
    "drop index": ("drop-index", {**PLACE, "indexName": "instance_1_seq_1", "type": "classic"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def serving(tmp_path_factory, database):
    folder = tmp_path_factory.mktemp("serving")
    (folder / "store").write_text(database)
    extra = f'[mongodb]\nuri_file = "{folder}/store"\ndatabase = "{OWN}"\ntimeout_ms = 5000\n'
    audit = {
        "STORE": "mongodb:evidence",
        "INSTANCE": folder.name,
        "ON_FAILURE": "spool",
        "SPOOL": str(folder / "spool.jsonl"),
    }
    environment = {f"SIDECAR_AUDIT__{name}": value for name, value in audit.items()}
    groups = 'tool_groups = ["export"]'
    with deployed(folder, database, extra=extra, environment=environment, of_servers=groups) as deployment:
        yield deployment


async def entries(serving):
    store = MongoStore((serving.folder / "store").read_text(), OWN, timeout_s=30)
    reader = MongoAuditReader(store, "evidence", instance=serving.folder.name, clock=SystemClock(), keep=None)
    [report] = await reader.verify(HeldAgainst())
    assert report.holds, report.findings
    found = [msgspec.json.decode(line) async for batch in reader.read(Selection()) for _, line in batch]
    await store.close()
    return found


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
    assert last["event"] == "refusal"
    assert last["outcome"]["error"] in {"own_database", "unknown_tool"}, last
