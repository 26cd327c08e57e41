"""Calls that are held to rows of a filter: what is sent, place by place, and what has no way and is refused."""

import copy
from typing import Any

import pytest
from hypothesis import assume, given, settings

from sidecar.commands import derive
from sidecar.enforcement.discharge import hold_to
from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessKind, AccessVerdict, Decision, JsonObject, ToolCall
from sidecar.obligations import Plan, plan
from sidecar.sites import Derivation, Site, SiteForm
from tests.examples import examples
from tests.ledger.generator import Case, cases

ORDERS: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
EU: dict[str, Any] = {"region": "EU"}
MATCH = {"$match": EU}
BARRIER = {"$limit": 2**53 - 1}
MINE: dict[str, Any] = {"status": "open"}
FAILS = {"$expr": {"$gt": [{"$divide": [1, "$x"]}, 2]}}
CALM = {"$expr": {"$eq": ["$a", "$$id"]}}
ROWS = frozenset({AccessKind.READ, AccessKind.EXPORT, AccessKind.INSERT, AccessKind.UPDATE, AccessKind.DELETE})


def decided(derivation: Derivation, only: frozenset[AccessKind] = ROWS, rows: Any = None) -> Decision:
    verdicts = tuple(
        AccessVerdict(owner="o", grants=("g",), filter=(rows or EU) if access.kind in only else None)
        for access in derivation.command.accesses
    )
    return Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r")


def sent(tool: str, only: frozenset[AccessKind] = ROWS, rows: Any = None, **arguments: Any) -> JsonObject:
    """The arguments that reach the server, without those of the collection."""
    call = ToolCall(name=tool, arguments={**ORDERS, **arguments})
    before = copy.deepcopy(call.arguments)
    derivation = derive(call)
    todo = plan(decided(derivation, only, rows), call, derivation)
    assert call.arguments == before, "what came stays as it came"
    assert todo.withholds
    if todo.call is not None:
        hold_to(derivation, todo.call, {})
    return {key: value for key, value in (todo.call or call).arguments.items() if key not in ORDERS}


def piped(*stages: Any) -> list[Any]:
    pipeline: Any = sent("aggregate", pipeline=list(stages))["pipeline"]
    return list(pipeline)


def refusal(tool: str, only: frozenset[AccessKind] = ROWS, rows: Any = None, **arguments: Any) -> str:
    with pytest.raises(ObligationNotSupported) as caught:
        sent(tool, only, rows, **arguments)
    assert caught.value.conditions == ("filter",)
    assert "EU" not in caught.value.because
    return caught.value.because


# --- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "key"), [("find", "filter"), ("count", "query"), ("update-many", "filter"), ("delete-many", "filter")]
)
def test_a_query_is_one_of_two_conditions_that_must_both_hold(tool: str, key: str) -> None:
    more: Any = {"update": {"$set": {"a": 1}}} if tool == "update-many" else {}
    assert sent(tool, **more)[key] == EU
    assert sent(tool, **{**more, key: {}})[key] == EU
    for callers in (MINE, {"region": "US"}, {"$or": [{}, {"region": "US"}]}, CALM, {"$text": {"$search": "x"}}):
        asked: dict[str, Any] = {**more, key: callers}
        assert sent(tool, **asked)[key] == {"$and": [EU, callers]}
    for callers in (FAILS, {"$or": [{"a": 1}, FAILS]}, {"a": 1, "$nor": [{"$and": [FAILS]}]}):
        assert "$expr" in refusal(tool, **{**more, key: callers})


@pytest.mark.parametrize("tool", ["explain", "export"])
def test_a_wrapped_operation_is_held_as_the_operation_is(tool: str) -> None:
    key = "method" if tool == "explain" else "exportTarget"
    more: dict[str, Any] = {} if tool == "explain" else {"exportTitle": "t"}
    found: Any = sent(tool, **{**more, key: [{"name": "find", "arguments": {"filter": MINE}}]})[key]
    assert found[0]["arguments"]["filter"] == {"$and": [EU, MINE]}
    found = sent(tool, **{**more, key: [{"name": "aggregate", "arguments": {"pipeline": [{"$count": "n"}]}}]})[key]
    assert found[0]["arguments"]["pipeline"] == [MATCH, {"$count": "n"}]


