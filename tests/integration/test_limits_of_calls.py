"""Limits on what a call gives and takes, on real parts: what reaches the server, what is stored, what comes back."""

import asyncio
import json
import re
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import Person
from tests.integration.deployment import deployed
from tests.integration.obliged import KINDS, SALES, TRAITS, call_as, policies_for
from tests.integration.test_exports import session
from tests.patience import HANG_S

SCOPES = ("mongodb:read", "mongodb:write", "mongodb:export", "mongodb:admin")
CLERK = Person(user="clara", agent="clerks-desk", groups=("clerks",), scopes=SCOPES)
GRANTS = """
grant contains {"id": "few", "max_documents": 3} if {
	input.access.kind in {"read", "export"}
	lib.on("sales", ["events"])
	lib.in_group("clerks")
}

grant contains {"id": "quick", "max_time_ms": 1} if {
	lib.reads
	lib.on("sales", ["archive"])
	lib.in_group("clerks")
}

grant contains {"id": "few-changes", "max_affected": 3} if {
	input.access.kind in {"insert", "update", "delete"}
	lib.on("sales", ["changes"])
	lib.in_group("clerks")
}

grant contains {"id": "by-index", "no_collection_scan": true} if {
	input.access.kind in {"read", "delete", "export"}
	lib.on("sales", ["indexed"])
	lib.in_group("clerks")
}

grant contains {"id": "small", "max_bytes": 2500} if {
	lib.reads
	lib.on("sales", ["texts"])
	lib.in_group("clerks")
}

grant contains {"id": "copies"} if {
	input.access.kind in {"read", "insert", "update", "delete", "create"}
	lib.on("sales", ["copies"])
	lib.in_group("clerks")
}
"""
EVENTS = [{"_id": number, "text": f"event {number}", "day": number % 4} for number in range(30)]


@pytest.fixture(scope="module")
def limiting(tmp_path_factory, database):
    folder = tmp_path_factory.mktemp("limits")
    policies = policies_for(folder, CLERK, GRANTS, kinds=(*KINDS, "create"), traits=(*TRAITS, "unbounded"))
    with deployed(folder, database, policies=policies, of_servers='tool_groups = ["export"]') as running:
        yield running


@pytest.fixture
async def stored(database):
    await demo_database.seed(database)
    with MongoClient[dict[str, Any]](database) as client:
        for name in ("events", "archive", "copies", "changes", "indexed", "texts"):
            client.sales.drop_collection(name)
        for name in ("events", "archive", "changes", "indexed"):
            client.sales[name].insert_many(EVENTS)
        client.sales.indexed.create_index("day", name="by_day")
        client.sales.texts.insert_many([{"_id": number, "text": "x" * 300} for number in range(10)])
        yield client


called = partial(call_as, CLERK)


