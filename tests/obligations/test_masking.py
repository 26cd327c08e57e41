"""Calls that are held to a field mask: what is sent, place by place, and what has no way and is refused."""

import copy
from typing import Any

import pytest
from hypothesis import assume, given, settings

from sidecar import strict_json
from sidecar.commands import derive
from sidecar.enforcement.discharge import hold_to
from sidecar.errors import ObligationNotSupported, UpstreamProtocolViolation
from sidecar.mcp import jsonrpc
from sidecar.model import AccessKind, AccessVerdict, Decision, JsonObject, ToolCall
from sidecar.obligations import Plan, as_find, plan
from sidecar.sites import Derivation, Site, SiteForm
from tests.examples import examples
from tests.ledger.generator import Case, cases

ON: dict[str, Any] = {"connectionId": "preconfigured", "database": "shop", "collection": "orders"}
CARD: tuple[Any, ...] = ("card",)
LAST4: tuple[Any, ...] = ({"field": "card", "as": "last4"},)
EMAIL: tuple[Any, ...] = ("customer.email",)
EU: dict[str, Any] = {"region": "EU"}
GONE = {"$unset": ["card"]}
NOTHING = "(not shown)"
DOCUMENTS = frozenset({"read", "export", "insert", "update", "delete"})


def decided(derivation: Derivation, mask: Any, rows: Any = None, only: str = "") -> Decision:
    verdicts = []
    for access in derivation.command.accesses:
        held = access.kind.value in DOCUMENTS and (not only or access.namespace.collection == only)
        verdicts.append(
            AccessVerdict(owner="o", grants=("g",), filter=rows if held else None, mask=tuple(mask) if held else ())
        )
    return Decision(allow=True, reasons=(), server="s", accesses=tuple(verdicts), revision="r")


def planned(tool: str, mask: Any = CARD, *, rows: Any = None, only: str = "", **arguments: Any) -> Plan:
    call = ToolCall(name=tool, arguments={**ON, **arguments})
    before = copy.deepcopy(call.arguments)
    derivation = derive(call)
    todo = plan(decided(derivation, mask, rows, only), call, derivation)
    assert call.arguments == before, "what came stays as it came"
    assert todo.withholds
    if todo.call is not None:
        hold_to(derivation, todo.call, {})
    return todo


def sent(tool: str, mask: Any = CARD, **more: Any) -> JsonObject:
    """The arguments that reach the server, without those of the collection."""
    todo = planned(tool, mask, **more)
    found = (
        todo.call.arguments
        if todo.call is not None
        else {key: more[key] for key in more if key not in ("rows", "only")}
    )
    return {key: value for key, value in found.items() if key not in ON}


def piped(*stages: Any, mask: Any = CARD, **more: Any) -> list[Any]:
    pipeline: Any = sent("aggregate", mask, pipeline=list(stages), **more)["pipeline"]
    return list(pipeline)


def refusal(tool: str, mask: Any = CARD, **more: Any) -> str:
    with pytest.raises(ObligationNotSupported) as caught:
        planned(tool, mask, **more)
    assert caught.value.conditions == ("mask",)
    return caught.value.because


def refused_pipeline(*stages: Any, mask: Any = CARD, **more: Any) -> str:
    return refusal("aggregate", mask, pipeline=list(stages), **more)


# --- pipelines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"$project": {"card": 1}}],
        [{"$group": {"_id": "$card"}}],
        [{"$match": {"card": "4111"}}],
        [{"$match": {"card.x": {"$exists": True}}}],
        [{"$match": {"$expr": {"$eq": ["$$ROOT", {}]}}}],
        [{"$match": {"$or": [{"a": 1}, {"card": 1}]}}],
        [{"$match": {"$jsonSchema": {"required": ["card"]}}}],
        [{"$sort": {"card": 1}}, {"$limit": 3}],
        [{"$addFields": {"c": {"$getField": "card"}}}],
        [{"$project": {"all": {"$objectToArray": "$$ROOT"}}}],
        [{"$replaceRoot": {"newRoot": {"$mergeObjects": ["$$ROOT", {"x": 1}]}}}],
        [{"$redact": {"$cond": [{"$eq": ["$card", "4111"]}, "$$PRUNE", "$$KEEP"]}}],
        [{"$setWindowFields": {"sortBy": {"card": 1}, "output": {"n": {"$documentNumber": {}}}}}],
        [{"$facet": {"a": [{"$sortByCount": "$card"}], "b": [{"$count": "n"}]}}],
        [{"$sample": {"size": 3}}],
        [{"$unwind": "$card"}],
    ],
)
def test_the_field_is_gone_before_the_callers_first_stage(stages: list[Any]) -> None:
    assert piped(*stages) == [GONE, *stages]
    assert piped(*stages, rows=EU) == [{"$match": EU}, GONE, *stages]


