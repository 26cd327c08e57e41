"""What callers can have done and what not, asserted at the MCP server's input and in the database."""

import asyncio

import mcp
import pytest

from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from tests.integration.deployment import HR_ADMIN

META = "mcp-sidecar/decision"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
STAGING = {**ORDERS, "database": "staging"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}
JOIN = [
    {"$match": {"status": "open"}},
    {
        "$lookup": {
            "from": "orders",
            "as": "c",
            "let": {"n": "$customer"},
            "pipeline": [{"$unionWith": {"db": "hr", "coll": "salaries"}}],
        }
    },
]


async def test_an_analyst_reads_orders_through_the_read_only_server(deployment, samples):
    arguments = {**ORDERS, "filter": {"status": "open"}, "limit": 2}
    async with deployment.client(ANALYST) as client:
        result = await client.call_tool("find", arguments)
    assert not result.is_error
    assert len(result.structured_content["documents"]) == 2
    assert deployment.reached("demo-ro")[-1] == {
        "name": "find",
        "arguments": arguments,
        "_meta": result_meta(deployment),
    }


def result_meta(deployment):
    """The only thing that travels beside name and arguments: our own trace context."""
    meta = deployment.reached("demo-ro")[-1]["_meta"]
    assert set(meta) == {"traceparent"}
    return meta


async def test_an_analyst_counts_orders(deployment, samples):
    async with deployment.client(ANALYST) as client:
        result = await client.call_tool("count", {**ORDERS, "query": {"region": "EU"}})
    expected = sum(order["region"] == "EU" for order in samples["sales", "orders"])
    assert result.structured_content == {"count": expected}


async def test_a_nested_join_into_salaries_is_refused_and_names_the_access(deployment, samples):
    before = deployment.all_reached()
    async with deployment.client(ANALYST) as client:
        result = await client.call_tool("aggregate", {**ORDERS, "pipeline": JOIN})
    assert result.is_error
    decision = result.meta[META]
    assert decision["allow"] is False
    assert {1} == {reason["access"] for reason in decision["reasons"]}
    assert decision["owner"] == "people"
    assert "hr.salaries" in result.content[0].text
    assert deployment.all_reached() == before


async def test_who_may_read_salaries_reads_them(deployment, samples):
    async with deployment.client(HR_ADMIN) as client:
        result = await client.call_tool("find", {**SALARIES, "filter": {}})
    assert len(result.structured_content["documents"]) == len(samples["hr", "salaries"])


async def test_a_loader_inserts_and_the_document_is_in_the_database(deployment, samples):
    async with deployment.client(LOADER) as client:
        result = await client.call_tool("insert-many", {**STAGING, "documents": [{"_id": "new", "total": 1}]})
    assert not result.is_error
    with deployment.database() as database:
        assert database.staging.orders.find_one({"_id": "new"}) == {"_id": "new", "total": 1}
    assert deployment.reached("demo-rw")[-1]["name"] == "insert-many"


async def test_an_analyst_cannot_insert(deployment, samples):
    before = deployment.all_reached()
    async with deployment.client(ANALYST) as client:
        with pytest.raises(mcp.MCPError) as caught:
            await client.call_tool("insert-many", {**STAGING, "documents": [{"_id": "no"}]})
    assert caught.value.code == -32602
    with deployment.database() as database:
        assert database.staging.orders.find_one({"_id": "no"}) is None
    assert deployment.all_reached() == before


async def test_nobody_drops_a_collection(deployment, samples):
    before = deployment.all_reached()
    async with deployment.client(LOADER) as client:
        refused = None
        try:
            refused = await client.call_tool("drop-collection", STAGING)
        except mcp.MCPError as error:
            assert error.code == -32602  # noqa: PT017 - refused as a denial or as an unknown tool
    assert refused is None or refused.is_error
    with deployment.database() as database:
        assert database.staging.orders.count_documents({}) == len(samples["staging", "orders"])
    assert deployment.all_reached() == before


async def test_a_stranger_sees_no_tool_and_can_call_none(deployment, samples):
    before = deployment.all_reached()
    async with deployment.client(STRANGER) as client:
        assert (await client.list_tools()).tools == []
        with pytest.raises(mcp.MCPError) as caught:
            await client.call_tool("find", {**ORDERS, "filter": {}})
        with pytest.raises(mcp.MCPError) as unknown:
            await client.call_tool("no-such-tool", {})
    assert (caught.value.code, caught.value.error.message) == (unknown.value.code, unknown.value.error.message)
    assert deployment.all_reached() == before


