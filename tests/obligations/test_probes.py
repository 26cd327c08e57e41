"""What the server is asked before a call goes there, and which answers let it go."""

import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.commands import derive
from sidecar.errors import ObligationNotSupported
from sidecar.model import (
    Access,
    AccessKind,
    AccessVerdict,
    Decision,
    JsonObject,
    Namespace,
    Target,
    TargetKind,
    ToolCall,
)
from sidecar.obligations import Plan, plan
from sidecar.obligations.probes import Probe
from sidecar.sites import Derivation, Site, SiteForm

ORDERS: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
MINE: dict[str, Any] = {"status": "open"}
COUNTED: dict[str, Any] = {"$group": {"_id": 1, "n": {"$sum": 1}}}
UPDATE: dict[str, Any] = {"$set": {"a": 1}}


def planned(tool: str, on: str = "orders", *, collection: str = "orders", arguments: Any, **obligation: Any) -> Plan:
    call = ToolCall(name=tool, arguments={**ORDERS, "collection": collection, **arguments})
    derivation = derive(call)
    verdicts = tuple(
        AccessVerdict(owner="o", grants=("g",), **(obligation if access.namespace.collection == on else {}))
        for access in derivation.command.accesses
    )
    return plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)


def asked(tool: str, arguments: Any, **obligation: Any) -> list[tuple[str, JsonObject]]:
    """The calls that are made first, without the names of the collection."""
    todo = planned(tool, arguments=arguments, **obligation)
    return [
        (one.call.name, {key: value for key, value in one.call.arguments.items() if key not in ORDERS})
        for one in todo.probes
    ]


def explained(*pipelines: list[Any]) -> list[tuple[str, JsonObject]]:
    return [
        ("explain", {"method": [{"name": "aggregate", "arguments": {"pipeline": one}}], "verbosity": "queryPlanner"})
        for one in pipelines
    ]


@pytest.mark.parametrize(("tool", "more"), [("delete-many", {}), ("update-many", {"update": UPDATE})])
def test_what_is_changed_is_counted_with_the_filter_that_is_sent(tool: str, more: JsonObject) -> None:
    assert asked(tool, {"filter": MINE, **more}, max_affected=5) == [("count", {"query": MINE})]
    assert asked(tool, {**more}, max_affected=5) == [("count", {"query": {}})]
    held: JsonObject = {"$and": [{"region": "EU"}, MINE]}
    assert asked(tool, {"filter": MINE, **more}, max_affected=5, filter={"region": "EU"}) == [
        ("count", {"query": held})
    ]
    assert asked(tool, {"filter": MINE, **more}) == [], "nothing is asked without the obligation"


def test_inserts_are_counted_as_they_are() -> None:
    documents = [{"a": 1}] * 3
    assert asked("insert-many", {"documents": documents}, max_affected=3) == []
    with pytest.raises(ObligationNotSupported) as caught:
        asked("insert-many", {"documents": documents}, max_affected=2)
    assert caught.value.conditions == ("max_affected",)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("drop-collection", {}),
        ("aggregate", {"pipeline": [{"$merge": {"into": "orders"}}]}),
        ("aggregate", {"pipeline": [{"$out": "orders"}]}),
        ("rename-collection", {"newName": "other"}),
        ("create-collection", {}),
    ],
)
def test_a_change_that_cannot_be_counted_before_is_refused(tool: str, arguments: Any) -> None:
    with pytest.raises(ObligationNotSupported) as caught:
        asked(tool, arguments, max_affected=5)
    assert caught.value.conditions == ("max_affected",)
    assert caught.value.access is not None


GENERIC: dict[str, Any] = {"target": Target(kind=TargetKind.TOOL, id="report")}


@pytest.mark.parametrize("part", ["max_affected", "no_collection_scan", "max_time_ms", "max_documents"])
def test_of_a_tool_that_nothing_is_known_of_no_limit_is_believed(part: str) -> None:
    access = Access(kind=AccessKind.EXECUTE, namespace=Namespace(), via="/name", target=GENERIC["target"])
    command = replace(derive(ToolCall(name="find", arguments=ORDERS)).command, tool="report", accesses=(access,))
    derivation = Derivation(command=command, sites=(Site(0, (), SiteForm.NONE),))
    obligation: dict[str, Any] = {part: part == "no_collection_scan" or 5}
    verdict = AccessVerdict(owner="o", grants=("g",), **obligation)
    decision = Decision(allow=True, reasons=(), server="s", accesses=(verdict,), revision="r")
    with pytest.raises(ObligationNotSupported) as caught:
        plan(decision, ToolCall(name="report", arguments={}), derivation)
    assert caught.value.conditions == (part,)
    sized = replace(decision, accesses=(AccessVerdict(owner="o", grants=("g",), max_bytes=5),))
    assert plan(sized, ToolCall(name="report", arguments={}), derivation).most_bytes == 5