def test_an_export_is_held_to_the_filters_of_both_of_its_accesses() -> None:
    call = ToolCall(
        name="export",
        arguments={**ORDERS, "exportTitle": "t", "exportTarget": [{"name": "find", "arguments": {}}]},
    )
    derivation = derive(call)
    filters: list[Any] = [{"region": "EU"}, {"public": True}]
    verdicts = tuple(AccessVerdict(owner="o", grants=("g",), filter=query) for query in filters)
    todo = plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)
    assert todo.call is not None
    assert todo.call.arguments["exportTarget"] == [
        {"name": "find", "arguments": {"filter": {"$and": [{"public": True}, {"region": "EU"}]}}}
    ]


@pytest.mark.parametrize("verbosity", ["executionStats", "allPlansExecution", "queryPlannerExtended"])
def test_a_plan_that_is_executed_is_refused(verbosity: str) -> None:
    method = [{"name": "find", "arguments": {}}]
    assert "verbosity" in refusal("explain", method=method, verbosity=verbosity)
    assert sent("explain", method=method, verbosity="queryPlanner")


# --- heads of pipelines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"$project": {"a": 1}}],
        [{"$group": {"_id": "$a"}}],
        [{"$sample": {"size": 3}}],
        [{"$count": "n"}],
        [{"$limit": 1}, {"$match": MINE}],
        [{"$unwind": "$a"}],
        [{"$facet": {"n": [{"$count": "n"}]}}],
    ],
    ids=str,
)
def test_the_filter_is_the_first_stage(stages: list[Any]) -> None:
    assert piped(*stages) == [MATCH, *stages]


def test_a_first_match_of_the_callers_is_joined_so_that_text_still_comes_first() -> None:
    text = {"$text": {"$search": "x"}}
    for callers in (text, MINE, {"region": "US"}, CALM):
        assert piped({"$match": callers}, {"$count": "n"}) == [{"$match": {"$and": [EU, callers]}}, {"$count": "n"}]
    assert piped({"$match": {}}) == [MATCH]
    assert "$text" in refusal("aggregate", pipeline=[{"$match": {**text, **FAILS}}])


@pytest.mark.parametrize(
    "condition",
    [
        FAILS,
        {"$or": [MINE, FAILS]},
        {"$expr": {"$switch": {"branches": [{"case": "$a", "then": 1}]}}},
        {"$expr": {"$eq": [{"$toInt": "$a"}, 1]}},
    ],
    ids=str,
)
def test_a_condition_that_can_fail_stays_behind_the_filter(condition: Any) -> None:
    assert piped({"$match": condition}) == [MATCH, BARRIER, {"$match": condition}]
    assert piped({"$sort": {"a": 1}}, {"$match": condition}) == [
        MATCH,
        BARRIER,
        {"$sort": {"a": 1}},
        {"$match": condition},
    ]


@pytest.mark.parametrize(
    "expression",
    [
        {"$eq": ["$a", "$b"]},
        {"$and": [{"$gt": ["$a", 1]}, {"$not": [{"$lt": ["$a", 5]}]}]},
        {"$cond": ["$a", {"$literal": {"$divide": [1, 0]}}, {"$ifNull": ["$b", 0]}]},
        {"$switch": {"branches": [{"case": "$a", "then": 1}], "default": 0}},
    ],
    ids=str,
)
def test_an_expression_that_never_fails_may_be_joined(expression: Any) -> None:
    assert piped({"$match": {"$expr": expression}}) == [{"$match": {"$and": [EU, {"$expr": expression}]}}]


def test_geo_near_takes_the_filter_into_its_query() -> None:
    near = {"near": [0, 0], "distanceField": "d"}
    assert piped({"$geoNear": near}) == [{"$geoNear": {**near, "query": EU}}]
    assert piped({"$geoNear": {**near, "query": MINE}}) == [{"$geoNear": {**near, "query": {"$and": [EU, MINE]}}}]
    assert piped({"$geoNear": near}, {"$match": FAILS}) == [
        {"$geoNear": {**near, "query": EU}},
        BARRIER,
        {"$match": FAILS},
    ]
    assert "$expr" in refusal("aggregate", pipeline=[{"$geoNear": {**near, "query": FAILS}}])


