"""A view in a real deployment: whoever is granted its name is not by that granted what it is made of."""

from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.changed_policies import grant_more, platform_data
from tests.hours import policies_on
from tests.integration.deployment import deployed

META = "mcp-sidecar/decision"
SUMMARY = {"connectionId": "preconfigured", "database": "sales", "collection": "summary"}
SOURCE = {"database": "sales", "collection": "customers"}
GRANT = """
grant contains {"id": "analysts-read-the-summary"} if {
	lib.reads
	lib.on("sales", ["summary"])
	lib.in_group("analysts")
}
"""
"""An analyst may read orders and the summary, and not the customers that the summary is made of."""


def with_policies(folder, views: dict[str, Any] | None):
    """The repository's policies with one grant more, and what the platform declares of views."""
    copy = policies_on(folder)
    grant_more(copy, "analytics", GRANT)
    if views is not None:
        with platform_data(copy) as platform:
            platform["deployments"]["demo"]["views"] = views
    return copy


def declared(*, alone: bool) -> dict[str, Any]:
    return {"sales": {"summary": {"sources": [SOURCE], "alone": alone}}}


@pytest.fixture(scope="module")
def start(tmp_path_factory, database):
    """Start a deployment where the platform declares these views, and the sidecar may list them or not."""

    def begin(*, listing: bool, views: dict[str, Any] | None):
        folder = tmp_path_factory.mktemp("views")
        learning = f'views_connection_string_file = "{folder / "mongodb"}"' if listing else ""
        return deployed(folder, database, policies=with_policies(folder, views), of_servers=learning)

    return begin


@pytest.fixture(scope="module")
def listing(start):
    with start(listing=True, views=None) as running:
        yield running


@pytest.fixture
async def summary(database):
    """The demo's documents, and a view of customers beside them."""
    await demo_database.seed(database)
    with MongoClient[dict[str, Any]](database) as client:
        client.sales.drop_collection("summary")
        client.sales.command("create", "summary", viewOn="customers", pipeline=[{"$project": {"name": 1}}])
        yield client
        client.sales.drop_collection("summary")


async def find(deployment, **arguments):
    async with deployment.client(ANALYST) as client:
        return await client.call_tool("find", {**SUMMARY, "filter": {}, **arguments})


async def test_the_view_alone_is_not_enough(listing, summary):
    before = listing.all_reached()
    result = await find(listing)
    assert result.is_error
    decision = result.meta[META]
    assert [(reason["code"], reason["access"]) for reason in decision["reasons"]] == [("not_granted", 0)]
    assert listing.all_reached() == before
    record = listing.records()[-1]
    assert [reason["access"] for reason in record["decision"]["reasons"]] == [1], "the evidence knows which it was"
    assert [access.get("via_view") for access in record["accesses"]] == [
        None,
        {"database": "sales", "collection": "summary"},
    ]


async def test_the_refusal_does_not_say_what_the_view_is_made_of(listing, summary):
    result = await find(listing)
    assert "sales.summary" in result.content[0].text
    assert "customers" not in result.model_dump_json()


async def test_a_refused_view_reads_like_a_refused_collection(listing, summary):
    def told(result, name: str):
        decision = result.meta[META]
        assert decision.pop("request_id")
        assert decision.pop("trace_id")
        return decision, result.content[0].text.replace(f"sales.{name}", "it")

    view = told(await find(listing), "summary")
    assert view == told(await find(listing, collection="customers"), "customers")


async def test_a_view_that_cannot_be_read_for_certain_reads_like_one_that_is_not_granted(start, summary):
    summary.sales.drop_collection("summary")
    summary.sales.command("create", "summary", viewOn="orders", pipeline=[{"$listSampledQueries": {"no": "such"}}])
    with start(listing=True, views=None) as deployment:
        result = await find(deployment)
        told = result.meta[META]
        assert [(reason["code"], reason["access"]) for reason in told["reasons"]] == [("not_granted", 0)]
        assert "path" not in told
        assert deployment.records()[-1]["outcome"]["error"] == "view_not_derivable"


async def test_a_collection_beside_it_is_read_as_ever(listing, summary):
    result = await find(listing, collection="orders")
    assert not result.is_error
    assert len(result.structured_content["documents"]) == 10


async def test_a_join_with_the_view_is_refused_too(listing, summary):
    pipeline = [{"$lookup": {"from": "summary", "as": "c"}}]
    async with listing.client(ANALYST) as client:
        result = await client.call_tool("aggregate", {**SUMMARY, "collection": "orders", "pipeline": pipeline})
    assert {reason["code"] for reason in result.meta[META]["reasons"]} == {"not_granted"}
    assert "customers" not in result.model_dump_json()


async def test_where_the_platform_says_so_the_view_is_enough(start, summary):
    with start(listing=True, views=declared(alone=True)) as deployment:
        result = await find(deployment)
        assert len(result.structured_content["documents"]) == 4
        intent = deployment.records()[-2]
        assert "analytics/platform.view-alone" in intent["decision"]["grants"]
        by_its_own_name = await find(deployment, collection="customers")
        assert {reason["code"] for reason in by_its_own_name.meta[META]["reasons"]} == {"not_granted"}


async def test_without_a_connection_what_the_platform_declares_is_what_counts(start, summary):
    with start(listing=False, views=declared(alone=False)) as deployment:
        result = await find(deployment)
        assert [(reason["code"], reason["access"]) for reason in result.meta[META]["reasons"]] == [("not_granted", 0)]
        assert "customers" not in result.model_dump_json()
        assert deployment.all_reached() == []


async def test_a_name_that_the_caller_may_not_use_is_not_looked_up(tmp_path, database):
    """Nothing answers there: a look-up would be refused as ``views_unavailable``."""
    unreachable = f'views_connection_string = "mongodb://127.0.0.1:{parts.free_port()}/"'
    with deployed(tmp_path, database, of_servers=unreachable, extra="[views]\ntimeout_ms = 300\n") as deployment:
        for stranger in ("nobody_owns_this", "hr"):
            result = await find(deployment, database=stranger, collection="salaries")
            codes = {reason["code"] for reason in result.meta[META]["reasons"]}
            assert codes
            assert "views_unavailable" not in codes


async def test_when_the_views_cannot_be_listed_nothing_is_carried_out(tmp_path, database):
    unreachable = f'views_connection_string = "mongodb://a:canary@127.0.0.1:{parts.free_port()}/"'
    with deployed(tmp_path, database, of_servers=unreachable, extra="[views]\ntimeout_ms = 300\n") as deployment:
        await demo_database.seed(database)
        result = await find(deployment, collection="orders")
        assert [reason["code"] for reason in result.meta[META]["reasons"]] == ["views_unavailable"]
        assert deployment.all_reached() == []
        assert "canary" not in deployment.log_file.read_text() + deployment.audit_file.read_text()
