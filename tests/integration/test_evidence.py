"""What is left behind of a call: a chain of records that proves itself, without secrets."""

import subprocess
import sys

from sidecar.audit.chain import verify
from sidecar.demo.identities import ANALYST, LOADER
from tests import parts
from tests.patience import HANG_S

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}

STAGING = {**ORDERS, "database": "staging"}


async def play(deployment):
    async with deployment.client(ANALYST) as client:
        await client.call_tool("find", {**ORDERS, "filter": {"status": "canary-filter-value"}})
        await client.call_tool(
            "aggregate",
            {
                **ORDERS,
                "pipeline": [{"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "pipeline": [], "as": "x"}}],
            },
        )
    async with deployment.client(LOADER) as client:
        await client.call_tool("insert-many", {**STAGING, "documents": [{"note": "canary-document"}]})
    async with deployment.plain(None) as client:
        await client.call("find", ORDERS)


async def test_every_call_has_its_records_and_the_chain_holds(deployment, samples):
    await play(deployment)
    records = deployment.records()
    with deployment.audit_file.open("rb") as lines:
        proof = verify(lines)
    assert proof.fault is None
    assert proof.unfinished == ()
    allowed = [r for r in records if r["event"] == "intent" and r["tool"] == "find"]
    assert allowed[-1]["subject"]["id"] == "alice"
    assert allowed[-1]["actor"]["id"] == "claude-desktop"
    assert allowed[-1]["server"] == "demo-ro"
    assert allowed[-1]["decision"]["grants"]
    assert allowed[-1]["decision"]["revision"]
    outcome = next(r for r in records if r["event"] == "outcome" and r["request_id"] == allowed[-1]["request_id"])
    assert outcome["outcome"]["status"] == "ok"
    assert outcome["seq"] > allowed[-1]["seq"]
    assert any(r["event"] == "refusal" and r["tool"] == "aggregate" for r in records)
    assert any(r["event"] == "refusal" and r["outcome"]["error"] == "token_missing" for r in records)


async def test_neither_tokens_nor_values_nor_documents_are_written_down(deployment, samples):
    await play(deployment)
    written = deployment.audit_file.read_text() + deployment.log_file.read_text()
    for canary in (
        "canary-filter-value",
        "canary-document",
        deployment.token(ANALYST).split(".")[1][:40],
        deployment.uri,
    ):
        assert canary not in written


async def test_audit_verify_proves_the_file_and_finds_a_changed_record(deployment, samples, tmp_path):
    await play(deployment)
    copy = tmp_path / "audit.jsonl"
    copy.write_bytes(deployment.audit_file.read_bytes())
    assert audit_verify(copy).returncode == 0
    copy.write_bytes(copy.read_bytes().replace(b'"alice"', b'"mary!"', 1))
    broken = audit_verify(copy)
    assert broken.returncode == 1
    assert b"line" in broken.stdout


def audit_verify(file):
    command = [sys.executable, "-m", "sidecar", "audit", "verify", str(file)]
    return subprocess.run(command, cwd=parts.ROOT, capture_output=True, timeout=HANG_S, check=False)
