"""How many documents come back, and for how long a call runs: what is sent, and what is refused."""

import copy
from typing import Any

import pytest

from sidecar.commands import derive
from sidecar.enforcement.discharge import hold_to
from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessVerdict, Decision, JsonObject, ToolCall
from sidecar.obligations import Plan, plan, possible, rows_of, without_rows

ORDERS: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
LAST = {"$limit": 5}
ALL = {"$group": {"_id": None, "all": {"$push": "$$ROOT"}}}
JOIN: dict[str, Any] = {"from": "parcels", "localField": "_id", "foreignField": "order", "as": "parcels"}


def planned(tool: str, arguments: JsonObject, on: frozenset[str] = frozenset({"orders"}), **obligation: Any) -> Plan:
    """The plan of a call whose accesses of these collections have the obligation."""
    call = ToolCall(name=tool, arguments={**ORDERS, **arguments})
    before = copy.deepcopy(call.arguments)
    derivation = derive(call)
    verdicts = tuple(
        AccessVerdict(owner="o", grants=("g",), **(obligation if access.namespace.collection in on else {}))
        for access in derivation.command.accesses
    )
    todo = plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)
    assert call.arguments == before, "what came stays as it came"
    if todo.call is not None:
        hold_to(derivation, todo.call, {})
    return todo


def sent(tool: str, most: int = 5, on: frozenset[str] = frozenset({"orders"}), **arguments: Any) -> JsonObject:
    """The arguments that reach the server, without those of the collection."""
    todo = planned(tool, arguments, on, max_documents=most)
    found = todo.call.arguments if todo.call is not None else {**ORDERS, **arguments}
    return {key: value for key, value in found.items() if key not in ORDERS}


def piped(*stages: Any, on: frozenset[str] = frozenset({"orders"})) -> list[Any]:
    pipeline: Any = sent("aggregate", on=on, pipeline=list(stages))["pipeline"]
    return list(pipeline)


def refusal(*stages: Any, on: frozenset[str] = frozenset({"orders"})) -> str:
    with pytest.raises(ObligationNotSupported) as caught:
        piped(*stages, on=on)
    assert caught.value.conditions == ("max_documents",)
    return caught.value.because


@pytest.mark.parametrize(
    ("callers", "limit"),
    [(1, 1), (4, 4), (5, 5), (6, 5), (10_000, 5), (0, 5), (-1, 5), (-5, 5)],
)
def test_a_find_gives_the_smaller_of_both_numbers(callers: int, limit: int) -> None:
    assert sent("find", limit=callers) == {"limit": limit}


def test_a_find_without_a_limit_has_the_servers_own_or_a_smaller_one() -> None:
    assert sent("find", most=5) == {"limit": 5}
    assert sent("find", most=9, filter={"a": 1}) == {"filter": {"a": 1}, "limit": 9}
    assert sent("find", most=10) == {}
    assert sent("find", most=500) == {}


@pytest.mark.parametrize(("callers", "limit"), [(None, 5), (3, 3), (50, 5), (0, 5), (-3, 5)])
def test_an_export_of_a_find_is_as_large(callers: int | None, limit: int) -> None:
    said = {} if callers is None else {"limit": callers}
    found: Any = sent("export", exportTitle="t", exportTarget=[{"name": "find", "arguments": said}])
    assert found["exportTarget"] == [{"name": "find", "arguments": {"limit": limit}}]


def test_an_export_of_a_pipeline_ends_with_the_limit() -> None:
    target = {"name": "aggregate", "arguments": {"pipeline": [{"$sort": {"a": 1}}]}}
    found: Any = sent("export", exportTitle="t", exportTarget=[target])
    assert found["exportTarget"][0]["arguments"]["pipeline"] == [{"$sort": {"a": 1}}, LAST]


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"$match": {"a": 1}}],
        [{"$limit": 6}],
        [{"$limit": 5}, {"$unwind": "$lines"}],
        [{"$limit": 5}, {"$unionWith": "parcels"}],
        [{"$group": {"_id": "$region", "n": {"$sum": 1}, "one": {"$first": "$$ROOT"}}}],
        [{"$bucketAuto": {"groupBy": "$a", "buckets": 100}}],
        [{"$lookup": JOIN}, {"$unwind": "$parcels"}],
        [{"$sortByCount": "$region"}],
    ],
    ids=str,
)
def test_a_pipeline_ends_with_the_limit(stages: list[Any]) -> None:
    assert piped(*stages) == [*stages, LAST]