def test_vector_search_takes_the_filter_twice_because_its_index_can_lag_behind() -> None:
    search = {"index": "i", "path": "v", "queryVector": [1], "limit": 5, "numCandidates": 10}
    assert piped({"$vectorSearch": search}) == [{"$vectorSearch": {**search, "filter": EU}}, MATCH]
    found = piped({"$vectorSearch": {**search, "filter": MINE}}, {"$count": "n"})
    assert found == [{"$vectorSearch": {**search, "filter": {"$and": [EU, MINE]}}}, MATCH, {"$count": "n"}]
    vector = {"$binary": {"base64": "AwA=", "subType": "09"}}
    stored = {**search, "queryVector": vector, "returnStoredSource": True}
    assert "returnStoredSource" in refusal("aggregate", pipeline=[{"$vectorSearch": stored}])


def test_search_is_followed_by_the_filter_and_may_count_nothing() -> None:
    search = {"text": {"query": "x", "path": "y"}}
    assert piped({"$search": search}, {"$limit": 3}) == [{"$search": search}, MATCH, {"$limit": 3}]
    for option in ({"count": {"type": "total"}}, {"returnStoredSource": True}, {"scoreDetails": True}):
        assert next(iter(option)) in refusal("aggregate", pipeline=[{"$search": {**search, **option}}])
    meta = [{"$search": search}, {"$project": {"n": "$$SEARCH_META.count"}}]
    assert "$$SEARCH_META" in refusal("aggregate", pipeline=meta)
    assert "$searchMeta" in refusal("aggregate", pipeline=[{"$searchMeta": {"count": {}}}])


def test_every_input_of_a_fusion_is_held() -> None:
    inputs = {"a": [{"$search": {"text": {}}}], "b": [{"$match": MINE}, {"$sort": {"x": 1}}]}
    [stage] = piped({"$rankFusion": {"input": {"pipelines": inputs}}})
    assert stage == {
        "$rankFusion": {
            "input": {
                "pipelines": {
                    "a": [{"$search": {"text": {}}}, MATCH],
                    "b": [{"$match": {"$and": [EU, MINE]}}, {"$sort": {"x": 1}}],
                }
            }
        }
    }


@pytest.mark.parametrize("name", ["$collStats", "$indexStats", "$changeStream", "$listSearchIndexes", "$currentOp"])
def test_a_stage_that_does_not_read_documents_one_by_one_is_refused(name: str) -> None:
    reading = frozenset({AccessKind.READ})
    assert refusal("aggregate", reading, pipeline=[{name: {}}]).startswith(name)
    assert refusal("aggregate", reading, pipeline=[{"$limit": 1}, {name: {}}]).startswith(name)
    assert refusal("aggregate", reading, pipeline=[{"$facet": {"f": [{"$limit": 1}, {name: {}}]}}]).startswith(name)


# --- joins ------------------------------------------------------------------------------------------------------------

JOIN = {"from": "orders", "localField": "a", "foreignField": "b", "as": "c"}


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"$lookup": JOIN}, {"$lookup": {**JOIN, "pipeline": [MATCH]}}),
        (
            {"$lookup": {**JOIN, "pipeline": [{"$limit": 1}]}},
            {"$lookup": {**JOIN, "pipeline": [MATCH, {"$limit": 1}]}},
        ),
        (
            {"$lookup": {"from": "orders", "as": "c", "let": {"id": "$_id"}, "pipeline": [{"$match": CALM}]}},
            {
                "$lookup": {
                    "from": "orders",
                    "as": "c",
                    "let": {"id": "$_id"},
                    "pipeline": [{"$match": {"$and": [EU, CALM]}}],
                }
            },
        ),
        ({"$unionWith": "orders"}, {"$unionWith": {"coll": "orders", "pipeline": [MATCH]}}),
        ({"$unionWith": {"coll": "orders"}}, {"$unionWith": {"coll": "orders", "pipeline": [MATCH]}}),
        (
            {"$unionWith": {"coll": "orders", "pipeline": [{"$unionWith": "orders"}]}},
            {
                "$unionWith": {
                    "coll": "orders",
                    "pipeline": [MATCH, {"$unionWith": {"coll": "orders", "pipeline": [MATCH]}}],
                }
            },
        ),
        (
            {"$facet": {"f": [{"$lookup": JOIN}], "g": []}},
            {"$facet": {"f": [{"$lookup": {**JOIN, "pipeline": [MATCH]}}], "g": []}},
        ),
    ],
    ids=str,
)
def test_every_place_of_the_collection_is_held(stage: Any, expected: Any) -> None:
    assert piped({"$limit": 2}, stage, stage) == [MATCH, {"$limit": 2}, expected, expected]