@pytest.mark.parametrize(
    "match", [{"a": 1}, {"carde": 1}, {"a": {"$elemMatch": {"card": 1}}}, {"$expr": {"$gt": ["$a", "$b"]}}, {}]
)
def test_a_first_match_on_other_fields_stays_first(match: Any) -> None:
    more = [{"$match": {"card": None}}, {"$sort": {"card": 1}}]
    assert piped({"$match": match}, *more) == [{"$match": match}, GONE, *more]
    joined = {"$and": [EU, match]} if match else EU
    assert piped({"$match": match}, *more, rows=EU) == [{"$match": joined}, GONE, *more]


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (EMAIL, {"customer": {"email": "x"}}),
        (EMAIL, {"customer.0.email": "x"}),
        (EMAIL, {"customer": {"$elemMatch": {"email": "x"}}}),
        (EMAIL, {"$nor": [{"customer.email": "x"}]}),
        (EMAIL, {"$expr": {"$eq": [{"$getField": {"field": "email", "input": "$customer"}}, "x"]}}),
        (EMAIL, {"customer.email.host": "x"}),
        (("customer",), {"customer.email": "x"}),
    ],
)
def test_a_first_match_into_or_around_a_masked_field_sees_what_is_left(mask: Any, match: Any) -> None:
    found = piped({"$match": match}, mask=mask)
    assert found[-1] == {"$match": match}
    assert len(found) == 2


def test_what_is_inside_of_other_fields_is_taken_out_of_each_element_of_a_list() -> None:
    [stage] = piped(mask=EMAIL)
    assert stage.keys() == {"$set"}
    without = {"$setField": {"field": "email", "input": "$customer", "value": "$$REMOVE"}}
    each = {"$setField": {"field": "email", "input": "$$e0", "value": "$$REMOVE"}}
    is_object = {"$eq": [{"$type": "$$e0"}, "object"]}
    element = {"$cond": [{"$isArray": ["$$e0"]}, None, {"$cond": [is_object, each, "$$e0"]}]}
    assert stage["$set"]["customer"] == {
        "$cond": [
            {"$isArray": ["$customer"]},
            {"$map": {"input": "$customer", "as": "e0", "in": element}},
            {"$cond": [{"$eq": [{"$type": "$customer"}, "object"]}, without, "$customer"]},
        ]
    }


def test_a_field_inside_a_masked_one_is_not_masked_again() -> None:
    assert piped(mask=("card", "card.number", "card")) == [GONE]
    assert piped(mask=(*LAST4, "card")) == [GONE]
    assert piped(mask=(*LAST4, {"field": "card", "as": "bucket:10"})) == [GONE]


@pytest.mark.parametrize("form", ["last4", "bucket:2", "bucket:999999999999999"])
def test_a_reduced_field_is_computed_before_the_callers_first_stage(form: str) -> None:
    found = piped({"$match": {"card": "1111"}}, mask=({"field": "card", "as": form}, "ssn"))
    assert [next(iter(stage)) for stage in found] == ["$unset", "$set", "$match"]
    assert found[1]["$set"].keys() == {"card"}


def test_every_place_of_a_masked_collection_is_masked() -> None:
    lookup: dict[str, Any] = {"from": "cards", "localField": "c", "foreignField": "_id", "as": "j"}
    deep: dict[str, Any] = {
        "from": "cards",
        "let": {"c": "$c"},
        "pipeline": [{"$match": {"$expr": {"$eq": ["$_id", "$$c"]}}}],
        "as": "k",
    }
    found = piped(
        {"$lookup": lookup},
        {"$lookup": deep},
        {"$unionWith": "cards"},
        {"$unionWith": {"coll": "cards", "pipeline": [{"$group": {"_id": "$card"}}]}},
        {"$facet": {"a": [{"$lookup": {**lookup, "pipeline": [{"$unionWith": "cards"}]}}]}},
        only="cards",
    )
    assert found == [
        {"$lookup": {**lookup, "pipeline": [GONE]}},
        {"$lookup": {**deep, "pipeline": [deep["pipeline"][0], GONE]}},
        {"$unionWith": {"coll": "cards", "pipeline": [GONE]}},
        {"$unionWith": {"coll": "cards", "pipeline": [GONE, {"$group": {"_id": "$card"}}]}},
        {
            "$facet": {
                "a": [
                    {"$lookup": {**lookup, "pipeline": [GONE, {"$unionWith": {"coll": "cards", "pipeline": [GONE]}}]}}
                ]
            }
        },
    ]


def test_a_foreign_pipeline_on_the_same_collection_is_masked_too() -> None:
    found = piped({"$lookup": {"from": "orders", "pipeline": [{"$limit": 1}], "as": "j"}}, {"$unionWith": "orders"})
    assert found == [
        GONE,
        {"$lookup": {"from": "orders", "pipeline": [GONE, {"$limit": 1}], "as": "j"}},
        {"$unionWith": {"coll": "orders", "pipeline": [GONE]}},
    ]