async def test_a_tool_that_no_grant_opens_is_answered_as_one_that_does_not_exist(deployment, samples):
    before = deployment.all_reached()
    async with deployment.client(LOADER) as client:
        with pytest.raises(mcp.MCPError) as hidden:
            await client.call_tool("update-many", {**STAGING, "filter": {}, "update": {"$set": {"a": 1}}})
        with pytest.raises(mcp.MCPError) as unknown:
            await client.call_tool("no-such-tool", {**STAGING, "filter": {}})
    assert hidden.value.error == unknown.value.error
    assert deployment.all_reached() == before


async def test_the_list_of_tools_is_what_the_caller_could_use(deployment):
    async with deployment.client(ANALYST) as client:
        analyst = {tool.name for tool in (await client.list_tools()).tools}
    async with deployment.client(LOADER) as client:
        loader = {tool.name for tool in (await client.list_tools()).tools}
    assert {"find", "count", "aggregate", "collection-schema"} <= analyst
    assert "insert-many" in loader - analyst
    assert {"find", "count"} <= loader
    assert not {"update-many", "delete-many", "drop-collection"} & loader, "nothing else is granted"
    assert not {"mongodb-logs", "connect", "atlas-create-cluster"} & (analyst | loader)


async def test_without_a_token_there_is_nothing_but_a_challenge(deployment):
    async with deployment.plain(None) as client:
        answer = await client.call("find", {**ORDERS, "filter": {}})
    assert answer.status == 401


async def test_another_identity_cannot_use_a_session(deployment, samples):
    before = deployment.all_reached()
    async with deployment.plain(HR_ADMIN) as owner, deployment.plain(ANALYST) as thief:
        await owner.initialize()
        thief._headers |= {name: owner._headers[name] for name in ("Mcp-Session-Id", "MCP-Protocol-Version")}
        answer = await thief.call("find", {**ORDERS, "filter": {}})
    assert answer.status == 404
    assert deployment.all_reached() == before


async def test_equal_request_ids_of_many_sessions_get_their_own_answers(deployment, samples):
    async def ask(limit: int) -> int:
        async with deployment.plain(ANALYST) as client:
            await client.initialize()
            answer = await client.call("find", {**ORDERS, "filter": {}, "sort": {"_id": 1}, "limit": limit})
            return len(answer.result["structuredContent"]["documents"])

    limits = [1 + number % 8 for number in range(30)]  # one identity may have 32 under way
    assert await asyncio.gather(*(ask(limit) for limit in limits)) == limits


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("find", {**ORDERS, "connectionId": "11111111-1111-4111-8111-111111111111"}, None),
        ("find", {**ORDERS, "filter": {"$where": "sleep(1)"}}, None),
        ("find", {**ORDERS, "database": ""}, None),
        ("find", {**ORDERS, "surprise": 1}, None),
        ("aggregate", {**ORDERS, "collection": "", "pipeline": []}, None),
        ("aggregate", {**ORDERS, "pipeline": [{"$unknownStage": {}}]}, None),
        ("aggregate", {**ORDERS, "pipeline": [{"$out": "stolen"}]}, None),
        ("find", {**ORDERS, "filter": {"__proto__": {"a": 1}}}, None),
    ],
)
async def test_what_cannot_be_told_for_certain_is_refused(deployment, tool, arguments, code):
    before = deployment.all_reached()
    async with deployment.client(ANALYST) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.meta[META]["allow"] is False
    assert deployment.all_reached() == before


async def test_what_a_client_adds_to_a_call_does_not_travel_on(deployment, samples):
    message = {
        "jsonrpc": "2.0",
        "id": 99,
        "method": "tools/call",
        "params": {
            "name": "count",
            "arguments": {**ORDERS, "query": {}},
            "_meta": {"progressToken": "p", "com.example/secret": "canary-meta"},
        },
    }
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        client._headers["X-MongoDB-MCP-Read-Only"] = "false"
        answer = await client._post(message)
    assert not answer.result.get("isError")
    meta = deployment.reached("demo-ro")[-1]["_meta"]
    assert set(meta) == {"traceparent", "progressToken"}
    assert meta["progressToken"] != "p", "progress is asked for under the call's own id"
    assert "canary-meta" not in str(deployment.all_reached())


async def test_a_list_holds_only_what_the_servers_of_the_caller_offer(deployment):
    """``demo-rw`` offers tools that ``demo-ro``, which is all that an analyst can be routed to, does not have."""
    async with deployment.client(ANALYST) as client:
        analyst = {tool.name for tool in (await client.list_tools()).tools}
    async with deployment.client(LOADER) as client:
        loader = {tool.name for tool in (await client.list_tools()).tools}
    assert "insert-many" in loader
    assert not {"insert-many", "drop-collection", "rename-collection", "create-index"} & analyst
