"""Row filters in a real deployment: a caller gets what a database of nothing but the caller's rows would give."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import Person
from tests.integration.deployment import deployed
from tests.integration.obliged import SALES, call_as, policies_for

SCOPES = ("mongodb:read", "mongodb:write", "mongodb:export")
EDITOR = Person(user="edda", agent="eu-desk", groups=("eu-editors",), scopes=SCOPES)
GRANTS = """
grant contains {"id": "eu-rows", "filter": {"region": "EU"}} if {
	input.access.kind in {"read", "insert", "update", "delete", "export"}
	lib.on("sales", ["shipments", "parcels"])
	lib.in_group("eu-editors")
}

grant contains {"id": "this-year", "filter": {
	"day": {"$gte": {"$date": "2026-01-01T00:00:00Z"}, "$lt": {"$date": "2027-01-01T00:00:00Z"}},
	"by": {"$oid": "0123456789abcdef01234567"},
}} if {
	input.access.kind in {"read", "insert", "update", "delete"}
	lib.on("sales", ["visits"])
	lib.in_group("eu-editors")
}

grant contains {"id": "eu-metadata"} if {
	lib.reads_metadata
	lib.on("sales", ["shipments"])
	lib.in_group("eu-editors")
}

grant contains {"id": "open"} if {
	lib.reads
	lib.on("sales", ["depots", "open_shipments"])
	lib.in_group("eu-editors")
}
"""
ROWS: dict[str, list[dict[str, Any]]] = {
    "shipments": [
        {"_id": 1, "region": "EU", "weight": 5, "depot": "a", "next": 3},
        {"_id": 2, "region": "EU", "weight": 7, "depot": "b", "next": 1},
        {"_id": 3, "region": "US", "weight": 0, "depot": "a", "next": 2},
        {"_id": 4, "weight": 13, "depot": "a", "next": 1},
        {"_id": 5, "region": None, "weight": 17, "depot": "b", "next": 1},
    ],
    "parcels": [
        {"_id": 1, "region": "EU", "shipment": 1, "value": 10},
        {"_id": 2, "region": "US", "shipment": 1, "value": 20},
        {"_id": 3, "region": "EU", "shipment": 3, "value": 30},
        {"_id": 4, "region": "US", "shipment": 2, "value": 40},
    ],
    "depots": [{"_id": "a", "city": "Oslo"}, {"_id": "b", "city": "Rome"}],
}
JOIN = {"from": "parcels", "localField": "_id", "foreignField": "shipment", "as": "parcels"}
PIPELINES: dict[str, list[dict[str, Any]]] = {
    "all": [],
    "a match that asks for the others": [
        {"$match": {"$or": [{"region": "US"}, {"region": "EU"}]}},
        {"$sort": {"_id": 1}},
    ],
    "a match that names the field again": [{"$match": {"region": "US"}}],
    "a condition that fails on hidden rows": [{"$match": {"$expr": {"$gt": [{"$divide": [70, "$weight"]}, 10]}}}],
    "the same further on": [{"$sort": {"_id": 1}}, {"$match": {"$expr": {"$gt": [{"$divide": [70, "$weight"]}, 1]}}}],
    "group": [{"$group": {"_id": "$region", "n": {"$sum": 1}, "all": {"$push": "$$ROOT"}}}],
    "count": [{"$count": "n"}],
    "lookup by fields": [{"$lookup": JOIN}, {"$sort": {"_id": 1}}],
    "lookup and unwind": [{"$lookup": JOIN}, {"$unwind": "$parcels"}, {"$match": {"parcels.value": {"$gt": 5}}}],
    "lookup with a pipeline": [
        {
            "$lookup": {
                "from": "parcels",
                "let": {"id": "$_id"},
                "as": "p",
                "pipeline": [{"$match": {"$expr": {"$eq": ["$shipment", "$$id"]}}}, {"$project": {"value": 1}}],
            }
        },
        {"$sort": {"_id": 1}},
    ],
    "lookup of itself": [{"$lookup": {"from": "shipments", "as": "all", "pipeline": []}}, {"$sort": {"_id": 1}}],
    "lookup from an open collection": [
        {"$lookup": {"from": "depots", "localField": "depot", "foreignField": "_id", "as": "d"}},
        {"$sort": {"_id": 1}},
    ],
    "union": [{"$unionWith": "parcels"}, {"$sort": {"value": 1, "_id": 1}}],
    "union with a pipeline": [{"$unionWith": {"coll": "shipments", "pipeline": [{"$match": {"weight": {"$gt": 0}}}]}}],
    "facet": [{"$facet": {"n": [{"$count": "n"}], "joined": [{"$lookup": JOIN}], "more": [{"$unionWith": "parcels"}]}}],
    "joins inside joins": [
        {
            "$facet": {
                "f": [
                    {
                        "$lookup": {
                            "from": "depots",
                            "as": "d",
                            "pipeline": [
                                {"$lookup": {"from": "parcels", "as": "p", "pipeline": [{"$unionWith": "shipments"}]}}
                            ],
                        }
                    }
                ]
            }
        },
    ],
}


@pytest.fixture(scope="module")
def filtering(tmp_path_factory, database):
    folder = tmp_path_factory.mktemp("rows")
    policies = policies_for(folder, EDITOR, GRANTS)
    with deployed(folder, database, policies=policies, of_servers='tool_groups = ["export"]') as running:
        yield running


@pytest.fixture
async def stored(database):
    """All rows, and a second database that holds nothing but the rows that the caller may see."""
    await demo_database.seed(database)
    with MongoClient[dict[str, Any]](database) as client:
        for name, rows in ROWS.items():
            for place in (client.sales, client.permitted):
                place.drop_collection(name)
            client.sales[name].insert_many(rows)
            client.permitted[name].insert_many([row for row in rows if name == "depots" or row.get("region") == "EU"])
        client.sales.shipments.create_index("depot", name="depot_index")
        yield client
        client.drop_database("permitted")


called = partial(call_as, EDITOR)


def refusal(result: dict[str, Any]) -> str:
    assert result["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "obligation_unsupported", result
    text: str = result["content"][0]["text"]
    return text


@pytest.mark.parametrize("name", PIPELINES)
async def test_a_pipeline_gives_what_it_gives_on_the_permitted_rows_alone(filtering, stored, name):
    pipeline = PIPELINES[name]
    result = await called(filtering, "aggregate", collection="shipments", pipeline=pipeline)
    expected = list(stored.permitted.shipments.aggregate(pipeline))
    assert not result.get("isError"), result
    assert result["structuredContent"]["documents"] == expected
    assert result["structuredContent"]["count"] == len(expected)


async def test_find_and_count_and_explain_see_the_permitted_rows_alone(filtering, stored):
    query = {"$or": [{"region": "US"}, {"weight": {"$gt": 0}}]}
    found = await called(filtering, "find", collection="shipments", filter=query, sort={"_id": 1})
    assert [row["_id"] for row in found["structuredContent"]["documents"]] == [1, 2]
    everything = await called(filtering, "find", collection="shipments", limit=0)
    assert everything["structuredContent"]["queryResultsCount"] == 2
    counted = await called(filtering, "count", collection="shipments", query=query)
    assert counted["structuredContent"]["count"] == 2
    assert (await called(filtering, "count", collection="shipments"))["structuredContent"]["count"] == 2
    method = [{"name": "find", "arguments": {"filter": query}}]
    explained = await called(filtering, "explain", collection="shipments", method=method)
    assert not explained.get("isError")
    assert filtering.reached("demo-rw")[-1]["arguments"]["method"][0]["arguments"]["filter"] == {
        "$and": [{"region": "EU"}, query]
    }


async def test_an_export_holds_the_permitted_rows_alone(filtering, stored):
    target = [{"name": "find", "arguments": {"filter": {"weight": {"$gte": 0}}}}]
    result = await called(filtering, "export", collection="shipments", exportTitle="t", exportTarget=target)
    assert not result.get("isError"), result
    sent = filtering.reached("demo-rw")[-1]["arguments"]["exportTarget"][0]["arguments"]["filter"]
    assert sent == {"$and": [{"region": "EU"}, {"weight": {"$gte": 0}}]}


async def test_an_export_is_read_by_those_who_are_held_to_the_same_rows(filtering, stored):
    """The file holds the rows of the filter that it was made under."""
    target = [{"name": "find", "arguments": {"filter": {"weight": {"$gte": 0}}}}]
    arguments = {**SALES, "collection": "shipments", "exportTitle": "t", "exportTarget": target}
    async with filtering.client(EDITOR) as client:
        made = await client.call_tool("export", arguments)
        assert not made.is_error, made
        uri = next(str(part.uri) for part in made.content if part.type == "resource_link")
        text = "still being generated"
        while "still being generated" in text:
            text = (await client.read_resource(uri)).contents[0].text
    assert sorted(re.findall(r'"_id":\s*(\d+)', text)) == ["1", "2"], text


async def test_a_graph_lookup_is_restricted_on_the_wire(filtering, stored):
    graph = {"from": "shipments", "startWith": "$next", "connectFromField": "next", "connectToField": "_id", "as": "g"}
    mine = {"weight": {"$gt": 1}}
    pipeline = [{"$graphLookup": graph}, {"$graphLookup": {**graph, "restrictSearchWithMatch": mine}}]
    await called(filtering, "aggregate", collection="shipments", pipeline=pipeline)
    sent = filtering.reached("demo-rw")[-1]["arguments"]["pipeline"]
    assert sent == [
        {"$match": {"region": "EU"}},
        {"$graphLookup": {**graph, "restrictSearchWithMatch": {"region": "EU"}}},
        {"$graphLookup": {**graph, "restrictSearchWithMatch": {"$and": [{"region": "EU"}, mine]}}},
    ]


async def test_writes_change_permitted_rows_alone_and_none_leaves(filtering, stored):
    hidden = list(stored.sales.shipments.find({"region": {"$ne": "EU"}}))
    update = await called(filtering, "update-many", collection="shipments", update={"$set": {"seen": True}})
    assert not update.get("isError"), update
    assert stored.sales.shipments.count_documents({"seen": True}) == 2
    moved = await called(filtering, "update-many", collection="shipments", update={"$set": {"region": "US"}})
    assert "$set of region" in refusal(moved)
    kept = await called(filtering, "insert-many", collection="shipments", documents=[{"_id": 9, "region": "EU"}])
    assert not kept.get("isError"), kept
    for strange in ({"region": "US"}, {}, {"region": None}, {"region": ["EU"]}):
        planted = await called(filtering, "insert-many", collection="shipments", documents=[{"region": "EU"}, strange])
        assert "document 1" in refusal(planted)
    deleted = await called(filtering, "delete-many", collection="shipments", filter={"weight": {"$gte": 0}})
    assert not deleted.get("isError"), deleted
    assert list(stored.sales.shipments.find({"region": {"$ne": "EU"}})) == hidden
    assert [row["_id"] for row in stored.sales.shipments.find({"region": "EU"})] == [9]


async def test_an_upsert_inserts_a_permitted_row_or_is_refused(filtering, stored):
    update = {"$set": {"weight": 1}}
    planted = await called(
        filtering, "update-many", collection="shipments", filter={"_id": 20}, update=update, upsert=True
    )
    assert "upsert" in refusal(planted)
    mine = {"_id": 20, "region": "EU"}
    result = await called(filtering, "update-many", collection="shipments", filter=mine, update=update, upsert=True)
    assert not result.get("isError"), result
    assert stored.sales.shipments.find_one({"_id": 20}) == {**mine, "weight": 1}
    taken = await called(
        filtering, "update-many", collection="shipments", filter={"_id": 3, "region": "EU"}, update=update, upsert=True
    )
    assert taken["isError"]
    assert "withheld" in taken["content"][0]["text"]
    assert not re.search("dup|E11000|US", str(taken))
    assert stored.sales.shipments.find_one({"_id": 3})["weight"] == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("collection-schema", {}, "condition|for some documents"),
        ("aggregate", {"pipeline": [{"$searchMeta": {"count": {"type": "total"}}}]}, r"\$searchMeta counts"),
        ("aggregate", {"pipeline": [{"$collStats": {"count": {}}}]}, r"\$collStats"),
        ("aggregate", {"pipeline": [{"$merge": {"into": "parcels"}}]}, r"\$merge has no place"),
        ("find", {"filter": {"$expr": {"$gt": [{"$divide": [1, "$weight"]}, 1]}}}, r"\$expr"),
        ("explain", {"method": [{"name": "find", "arguments": {}}], "verbosity": "executionStats"}, "verbosity"),
    ],
    ids=["schema", "searchMeta", "collStats", "merge", "failing condition", "executing explain"],
)
async def test_what_cannot_be_held_to_rows_is_refused_and_says_why(filtering, stored, tool, arguments, said):
    before = len(filtering.all_reached())
    result = await called(filtering, tool, collection="shipments", **arguments)
    assert result["isError"]
    assert re.search(said, result["content"][0]["text"]), result
    assert len(filtering.all_reached()) == before


async def test_evidence_says_which_rows_a_call_was_held_to(filtering, stored):
    await called(filtering, "find", collection="shipments", filter={"weight": 5})
    intent = [record for record in filtering.records() if record["event"] == "intent"][-1]
    assert intent["obligations"][0]["filter"] == {"region": "EU"}


HER: dict[str, Any] = {"$oid": "0123456789abcdef01234567"}
OTHER: dict[str, Any] = {"$oid": "f" * 24}
VISITS: dict[int, Any] = {
    1: (datetime(2026, 1, 1, tzinfo=UTC), HER),
    2: (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), HER),
    3: (datetime(2027, 1, 1, tzinfo=UTC), HER),
    4: (datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), HER),
    5: (datetime(2026, 5, 1, tzinfo=UTC), OTHER),
    6: ("2026-05-01T00:00:00Z", HER),
    7: (datetime(2026, 5, 1, tzinfo=UTC), None),
}


async def test_dates_and_object_ids_of_a_filter_are_compared_as_such(filtering, stored) -> None:
    visits = stored.sales.visits
    visits.drop()
    rows = [{"_id": key, "day": day, "by": by and ObjectId(by["$oid"])} for key, (day, by) in VISITS.items()]
    visits.insert_many([*rows, {"_id": 8, "day": rows[0]["day"], "by": HER["$oid"]}])
    found = await called(filtering, "find", collection="visits", filter={"_id": {"$gt": 0}}, limit=50)
    assert sorted(one["_id"] for one in found["structuredContent"]["documents"]) == [1, 2]
    counted = await called(filtering, "count", collection="visits", query={"by": OTHER})
    assert counted["structuredContent"]["count"] == 0
    piped = await called(
        filtering, "aggregate", collection="visits", pipeline=[{"$group": {"_id": None, "n": {"$sum": 1}}}]
    )
    assert piped["structuredContent"]["documents"] == [{"_id": None, "n": 2}]

    day: dict[str, Any] = {"$date": "2026-06-01T08:00:00.000Z"}
    mine = await called(filtering, "insert-many", collection="visits", documents=[{"_id": 9, "day": day, "by": HER}])
    assert not mine.get("isError"), mine
    assert visits.count_documents({"day": datetime(2026, 6, 1, 8, tzinfo=UTC), "by": ObjectId(HER["$oid"])}) == 1
    for others in (
        {"day": day, "by": OTHER},
        {"day": day, "by": HER["$oid"]},
        {"day": "2026-06-01T08:00:00.000Z", "by": HER},
        {"day": {"$date": "2027-06-01T08:00:00Z"}, "by": HER},
        {"day": {"$date": {"$numberLong": "1780300800000"}}, "by": HER},
        {"day": [day], "by": HER},
    ):
        refused = await called(filtering, "insert-many", collection="visits", documents=[{"_id": 10, **others}])
        assert refused["_meta"]["mcp-sidecar/decision"]["allow"] is False
    assert visits.count_documents({"_id": 10}) == 0
    await called(filtering, "delete-many", collection="visits", filter={"_id": {"$gt": 0}})
    assert sorted(one["_id"] for one in visits.find()) == [3, 4, 5, 6, 7, 8]