@pytest.mark.parametrize("field", ["card", "card.number", "card.0"])
def test_a_join_by_a_masked_field_is_refused(field: str) -> None:
    lookup: dict[str, Any] = {"from": "cards", "localField": "c", "foreignField": field, "as": "j"}
    assert "card" in refused_pipeline({"$lookup": lookup}, only="cards")
    assert "card" in refused_pipeline({"$lookup": {**lookup, "pipeline": [{"$limit": 1}]}}, only="cards")
    assert piped({"$lookup": {**lookup, "foreignField": "cards"}}, only="cards")
    assert piped({"$lookup": {**lookup, "foreignField": "x", "localField": "card"}})[0] == GONE


def test_stages_that_come_first_and_look_at_a_masked_field_are_refused() -> None:
    near: dict[str, Any] = {"near": [1, 2], "distanceField": "d", "key": "place"}
    assert piped({"$geoNear": near}, {"$limit": 2}) == [{"$geoNear": near}, GONE, {"$limit": 2}]
    for wrong in (
        {"key": "card"},
        {"key": "card.place"},
        {"query": {"card": 1}},
        {"query": {"$or": [{"card": 1}]}},
        {"query": {"$expr": "$$ROOT"}},
        {"distanceField": "card"},
        {"includeLocs": "card.at"},
    ):
        assert "$geoNear" in (said := refused_pipeline({"$geoNear": {**near, **wrong}})) or "distance" in said
    del near["key"]
    assert "$geoNear without a key" in refused_pipeline({"$geoNear": near})

    vector: dict[str, Any] = {"index": "i", "path": "v", "queryVector": [1], "numCandidates": 9, "limit": 2}
    assert piped({"$vectorSearch": vector}) == [{"$vectorSearch": vector}, GONE]
    for wrong in ({"path": "card"}, {"path": "card.v"}, {"filter": {"card": 1}}):
        assert "$vectorSearch" in refused_pipeline({"$vectorSearch": {**vector, **wrong}})
    for stage in (
        {"$search": {"text": {"query": "x", "path": "card"}}},
        {"$searchMeta": {"exists": {"path": "card"}}},
        {"$rankFusion": {"input": {"pipelines": {"a": [{"$search": {"exists": {"path": "x"}}}]}}}},
    ):
        assert "search" in refused_pipeline(stage)
    assert "$text" in refused_pipeline({"$match": {"$text": {"$search": "4111"}}})


@pytest.mark.parametrize(
    "stage",
    [
        {"$indexStats": {}},
        {"$collStats": {"storageStats": {}}},
        {"$planCacheStats": {}},
        {"$listSearchIndexes": {}},
        {"$changeStream": {}},
    ],
)
def test_what_tells_of_storage_plans_and_changes_is_refused(stage: Any) -> None:
    assert refused_pipeline(stage)


def test_values_that_come_past_the_mask_are_refused() -> None:
    for meta in ("indexKey", "searchHighlights", "geoNearPoint", "sortKey"):
        assert "$meta" in refused_pipeline({"$project": {"k": {"$meta": meta}}})
        assert "$meta" in refused_pipeline(
            {"$lookup": {"from": "x", "pipeline": [{"$set": {"k": {"$meta": meta}}}], "as": "j"}}
        )
    others: list[Any] = [{"indexKey": 1}, ["indexKey"], None, 1]
    for other in others:
        assert "$meta" in refused_pipeline({"$project": {"k": {"$meta": other}}})
    assert piped({"$project": {"k": {"$meta": "textScore"}}})[0] == GONE


def test_what_a_graph_finds_in_a_masked_collection_is_masked_right_behind_it() -> None:
    graph = {"from": "cards", "startWith": "$x", "connectFromField": "a", "connectToField": "b", "as": "g"}
    other = {**graph, "as": "h.i"}
    found = piped(
        {"$graphLookup": graph}, {"$match": {"g.card": 1}}, {"$graphLookup": other}, {"$limit": 1}, only="cards"
    )
    assert [next(iter(stage)) for stage in found] == [
        "$graphLookup",
        "$set",
        "$match",
        "$graphLookup",
        "$set",
        "$limit",
    ]
    assert found[1]["$set"].keys() == {"g"}
    assert found[4]["$set"].keys() == {"h"}
    assert piped({"$graphLookup": graph}, only="orders")[0] == GONE


