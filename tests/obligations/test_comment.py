"""The trace in a ``$comment``: where it stands, where it does not, and that it changes no answer."""

from typing import Any

import pytest

from sidecar.commands import derive
from sidecar.enforcement.discharge import hold_to
from sidecar.model import ToolCall
from sidecar.obligations import with_comment
from tests.obligations import filtered, oracle
from tests.obligations.everyday_queries import queries

OURS = "mcp-sidecar trace 1"
SALES = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
HEAD = {"$match": {"$comment": OURS}}


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments={**SALES, **arguments})


def noted(asked: ToolCall) -> ToolCall | None:
    return with_comment(asked, derive(asked).sites, OURS)


@pytest.mark.parametrize(
    ("asked", "key", "changed"),
    [
        (call("find", filter={"a": 1}), "filter", {"a": 1, "$comment": OURS}),
        (call("find"), "filter", {"$comment": OURS}),
        (call("find", filter={"$comment": "x"}), "filter", {"$and": [{"$comment": "x"}], "$comment": OURS}),
        (call("count", query={"a": 1}), "query", {"a": 1, "$comment": OURS}),
        (call("aggregate", pipeline=[]), "pipeline", [HEAD]),
        (call("aggregate", pipeline=[{"$sort": {"a": 1}}]), "pipeline", [HEAD, {"$sort": {"a": 1}}]),
        (call("aggregate", pipeline=[{"$match": {"a": 1}}]), "pipeline", [{"$match": {"a": 1, "$comment": OURS}}]),
        (
            call("update-many", filter={"a": 1}, update={"$set": {"b": 1}}),
            "filter",
            {"a": 1, "$comment": OURS},
        ),
    ],
    ids=["find", "no filter", "own comment", "count", "empty pipeline", "sort", "match", "update"],
)
def test_the_comment_stands_at_the_outermost_place(asked, key, changed):
    found = noted(asked)
    assert found is not None
    assert found.arguments == {**asked.arguments, key: changed}
    assert key not in asked.arguments or asked.arguments[key] != changed, "the call itself is not changed"


NEAR = {"near": {"type": "Point", "coordinates": [0, 0]}, "distanceField": "d", "key": "p"}


@pytest.mark.parametrize(
    "first",
    [
        {"$geoNear": NEAR},
        {"$sample": {"size": 3}},
        {"$count": "n"},
        {"$search": {"text": {"query": "x", "path": "a"}}},
        {"$indexStats": {}},
        {"$collStats": {"count": {}}},
    ],
    ids=lambda stage: next(iter(stage)),
)
def test_nothing_stands_before_a_stage_that_must_be_first_or_is_cheap_only_there(first):
    asked = call("aggregate", pipeline=[first])
    assert noted(asked) is None
    behind = call("aggregate", pipeline=[{"$match": {}}, {"$count": "n"}])
    assert noted(behind) is not None


@pytest.mark.parametrize(
    "asked",
    [
        call("delete-many", filter={"a": 1}),
        call("insert-many", documents=[{"a": 1}]),
        ToolCall(name="list-databases", arguments={"connectionId": "preconfigured"}),
        call("collection-schema"),
    ],
    ids=lambda asked: asked.name,
)
def test_other_tools_go_without(asked):
    assert noted(asked) is None


def test_the_comment_of_an_explained_or_exported_find_is_in_its_own_filter():
    inner = [{"name": "find", "arguments": {"filter": {"a": 1}}}]
    exported = noted(call("export", exportTitle="t", exportTarget=inner))
    assert exported is not None
    assert exported.arguments["exportTarget"] == [{"name": "find", "arguments": {"filter": {"a": 1, "$comment": OURS}}}]
    explained = noted(call("explain", method=inner))
    assert explained is not None
    assert explained.arguments["method"] == [{"name": "find", "arguments": {"filter": {"a": 1, "$comment": OURS}}}]


def test_most_everyday_queries_have_a_place_and_touch_the_same():
    without = []
    for query in queries():
        asked = ToolCall(name=query.tool, arguments=query.arguments)
        found = noted(asked)
        if found is None:
            without.append(query.id)
        else:
            hold_to(derive(asked), found, {})
    assert len(without) <= len(queries()) // 10


@pytest.mark.real
def test_no_everyday_query_answers_anything_else(database):
    differing = []
    with filtered.connect(database) as client:
        filtered.store_samples(client, 0)
        for query in queries():
            asked = ToolCall(name=query.tool, arguments=query.arguments)
            name = str(query.arguments["database"])
            found = noted(asked)
            if found is not None and oracle.perform(client, name, found) != oracle.perform(client, name, asked):
                differing.append(query.id)
    assert differing == []
