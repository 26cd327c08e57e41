"""A typed value that is not of its type does not destroy data: MongoDB itself would have got another one."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import LOADER
from tests.changed_policies import grant_more, platform_data
from tests.hours import policies_on
from tests.integration.deployment import deployed

ORDERS = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
GRANT = """
grant contains {"id": "loader-deletes"} if {
	input.access.kind == "delete"
	loader_at_home
}
"""


def with_deletes(folder):
    """The shipped policies where the loader may delete what it loaded."""
    copy = policies_on(folder)
    grant_more(copy, "loading", GRANT)
    (copy / "teams/loading/policy_test.rego").unlink()  # says that the loader does nothing else
    with platform_data(copy) as platform:
        platform["agents"]["registered"]["nightly-loader"]["kinds"].append("delete")
        platform["deployments"]["demo"]["databases"]["staging"]["delegated"][0]["kinds"].append("delete")
    return copy


@pytest.fixture(scope="module")
def deleting(tmp_path_factory, database):
    folder = tmp_path_factory.mktemp("deleting")
    with deployed(folder, database, policies=with_deletes(folder)) as running:
        yield running


@pytest.fixture
async def staged(database):
    """Three documents, all placed after 1970."""
    await demo_database.seed(database)
    with MongoClient[dict[str, Any]](database) as client:
        orders = client.staging.orders
        orders.delete_many({})
        orders.insert_many({"_id": year, "placed": datetime(year, 6, 1, tzinfo=UTC)} for year in (2024, 2025, 2026))
        yield orders


@pytest.mark.parametrize("when", ["next year", "", "20240101", "10000-01-01T00:00:00Z", "2024-01-01T23:59:60Z"])
async def test_documents_stay_where_the_date_of_a_deletion_is_none(deleting, staged, when):
    before = deleting.all_reached()
    async with deleting.client(LOADER) as client:
        result = await client.call_tool("delete-many", {**ORDERS, "filter": {"placed": {"$gt": {"$date": when}}}})
    assert result.is_error
    assert "/arguments/filter/placed/$gt/$date" in result.content[0].text
    assert staged.count_documents({}) == 3
    assert deleting.all_reached() == before


async def test_a_deletion_with_a_date_deletes_what_is_after_it(deleting, staged):
    arguments = {**ORDERS, "filter": {"placed": {"$gt": {"$date": "2025-12-31T00:00:00+01:00"}}}}
    async with deleting.client(LOADER) as client:
        result = await client.call_tool("delete-many", arguments)
    assert not result.is_error
    assert sorted(document["_id"] for document in staged.find()) == [2024, 2025]