@pytest.mark.parametrize(
    "stages",
    [
        [{"$limit": 5}],
        [{"$limit": 3}, {"$sort": {"a": 1}}],
        [{"$limit": 9}, {"$sample": {"size": 2}}],
        [{"$count": "n"}],
        [{"$group": {"_id": None, "n": {"$sum": "$n"}}}],
        [{"$limit": 5}, ALL],
        [{"$limit": 3}, {"$lookup": {**JOIN, "from": "orders", "pipeline": [{"$limit": 1}]}}],
        [{"$limit": 2}, {"$facet": {"n": [{"$count": "n"}], "few": [{"$limit": 2}]}}],
        [{"$facet": {"n": [{"$count": "n"}], "few": [{"$match": {"a": 1}}, {"$limit": 4}]}}],
        [{"$limit": 5}, {"$out": "copy"}],
        [{"$limit": 2}, {"$merge": {"into": "copy"}}],
    ],
    ids=str,
)
def test_a_pipeline_that_gives_few_enough_stays_as_it_is(stages: list[Any]) -> None:
    assert piped(*stages) == stages


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        ([ALL], "$group"),
        ([{"$limit": 6}, ALL], "$group"),
        ([{"$limit": 5}, {"$unwind": "$lines"}, ALL], "$group"),
        ([{"$limit": 5}, {"$unionWith": "orders"}, ALL], "$group"),
        ([{"$group": {"_id": "$a", "x": {"$addToSet": "$b"}}}], "$group"),
        ([{"$group": {"_id": "$a", "x": {"$firstN": {"input": "$$ROOT", "n": 99}}}}], "$group"),
        ([{"$group": {"_id": "$a", "x": {"$mergeObjects": "$$ROOT"}}}], "$group"),
        ([{"$bucketAuto": {"groupBy": "$a", "buckets": 1, "output": {"x": {"$push": "$$ROOT"}}}}], "$bucketAuto"),
        ([{"$setWindowFields": {"sortBy": {"a": 1}, "output": {"x": {"$push": "$b"}}}}], "$setWindowFields"),
        ([{"$lookup": {**JOIN, "from": "orders"}}], "$lookup"),
        ([{"$limit": 1}, {"$lookup": {**JOIN, "from": "orders"}}], "$lookup"),
        ([{"$limit": 3}, {"$lookup": {**JOIN, "from": "orders", "pipeline": [{"$limit": 2}]}}], "$lookup"),
        (
            [{"$limit": 2}, *({"$lookup": {**JOIN, "from": "orders", "pipeline": [{"$limit": 2}]}},) * 2],
            "$lookup",
        ),
        (
            [{"$limit": 1}, {"$lookup": {"from": "parcels", "as": "p", "pipeline": [{"$unionWith": "orders"}]}}],
            "$lookup",
        ),
        (
            [
                {"$limit": 1},
                {"$lookup": {"from": "parcels", "as": "p", "pipeline": [{"$limit": 1}, {"$lookup": JOIN}]}},
            ],
            "",
        ),
        (
            [
                {"$limit": 1},
                {
                    "$graphLookup": {
                        "from": "orders",
                        "startWith": "$a",
                        "connectFromField": "a",
                        "connectToField": "_id",
                        "as": "x",
                    }
                },
            ],
            "$graphLookup",
        ),
        ([{"$facet": {"all": []}}], "$facet"),
        ([{"$facet": {"a": [{"$limit": 3}], "b": [{"$skip": 3}, {"$limit": 3}]}}], "$facet"),
        ([{"$facet": {"all": [ALL]}}], "$group"),
        ([{"$limit": 4}, ALL, {"$unionWith": "orders"}, {"$limit": 4}, ALL], "$group"),
        ([{"$unionWith": {"coll": "orders", "pipeline": [ALL]}}], "$group"),
        ([{"$out": "copy"}], "$out"),
        ([{"$limit": 6}, {"$out": "copy"}], "$out"),
        ([{"$match": {"a": 1}}, {"$merge": {"into": "copy"}}], "$merge"),
    ],
    ids=str,
)
def test_what_collects_documents_is_refused_where_nothing_bounds_how_many(stages: list[Any], word: str) -> None:
    if word:
        assert refusal(*stages).startswith(word)
    else:
        assert piped(*stages) == stages, "the joined collection is not limited"


def _picks(number: int) -> dict[str, Any]:
    """Fields of a ``$group`` that hold a document each, chosen by its key."""
    return {f"d{key}": {"$max": {"$cond": [{"$eq": ["$_id", key]}, "$$ROOT", None]}} for key in range(number)}


def _neighbours(number: int) -> JsonObject:
    return {
        "sortBy": {"_id": 1},
        "output": {f"d{by}": {"$shift": {"output": "$$ROOT", "by": by}} for by in range(number)},
    }


def _carried(number: int) -> JsonObject:
    return {"sortBy": {"_id": 1}, "output": {f"d{key}": {"method": "locf"} for key in range(number)}}