def test_masks_and_filters_of_many_places_in_one_pipeline_do_not_move_one_another() -> None:
    graph = {"from": "orders", "startWith": "$x", "connectFromField": "a", "connectToField": "b", "as": "g"}
    inner = [{"$graphLookup": graph}, {"$unionWith": "orders"}]
    join = {"$lookup": {"from": "orders", "pipeline": inner, "as": "j"}}
    found = piped({"$graphLookup": graph}, join, {"$graphLookup": graph}, join, rows=EU)
    names = [next(iter(stage)) for stage in found]
    assert names == ["$match", "$unset", "$graphLookup", "$set", "$lookup", "$graphLookup", "$set", "$lookup"]
    for lookup in (found[4], found[7]):
        names = [next(iter(stage)) for stage in lookup["$lookup"]["pipeline"]]
        assert names == ["$match", "$unset", "$graphLookup", "$set", "$unionWith"]
    graphs = [stage["$graphLookup"] for stage in found if "$graphLookup" in stage]
    assert [one["restrictSearchWithMatch"] for one in graphs] == [EU, EU]


@pytest.mark.parametrize(
    "wrong",
    [
        {"connectFromField": "card"},
        {"connectToField": "card.number"},
        {"restrictSearchWithMatch": {"card": {"$gt": "4"}}},
        {"restrictSearchWithMatch": {"$expr": {"$gt": ["$card", "4"]}}},
        {"depthField": "card"},
    ],
)
def test_a_graph_that_looks_at_a_masked_field_is_refused(wrong: Any) -> None:
    graph = {"from": "cards", "startWith": "$x", "connectFromField": "a", "connectToField": "b", "as": "g"}
    assert "card" in refused_pipeline({"$graphLookup": {**graph, **wrong}}, only="cards")
    assert "numbers" in refused_pipeline({"$graphLookup": {**graph, "as": "g.0"}}, only="cards")


def test_what_is_left_may_be_written_elsewhere_and_nothing_into_a_masked_collection() -> None:
    for write in ({"$out": "copies"}, {"$merge": {"into": "copies"}}):
        assert piped(write, only="orders") == [GONE, write]
        assert refused_pipeline(write, only="copies")
    assert refused_pipeline({"$merge": {"into": "orders", "whenMatched": "replace"}})


def test_a_view_in_front_of_a_masked_collection_is_refused() -> None:
    call = ToolCall(name="aggregate", arguments={**ON, "pipeline": []})
    derivation = derive(call)
    sites = (*derivation.sites, Site(0, ("pipeline",), SiteForm.VIEW))
    behind = Derivation(command=derivation.command, sites=sites)
    with pytest.raises(ObligationNotSupported) as caught:
        plan(decided(behind, CARD), call, behind)
    assert "view" in caught.value.because


# --- find and count ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callers", "made"),
    [
        (None, {"card": 0}),
        ({}, {"card": 0}),
        ({"a": 0}, {"a": 0, "card": 0}),
        ({"card": 0}, {"card": 0}),
        ({"card.number": 0}, {"card": 0}),
        ({"_id": 0}, {"_id": 0, "card": 0}),
        ({"a": 1}, {"a": 1}),
        ({"a": True, "card": 1}, {"a": True, NOTHING: 1}),
        ({"card": 1}, {NOTHING: 1}),
        ({"card.number": 1, "_id": 0}, {NOTHING: 1, "_id": 0}),
        ({"_id": 1}, {"_id": 1, NOTHING: 1}),
        ({"a": {"b": 1, "c": 1}}, {"a.b": 1, "a.c": 1}),
        ({"x": "$a"}, {"x": "$a", NOTHING: 1}),
        ({"card": "$a"}, {"card": "$a", NOTHING: 1}),
        ({"x": {"$concat": ["$a", "-"]}, "a": 1}, {"x": {"$concat": ["$a", "-"]}, "a": 1}),
        ({"tags": {"$slice": 1}}, {"tags": {"$slice": 1}, "card": 0}),
        ({"tags": {"$slice": 1}, "a": 1}, {"tags": {"$slice": 1}, "a": 1}),
        ({"lines": {"$elemMatch": {"a": 1}}}, {"lines": {"$elemMatch": {"a": 1}}, NOTHING: 1}),
        ({"lines.$": 1}, {"lines.$": 1}),
        ({"s": {"$meta": "textScore"}}, {"s": {"$meta": "textScore"}, "card": 0}),
    ],
)
def test_a_projection_gives_all_but_the_masked_field(callers: Any, made: Any) -> None:
    more = {} if callers is None else {"projection": callers}
    assert sent("find", **more) == {"projection": made}
    assert sent("find", rows=EU, **more) == {"projection": made, "filter": EU}


