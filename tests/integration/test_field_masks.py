"""Field masks in a real deployment: nothing of a masked field comes back, in any form, and what is left can be used."""

import json
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import Person
from tests.integration.deployment import deployed
from tests.integration.obliged import SALES, TRAITS, call_as, policies_for
from tests.integration.without_search import without_search

SCOPES = ("mongodb:read", "mongodb:write", "mongodb:export")
CLERK = Person(user="carl", agent="front-desk", groups=("clerks",), scopes=SCOPES)
GRANTS = """
grant contains {"id": "clients-masked", "mask": {"ssn", "contact.email"}} if {
	input.access.kind in {"read", "insert", "update", "delete", "export"}
	lib.on("sales", ["clients"])
	lib.in_group("clerks")
}

reduced := {lib.last4("card"), lib.bucket("pay", 1000)}

grant contains {"id": "cards-reduced", "filter": {"open": true}, "mask": reduced} if {
	input.access.kind in {"read", "metadata"}
	lib.on("sales", ["cards"])
	lib.in_group("clerks")
}
"""
CLIENTS: list[dict[str, Any]] = [
    {"_id": 1, "name": "Ann", "ssn": "secret-1", "contact": {"email": "secret@a", "phone": "1"}},
    {"_id": 2, "name": "Ann", "ssn": "secret-2", "contact": [{"email": "secret@b"}, {"phone": "2"}]},
    {"_id": 3, "name": "Bob", "contact": None},
]
CARDS: list[dict[str, Any]] = [
    {"_id": 1, "client": 1, "open": True, "card": "4111-secret-1234", "pay": 12345},
    {"_id": 2, "client": 2, "open": True, "card": "4111-secret-5678", "pay": 12999},
    {"_id": 3, "client": 2, "open": False, "card": "4111-secret-9999", "pay": 5},
]


@pytest.fixture(scope="module")
def masking(tmp_path_factory, database):
    folder = tmp_path_factory.mktemp("masks")
    policies = policies_for(folder, CLERK, GRANTS, traits=(*TRAITS, "unbounded"))
    with (
        without_search(database) as uri,
        deployed(folder, uri, policies=policies, of_servers='tool_groups = ["export"]') as running,
    ):
        yield running


@pytest.fixture
async def stored(database):
    await demo_database.seed(database)
    with MongoClient[dict[str, Any]](database) as client:
        for name, rows in (("clients", CLIENTS), ("cards", CARDS)):
            client.sales.drop_collection(name)
            client.sales[name].insert_many(rows)
        yield client.sales


called = partial(call_as, CLERK)


def given(result: dict[str, Any]) -> Any:
    """The documents, in both of the forms in which they come back."""
    assert not result.get("isError"), result
    assert "secret" not in json.dumps(result)
    found = result["structuredContent"]["documents"]
    assert json.dumps(found, separators=(",", ":")) in result["content"][1]["text"].replace('": ', '":')
    return found