SUMS: dict[str, Any] = {
    "n": {"$sum": 1},
    "mean": {"$avg": "$n"},
    "p": {"$percentile": {"input": "$n", "p": [0.5, 0.9]}},
}


@pytest.mark.parametrize(
    ("stage", "last"),
    [
        ({"$group": {"_id": "$a", **SUMS}}, 5),
        ({"$group": {"_id": "$a", **SUMS, "x": {"$max": "$n"}}}, 5),
        ({"$group": {"_id": "$a", "x": {"$first": "$n"}, "y": {"$first": "$m"}}}, 5),
        ({"$group": {"_id": "$a", "x": {"$first": "$n"}, "y": {"$last": "$n"}}}, 2),
        ({"$group": {"_id": "$a", **_picks(2)}}, 2),
        ({"$group": {"_id": "$a", **_picks(5)}}, 1),
        ({"$bucketAuto": {"groupBy": "$a", "buckets": 9, "output": _picks(2)}}, 2),
        ({"$setWindowFields": {"sortBy": {"a": 1}, "output": {"x": {"$sum": "$n", "window": {}}}}}, 5),
        ({"$setWindowFields": _neighbours(1)}, 2),
        ({"$fill": {"sortBy": {"a": 1}, "output": {"x": {"method": "linear"}, "y": {"value": 0}}}}, 5),
        ({"$fill": _carried(4)}, 1),
        ({"$unionWith": {"coll": "orders", "pipeline": [{"$setWindowFields": _neighbours(1)}]}}, 2),
    ],
    ids=str,
)
def test_a_document_that_is_made_of_several_counts_as_so_many(stage: Any, last: int) -> None:
    assert piped(stage) == [stage, {"$limit": last}]


@pytest.mark.parametrize(
    "stages",
    [
        [{"$group": {"_id": None, **_picks(6)}}],
        [{"$bucketAuto": {"groupBy": "$a", "buckets": 1, "output": _picks(6)}}],
        [{"$setWindowFields": _neighbours(5)}],
        [{"$setWindowFields": _neighbours(5)}, {"$limit": 1}],
        [{"$set": {"d0": {"$cond": ["$a", "$$ROOT", None]}}}, {"$fill": _carried(5)}],
        [{"$setWindowFields": _neighbours(2)}, {"$setWindowFields": _neighbours(2)}],
        [{"$setWindowFields": _neighbours(2)}, {"$group": {"_id": "$b", **_picks(2)}}],
        [{"$facet": {"a": [{"$group": {"_id": None, **_picks(4)}}], "b": [{"$group": {"_id": None, **_picks(2)}}]}}],
        [{"$unionWith": {"coll": "orders", "pipeline": [{"$setWindowFields": _neighbours(5)}]}}],
        [
            {"$limit": 5},
            {
                "$lookup": {
                    **JOIN,
                    "from": "orders",
                    "pipeline": [{"$limit": 5}, {"$group": {"_id": None, **_picks(5)}}],
                }
            },
        ],
        [
            {"$limit": 5},
            {"$lookup": {**JOIN, "from": "orders", "pipeline": [{"$setWindowFields": _neighbours(4)}, {"$limit": 1}]}},
        ],
        [{"$setWindowFields": _neighbours(1)}, {"$limit": 5}, ALL],
        [{"$setWindowFields": _neighbours(1)}, {"$limit": 5}, {"$out": "copy"}],
    ],
    ids=str,
)
def test_documents_in_computed_fields_are_refused_where_they_are_too_many(stages: list[Any]) -> None:
    assert "5" in refusal(*stages)


@pytest.mark.parametrize(
    "stages",
    [
        [{"$limit": 5}, {"$group": {"_id": None, **_picks(30)}}],
        [{"$limit": 5}, {"$setWindowFields": _neighbours(30)}],
        [{"$group": {"_id": None, **_picks(5), **SUMS}}],
        [{"$setWindowFields": _neighbours(1)}, {"$limit": 2}, ALL],
        [{"$setWindowFields": _neighbours(4)}, {"$limit": 1}, {"$merge": {"into": "copy"}}],
        [
            {"$limit": 1},
            {
                "$lookup": {
                    **JOIN,
                    "from": "orders",
                    "pipeline": [{"$limit": 5}, {"$group": {"_id": None, **_picks(5)}}],
                }
            },
        ],
    ],
    ids=str,
)
def test_what_is_made_of_few_documents_stays_as_it_is(stages: list[Any]) -> None:
    assert piped(*stages) == stages


