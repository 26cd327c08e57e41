"""Official clients of both languages and several versions keep their session over every refusal.

Each runs as a process of its own against the running sidecar with the real MongoDB MCP server behind it.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import Deployment, deployed

HERE = Path(__file__).parent
PARTS = parts.ROOT / ".parts"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"$and": [value]}
    return value


FINE = {"name": "count", "arguments": ORDERS}
REFUSALS: dict[str, dict[str, Any]] = {
    "a number that JavaScript rounds": {"name": "find", "arguments": {**ORDERS, "filter": {"n": 725653563933458432}}},
    "nesting": {"name": "find", "arguments": {**ORDERS, "filter": nested(60)}},
    "size": {"name": "find", "arguments": {**ORDERS, "filter": {"text": "x" * 1_100_000}}},
    "three times the size": {"name": "find", "arguments": {**ORDERS, "filter": {"text": "x" * 3_300_000}}},
    "thirty times the size": {"name": "find", "arguments": {**ORDERS, "filter": {"text": "x" * 33_000_000}}},
    "arguments of another form": {"name": "find", "arguments": {"limit": "many"}},
    "what is not derivable": {"name": "aggregate", "arguments": {**ORDERS, "pipeline": [{"$nosuchstage": {}}]}},
    "a denial": {"name": "find", "arguments": {**ORDERS, "database": "hr", "collection": "salaries"}},
}
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "Python": {},
    "TypeScript": {"thousands of levels": {"name": "find", "arguments": ORDERS, "levels": 3_000}},
}
"""What the clients of one language alone can send. Those of Python write NaN as null (measured)."""
UNKNOWN = {"name": "no-such-tool", "arguments": {}}

CLIENTS = {
    "Python 1.26.0": [str(PARTS / "mcp-1.26/bin/python"), str(HERE / "python_v1.py")],
    "Python 1.30.0": [str(PARTS / "mcp-1.30/bin/python"), str(HERE / "python_v1.py")],
    "Python 2.3.0": [sys.executable, str(HERE / "python_v2.py")],
    "TypeScript 1.32.2": ["node", str(HERE / "typescript.mjs"), str(PARTS / "clients"), "@modelcontextprotocol/sdk"],
    "TypeScript 2.4.0": ["node", str(HERE / "typescript.mjs"), str(PARTS / "clients"), "@modelcontextprotocol/client"],
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, database):
    with deployed(tmp_path_factory.mktemp("clients"), database) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def samples(deployment):
    asyncio.run(demo_database.seed(deployment.uri))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_session_outlives_every_refusal(deployment: Deployment, client: str) -> None:
    refusals = {**REFUSALS, **OWN[client.split(maxsplit=1)[0]]}
    steps = [FINE]
    for refusal in (*refusals.values(), UNKNOWN):
        steps += [refusal, FINE]
    command = [*CLIENTS[client], deployment.url, deployment.token(ANALYST)]
    run = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    _, tools, first, *outcomes, last = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    found = dict(zip((*refusals, "an unknown tool"), zip(outcomes[::2], outcomes[1::2], strict=True), strict=True))
    assert {"find", "count"} <= set(tools)
    assert {**found, "before": first, "after notifications": last} == {
        **dict.fromkeys(refusals, ("refused", "answered")),
        "an unknown tool": (found["an unknown tool"][0], "answered"),
        "before": "answered",
        "after notifications": "answered",
    }
    assert "unknown tool" in found["an unknown tool"][0].lower() or found["an unknown tool"][0] == "refused"