def test_an_index_is_made_by_looking_at_all_documents() -> None:
    definition = [{"type": "classic", "keys": {"a": 1}}]
    with pytest.raises(ObligationNotSupported) as caught:
        asked("create-index", {"name": "a", "definition": definition}, no_collection_scan=True)
    assert caught.value.conditions == ("no_collection_scan",)


def test_a_read_affects_nothing() -> None:
    assert asked("find", {}, max_affected=1) == []


def test_a_plan_is_asked_of_everything_that_the_server_makes_of_a_call() -> None:
    scan: dict[str, Any] = {"no_collection_scan": True}
    query: dict[str, Any] = {"$match": MINE}
    assert asked("find", {"filter": MINE, "limit": 1}, **scan) == explained([query, COUNTED])
    assert asked("find", {}, **scan) == explained([{"$match": {}}, COUNTED])
    assert asked("count", {"query": MINE}, **scan) == explained([query, COUNTED])
    assert asked("delete-many", {"filter": MINE}, **scan) == explained([query, COUNTED])
    assert asked("update-many", {"filter": MINE, "update": UPDATE}, **scan) == explained([query, COUNTED])
    assert asked("aggregate", {"pipeline": [query]}, **scan) == explained([query], [query, {"$count": "n"}])
    assert asked("aggregate", {"pipeline": [query, {"$out": "x"}]}, **scan) == explained(
        [query], [query, {"$count": "n"}]
    )
    export = {"exportTitle": "t", "exportTarget": [{"name": "find", "arguments": {"filter": MINE}}]}
    assert asked("export", export, **scan) == explained([query, COUNTED])
    method = {"method": [{"name": "count", "arguments": {"query": MINE}}], "verbosity": "executionStats"}
    assert asked("explain", method, **scan) == explained([query, COUNTED])
    assert asked("insert-many", {"documents": [{"a": 1}]}, **scan) == []


@pytest.mark.parametrize("order", [{"$natural": 1}, {"$natural": -1}, {"a": 1, "$natural": 1}])
def test_the_natural_order_is_a_scan_whatever_plan_the_filter_has(order: Any) -> None:
    found = {"filter": MINE, "sort": order}
    for tool, arguments in (
        ("find", found),
        ("explain", {"method": [{"name": "find", "arguments": found}]}),
        ("export", {"exportTitle": "t", "exportTarget": [{"name": "find", "arguments": found}]}),
    ):
        with pytest.raises(ObligationNotSupported) as caught:
            planned(tool, arguments=arguments, no_collection_scan=True)
        assert caught.value.conditions == ("no_collection_scan",)
        assert "$natural" in caught.value.because
    assert asked("find", {"filter": MINE, "sort": {"a": 1}}, no_collection_scan=True)
    assert asked("find", found) == []


def test_a_plan_is_asked_of_the_call_with_its_filter_and_its_limit() -> None:
    call = asked("aggregate", {"pipeline": []}, no_collection_scan=True, max_documents=5, filter={"region": "EU"})
    stages: list[Any] = [{"$match": {"region": "EU"}}, {"$limit": 5}]
    assert call == explained(stages, [*stages, {"$count": "n"}])


JOIN = {"from": "parcels", "localField": "_id", "foreignField": "order", "as": "p"}


@pytest.mark.parametrize(
    ("on", "stage"),
    [
        ("parcels", {"$lookup": JOIN}),
        ("parcels", {"$unionWith": "parcels"}),
        ("orders", {"$lookup": {**JOIN, "from": "orders"}}),
        ("parcels", {"$facet": {"a": [{"$lookup": JOIN}]}}),
    ],
)
def test_a_place_that_no_plan_tells_of_is_refused(on: str, stage: Any) -> None:
    with pytest.raises(ObligationNotSupported) as caught:
        planned("aggregate", on, arguments={"pipeline": [{"$match": MINE}, stage]}, no_collection_scan=True)
    assert caught.value.conditions == ("no_collection_scan",)


