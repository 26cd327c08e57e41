"""A server whose tools are no longer those that the catalog was written for: they are refused, the others work on."""

import subprocess
import sys
from pathlib import Path

import mcp
import pytest

from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import deployed, search_path

PIPE = Path(__file__).with_name("altering_pipe.py")
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory, database):
    with deployed(tmp_path_factory.mktemp("upgraded"), database, server=[sys.executable, str(PIPE)]) as deployment:
        yield deployment


async def test_a_changed_tool_is_refused_and_hidden_and_the_others_work(upgraded):
    async with upgraded.client(ANALYST) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "count" in names
        assert not {"find", "run-anything"} & names
        refused = await client.call_tool("find", {**ORDERS, "filter": {}})
        assert refused.is_error
        assert refused.meta["mcp-sidecar/decision"]["reasons"][0]["code"] == "tool_changed"
        with pytest.raises(mcp.MCPError):
            await client.call_tool("run-anything", {})
        assert not (await client.call_tool("count", {**ORDERS, "query": {}})).is_error
    assert {call["name"] for call in upgraded.all_reached()} == {"count"}


def test_the_operator_is_told(upgraded):
    log = upgraded.log_file.read_text()
    assert "refusing tools that were not reviewed" in log
    assert "run-anything" in log


def test_inspect_prints_the_comparison(upgraded):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inspect", "--tools"],
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(upgraded.folder / "sidecar.toml")},
        cwd=parts.ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "changed" in done.stdout.decode()
    assert "run-anything" in done.stdout.decode()