def test_the_limit_of_a_joined_collection_counts_and_that_of_others_does_not() -> None:
    parcels = frozenset({"parcels"})
    assert refusal({"$limit": 5}, {"$lookup": JOIN}, on=parcels).startswith("$lookup")
    joined = {"$lookup": {**JOIN, "pipeline": [{"$limit": 1}]}}
    assert piped({"$limit": 5}, joined, on=parcels) == [{"$limit": 5}, joined]
    assert piped({"$unionWith": "parcels"}, on=parcels) == [{"$unionWith": "parcels"}, LAST]
    assert piped({"$lookup": JOIN}) == [{"$lookup": JOIN}, LAST]


def test_the_strictest_number_of_all_accesses_holds() -> None:
    call = ToolCall(name="aggregate", arguments={**ORDERS, "pipeline": [{"$unionWith": "parcels"}]})
    derivation = derive(call)
    verdicts = tuple(AccessVerdict(owner="o", grants=("g",), max_documents=most) for most in (9, 4))
    todo = plan(Decision(allow=True, reasons=(), server="s", accesses=verdicts, revision="r"), call, derivation)
    assert todo.most_documents == 4
    assert todo.call is not None
    assert todo.call.arguments["pipeline"] == [{"$unionWith": "parcels"}, {"$limit": 4}]


def test_the_limit_stands_behind_a_row_filter() -> None:
    todo = planned("find", {"limit": 0}, max_documents=2, filter={"region": "EU"})
    assert todo.call is not None
    assert (todo.call.arguments["filter"], todo.call.arguments["limit"]) == ({"region": "EU"}, 2)
    todo = planned("aggregate", {"pipeline": []}, max_documents=2, filter={"region": "EU"})
    assert todo.call is not None
    assert todo.call.arguments["pipeline"] == [{"$match": {"region": "EU"}}, {"$limit": 2}]


def test_a_sample_for_a_schema_is_as_small() -> None:
    assert sent("collection-schema") == {"sampleSize": 5}
    assert sent("collection-schema", sampleSize=3) == {"sampleSize": 3}
    assert sent("collection-schema", most=50) == {}
    assert sent("collection-schema", most=49) == {"sampleSize": 49}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("count", {"query": {"a": 1}}),
        ("explain", {"method": [{"name": "find", "arguments": {}}], "verbosity": "queryPlanner"}),
        ("delete-many", {"filter": {"a": 1}}),
        ("update-many", {"filter": {"a": 1}, "update": {"$set": {"a": 2}}}),
        ("insert-many", {"documents": [{"a": 1}] * 9}),
    ],
)
def test_where_no_document_comes_back_nothing_is_to_be_done(tool: str, arguments: JsonObject) -> None:
    assert planned(tool, arguments, max_documents=5).call is None


@pytest.mark.parametrize("tool", ["collection-indexes", "drop-collection", "create-index", "list-collections", ""])
def test_a_use_that_has_no_number_of_documents_is_refused(tool: str) -> None:
    verdict = AccessVerdict(owner="o", grants=("g",), max_documents=5)
    decision = Decision(allow=True, reasons=(), server="s", accesses=(verdict,), revision="r")
    with pytest.raises(ObligationNotSupported) as caught:
        possible(decision, tool)
    assert caught.value.conditions == ("max_documents",)
    assert not possible(without_rows(decision), tool), "but not what was made under the same number"
    assert rows_of(decision) != rows_of(without_rows(decision)) == ()


def test_reads_have_the_strictest_time_and_writes_none() -> None:
    assert planned("find", {}, max_time_ms=50).time_ms == 50
    assert planned("find", {}).time_ms is None
    writes: tuple[tuple[str, Any], ...] = (
        ("delete-many", {"filter": {"a": 1}}),
        ("aggregate", {"pipeline": [{"$out": "orders"}]}),
        ("insert-many", {"documents": [{"a": 1}]}),
    )
    for tool, arguments in writes:
        with pytest.raises(ObligationNotSupported) as caught:
            planned(tool, arguments, max_time_ms=50)
        assert caught.value.conditions == ("max_time_ms",)
        assert caught.value.access is not None


@pytest.mark.parametrize(
    ("tool", "word"),
    [
        ("db-stats", "all documents"),
        ("collection-schema", "sample"),
        ("collection-storage-size", "size"),
        ("create-index", "index"),
        ("drop-index", "index"),
        ("drop-collection", "delete-many"),
        ("rename-collection", "all documents"),
    ],
)
def test_a_tool_about_a_whole_collection_says_why_it_cannot_be_of_some_documents(tool: str, word: str) -> None:
    for obligation in ({"filter": {"region": "EU"}}, {"mask": ("card",)}):
        verdict = AccessVerdict(owner="o", grants=("g",), **obligation)
        with pytest.raises(ObligationNotSupported) as caught:
            possible(Decision(allow=True, reasons=(), server="s", accesses=(verdict,), revision="r"), tool)
        assert word in caught.value.because
        assert "EU" not in caught.value.because
        assert "card" not in caught.value.because
