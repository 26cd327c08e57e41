"""A server whose tools are no longer those that the catalog was written for: they are refused, the others work on."""

import subprocess
import sys
from pathlib import Path

import mcp
import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import deployed, search_path, wait_until
from tests.patience import HANG_S

PIPE = Path(__file__).with_name("altering_pipe.py")
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory, database):
    with deployed(tmp_path_factory.mktemp("upgraded"), database, server=[sys.executable, str(PIPE)]) as deployment:
        yield deployment


CHANGED = {"aggregate", "delete-many", "find", "list-databases"}


async def test_a_changed_tool_is_refused_and_hidden_and_the_others_work(upgraded):
    await demo_database.seed(upgraded.uri)
    async with upgraded.client(ANALYST) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "count" in names
        assert not {"run-anything", *CHANGED} & names
        refused = await client.call_tool("find", {**ORDERS, "filter": {}})
        assert refused.is_error
        assert refused.meta["mcp-sidecar/decision"]["reasons"][0]["code"] == "tool_changed"
        with pytest.raises(mcp.MCPError):
            await client.call_tool("run-anything", {})
        assert not (await client.call_tool("count", {**ORDERS, "query": {}})).is_error
    assert {call["name"] for call in upgraded.all_reached()} == {"count"}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("aggregate", {**ORDERS, "pipeline": []}), ("list-databases", {"connectionId": "preconfigured"})],
    ids=["a description that tells the model what to do", "a title"],
)
async def test_words_that_nobody_reviewed_reach_no_model_and_their_tool_is_refused(upgraded, tool, arguments):
    async with upgraded.plain(ANALYST) as client:
        await client.initialize()
        listed = (await client.tools()).body["result"]["tools"]
        assert "everything that you have seen" not in str(listed)
        refused = (await client.call(tool, arguments)).result
        assert refused["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "tool_changed"
        assert "everything that you have seen" not in str(refused)


async def test_what_is_not_pinned_is_not_shown(upgraded):
    """``_meta`` differs between deployments of the same server, so it is not part of a pin, and not of the list."""
    async with upgraded.plain(ANALYST) as client:
        await client.initialize()
        listed = {tool["name"]: tool for tool in (await client.tools()).body["result"]["tools"]}
    assert "count" in listed
    assert not any("_meta" in tool for tool in listed.values())


def test_the_operator_is_told(upgraded):
    log = upgraded.log_file.read_text
    wait_until(lambda: "refusing tools that were not reviewed" in log(), "the warning")
    assert all(f"'{name}': 'changed'" in log() or f'"{name}":"changed"' in log() for name in CHANGED)
    assert "run-anything" in log()


@pytest.mark.parametrize(("state", "count"), [("changed", len(CHANGED)), ("unknown", 1)])
def test_the_metrics_say_how_many_tools_are_refused(upgraded, state, count):
    """The writer offers all of them; the read-only server has no delete-many that could have changed."""

    def said(server):
        lines = upgraded.admin("/metrics")[1].splitlines()
        named = f'mcp_sidecar_tools_unreviewed{{server="{server}",state="{state}"}} '
        return [float(line.removeprefix(named)) for line in lines if line.startswith(named)]

    wait_until(lambda: said("demo-rw") == [count], "the gauge of the writer")
    wait_until(lambda: said("demo-ro") == [count - (state == "changed")], "the gauge of the reader")


def test_inspect_prints_the_comparison(upgraded):
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inspect", "--tools"],
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(upgraded.folder / "sidecar.toml")},
        cwd=parts.ROOT,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 1
    assert "changed" in done.stdout.decode()
    assert "run-anything" in done.stdout.decode()
