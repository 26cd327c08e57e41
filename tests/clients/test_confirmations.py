"""Official clients show their users what the real MongoDB MCP server asks, and carry the answer back."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests.clients.test_official_clients import FINE, HERE, PARTS
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S

CLIENTS = {
    "Python 1.26.0": [str(PARTS / "mcp-1.26/bin/python"), str(HERE / "confirming_v1.py")],
    "Python 1.30.0": [str(PARTS / "mcp-1.30/bin/python"), str(HERE / "confirming_v1.py")],
    "Python 2.3.0": [sys.executable, str(HERE / "confirming_v2.py")],
    "TypeScript 1.32.2": ["node", str(HERE / "confirming.mjs"), str(PARTS / "clients"), "@modelcontextprotocol/sdk"],
    "TypeScript 2.4.0": ["node", str(HERE / "confirming.mjs"), str(PARTS / "clients"), "@modelcontextprotocol/client"],
}
YES = {"action": "accept", "content": {"confirmation": "Yes"}}
NO = {"action": "accept", "content": {"confirmation": "No"}}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    of_servers = 'confirmation_required_tools = ["count"]'
    with deployed(tmp_path_factory.mktemp("confirming"), database, of_servers=of_servers) as running:
        asyncio.run(demo_database.seed(running.uri))
        yield running


@pytest.mark.parametrize("client", CLIENTS)
def test_a_user_confirms_declines_and_cancels_through_their_own_client(deployment: Deployment, client: str) -> None:
    before = len(deployment.records())
    steps = json.dumps(
        [[FINE, YES], [FINE, NO], [FINE, {"action": "decline"}], [FINE, {"action": "cancel"}], [FINE, YES]]
    )
    command = [*CLIENTS[client], deployment.url, deployment.token(ANALYST)]
    run = subprocess.run(command, input=steps, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    asked, done = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    assert len(asked) == 5
    assert all("`count` tool" in message for message in asked)
    assert [failed for failed, _ in done] == [False, True, True, True, False], done
    assert "Found" in done[0][1]
    assert "did not confirm" in done[1][1], "the server's own words for a No"
    outcomes = [one["outcome"] for one in deployment.records()[before:] if one["event"] == "outcome"]
    assert [(one["status"], one.get("confirmation")) for one in outcomes] == [
        ("ok", "client"),
        ("tool_error", None),
        ("cancelled", None),
        ("cancelled", None),
        ("ok", "client"),
    ]
