"""Official clients of both languages launch the sidecar, call, are refused, and call again."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.launched import ORDERS, Launched, launchable
from tests.patience import HANG_S

HERE = Path(__file__).parent
PARTS = parts.ROOT / ".parts"
CLIENTS = {
    "Python 1.26.0": [str(PARTS / "mcp-1.26/bin/python"), str(HERE / "stdio_python.py")],
    "Python 1.30.0": [str(PARTS / "mcp-1.30/bin/python"), str(HERE / "stdio_python.py")],
    "Python 2.3.0": [sys.executable, str(HERE / "stdio_python.py")],
    "TypeScript 1.32.2": [
        "node",
        str(HERE / "stdio_typescript.mjs"),
        str(PARTS / "clients"),
        "@modelcontextprotocol/sdk",
    ],
    "TypeScript 2.4.0": [
        "node",
        str(HERE / "stdio_typescript.mjs"),
        str(PARTS / "clients"),
        "@modelcontextprotocol/client",
    ],
}
COUNT = {"name": "count", "arguments": ORDERS}
DENIED = {"name": "find", "arguments": {**ORDERS, "database": "hr", "collection": "salaries"}}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, database: str) -> Launched:
    asyncio.run(demo_database.seed(database))
    found = launchable(tmp_path_factory.mktemp("stdio"), database)
    found.present(ANALYST)
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_launches_the_sidecar_and_calls(ready: Launched, client: str) -> None:
    before = len(ready.deployment.all_reached()) if (ready.deployment.folder / "demo-ro.stdin").exists() else 0
    steps = [COUNT, DENIED, COUNT]
    told = {"environment": ready.environment(), "cwd": str(parts.ROOT), "steps": steps}
    command = [*CLIENTS[client], *ready.command("--token-file", str(ready.token_file))]
    run = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, timeout=HANG_S, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    _, tools, *outcomes = json.loads(run.stdout)  # noqa: TID251 - the script's own answer
    assert {"find", "count"} <= set(tools)
    assert outcomes == ["answered", "refused", "answered"]
    assert len(ready.deployment.all_reached()) == before + 2