def test_another_collection_may_be_joined_as_it_likes() -> None:
    todo = planned("aggregate", arguments={"pipeline": [{"$lookup": JOIN}]}, no_collection_scan=True)
    assert len(todo.probes) == 2


def test_a_sample_has_no_plan() -> None:
    with pytest.raises(ObligationNotSupported):
        planned("collection-schema", arguments={}, no_collection_scan=True)


def judged(structured: Any, *, failed: bool = False, most: int = 0) -> str:
    """Why an answer does not let the call go; empty where it does."""
    probe = Probe(
        obligation="max_affected" if most else "no_collection_scan",
        access=0,
        call=ToolCall(name="x", arguments={}),
        most=most,
    )
    try:
        probe.judge(json.dumps({"content": [], "structuredContent": structured}).encode(), failed=failed)
    except ObligationNotSupported as error:
        return error.because
    return ""


def test_a_count_lets_a_call_go_up_to_the_number() -> None:
    assert judged({"count": 5}, most=5) == ""
    assert judged({"count": 0}, most=5) == ""
    assert "of 6 documents" in judged({"count": 6}, most=5)
    for count in (True, None, "5", 5.0, [5]):
        assert "cannot count" in judged({"count": count}, most=5)
    assert "cannot count" in judged({"count": 1}, most=5, failed=True)
    assert "cannot count" in judged(None, most=5)


IXSCAN: dict[str, Any] = {"stage": "FETCH", "inputStage": {"stage": "IXSCAN", "indexName": "a_1"}}
COLLSCAN: dict[str, Any] = {"stage": "COLLSCAN", "direction": "forward"}


def planner(plan_: Any) -> dict[str, Any]:
    return {"queryPlanner": {"winningPlan": plan_, "rejectedPlans": []}}


@pytest.mark.parametrize(
    "explain",
    [
        planner(IXSCAN),
        planner({"isCached": False, "queryPlan": IXSCAN, "slotBasedPlan": {"stages": "COLLSCAN"}}),
        planner({"stage": "OR", "inputStages": [IXSCAN, {"stage": "IDHACK"}]}),
        planner({"stage": "EOF"}),
        {"stages": [{"$cursor": planner(IXSCAN)}, {"$match": {"stage": "COLLSCAN"}}]},
        {"shards": {"one": planner(IXSCAN), "two": {"stages": [{"$cursor": planner(IXSCAN)}]}}},
        planner({"stage": "SHARD_MERGE", "shards": [{"shardName": "a", "winningPlan": IXSCAN}]}),
    ],
    ids=json.dumps,
)
def test_a_plan_that_goes_by_an_index_is_let_go(explain: Any) -> None:
    assert judged({"explainResult": explain}) == ""


@pytest.mark.parametrize(
    "explain",
    [
        planner(COLLSCAN),
        planner({"stage": "LIMIT", "inputStage": COLLSCAN}),
        planner({"stage": "OR", "inputStages": [IXSCAN, COLLSCAN]}),
        planner({"queryPlan": COLLSCAN, "slotBasedPlan": {}}),
        planner({"stage": "SHARD_MERGE", "shards": [{"winningPlan": IXSCAN}, {"winningPlan": COLLSCAN}]}),
        {"stages": [{"$cursor": planner(COLLSCAN)}], **planner(IXSCAN)},
        {"shards": {"one": planner(IXSCAN), "two": planner(COLLSCAN)}},
    ],
    ids=json.dumps,
)
def test_a_scan_anywhere_in_a_plan_is_one(explain: Any) -> None:
    assert "every document" in judged({"explainResult": explain})


@pytest.mark.parametrize(
    "explain",
    [
        None,
        {},
        [],
        planner(None),
        planner({}),
        planner([]),
        planner({"stage": "SOMETHING_NEW", "inputStage": IXSCAN}),
        planner({"stage": "FETCH", "inputStages": []} | {"inputStage": None}),
        planner({"stage": 5}),
        {"stages": []},
        {"stages": [{"$match": {}}]},
        {"stages": [{"$search": {}}], **planner(IXSCAN)},
        {"shards": {}},
        {"command": planner(IXSCAN)},
    ],
    ids=json.dumps,
)
def test_a_plan_of_another_form_is_not_believed(explain: Any) -> None:
    assert "cannot be judged" in judged({"explainResult": explain})
    assert "cannot be judged" in judged({"explainResult": planner(IXSCAN)}, failed=True)
