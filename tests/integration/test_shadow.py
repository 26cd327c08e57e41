"""A candidate policy folder is compared with the serving one; the answer stays the serving set's."""

import shutil

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import deployed

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory, database):
    """The candidate takes orders from the analysts and gives them salaries."""
    folder = tmp_path_factory.mktemp("shadowed")
    shutil.copytree(parts.ROOT / "policies", folder / "candidate")
    analytics = folder / "candidate" / "teams" / "analytics" / "policy.rego"
    analytics.write_text(analytics.read_text().replace('lib.in_group("analysts")', 'lib.in_group("nobody")', 1))
    people = folder / "candidate" / "teams" / "people" / "policy.rego"
    people.write_text(
        "package mcp.teams.people\n\nimport data.mcp.lib\n\n"
        'grant contains {"id": "everybody-reads"} if {\n\tlib.reads\n\tlib.on("hr", ["*"])\n}\n\ndeny := set()\n'
    )
    for team in ("analytics", "people"):
        (folder / "candidate" / "teams" / team / "policy_test.rego").unlink()
    extra = f'policies_candidate = "{folder / "candidate"}"\n'
    with deployed(folder, database, extra=extra) as deployment:
        yield deployment


async def test_differences_are_recorded_and_counted_and_change_nothing(shadowed):
    await demo_database.seed(shadowed.uri)
    async with shadowed.client(ANALYST) as client:
        allowed = await client.call_tool("find", {**ORDERS, "filter": {}})
        refused = await client.call_tool("find", {**SALARIES, "filter": {}})
        same = await client.call_tool("find", {**ORDERS, "database": "nobodys", "filter": {}})
    assert not allowed.is_error
    assert refused.is_error
    assert same.is_error
    records = [r for r in shadowed.records() if r["tool"] == "find" and r["event"] != "outcome"]
    assert [r["shadow"]["difference"] for r in records] == ["would_deny", "would_allow", "same"]
    assert all(r["shadow"]["revision"] != r["decision"]["revision"] for r in records)
    assert [call["arguments"]["database"] for call in shadowed.all_reached()] == ["sales"]
    metrics = shadowed.admin("/metrics")[1]
    assert 'difference="would_deny"' in metrics
    assert 'difference="would_allow"' in metrics


async def test_a_candidate_that_is_gone_stops_nobody(shadowed):
    async with shadowed.client(ANALYST) as client:
        await client.call_tool("count", {**ORDERS, "query": {}})
        for process in shadowed.children("/opa"):
            process.suspend()
        serving = min(shadowed.children("/opa"), key=lambda process: process.create_time())
        serving.resume()
        result = await client.call_tool("count", {**ORDERS, "query": {"region": "EU"}})
        for process in shadowed.children("/opa"):
            process.resume()
    assert not result.is_error
    last = [r for r in shadowed.records() if r["tool"] == "count" and r["event"] == "intent"][-1]
    assert last["shadow"]["difference"] == "unavailable"
