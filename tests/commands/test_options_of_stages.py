"""Every stage has a closed list of options: what is not in it is refused, at any depth."""

import pytest

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue, ToolCall


def aggregate(stage):
    arguments: JsonObject = {
        "connectionId": "preconfigured",
        "database": "shop",
        "collection": "orders",
        "pipeline": [stage],
    }
    return derive(ToolCall(name="aggregate", arguments=arguments)).command


@pytest.mark.parametrize(
    ("attack", "near_miss"),
    [
        ({"$collStats": {"storageStats": {}, "coll": {"$out": "x"}}}, {"$collStats": {"storageStats": {"scale": 1}}}),
        ({"$collStats": {"storageStats": {"$out": "x"}}}, {"$collStats": {"count": {}}}),
        ({"$indexStats": {"x": 1}}, {"$indexStats": {}}),
        ({"$planCacheStats": {"$lookup": 1}}, {"$planCacheStats": {"allHosts": True}}),
        ({"$listSearchIndexes": {"from": "x"}}, {"$listSearchIndexes": {"name": "i"}}),
        ({"$search": {"$ref": "x", "$id": 1, "$out": "y"}}, {"$search": {"text": {"query": "a", "path": "b"}}}),
        ({"$searchMeta": {"coll": "x"}}, {"$searchMeta": {"count": {"type": "total"}}}),
        ({"$rerank": {"query": {"$out": "x"}}}, {"$rerank": {"query": {"text": "a"}}}),
        ({"$sort": {"n": {"$out": "x"}}}, {"$sort": {"n": -1}}),
        ({"$sort": {"n": [1]}}, {"$sort": {"score": {"$meta": "textScore"}}}),
        (
            {"$bucketAuto": {"groupBy": "$n", "buckets": {"$out": "x"}}},
            {"$bucketAuto": {"groupBy": "$n", "buckets": 4}},
        ),
        (
            {"$vectorSearch": {"index": "i", "path": "v", "queryVector": {"$out": "x"}, "limit": 3}},
            {"$vectorSearch": {"index": "i", "path": "v", "queryVector": [0.1], "limit": 3}},
        ),
    ],
)
def test_an_option_that_is_not_the_stages_own_is_refused(attack, near_miss):
    with pytest.raises(CommandNotDerivable):
        aggregate(attack)
    assert aggregate(near_miss).accesses


@pytest.mark.parametrize(
    ("attack", "near_miss"),
    [
        ({"$listLocalSessions": {"allUsers": True, "$lookup": "x"}}, {"$listLocalSessions": {"allUsers": True}}),
        ({"$currentOp": {"ns": "x"}}, {"$currentOp": {"allUsers": True, "idleSessions": True}}),
        ({"$queryStats": {"from": "x"}}, {"$queryStats": {}}),
    ],
)
def test_options_of_stages_that_run_on_a_database(attack, near_miss):
    arguments: JsonObject = {"connectionId": "preconfigured", "database": "admin"}
    with pytest.raises(CommandNotDerivable):
        derive(ToolCall(name="aggregate-db", arguments={**arguments, "pipeline": [attack]}))
    assert derive(ToolCall(name="aggregate-db", arguments={**arguments, "pipeline": [near_miss]})).command.accesses


def test_a_pointer_that_would_be_long_is_that_of_an_enclosing_value():
    pipeline: JsonValue = [{"$facet": {"f" * 200: [{"$lookup": {"from": "customers", "as": "c", "pipeline": []}}]}}]
    arguments: JsonObject = {"connectionId": "preconfigured", "database": "shop", "collection": "orders"}
    command = derive(ToolCall(name="aggregate", arguments={**arguments, "pipeline": pipeline})).command
    assert [access.via for access in command.accesses] == ["/arguments/collection", "/arguments/pipeline/0/$facet"]
