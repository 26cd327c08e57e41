"""Official clients show their users what the real MongoDB MCP server asks, and carry the answer back."""

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER
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
STAGING = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
YES = {"action": "accept", "content": {"confirmation": "Yes"}}
NO = {"action": "accept", "content": {"confirmation": "No"}}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    of_servers = 'confirmation_required_tools = ["count", "insert-many"]'
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


def test_without_a_session_only_what_the_user_confirmed_is_in_the_database(deployment: Deployment) -> None:
    """Each call is made twice, once to learn the question and once with the answer (MCP 2026-07-28, mrtr)."""
    before = len(deployment.records())
    mark = secrets.token_hex(8)
    given = {"yes": YES, "no": NO, "declined": {"action": "decline"}, "cancelled": {"action": "cancel"}}
    steps = [
        [{"name": "insert-many", "arguments": {**STAGING, "documents": [{"mark": mark, "answer": name}]}}, answer]
        for name, answer in given.items()
    ]
    command = [sys.executable, str(HERE / "confirming_v2.py"), deployment.url, deployment.token(LOADER), "2026-07-28"]
    run = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, timeout=HANG_S, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    asked, done = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    assert len(asked) == 4
    assert all("`insert-many` tool" in message or "insert" in message for message in asked)
    assert [failed for failed, _ in done] == [False, True, True, True], done
    assert "did not confirm" in done[1][1], "the server's own words for a No"
    with MongoClient[dict[str, Any]](deployment.uri) as client:
        found = client[STAGING["database"]][STAGING["collection"]].find({"mark": mark})
        assert [one["answer"] for one in found] == ["yes"]
    rows = deployment.records()[before:]
    outcomes = [one["outcome"] for one in rows if one["event"] == "outcome"]
    asked_first = ("cancelled", "input_required", None)
    assert [(one["status"], one["error"], one.get("confirmation")) for one in outcomes] == [
        asked_first,
        ("ok", None, "client"),
        asked_first,
        ("tool_error", None, None),
        asked_first,
        asked_first,
    ]
    assert [one["event"] for one in rows].count("refusal") == 2, "declined and cancelled never reached the server"