@pytest.mark.parametrize(
    ("callers", "made"),
    [
        (None, {"customer.email": 0}),
        ({"customer": 0}, {"customer": 0}),
        ({"customer.name": 0}, {"customer.name": 0, "customer.email": 0}),
        ({"customer.name": 1}, {"customer.name": 1}),
        ({"customer.email": 1}, {f"customer.{NOTHING}": 1}),
        ({"customer.email.host": 1, "a": 1}, {f"customer.{NOTHING}": 1, "a": 1}),
    ],
)
def test_a_projection_around_a_masked_field_gives_the_rest(callers: Any, made: Any) -> None:
    more = {} if callers is None else {"projection": callers}
    assert sent("find", EMAIL, **more) == {"projection": made}


def test_the_whole_of_what_holds_a_masked_field_is_computed() -> None:
    found: Any = sent("find", EMAIL, projection={"customer": 1, "a": 1})["projection"]
    assert found.keys() == {"customer", "a"}
    assert "$setField" in str(found["customer"])
    found = sent("find", LAST4, projection={"card": 1})["projection"]
    assert "$substrCP" in str(found["card"])


@pytest.mark.parametrize(
    ("mask", "projection"),
    [
        (LAST4, {"tags": {"$slice": 1}}),
        (LAST4, {"lines": {"$elemMatch": {"a": 1}}, "b": 0}),
        (("a.b.c",), {"a.b": 1}),
        (("lines.sku",), {"lines": {"$slice": 1}}),
        (("lines.sku",), {"lines": {"$elemMatch": {"qty": 1}}}),
        (("lines.sku",), {"lines.$": 1}),
        (EMAIL, {"a": {}}),
        (CARD, {"card": "1"}),
        (CARD, {"card": None}),
        (CARD, {"card": []}),
        (CARD, {"card": [1]}),
        (EMAIL, {"customer": "on"}),
    ],
)
def test_a_projection_that_cannot_be_combined_is_refused(mask: Any, projection: Any) -> None:
    assert refusal("find", mask, projection=projection)


@pytest.mark.parametrize(
    ("projection", "last"),
    [(None, None), ({"a": 0}, {"a": 0}), ({"card.x": 1}, {"card.x": 1}), ({"a": {"b": 0}}, {"a": {"b": 0}})],
)
def test_a_find_of_all_fields_and_a_part_of_one_is_sent_as_a_pipeline(projection: Any, last: Any) -> None:
    asked: Any = {"filter": {"a": 1}, "sort": {"b": -1}, "limit": 3}
    if projection is not None:
        asked["projection"] = projection
    todo = planned("find", LAST4, **asked)
    assert todo.call is not None
    assert (todo.call.name, todo.find_of) == ("aggregate", "orders")
    assert todo.call.arguments.keys() == {*ON, "pipeline"}
    pipeline: Any = todo.call.arguments["pipeline"]
    assert [next(iter(stage)) for stage in pipeline[:4]] == ["$match", "$set", "$sort", "$limit"]
    assert pipeline[4:] == ([{"$project": last}] if last else [])
    rows: Any = planned("find", LAST4, rows=EU, **asked).call
    assert rows.arguments["pipeline"][0] == {"$match": {"$and": [EU, {"a": 1}]}}
    assert rows.arguments["pipeline"][1:] == pipeline[1:]


def test_a_find_without_a_limit_has_the_servers_as_a_pipeline_too() -> None:
    todo = planned("find", LAST4)
    assert todo.call is not None
    pipeline: Any = todo.call.arguments["pipeline"]
    assert pipeline[1:] == [{"$limit": 10}]
    assert planned("find", LAST4, projection={"card": 1}).find_of == ""
    assert planned("find", CARD).find_of == ""


@pytest.mark.parametrize(
    "more",
    [
        {"limit": 0},
        {"limit": -1},
        {"sort": {"$natural": -1}},
        {"filter": {"place": {"$near": [1, 2]}}},
        {"filter": {"card": "4"}},
        {"sort": {"card": 1}},
        {"projection": {"x": "$card", "card": 1}},
    ],
)
def test_a_find_that_a_pipeline_answers_in_another_way_is_refused(more: Any) -> None:
    assert refusal("find", LAST4, **more)


def test_the_answer_to_the_pipeline_is_that_of_a_find() -> None:
    text = {"type": "text", "text": "<untrusted>[]</untrusted>"}
    answer: Any = {
        "content": [{"type": "text", "text": "The aggregation resulted in 1 documents."}, text],
        "structuredContent": {"documents": [{"a": 1}], "count": 1, "appliedLimits": []},
    }
    found = strict_json.DECODER.decode(as_find(jsonrpc.encode(answer), "orders").decode())
    assert found == {
        "content": [{"type": "text", "text": 'Query on collection "orders" gave 1 documents.'}, text],
        "structuredContent": {"documents": [{"a": 1}], "appliedLimits": []},
    }
    for wrong in (b"[]", b"{", b'{"content": []}', jsonrpc.encode({**answer, "structuredContent": {"documents": []}})):
        with pytest.raises(UpstreamProtocolViolation):
            as_find(wrong, "orders")


