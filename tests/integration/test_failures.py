"""Parts that die: calls are refused or answered with an error, never lost, and all is well again by itself."""

import asyncio

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests.integration.deployment import deployed, wait_until

META = "mcp-sidecar/decision"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


async def find(client):
    answer = await client.call("find", {**ORDERS, "filter": {}, "limit": 1})
    assert answer.status == 200
    return answer


def code(answer):
    return answer.decision.get("reasons", [{}])[0].get("code")


async def test_without_opa_calls_are_refused_until_it_is_back(deployment, samples):
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        assert not (await find(client)).result.get("isError")
        before = deployment.all_reached()
        for opa in deployment.children("/opa"):
            opa.kill()
        refused = await find(client)
        assert code(refused) == "decision_unavailable"
        assert deployment.all_reached() == before
        wait_until(deployment.ready, "OPA to be back")
        assert not (await find(client)).result.get("isError")


async def test_calls_in_flight_when_the_server_dies_are_answered_and_the_next_ones_work(deployment, samples):
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        servers = [
            child for child in deployment.children("recording_pipe.py") if "demo-ro.stdin" in str(child.cmdline())
        ]
        assert servers
        slow = [asyncio.create_task(find(client)) for _ in range(16)]
        await asyncio.sleep(0)
        for server in servers:
            server.kill()
        for answer in await asyncio.gather(*slow):
            assert answer.result, "an answer is a result or a refusal, never silence"
        wait_until(deployment.ready, "the server to be back")
        assert not (await find(client)).result.get("isError")


async def test_without_evidence_nothing_is_forwarded(tmp_path, database):
    with deployed(tmp_path, database) as deployment:
        await demo_database.seed(database)
        async with deployment.plain(ANALYST) as client:
            await client.initialize()
            assert not (await find(client)).result.get("isError")
            before = deployment.all_reached()
            deployment.audit_file.rename(tmp_path / "moved.jsonl")
            (tmp_path / "audit.jsonl").mkdir()
            assert code(await find(client)) == "audit_unavailable"
            assert deployment.all_reached() == before
            (tmp_path / "audit.jsonl").rmdir()
            (tmp_path / "moved.jsonl").rename(deployment.audit_file)
            assert not (await find(client)).result.get("isError")


async def test_nothing_outlives_a_killed_sidecar(tmp_path, database):
    with deployed(tmp_path, database) as deployment:
        children = deployment.children("/opa") + deployment.children("recording_pipe.py")
        assert len(children) >= 3
        assert deployment.process is not None
        deployment.process.kill()
        deployment.process.wait()
        wait_until(
            lambda: not any(child.is_running() and child.status() != "zombie" for child in children), "children to end"
        )
