"""Parts that die: calls are refused or answered with an error, never lost, and all is well again by itself."""

import asyncio
import json
import shutil

import psutil

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import deployed, wait_until

META = "mcp-sidecar/decision"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


async def find(client):
    answer = await client.call("find", {**ORDERS, "filter": {}, "limit": 1})
    assert answer.status == 200
    return answer


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def in_flight(deployment):
    """How many calls the sidecar says are being carried out."""
    lines = deployment.admin("/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mcp_sidecar_in_flight"))


def readiness(deployment):
    status, text = deployment.admin("/readyz")
    return status, json.loads(text)  # noqa: TID251 - our own answer


def code(answer):
    return answer.decision.get("reasons", [{}])[0].get("code")


async def test_without_opa_calls_are_refused_until_it_is_back(tmp_path, database):
    """OPA comes back within a moment, so its program is taken away for as long as the test looks."""
    program = tmp_path / "bin" / "opa"
    program.parent.mkdir()
    shutil.copy(parts.installed("opa"), program)
    with deployed(tmp_path, database, environment={"SIDECAR_OPA__BINARY": str(program)}) as deployment:
        await demo_database.seed(database)
        async with deployment.plain(ANALYST) as client:
            await client.initialize()
            assert not (await find(client)).result.get("isError")
            before = deployment.all_reached()
            processes = deployment.children("/opa")
            assert processes
            away = program.rename(tmp_path / "away")
            for opa in processes:
                opa.kill()
            # A process whose first thread is a zombie is not gone yet; one that the sidecar has waited for is.
            wait_until(lambda: not any(psutil.pid_exists(opa.pid) for opa in processes), "OPA to end")
            for _ in range(3):
                assert code(await find(client)) == "decision_unavailable"
            assert deployment.all_reached() == before
            assert not deployment.ready()
            metrics = deployment.admin("/metrics")[1]
            assert 'mcp_sidecar_upstream_circuit_open{server="demo-ro"} 0.0' in metrics, "the servers answer"
            away.rename(program)
            wait_until(deployment.ready, "OPA to be back")
            assert not (await find(client)).result.get("isError")


async def test_calls_in_flight_when_the_server_dies_are_answered_and_the_next_ones_work(deployment, samples):
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        servers = [
            child for child in deployment.children("recording_pipe.py") if "demo-ro.stdin" in str(child.cmdline())
        ]
        assert servers
        reached = len(deployment.reached("demo-ro"))
        for server in servers:
            server.suspend()
        slow = [asyncio.create_task(find(client)) for _ in range(16)]
        await asyncio.to_thread(wait_until, lambda: in_flight(deployment) >= len(slow), "the calls to be in flight")
        for server in servers:
            server.kill()
        codes = [code(answer) for answer in await asyncio.gather(*slow)]
        assert codes == ["upstream_unreachable"] * len(slow)
        assert len(deployment.reached("demo-ro")) == reached
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
            assert readiness(deployment) == (503, {"ready": False, "failing": ["audit"]})
            (tmp_path / "audit.jsonl").rmdir()
            (tmp_path / "moved.jsonl").rename(deployment.audit_file)
            assert readiness(deployment) == (200, {"ready": True, "failing": []})
            assert not (await find(client)).result.get("isError")


async def test_nothing_outlives_a_killed_sidecar(tmp_path, database):
    with deployed(tmp_path, database) as deployment:
        children = deployment.children("/opa") + deployment.children("recording_pipe.py")
        assert len(children) >= 3
        assert deployment.process is not None
        deployment.process.kill()
        deployment.process.wait()
        wait_until(lambda: not any(not gone(child) for child in children), "children to end")