def test_a_graph_lookup_is_restricted() -> None:
    graph = {"from": "orders", "startWith": "$a", "connectFromField": "a", "connectToField": "b", "as": "g"}
    key = "restrictSearchWithMatch"
    assert piped({"$graphLookup": graph}) == [MATCH, {"$graphLookup": {**graph, key: EU}}]
    restricted = {**graph, key: MINE}
    assert piped({"$graphLookup": restricted}) == [MATCH, {"$graphLookup": {**graph, key: {"$and": [EU, MINE]}}}]
    assert "$expr" in refusal("aggregate", pipeline=[{"$graphLookup": {**graph, key: FAILS}}])


# --- writes -----------------------------------------------------------------------------------------------------------


def test_documents_to_be_inserted_must_be_rows() -> None:
    assert sent("insert-many", documents=[EU, {**EU, "x": 1}])["documents"] == [EU, {**EU, "x": 1}]
    for document in ({}, {"region": "US"}, {"region": None}, {"region": ["EU"]}, {"region": {"x": "EU"}}):
        assert "document 1" in refusal("insert-many", documents=[EU, document])


@pytest.mark.parametrize(
    "update",
    [
        {"$set": {"region": "EU"}},
        {"$set": {"region.x": 1}},
        {"$unset": {"region": ""}},
        {"$rename": {"region": "x"}},
        {"$rename": {"x": "region"}},
        {"$inc": {"region": 1}},
        {"$push": {"region": "US"}},
        {"$setOnInsert": {"region": "US"}},
        {"$set": {"region.$[].x": 1}},
        {"$set": {"a": 1, "region.0": "US"}},
        {"$currentDate": {"region": True}},
    ],
    ids=str,
)
def test_an_update_of_a_field_of_the_filter_is_refused(update: Any) -> None:
    assert "leave it out" in refusal("update-many", update=update)


def test_an_update_above_or_below_a_field_of_the_filter_is_refused_and_beside_it_is_not() -> None:
    query = {"org.region": "EU"}
    for path in ("org", "org.region", "org.region.x", "org.$[].region", "org.0.region"):
        assert "leave it out" in refusal("update-many", rows=query, update={"$set": {path: 1}})
    for path in ("organ", "org.regions", "region"):
        assert sent("update-many", rows=query, update={"$set": {path: 1}})["filter"] == query


@pytest.mark.parametrize(
    "callers",
    [{}, {"_id": 1}, {"region": "US"}, {"region": None}, {"region": {"$in": ["EU"]}}, {"region": {"$gte": "EU"}},
     {"$and": [EU]}, {"$or": [EU]}, {"region": ["EU"]}, {"region": {"x": "EU"}}],
    ids=str,
)  # fmt: skip
def test_an_upsert_that_could_insert_another_row_is_refused(callers: Any) -> None:
    assert "upsert" in refusal("update-many", filter=callers, update={"$set": {"a": 1}}, upsert=True)


def test_an_upsert_of_a_row_of_ones_own_goes_as_it_is() -> None:
    for callers in ({**EU, "_id": 1}, {"region": {"$eq": "EU"}}):
        call: dict[str, Any] = {"filter": callers, "update": {"$set": {"a": 1}}, "upsert": True}
        assert sent("update-many", **call) == call
    more = {"$or": [EU, {"region": "US", "level": {"$gt": 1}}]}
    assert "upsert" in refusal("update-many", rows=more, filter=EU, update={"$set": {"a": 1}}, upsert=True)
    both = {"region": "US", "level": 2}
    assert sent("update-many", rows=more, filter=both, update={"$set": {"a": 1}}, upsert=True)["filter"] == both
    assert "leave it out" in refusal("update-many", filter=EU, update={"$setOnInsert": {"region": "US"}}, upsert=True)


@pytest.mark.parametrize("stage", [{"$out": "orders"}, {"$merge": "orders"}, {"$merge": {"into": "orders"}}], ids=str)
def test_a_pipeline_that_writes_into_a_filtered_collection_is_refused(stage: Any) -> None:
    assert next(iter(stage)) in refusal("aggregate", frozenset({AccessKind.INSERT}), pipeline=[stage])


@pytest.mark.parametrize(
    ("tool", "arguments", "kind"),
    [
        ("collection-schema", {}, AccessKind.READ),
        ("collection-storage-size", {}, AccessKind.METADATA),
        ("drop-collection", {}, AccessKind.DROP),
        ("rename-collection", {"newName": "x"}, AccessKind.READ),
        ("drop-index", {"indexName": "x", "type": "classic"}, AccessKind.INDEX),
    ],
)
def test_a_tool_without_a_place_for_a_filter_is_refused(tool: str, arguments: Any, kind: AccessKind) -> None:
    refusal(tool, frozenset({kind}), **arguments)


