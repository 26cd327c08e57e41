"""More idle connections than the process may open files: policy still reloads, and new clients get in."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from mcp import Client, MCPError

from sidecar.demo.identities import ANALYST
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed, wait_until
from tests.patience import HANG_S
from tests.signer import ISSUER

pytestmark = pytest.mark.real

COUNT = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
PERIOD_S = 12.0
"""Long against the checks of a set, also on a machine that is busy with other tests."""
LIMITED = ("/bin/sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh")
IDLE = 1_200


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=HANG_S))
        yield


async def test_a_suspension_acts_and_a_new_client_gets_in_past_idle_connections(tmp_path: Path, database: str) -> None:
    policies = policies_on(tmp_path)
    data = policies / "platform/data.json"
    environment = {"SIDECAR_OPA__RELOAD_MS": str(round(PERIOD_S * 1000)), "SIDECAR_OPA__MEMO_MS": "0"}
    with (
        deployed(
            tmp_path, database, policies=policies, environment=environment, record=False, launcher=LIMITED
        ) as running,
        idle_connections(running.port, IDLE),
    ):
        assert readiness(running) == {"ready": True, "failing": [], "degraded": ["connections"]}
        async with running.client(ANALYST) as client:
            assert not (await client.call_tool("count", COUNT)).is_error
            suspended = {"issuer": ISSUER, "id": ANALYST.user}
            edited = data.read_text().replace('"subjects": []', f'"subjects": [{json.dumps(suspended)}]')
            assert edited != data.read_text(), data.read_text()[-300:]
            data.write_text(edited)
            began = time.monotonic()
            while not await refused(client):
                assert time.monotonic() - began < 2 * PERIOD_S, running.log_file.read_text()[-3000:]
                await asyncio.sleep(0.1)
        decision = running.records()[-1]["decision"]
        assert decision["reasons"][0]["code"] == "suspended"
        metrics = running.admin("/metrics")[1]
        assert 'mcp_sidecar_connections_ended_total{reason="evicted"}' in metrics
    wait_until(lambda: running.process is not None and running.process.poll() is not None, "the end")


async def refused(client: Client) -> bool:
    try:
        return (await client.call_tool("count", COUNT)).is_error is True
    except MCPError:
        return True  # a suspended caller has no tools, so none is known


def readiness(running: Deployment) -> object:
    return json.loads(running.admin("/readyz")[1])  # noqa: TID251 - our own answer
