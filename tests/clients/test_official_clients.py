"""Official clients of both languages and several versions keep their session over every refusal.

Each runs as a process of its own against the running sidecar with the real MongoDB MCP server behind it.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER
from tests import parts
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S

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
IDLE_S = 8
UNKNOWN = {"name": "no-such-tool", "arguments": {}}

STATELESS = "2026-07-28"


def typescript(package: str, mode: str) -> list[str]:
    return ["node", str(HERE / "typescript.mjs"), str(PARTS / "clients"), package, mode]


CLIENTS = {
    "Python 1.26.0": [str(PARTS / "mcp-1.26/bin/python"), str(HERE / "python_v1.py")],
    "Python 1.30.0": [str(PARTS / "mcp-1.30/bin/python"), str(HERE / "python_v1.py")],
    "Python 2.3.0": [sys.executable, str(HERE / "python_v2.py"), "legacy"],
    "Python 2.3.0, mode auto": [sys.executable, str(HERE / "python_v2.py"), "auto"],
    "Python 2.3.0, mode 2026-07-28": [sys.executable, str(HERE / "python_v2.py"), STATELESS],
    "TypeScript 1.32.2": typescript("@modelcontextprotocol/sdk", "legacy"),
    "TypeScript 2.4.0": typescript("@modelcontextprotocol/client", "legacy"),
    "TypeScript 2.4.0, mode auto": typescript("@modelcontextprotocol/client", "auto"),
    "TypeScript 2.4.0, mode 2026-07-28": typescript("@modelcontextprotocol/client", STATELESS),
}
WITHOUT_SESSIONS = [name for name in CLIENTS if "mode" in name]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, database):
    with deployed(tmp_path_factory.mktemp("clients"), database) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def samples(deployment):
    asyncio.run(demo_database.seed(deployment.uri))


def test_an_open_stream_keeps_a_session_that_says_nothing(tmp_path: Path, database: str) -> None:
    """Every official client opens one by itself. The TypeScript one does not come back from a session that ended."""
    environment = {"SIDECAR_SESSIONS__IDLE_S": str(IDLE_S)}
    later = {**FINE, "after_s": 2 * IDLE_S}
    with deployed(tmp_path, database, environment=environment) as running:
        asyncio.run(demo_database.seed(running.uri))
        said = {name: started(command, running, [FINE, later]) for name, command in CLIENTS.items()}
        found = {name: run.communicate(timeout=HANG_S) for name, run in said.items()}
    outcomes = {name: json.loads(output)[2:] for name, (output, _) in found.items()}  # noqa: TID251 - the scripts' own
    assert outcomes == dict.fromkeys(CLIENTS, ["answered"] * 3)


def started(command: list[str], running: Deployment, steps: list[dict[str, Any]]) -> subprocess.Popen[str]:
    run = subprocess.Popen(
        [*command, running.url, running.token(ANALYST)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdin is not None
    run.stdin.write(json.dumps(steps))
    run.stdin.close()
    run.stdin = None
    return run


@pytest.mark.parametrize("client", CLIENTS)
def test_a_session_outlives_every_refusal(deployment: Deployment, client: str) -> None:
    refusals = {**REFUSALS, **OWN[client.split(maxsplit=1)[0]]}
    steps = [FINE]
    for refusal in (*refusals.values(), UNKNOWN):
        steps += [refusal, FINE]
    command = [*CLIENTS[client], deployment.url, deployment.token(ANALYST)]
    before = len(deployment.records())
    run = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, timeout=HANG_S, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    revision, tools, first, *outcomes, last = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    found = dict(zip((*refusals, "an unknown tool"), zip(outcomes[::2], outcomes[1::2], strict=True), strict=True))
    assert {"find", "count"} <= set(tools)
    if client in WITHOUT_SESSIONS:
        assert revision == STATELESS
        assert {(record["protocol"], record["session"]) for record in deployment.records()[before:]} == {
            (STATELESS, None)
        }
    assert {**found, "before": first, "after notifications": last} == {
        **dict.fromkeys(refusals, ("refused", "answered")),
        "an unknown tool": (found["an unknown tool"][0], "answered"),
        "before": "answered",
        "after notifications": "answered",
    }
    assert "unknown tool" in found["an unknown tool"][0].lower() or found["an unknown tool"][0] == "refused"


STAGING = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
LOOK = {"name": "count", "arguments": STAGING}
LOAD = {"name": "insert-many", "arguments": {**STAGING, "documents": [{"total": 1}]}}
READER = replace(LOADER, scopes=("mongodb:read",))
"""A token that lacks the scope for ``LOAD``; these clients have no way to get another."""

TOLD = {
    "TypeScript 1.32.2": "needs a token that also has the scope",
    **{name: "needs a token that also has the scope mongodb:write" for name in CLIENTS if "Python 2" in name},
    **{
        name: 'InsufficientScopeError : Insufficient scope: required "mongodb:read mongodb:write"'
        for name in CLIENTS
        if "TypeScript 2" in name
    },
}
"""What those that keep their session over HTTP 403 have of it."""


@pytest.fixture(scope="module")
def gentle(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("gentle"), database, extra='step_up = "result"') as running:
        asyncio.run(demo_database.seed(running.uri))
        yield running


def session(client: str, running: Deployment) -> subprocess.CompletedProcess[str]:
    """Look, try to load, and look again, twice."""
    command = [*CLIENTS[client], running.url, running.token(READER)]
    steps = json.dumps([LOOK, LOAD, LOOK])
    return subprocess.run(command, input=steps, capture_output=True, text=True, timeout=HANG_S, check=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_session_with_a_fixed_token_outlives_what_lacks_a_scope_as_a_tool_result(
    gentle: Deployment, client: str
) -> None:
    run = session(client, gentle)
    assert run.returncode == 0, run.stderr[-3000:]
    _, _, *outcomes = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    assert outcomes == ["answered", "refused", "answered", "answered"]
    assert gentle.records()[-1]["tool"] == "count"
    assert all(call["name"] == "count" for call in gentle.all_reached())


@pytest.mark.parametrize("client", TOLD)
def test_a_session_with_a_fixed_token_outlives_a_challenge(deployment: Deployment, client: str) -> None:
    run = session(client, deployment)
    assert run.returncode == 0, run.stderr[-3000:]
    _, _, *outcomes = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    assert (outcomes[0], *outcomes[2:]) == ("answered",) * 3
    assert TOLD[client] in outcomes[1]


@pytest.mark.parametrize("client", [name for name in CLIENTS if name not in TOLD])
def test_python_1_with_a_fixed_token_does_not_outlive_a_challenge(deployment: Deployment, client: str) -> None:
    """Any status from 400 but 404 ends its transport (``raise_for_status``); docs/identity.md says what to set."""
    before = len(deployment.all_reached())
    run = session(client, deployment)
    assert run.returncode != 0
    assert "403 Forbidden" in run.stderr
    assert [call["name"] for call in deployment.all_reached()[before:]] == ["count"], "nothing after the challenge"