def test_the_view_in_front_of_a_filtered_collection_is_refused() -> None:
    call = ToolCall(name="find", arguments=ORDERS)
    derivation = derive(call)
    behind = Derivation(
        command=derivation.command, sites=tuple(type(site)(0, site.path, SiteForm.VIEW) for site in derivation.sites)
    )
    with pytest.raises(ObligationNotSupported, match="this view"):
        plan(decided(behind), call, behind)


def test_a_call_that_would_grow_too_large_is_refused() -> None:
    query = {"region": {"$in": [f"r{number}" for number in range(1000)]}}
    few = [{"$unionWith": "orders"}] * 5
    assert len(sent("aggregate", rows=query, pipeline=few)["pipeline"]) == 6  # type: ignore[arg-type]  # it is a list
    assert "several calls" in refusal("aggregate", rows=query, pipeline=few * 4)


# --- what holds for every call ----------------------------------------------------------------------------------------


def unheld(value: Any) -> list[Any]:
    """Stages anywhere in a pipeline that read a collection without the filter; found without the walk of the code."""
    found = []
    if isinstance(value, list):
        return [one for item in value for one in unheld(item)]
    if not isinstance(value, dict):
        return []
    for key, spec in value.items():
        if key == "$literal":
            continue
        if key == "$unionWith" and isinstance(spec, str):
            found.append(value)
        if key in ("$lookup", "$unionWith") and isinstance(spec, dict) and ("from" in spec or "coll" in spec):
            found += [] if begins(spec.get("pipeline")) else [value]
        if key == "$graphLookup":
            found += [] if joined(spec.get("restrictSearchWithMatch")) else [value]
        found += unheld(spec)
    return found


def begins(pipeline: Any) -> bool:
    if not pipeline:
        return False
    [(name, spec)] = pipeline[0].items()
    if name == "$match":
        return joined(spec)
    if name in ("$rankFusion", "$scoreFusion"):
        return all(map(begins, spec["input"]["pipelines"].values()))
    if name in ("$geoNear", "$vectorSearch"):
        return joined(spec["query" if name == "$geoNear" else "filter"])
    return name == "$search" and begins(pipeline[1:])


def joined(query: Any) -> bool:
    return bool(query == EU or (isinstance(query, dict) and query.keys() == {"$and"} and query["$and"][0] == EU))


@settings(max_examples=examples(300))
@given(case=cases())
def test_no_place_of_a_generated_call_is_left_out_and_none_is_added(case: Case) -> None:
    call = ToolCall(name=case.tool, arguments=case.arguments)
    derivation = derive(call)
    todo = possible_plan(call, derivation)
    assume(todo is not None and todo.call is not None)
    assert todo is not None
    assert todo.call is not None
    hold_to(derivation, todo.call, {})
    assert unheld(todo.call.arguments) == []
    assert [site for site in derive(todo.call).sites if not held(site, todo.call.arguments)] == []


def possible_plan(call: ToolCall, derivation: Derivation) -> Plan | None:
    try:
        return plan(decided(derivation, frozenset({AccessKind.READ, AccessKind.EXPORT})), call, derivation)
    except ObligationNotSupported:
        return None


def held(site: Site, value: Any) -> bool:
    """Whether a place of a query or of a pipeline is held to the filter; ``unheld`` looks at the others."""
    for step in site.path:
        value = value.get(step) if isinstance(value, dict) else value[step]
    if site.form is SiteForm.FILTER:
        return joined(value)
    return site.form is not SiteForm.PIPELINE_HEAD or begins(value)


def test_a_rewritten_call_that_touches_more_is_refused() -> None:
    decision = derive(ToolCall(name="aggregate", arguments={**ORDERS, "pipeline": []}))
    for pipeline in ([{"$unionWith": "others"}], [{"$out": "orders"}], [{"$nope": 1}]):
        with pytest.raises(ObligationNotSupported):
            hold_to(decision, ToolCall(name="aggregate", arguments={**ORDERS, "pipeline": pipeline}), {})  # type: ignore[dict-item]  # JSON
    same: Any = {**ORDERS, "pipeline": [MATCH]}
    hold_to(decision, ToolCall(name="aggregate", arguments=same), {})