def decision(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True, result
    found: dict[str, Any] = result["_meta"]["mcp-sidecar/decision"]
    return found


async def ids(deployment, tool: str, **arguments: Any) -> list[Any]:
    """What came back, which is the same in the text and in the structured content."""
    result = await called(deployment, tool, collection="events", **arguments)
    assert not result.get("isError"), result
    documents = result["structuredContent"]["documents"]
    tagged = re.search(r"<(untrusted-user-data-[0-9a-f-]{36})>\n(.*)\n</\1>", result["content"][1]["text"], re.DOTALL)
    assert tagged is not None
    assert json.loads(tagged[2]) == documents  # noqa: TID251 - the server's own text
    return [document["_id"] for document in documents]


def _picks(number: int) -> dict[str, Any]:
    return {f"d{key}": {"$max": {"$cond": [{"$eq": ["$_id", key]}, "$$ROOT", None]}} for key in range(number)}


def _neighbours(number: int) -> dict[str, Any]:
    return {f"d{by}": {"$shift": {"output": "$$ROOT", "by": by}} for by in range(1, number + 1)}


MADE_OF_MANY: list[list[dict[str, Any]]] = [
    [{"$group": {"_id": None, **_picks(30)}}],
    [{"$group": {"_id": "$day", **_picks(3)}}],
    [{"$group": {"_id": "$day", "x": {"$first": "$$ROOT"}, "y": {"$last": "$$ROOT"}, "z": {"$max": "$text"}}}],
    [{"$bucketAuto": {"groupBy": "$_id", "buckets": 3, "output": _picks(30)}}],
    [{"$setWindowFields": {"sortBy": {"_id": 1}, "output": _neighbours(2)}}],
    [{"$setWindowFields": {"sortBy": {"_id": 1}, "output": _neighbours(29)}}],
    [{"$facet": {"a": [{"$group": {"_id": None, **_picks(30)}}]}}],
    [{"$limit": 3}, {"$lookup": {"from": "events", "pipeline": [{"$group": {"_id": None, **_picks(9)}}], "as": "j"}}],
    [{"$unionWith": {"coll": "events", "pipeline": [{"$group": {"_id": None, **_picks(9)}}]}}],
]
"""Thirty documents in a few."""


@pytest.mark.usefixtures("stored")
async def test_no_more_documents_are_in_computed_fields_than_the_grant_says(limiting) -> None:
    seen = []
    for stages in MADE_OF_MANY:
        result = await called(limiting, "aggregate", collection="events", pipeline=stages)
        if not result.get("isError"):
            seen.append(len(set(re.findall(r"event \d+", json.dumps(result["structuredContent"])))))
        else:
            assert decision(result)["reasons"][0]["code"] in ("obligation_unsupported", "trait_refused"), result
    assert seen
    assert max(seen) <= 3


@pytest.mark.usefixtures("stored")
async def test_no_more_documents_come_back_than_the_grant_says(limiting) -> None:
    for callers, most in ((None, 3), (2, 2), (3, 3), (4, 3), (0, 3), (-2, 3), (1000, 3)):
        limit = {} if callers is None else {"limit": callers}
        assert await ids(limiting, "find", sort={"_id": 1}, **limit) == [0, 1, 2][:most]
        assert limiting.all_reached()[-1]["arguments"]["limit"] == most
    assert await ids(limiting, "aggregate", pipeline=[{"$sort": {"_id": -1}}]) == [29, 28, 27]
    assert await ids(limiting, "aggregate", pipeline=[{"$sort": {"_id": -1}}, {"$limit": 2}]) == [29, 28]
    grouped = [{"$group": {"_id": "$day", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    assert await ids(limiting, "aggregate", pipeline=grouped) == [0, 1, 2]
    counted = await called(limiting, "count", collection="events")
    assert counted["structuredContent"] == {"count": 30}, "a count gives no document"


@pytest.mark.usefixtures("stored")
async def test_an_export_holds_no_more_and_is_read_by_who_made_it(limiting) -> None:
    target = [{"name": "find", "arguments": {"limit": 0}}]
    export = {**SALES, "collection": "events", "exportTitle": "e", "exportTarget": target}
    async with session(limiting, CLERK) as client:
        result = (await client.ask("tools/call", name="export", arguments=export))["result"]
        assert not result.get("isError"), result
        uri = next(part["uri"] for part in result["content"] if part["type"] == "resource_link")
        text = "still being generated"
        while "still being generated" in text:
            read = (await client.ask("resources/read", uri=uri))["result"]
            text = read["contents"][0]["text"]
    assert len(re.findall(r'"_id"', text)) == 3


ALL = {"$group": {"_id": None, "all": {"$push": "$$ROOT"}}}
PACKED = {
    "pushed": [ALL],
    "in a facet": [{"$facet": {"all": []}}],
    "joined to itself": [{"$limit": 1}, {"$lookup": {"from": "events", "as": "all", "pipeline": []}}],
    "copied": [{"$out": "copies"}],
    "merged": [{"$merge": {"into": "copies"}}],
    "pushed after a union": [{"$limit": 3}, {"$unionWith": "events"}, ALL],
}


@pytest.mark.parametrize("name", PACKED)
async def test_documents_in_lists_and_copies_are_no_way_around_it(limiting, stored, name: str) -> None:
    before = len(limiting.all_reached())
    result = await called(limiting, "aggregate", collection="events", pipeline=PACKED[name])
    assert decision(result)["reasons"][0]["code"] == "obligation_unsupported"
    assert "$limit" in result["content"][0]["text"]
    assert len(limiting.all_reached()) == before
    assert stored.sales.copies.count_documents({}) == 0


async def test_what_is_limited_first_may_be_collected_and_copied(limiting, stored) -> None:
    few = [{"$sort": {"_id": 1}}, {"$limit": 3}]
    result = await called(limiting, "aggregate", collection="events", pipeline=[*few, ALL])
    [document] = result["structuredContent"]["documents"]
    assert [one["_id"] for one in document["all"]] == [0, 1, 2]
    copied = await called(limiting, "aggregate", collection="events", pipeline=[*few, {"$merge": {"into": "copies"}}])
    assert not copied.get("isError"), copied
    assert sorted(one["_id"] for one in stored.sales.copies.find()) == [0, 1, 2]


def sent(deployment, method: str) -> list[Any]:
    """The messages of a method that reached the server which writes."""
    lines = (deployment.folder / "demo-rw.stdin").read_bytes().splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith(b"\n")]  # noqa: TID251 - what we sent ourselves
    return [one for one in told if one.get("method") == method]


@pytest.mark.usefixtures("stored")
async def test_a_call_is_ended_at_its_server_when_its_time_is_over(limiting) -> None:
    result = await called(limiting, "find", collection="archive")
    assert decision(result)["reasons"] == [{"code": "time_limit", "source": "sidecar", "access": None}]
    assert "structuredContent" not in result
    outcome = limiting.records()[-1]
    assert (outcome["outcome"]["status"], outcome["outcome"]["error"]) == ("error", "time_limit")
    # The answer does not wait until the server has read what it is told.
    async with asyncio.timeout(HANG_S):
        while not (cancelled := sent(limiting, "notifications/cancelled")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    calls = sent(limiting, "tools/call")
    [call] = [one for one in calls if one["params"]["arguments"].get("collection") == "archive"]
    assert [one["params"]["requestId"] for one in cancelled] == [call["id"]]
    assert await ids(limiting, "find", limit=1) == [0], "and the server goes on"


def records_since(deployment, seen: int) -> list[dict[str, Any]]:
    return [one for one in deployment.records()[seen:] if one["event"] in {"intent", "outcome", "refusal"}]


CHANGE = {"collection": "changes", "update": {"$set": {"seen": True}}}


@pytest.mark.parametrize(("tool", "more"), [("delete-many", {"collection": "changes"}), ("update-many", CHANGE)])
async def test_a_change_is_counted_first_and_of_no_more_than_the_grant_says(limiting, stored, tool, more) -> None:
    for wanted, count in (({}, 30), ({"day": {"$gte": 1}}, 22), ({"_id": {"$lte": 3}}, 4)):
        seen, before = len(limiting.records()), len(limiting.reached("demo-rw"))
        result = await called(limiting, tool, **more, **({"filter": wanted} if wanted else {}))
        assert decision(result)["reasons"][0]["code"] == "obligation_unsupported"
        assert f"it is of {count} documents, and at most 3" in result["content"][0]["text"]
        assert [one["name"] for one in limiting.reached("demo-rw")[before:]] == ["count"]
        assert stored.sales.changes.count_documents({"seen": {"$exists": False}}) == 30
        intent, outcome, refusal = records_since(limiting, seen)
        assert (intent["tool"], intent["event"], outcome["event"]) == ("count", "intent", "outcome")
        assert intent["probe"] == {"of": refusal["request_id"], "obligation": "max_affected"} == outcome["probe"]
        assert (refusal["tool"], refusal["event"]) == (tool, "refusal")
        assert intent["request_id"] == outcome["request_id"] != refusal["request_id"]
    result = await called(limiting, tool, filter={"_id": {"$lte": 2}}, **more)
    assert not result.get("isError"), result
    assert stored.sales.changes.count_documents({"_id": {"$gt": 2}, "seen": {"$exists": False}}) == 27
    assert stored.sales.changes.count_documents({"_id": {"$lte": 2}, "seen": {"$exists": False}}) == 0


async def test_an_upsert_and_an_insert_are_counted_too(limiting, stored) -> None:
    upsert = {**CHANGE, "filter": {"_id": 99}, "upsert": True}
    assert not (await called(limiting, "update-many", **upsert)).get("isError")
    assert stored.sales.changes.count_documents({"_id": 99, "seen": True}) == 1
    many = await called(limiting, "insert-many", collection="changes", documents=[{"new": True}] * 4)
    assert decision(many)["reasons"][0]["code"] == "obligation_unsupported"
    assert stored.sales.changes.count_documents({"new": True}) == 0
    few = await called(limiting, "insert-many", collection="changes", documents=[{"new": True}] * 3)
    assert not few.get("isError"), few


@pytest.mark.usefixtures("stored")
async def test_a_call_without_the_obligation_asks_nothing_first(limiting) -> None:
    before = len(limiting.all_reached())
    assert not (await called(limiting, "delete-many", collection="copies", filter={"a": 1})).get("isError")
    assert [one["name"] for one in limiting.all_reached()[before:]] == ["delete-many"]


SCANS: dict[str, tuple[str, dict[str, Any]]] = {
    "all": ("find", {}),
    "a field without an index": ("find", {"filter": {"text": "event 3"}, "limit": 1}),
    "one of two fields without an index": ("find", {"filter": {"$or": [{"day": 1}, {"text": "event 3"}]}}),
    "a count of all": ("count", {}),
    "a pipeline": ("aggregate", {"pipeline": [{"$match": {"text": "event 3"}}]}),
    "a pipeline that sorts by an index": (
        "aggregate",
        {"pipeline": [{"$sort": {"day": 1}}, {"$match": {"text": "x"}}]},
    ),
    "a deletion": ("delete-many", {"filter": {"text": "event 3"}}),
    "a join with itself": (
        "aggregate",
        {"pipeline": [{"$match": {"day": 1}}, {"$lookup": {"from": "indexed", "as": "x", "pipeline": []}}]},
    ),
    "a condition that is no plan's": ("find", {"filter": {"$expr": {"$eq": ["$text", "event 3"]}}}),
}


@pytest.mark.parametrize("name", SCANS)
async def test_a_call_that_scans_the_collection_reaches_no_document(limiting, stored, name: str) -> None:
    tool, arguments = SCANS[name]
    before = len(limiting.all_reached())
    result = await called(limiting, tool, collection="indexed", **arguments)
    assert decision(result)["reasons"][0]["code"] == "obligation_unsupported"
    assert "where an index finds the documents" in result["content"][0]["text"]
    assert {one["name"] for one in limiting.all_reached()[before:]} <= {"explain"}
    assert all(one["arguments"]["verbosity"] == "queryPlanner" for one in limiting.all_reached()[before:])
    assert stored.sales.indexed.count_documents({}) == 30


async def test_a_call_that_an_index_serves_goes_on(limiting, stored) -> None:
    for tool, arguments in (
        ("find", {"filter": {"day": 1}}),
        ("find", {"filter": {"_id": {"$in": [1, 2]}}}),
        ("count", {"query": {"day": {"$gt": 2}}}),
        ("aggregate", {"pipeline": [{"$match": {"day": 2}}, {"$group": {"_id": "$text"}}]}),
        ("delete-many", {"filter": {"day": 3}}),
    ):
        before = len(limiting.all_reached())
        result = await called(limiting, tool, collection="indexed", **arguments)
        assert not result.get("isError"), (result, arguments)
        names = [one["name"] for one in limiting.all_reached()[before:]]
        assert (set(names[:-1]), names[-1]) == ({"explain"}, tool)
    assert stored.sales.indexed.count_documents({"day": 3}) == 0


@pytest.mark.usefixtures("stored")
async def test_an_answer_has_no_more_bytes_than_the_grant_says(limiting) -> None:
    result = await called(limiting, "find", collection="texts", limit=1)
    assert not result.get("isError"), result
    for wanted in ({"limit": 10}, {"limit": 10, "responseBytesLimit": 1_000_000}):
        result = await called(limiting, "find", collection="texts", **wanted)
        assert limiting.all_reached()[-1]["arguments"]["responseBytesLimit"] == 2500 // 3
        assert len(json.dumps(result)) < 4000
    joined = [{"$group": {"_id": None, "all": {"$push": "$text"}}}]
    result = await called(limiting, "aggregate", collection="texts", pipeline=joined)
    assert "x" * 300 not in json.dumps(result)
    said = await called(limiting, "aggregate", collection="texts", pipeline=[{"$project": {"text": 0}}])
    assert not said.get("isError"), said