def test_what_a_projection_gives_without_being_asked_is_masked_too() -> None:
    assert sent("find", ("_id",), projection={"a": 1}) == {"projection": {"_id": 0, "a": 1}}
    assert sent("find", ("_id",), projection={"_id": 1}) == {"projection": {"_id": 0, NOTHING: 1}}
    assert sent("find", ("_id",)) == {"projection": {"_id": 0}}
    found: Any = sent("find", ("_id.ssn",), projection={"a": 1})["projection"]
    assert "$setField" in str(found["_id"])


PREDICATES: list[Any] = [
    {"card": "4111"},
    {"card": {"$regex": "^4"}},
    {"card": {"$exists": True}},
    {"card.number": 1},
    {"card.0": 1},
    {"$or": [{"a": 1}, {"$and": [{"card": {"$gt": "4"}}]}]},
    {"$nor": [{"card": None}]},
    {"$expr": {"$gt": ["$card", "4"]}},
    {"$expr": {"$eq": [{"$getField": "card"}, "4"]}},
    {"$expr": {"$eq": [{"$getField": {"$concat": ["ca", "rd"]}}, "4"]}},
    {"$expr": {"$in": ["4", {"$objectToArray": "$$ROOT"}]}},
    {"$expr": {"$gt": [{"$bsonSize": "$$CURRENT"}, 200]}},
    {"$jsonSchema": {"properties": {"card": {"minimum": 4}}}},
    {"$text": {"$search": "4111"}},
    {"$where": "this.card > 4"},
]


@pytest.mark.parametrize("query", PREDICATES)
def test_a_condition_on_a_masked_field_is_refused(query: Any) -> None:
    advice = "which you may not see"
    assert advice in refusal("find", filter=query)
    assert advice in refusal("find", LAST4, filter=query, projection={"a": 1})
    assert advice in refusal("count", query=query)
    assert advice in refusal("delete-many", filter=query)
    assert advice in refusal("update-many", filter=query, update={"$set": {"a": 1}})
    for name, key in (("method", {}), ("exportTarget", {"exportTitle": "t"})):
        tool = "explain" if name == "method" else "export"
        assert advice in refusal(tool, **{name: [{"name": "find", "arguments": {"filter": query}}], **key})


def test_its_near_misses_pass() -> None:
    for query in (
        {"a": 1},
        {"cards": "4111"},
        {"a": "card"},
        {"a": {"card": 1}},
        {"$expr": {"$eq": ["$a.card", "card"]}},
    ):
        assert sent("find", filter=query) == {"filter": query, "projection": {"card": 0}}
        assert sent("count", query=query) == {"query": query}
        assert sent("delete-many", filter=query) == {"filter": query}
    assert sent("count") == {}


@pytest.mark.parametrize(
    "more",
    [
        {"sort": {"card": 1}},
        {"sort": {"a": 1, "card.number": -1}},
        {"projection": {"x": "$card"}},
        {"projection": {"x": {"$substrCP": ["$card", 0, 1]}}},
        {"projection": {"x": "$$ROOT"}},
        {"projection": {"x": {"$cond": [{"$eq": ["$card", "4"]}, 1, 0]}}},
        {"projection": {"x": {"$meta": "indexKey"}}},
        {"projection": {"card": {"$elemMatch": {"a": 1}}}},
        {"projection": {"card": {"$slice": 1}}},
    ],
)
def test_a_sort_or_a_value_computed_from_a_masked_field_is_refused(more: Any) -> None:
    assert refusal("find", **more)


def test_a_first_match_on_more_fields_than_are_told_apart_comes_behind_the_mask() -> None:
    few: Any = {"$match": {f"f{number}": 1 for number in range(256)}}
    many: Any = {"$match": {f"f{number}": 1 for number in range(257)}}
    assert piped(few) == [few, GONE]
    assert piped(many) == [GONE, many]


@pytest.mark.parametrize("meta", ["indexKey", "recordId", "sortKey", "searchHighlights", ["textScore"], {}, None, 1])
def test_what_meta_gives_of_a_document_is_refused_in_any_spelling(meta: Any) -> None:
    assert "$meta" in refused_pipeline({"$set": {"x": {"$meta": meta}}})
    assert "$meta" in refused_pipeline({"$match": {"a": 1}}, {"$project": {"x": {"$literal": {"$meta": meta}}}})
    assert "$meta" in refusal("find", projection={"x": {"$meta": meta}})


def test_its_near_misses_in_a_pipeline_pass() -> None:
    stages: list[Any] = [{"$set": {"x": {"$meta": "randVal"}, "meta": "recordId"}}, {"$sort": {"x": 1}}]
    assert piped(*stages) == [GONE, *stages]


