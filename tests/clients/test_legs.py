"""Official and other well-known clients, once through every leg of the protocol, at the real MongoDB MCP server.

What came of it is ``tests/clients/legs/table.py`` word for word, and docs/reference/clients.md is made from that.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.demo import database as demo_database
from tests import parts
from tests.clients.legs.cutting_proxy import CuttingProxy, cutting
from tests.clients.legs.staging_pipe import CUT, HELD, NEWS, PROGRESS
from tests.clients.legs.table import ELSEWHERE, FOUND, MEANS, NOT_SPOKEN, Leg
from tests.clients.test_official_clients import PARTS
from tests.integration.deployment import Deployment, deployed, search_path
from tests.integration.test_tool_groups import EXPORT, EXPORTER, with_policies
from tests.mcp.test_requirements import is_there
from tests.patience import HANG_S

HERE = Path(__file__).parent / "legs"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
CALLS = {
    "call": {"name": "find", "arguments": {**ORDERS, "limit": 1}},
    "refusal": {"name": "find", "arguments": {**ORDERS, "database": "hr", "collection": "salaries"}},
    "stream": {"name": "find", "arguments": {**ORDERS, "limit": PROGRESS}},
    "resume": {"name": "find", "arguments": {**ORDERS, "limit": CUT}},
    "cancel": {"name": "find", "arguments": {**ORDERS, "limit": HELD}},
    "cancel_after_s": 2,
    "news": {"name": "find", "arguments": {**ORDERS, "limit": NEWS}},
    "export": {"name": "export", "arguments": EXPORT},
    "confirmation": {"name": "count", "arguments": ORDERS},
}
LIMITS = "calls_per_identity = 32\nstall_ms = 500"

INSPECTOR = [parts.new_node(), str(parts.SUITE / ".bin/mcp-inspector"), "--cli"]


def typescript(package: str, mode: str) -> list[str]:
    return ["node", str(HERE / "typescript.mjs"), str(PARTS / "clients"), f"@modelcontextprotocol/{package}", mode]


def python_v1(version: str) -> list[str]:
    return [str(PARTS / f"mcp-{version}/bin/python"), str(HERE / "python_v1.py")]


COMMANDS = {
    "Python 1.26.0": python_v1("1.26"),
    "Python 1.30.0": python_v1("1.30"),
    "Python 2.3.0": [sys.executable, str(HERE / "python_v2.py"), "legacy"],
    "Python 2.3.0, without sessions": [sys.executable, str(HERE / "python_v2.py"), "2026-07-28"],
    "TypeScript 1.32.2": typescript("sdk", "legacy"),
    "TypeScript 2.4.0": typescript("client", "legacy"),
    "TypeScript 2.4.0, without sessions": typescript("client", "2026-07-28"),
    "mcp-remote 0.15.1": [
        *python_v1("1.30"),
        "--",
        "node",
        str(PARTS / "clients/node_modules/mcp-remote/dist/proxy.js"),
    ],
    "MCP Inspector 2.12.0, command line": [sys.executable, str(HERE / "inspector_cli.py"), *INSPECTOR],
    "Java 2.1.0": ["java-mcp", str(HERE / "JavaClient.java")],
    "langchain-mcp-adapters 0.3.2": ["langchain-python", str(HERE / "langchain_adapters.py")],
}
AT_NIGHT = {"Java 2.1.0": "java-mcp", "langchain-mcp-adapters 0.3.2": "langchain-python"}
"""What `make nightly` sets up besides, by client."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[CuttingProxy]:
    """Its port is there before the sidecar is, which has to serve its Host header."""
    with cutting(parts.free_port()) as one:
        yield one


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, database: str, proxy: CuttingProxy) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("legs")
    with deployed(
        folder,
        database,
        port=proxy.behind,
        extra=f'allowed_hosts = ["127.0.0.1:{proxy.port}"]\n[sessions]\n{LIMITS}\n',
        of_servers='tool_groups = ["export"]\nconfirmation_required_tools = ["count"]',
        policies=with_policies(folder),
        server=[sys.executable, str(HERE / "staging_pipe.py")],
    ) as running:
        asyncio.run(demo_database.seed(running.uri))
        yield running


def open_sessions(deployment: Deployment) -> int:
    _, metrics = deployment.admin("/metrics")
    found = re.search(r"^mcp_sidecar_sessions(?:\{[^}]*\})? ([0-9.]+)", metrics, re.MULTILINE)
    return int(float(found[1])) if found else 0  # nothing is said before there was one


def ways(client: str, deployment: Deployment, proxy: CuttingProxy) -> list[str]:
    """The arguments that say where to, and as whom."""
    token, url = deployment.token(EXPORTER), f"http://127.0.0.1:{proxy.port}/mcp"
    if client.startswith("mcp-remote"):
        return [url, "--header", f"Authorization: Bearer {token}", "--transport", "http-only"]
    return [url, token]


def in_words(leg: str, said: str) -> str:
    """Return what a client made of a leg, without the words that each has for one thing."""
    if "method is not available" in said or "METHOD_NOT_SUPPORTED_BY_PROTOCOL_VERSION" in said:
        return NOT_SPOKEN
    return said.replace("asked 1 times", "asked once") if leg == Leg.CONFIRMATION else said


@pytest.mark.parametrize(
    "client",
    [pytest.param(name, marks=[pytest.mark.needs(AT_NIGHT[name])] if name in AT_NIGHT else []) for name in COMMANDS],
)
def test_a_client_goes_every_leg_that_it_has(
    deployment: Deployment, proxy: CuttingProxy, client: str, tmp_path: Path
) -> None:
    cuts = proxy.cuts
    before, sessions = len(deployment.records()), open_sessions(deployment)
    run = subprocess.run(
        [*COMMANDS[client], *ways(client, deployment, proxy)],
        input=json.dumps(CALLS),
        capture_output=True,
        text=True,
        timeout=2 * HANG_S,
        check=False,
        cwd=tmp_path,
        env={"PATH": search_path(), "HOME": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answers = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    found = {leg: in_words(leg, said) for leg, said in answers.items()}
    rows = deployment.records()[before:]
    if found.get(Leg.CANCEL) == "sent":
        ended = [row["outcome"]["status"] for row in rows if row["event"] == "outcome"]
        found[Leg.CANCEL] = "cancelled" if "cancelled" in ended else "carried on"
    if all(row["session"] is None for row in rows):
        found[Leg.CLOSE] = "no session"
    else:
        found[Leg.CLOSE] = "ended" if open_sessions(deployment) == sessions else "left open"
    assert found == dict(FOUND[client])
    assert proxy.cuts == cuts + (Leg.RESUME in found), "of the one call alone"


def test_every_client_of_the_table_is_tried_and_every_test_that_it_names_is_there() -> None:
    assert list(FOUND) == list(COMMANDS)
    named = [test for held in ELSEWHERE.values() for test in held.values()]
    assert [test for test in named if not is_there(test)] == []
    assert all(set(row) <= set(MEANS) for row in FOUND.values())
    assert set(MEANS) == set(Leg)