def refusal(result: dict[str, Any]) -> str:
    assert result["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "obligation_unsupported", result
    text: str = result["content"][0]["text"]
    assert "secret" not in text
    return text


async def test_find_gives_the_rest_of_each_document(masking, stored):
    assert given(await called(masking, "find", collection="clients", sort={"_id": 1})) == [
        {"_id": 1, "name": "Ann", "contact": {"phone": "1"}},
        {"_id": 2, "name": "Ann", "contact": [{}, {"phone": "2"}]},
        {"_id": 3, "name": "Bob", "contact": None},
    ]
    named = {"contact": 1, "ssn": 1, "_id": 0}
    assert given(await called(masking, "find", collection="clients", projection=named, sort={"_id": 1})) == [
        {"contact": {"phone": "1"}},
        {"contact": [{}, {"phone": "2"}]},
        {"contact": None},
    ]
    shown = await called(masking, "find", collection="cards", projection={"card": 1, "pay": 1}, sort={"_id": 1})
    assert given(shown) == [{"_id": 1, "card": "1234", "pay": 12000}, {"_id": 2, "card": "5678", "pay": 12000}]


async def test_find_of_all_fields_gives_parts_of_some_and_answers_as_find_does(masking, stored):
    result = await called(masking, "find", collection="cards", sort={"_id": -1}, filter={"client": {"$gt": 0}}, limit=9)
    assert given(result) == [
        {"_id": 2, "client": 2, "open": True, "card": "5678", "pay": 12000},
        {"_id": 1, "client": 1, "open": True, "card": "1234", "pay": 12000},
    ]
    assert result["structuredContent"].keys() == {"documents", "appliedLimits"}
    assert result["content"][0]["text"] == 'Query on collection "cards" gave 2 documents.'
    assert masking.reached("demo-rw")[-1]["name"] == "aggregate"
    failed = await called(masking, "find", collection="cards", filter={"client": {"$regex": "("}})
    assert failed["isError"]
    async with masking.client(CLERK) as client:  # it holds the answer to the schema of find
        kept = await client.call_tool("find", {**SALES, "collection": "cards", "projection": {"client": 0}})
        assert not kept.is_error, kept


async def test_pipelines_group_join_and_take_apart_what_is_left(masking, stored):
    join = {"from": "cards", "localField": "_id", "foreignField": "client", "as": "cards"}
    everything = [{"$lookup": join}, {"$sort": {"_id": 1}}, {"$replaceWith": {"all": {"$objectToArray": "$$ROOT"}}}]
    found = given(await called(masking, "aggregate", collection="clients", pipeline=everything))
    assert [[pair["k"] for pair in one["all"]] for one in found] == [["_id", "name", "contact", "cards"]] * 3
    assert found[0]["all"][3]["v"] == [{"_id": 1, "client": 1, "open": True, "card": "1234", "pay": 12000}]
    grouped = [{"$group": {"_id": "$pay", "n": {"$sum": 1}, "cards": {"$push": "$card"}}}]
    found = given(await called(masking, "aggregate", collection="cards", pipeline=grouped))
    assert found == [{"_id": 12000, "n": 2, "cards": ["1234", "5678"]}]
    matched = [{"$match": {"ssn": {"$exists": True}}}, {"$count": "n"}]
    found = given(await called(masking, "aggregate", collection="clients", pipeline=matched))
    assert found in ([], [{"n": 0}])  # the stand-in counts nothing, MongoDB does not count at all


async def test_a_refusal_says_which_field_and_what_to_do(masking, stored):
    text = refusal(await called(masking, "count", collection="clients", query={"ssn": {"$regex": "^s"}}))
    assert "only without some fields" in text
    assert "looks at ssn, which you may not see" in text
    assert "name the fields" in refusal(await called(masking, "find", collection="cards", limit=0))
    for tool, more in (
        ("collection-schema", {}),
        ("find", {"sort": {"contact.email": 1}}),
        ("find", {"projection": {"x": "$ssn"}}),
        ("update-many", {"filter": {"_id": 1}, "update": {"$rename": {"ssn": "shown"}}}),
        ("insert-many", {"documents": [{"_id": 9, "ssn": "x"}]}),
        ("delete-many", {"filter": {"ssn": "secret-1"}}),
    ):
        refusal(await called(masking, tool, collection="clients", **more))
    assert list(stored.clients.find()) == CLIENTS


async def test_the_servers_words_of_a_failure_are_withheld(masking, stored):
    fails = [{"$project": {"x": {"$toInt": "$name"}}}]
    result = await called(masking, "aggregate", collection="clients", pipeline=fails)
    assert result["isError"]
    assert "withheld" in result["content"][0]["text"]
    taken = await called(masking, "insert-many", collection="clients", documents=[{"_id": 1, "name": "x"}])
    assert taken["isError"]
    assert "withheld" in taken["content"][0]["text"]


async def test_an_export_holds_nothing_of_a_masked_field_and_is_read_by_its_maker(masking, stored):
    target = [{"name": "find", "arguments": {"filter": {"name": "Ann"}}}]
    arguments = {**SALES, "collection": "clients", "exportTitle": "t", "exportTarget": target}
    async with masking.client(CLERK) as client:
        made = await client.call_tool("export", arguments)
        assert not made.is_error, made
        uri = next(str(part.uri) for part in made.content if part.type == "resource_link")
        text = "still being generated"
        while "still being generated" in text:
            text = (await client.read_resource(uri)).contents[0].text
    assert "Ann" in text
    assert "secret" not in text


async def test_writes_beside_a_masked_field_work(masking, stored):
    done = await called(
        masking, "update-many", collection="clients", filter={"_id": 1}, update={"$set": {"contact.phone": "9"}}
    )
    assert not done.get("isError"), done
    assert stored.clients.find_one({"_id": 1})["contact"] == {"email": "secret@a", "phone": "9"}


async def test_indexes_are_shown_but_those_of_masked_fields(masking, stored):
    stored.cards.create_index("client")
    stored.cards.create_index("card", name="by secret card")
    stored.cards.create_index([("open", 1), ("pay", -1)])
    stored.cards.create_index([("client", 1), ("open", 1)], name="of secret clients")
    result = await called(masking, "collection-indexes", collection="cards")
    assert not result.get("isError"), result
    entries = [
        {"name": "_id_", "key": {"_id": 1}},
        {"name": "client_1", "key": {"client": 1}},
        {"name": "(withheld)", "key": {"client": 1, "open": 1}},
    ]
    assert result["structuredContent"] == {
        "classicIndexes": entries,
        "searchIndexes": [],
        "classicIndexesCount": 3,
        "searchIndexesCount": 0,
    }
    assert result["content"][0]["text"] == "Found 3 classic indexes in the requested collection:"
    assert json.dumps(entries, separators=(",", ":")) in result["content"][1]["text"]
    assert not {"secret", "pay", "by"} & set(json.dumps(result["structuredContent"]).replace('"', " ").split())
    async with masking.client(CLERK) as client:  # it holds the answer to the schema of the tool
        again = await client.call_tool("collection-indexes", {**SALES, "collection": "cards"})
        assert not again.is_error, again
    assert masking.reached("demo-rw")[-1]["name"] == "collection-indexes"