def test_plans_show_no_more_than_how_a_query_would_run() -> None:
    method = [{"name": "aggregate", "arguments": {"pipeline": [{"$group": {"_id": "$card"}}]}}]
    found: Any = sent("explain", method=method)["method"]
    assert found[0]["arguments"]["pipeline"][0] == GONE
    for verbosity in ("executionStats", "allPlansExecution"):
        assert "verbosity" in refusal("explain", method=method, verbosity=verbosity)


def test_an_export_is_held_to_the_masks_of_both_of_its_accesses() -> None:
    target: list[Any] = [{"name": "find", "arguments": {}}]
    call = ToolCall(name="export", arguments={**ON, "exportTitle": "t", "exportTarget": target})
    derivation = derive(call)
    masks: list[Any] = [("card",), ("ssn", {"field": "card", "as": "last4"})]
    verdicts = tuple(AccessVerdict(owner="o", grants=("g",), mask=mask) for mask in masks)
    todo = plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)
    assert todo.call is not None
    sent_target: Any = todo.call.arguments["exportTarget"]
    assert sent_target[0]["arguments"]["projection"] == {"card": 0, "ssn": 0}


# --- writes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "update",
    [
        {"$set": {"card": 1}},
        {"$set": {"card.number": 1}},
        {"$set": {"a": 1}, "$unset": {"card": ""}},
        {"$rename": {"card": "shown"}},
        {"$rename": {"a": "card"}},
        {"$inc": {"card": 1}},
        {"$max": {"card": 1}},
        {"$push": {"card": 1}},
        {"$pull": {"card": {"$gt": 4}}},
        {"$setOnInsert": {"card": 1}},
        {"$currentDate": {"card": True}},
        {"$bit": {"card": {"and": 1}}},
    ],
)
@pytest.mark.parametrize("upsert", [{}, {"upsert": True}])
def test_an_update_of_a_masked_field_is_refused(update: Any, upsert: Any) -> None:
    assert "card" in refusal("update-many", update=update, filter={"a": 1}, **upsert)


def test_an_update_beside_a_masked_field_passes_and_one_around_it_does_not() -> None:
    beside = {"filter": {"a": 1}, "update": {"$set": {"customer.name": "x", "customers": 1}}}
    assert sent("update-many", EMAIL, **beside) == beside
    for path in ("customer", "customer.email", "customer.email.host", "customer.$[].email", "customer.0.email"):
        assert "customer.email" in refusal("update-many", EMAIL, filter={"a": 1}, update={"$set": {path: 1}})


@pytest.mark.parametrize(
    "document",
    [
        {"customer": {"email": "x"}},
        {"customer": {"email": None}},
        {"customer": [{"name": "x"}, {"email": "x"}]},
        {"customer": [[{"email": "x"}]]},
        {"customer.email": "x"},
    ],
)
def test_a_document_with_a_masked_field_is_not_inserted(document: Any) -> None:
    assert "customer.email" in refusal("insert-many", EMAIL, documents=[{"a": 1}, document])


@pytest.mark.parametrize(
    ("document", "held"),
    [
        ({"a": {"b.c": 1}}, True),
        ({"a.b": {"x": 1}}, True),
        ({"a.b.c": 1}, True),
        ({"a.b.c.d": 1}, True),
        ({"a": [[{"b": [{"x": 1}, [{"c": None}]]}]]}, True),
        ({"a": {"b": {"x": 1}}, "a.x": 1, "b.c": 1}, False),
        ({"a": {"b": "c", "c": 1, "x.b": 1}}, False),
        ({"x": {"a": {"b": {"c": 1}}}, "": 1, ".": 2, "a.": 3}, False),
    ],
)
def test_what_a_document_holds_is_found_in_every_spelling(document: Any, held: bool) -> None:
    if held:
        assert "a" in refusal("insert-many", ("x.y", "a.b.c"), documents=[document])
    else:
        assert sent("insert-many", ("x.y", "a.b.c"), documents=[document]) == {"documents": [document]}


def test_a_document_without_one_is() -> None:
    documents: list[Any] = [{"a": 1}, {"customer": {"name": "x"}, "email": "y"}, {"customer": "email"}]
    assert sent("insert-many", EMAIL, documents=documents) == {"documents": documents}


# --- what has no place ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("collection-schema", {}),
        ("collection-storage-size", {}),
        ("create-index", {"name": "i", "definition": [{"type": "classic", "keys": {"card": 1}}]}),
        ("rename-collection", {"newName": "x"}),
        ("drop-collection", {}),
    ],
)
def test_a_tool_without_a_place_for_a_mask_is_refused(tool: str, more: Any) -> None:
    call = ToolCall(name=tool, arguments={**ON, **more})
    derivation = derive(call)
    verdicts = tuple(AccessVerdict(owner="o", grants=("g",), mask=CARD) for _ in derivation.command.accesses)
    with pytest.raises(ObligationNotSupported) as caught:
        plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)
    assert caught.value.conditions == ("mask",)


@pytest.mark.parametrize(
    "mask",
    [
        ("",),
        ("$card",),
        ("a..b",),
        ("a.0",),
        ("a.b.c.d.e.f",),
        ({"field": "card"},),
        ({"field": "card", "as": "sha256"},),
        ({"field": "card", "as": "bucket:0"},),
        ({"field": "card", "as": "bucket:1"},),
        ({"field": "card", "as": "bucket:-5"},),
        ({"field": "card", "as": "bucket:1000000000000000"},),
        ({"field": "card", "as": "last4", "of": 1},),
        (7,),
        tuple(f"f{number}" for number in range(65)),
    ],
)
def test_a_mask_that_is_not_of_the_contract_refuses_the_call(mask: Any) -> None:
    with pytest.raises(ObligationNotSupported) as caught:
        planned("find", mask)
    assert caught.value.conditions == ("mask",)


def test_a_call_does_not_grow_without_bounds() -> None:
    fields = tuple(f"f{number}" for number in range(64))
    assert len(piped(*[{"$unionWith": "orders"}] * 6, mask=fields)) == 7
    assert "too many places" in refused_pipeline(*[{"$unionWith": "orders"}] * 8, mask=fields)


def test_an_access_without_a_place_is_refused() -> None:
    call = ToolCall(name="find", arguments=ON)
    derivation = derive(call)
    lost = Derivation(command=derivation.command, sites=())
    with pytest.raises(ObligationNotSupported) as caught:
        plan(decided(derivation, CARD), call, lost)
    assert caught.value.conditions == ("mask",)


def test_an_access_of_another_kind_keeps_its_own_mask() -> None:
    """What is read masked is written by what the grant of the write says."""
    call = ToolCall(name="aggregate", arguments={**ON, "pipeline": [{"$merge": {"into": "copies"}}]})
    derivation = derive(call)
    verdicts = tuple(
        AccessVerdict(owner="o", grants=("g",), mask=CARD if access.kind is AccessKind.INSERT else ())
        for access in derivation.command.accesses
    )
    with pytest.raises(ObligationNotSupported):
        plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)


# --- every place of any call ------------------------------------------------------------------------------------------

UNHEARD_OF: tuple[Any, ...] = ("zzz",)
"""A field that no generated call names, so that only calls which look at all fields are refused."""


def unmasked(value: Any) -> list[Any]:
    """The places of a call that read another collection and see its masked field."""
    if isinstance(value, list):
        behind = [*value[1:], None]
        graphs = [
            stage
            for stage, following in zip(value, behind, strict=False)
            if isinstance(stage, dict) and "$graphLookup" in stage and not takes_out(following)
        ]
        return [*graphs, *(one for item in value for one in unmasked(item))]
    if not isinstance(value, dict):
        return []
    found = []
    for key, spec in value.items():
        if key == "$literal":
            continue
        if key == "$unionWith" and isinstance(spec, str):
            found.append(value)
        if key in ("$lookup", "$unionWith") and isinstance(spec, dict) and ("from" in spec or "coll" in spec):
            found += [] if begins(spec.get("pipeline")) else [value]
        found += unmasked(spec)
    return found


def takes_out(stage: Any) -> bool:
    return isinstance(stage, dict) and "$set" in stage and "zzz" in str(stage)


def begins(pipeline: Any) -> bool:
    """Whether a pipeline takes the field out before any other stage than one that may come first."""
    names = [next(iter(stage)) for stage in pipeline or []]
    gone = {"$unset": ["zzz"]}
    return gone in (pipeline or [])[:1] or (
        gone in (pipeline or [])[1:2] and names[0] in ("$match", "$geoNear", "$vectorSearch")
    )


@settings(max_examples=examples(100))
@given(case=cases())
def test_no_place_of_a_generated_call_sees_a_masked_field(case: Case) -> None:
    call = ToolCall(name=case.tool, arguments=case.arguments)
    derivation = derive(call)
    try:
        todo = plan(decided(derivation, UNHEARD_OF), call, derivation)
    except ObligationNotSupported:
        todo = None
    assume(todo is not None and todo.call is not None)
    assert todo is not None
    assert todo.call is not None
    hold_to(derivation, todo.call, {})
    assert unmasked(todo.call.arguments) == []
    for site in derive(todo.call).sites:
        value: Any = todo.call.arguments
        steps = site.path if site.form is SiteForm.PIPELINE_HEAD else (*site.path[:-1], "projection")
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else value[step]
        if site.form is SiteForm.PIPELINE_HEAD:
            assert begins(value)
        elif site.form is SiteForm.FILTER and site.path[-1] == "filter":
            assert value["zzz"] == 0 or 1 in value.values()
