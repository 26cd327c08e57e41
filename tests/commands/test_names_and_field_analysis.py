"""Names that are taken at their word, and what a command is said to look at and to give back."""

import pytest

from sidecar.commands.derive import derive
from sidecar.commands.ejson import TYPES
from sidecar.commands.names import check_collection, check_database, is_system
from sidecar.commands.operators import EXPRESSION, SCALAR
from sidecar.errors import CommandNotDerivable
from sidecar.model import FieldUse, JsonValue, Namespace, ToolCall


def spelt(value):
    """A test id that is the same in every process: sets are sorted."""
    return str(sorted(value) if isinstance(value, set) else value)[:60]


COLL: dict[str, JsonValue] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.mark.parametrize("name", ["sales", "Sales", "s", "a-b_c", "_x", "ventė", "日本", "x" * 63])
def test_a_usable_database_name_is_returned_unchanged(name) -> None:
    assert check_database(name, "") == name


BAD_DATABASES = [
    "",
    "a.b",
    "a b",
    "sales ",
    "a$",
    "$external",
    "*",
    "a/b",
    "a\\b",
    'a"b',
    "a<b",
    "a>b",
    "a:b",
    "a|b",
    "a?b",
]
BAD_ANYWHERE = [
    *("a\0", "a\n", "a\x7f", "a\u200b", "a\u202e", "a\ufeff", "a\u00ad", "\ud800", "a\u0301", "a\u00a0b", "a\u3000b"),
    *("a\u034f", "a\u3164", "a\ufe0f", "a\ue000", "a\U000e0041", "__proto__", "a\u2028", "a\u0378"),
    *({"$symbol": "x"}, None, 1, ["a"]),
]


@pytest.mark.parametrize("name", [*BAD_DATABASES, *BAD_ANYWHERE, "x" * 64, "é" * 32])
def test_a_database_name_that_could_be_misread_is_refused(name) -> None:
    with pytest.raises(CommandNotDerivable, match="name_refused at /p"):
        check_database(name, "/p")


@pytest.mark.parametrize("name", ["orders", "a.b.c", "a b", "o:1", "é", "x" * 249, "a.system.b", "constructor"])
def test_a_usable_collection_name_is_returned_unchanged(name) -> None:
    assert check_collection("sales", name, "") == name


BAD_COLLECTIONS = ["", "$cmd", "a$b", ".a", "a.", "a..b", " a", "a ", "*", "x" * 250, "é" * 125]


@pytest.mark.parametrize("name", [*BAD_COLLECTIONS, *BAD_ANYWHERE])
def test_a_collection_name_that_could_be_misread_is_refused(name) -> None:
    with pytest.raises(CommandNotDerivable, match="name_refused at /p"):
        check_collection("sales", name, "/p")


@pytest.mark.parametrize(
    ("database", "collection", "system"),
    [
        ("admin", "", True),
        ("LOCAL", "oplog.rs", True),
        ("config", "x", True),
        ("administration", "x", False),
        ("sales", "system.users", True),
        ("sales", "system.buckets.x", True),
        ("sales", "systems", False),
        ("sales", "enxcol_.x.esc", True),
        ("sales", "fs.files", True),
        ("sales", "fs.file", False),
        ("sales", "", False),
    ],
)
def test_system_namespaces_are_told_from_their_neighbours(database, collection, system) -> None:
    assert is_system(Namespace(database=database, collection=collection)) is system


def fields_of_find(**arguments: JsonValue) -> FieldUse:
    return derive(ToolCall(name="find", arguments={**COLL, **arguments})).command.fields


def fields_of_pipeline(*stages: object) -> FieldUse:
    return derive(ToolCall(name="aggregate", arguments={**COLL, "pipeline": list(stages)})).command.fields  # type: ignore[arg-type]


FILTERS: list[tuple[dict, set[str]]] = [
    ({}, set()),
    ({"a": 1, "b.c": {"$gt": 2}}, {"a", "b.c"}),
    ({"a": {"b": 1}}, {"a"}),
    ({"a.0.b": 1}, {"a.0.b", "a.b"}),
    ({"$or": [{"a": 1}, {"$and": [{"b": 1}, {"$nor": [{"c": 1}]}]}]}, {"a", "b", "c"}),
    ({"a": {"$elemMatch": {"b": 1, "$or": [{"c": 1}]}}}, {"a", "a.b", "a.c"}),
    ({"a": {"$not": {"$elemMatch": {"b": 1}}}}, {"a", "a.b"}),
    ({"$expr": {"$gt": ["$a", "$$ROOT.b"]}}, {"a", "b"}),
    ({"$expr": {"$eq": [{"$getField": "a"}, {"$literal": "$b"}]}}, {"a"}),
    ({"$expr": {"$getField": {"$concat": ["a", "b"]}}}, {""}),
    ({"$expr": {"$getField": {"field": "a", "input": "$b"}}}, {"b"}),
    ({"$expr": "$$CURRENT"}, {""}),
    ({"$expr": {"$objectToArray": "$$ROOT"}}, {""}),
    ({"$expr": {"$let": {"vars": {"x": "$a"}, "in": "$$x.b"}}}, {"a"}),
    ({"$expr": {"$meta": "indexKey"}}, {""}),
    ({"$expr": {"$meta": {"a": 1}}}, {""}),
    ({"$where": "1"}, {""}),
    ({"$jsonSchema": {}}, {""}),
    ({"$text": {"$search": "x"}}, {""}),
    ({"$comment": "x", "a": {"$regex": "x", "$options": "i"}}, {"a"}),
    ({"a": {"$oid": "0" * 24}, "b": {"$date": {"$numberLong": "1"}}}, {"a", "b"}),
    ({"": 1}, {""}),
    ({"x" * 600: 1}, {""}),
    ({f"k{i}": 1 for i in range(300)}, {""}),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=spelt)
def test_a_filter_uses_these_fields(query, expected) -> None:
    assert set(fields_of_find(filter=query).filtered) == expected


PROJECTIONS: list[tuple[dict, set[str] | None, set[str]]] = [
    ({}, None, set()),
    ({"a": 1}, {"_id", "a"}, set()),
    ({"a": True, "_id": 0}, {"a"}, set()),
    ({"_id": 1}, {"_id"}, set()),
    ({"_id": 0}, None, set()),
    ({"a": 0}, None, set()),
    ({"a": 1, "b": {"c": 1}}, {"_id", "a", "b.c"}, set()),
    ({"a.$": 1}, {"_id", "a"}, set()),
    ({"a": 1, "b": "$ssn"}, {"_id", "a", "ssn"}, {"ssn"}),
    ({"a": 1, "b": "$$ROOT"}, None, {""}),
    ({"b": "$ssn"}, {"_id", "ssn"}, {"ssn"}),
    ({"_id": 0, "total": {"$multiply": ["$price", "$qty"]}}, {"price", "qty"}, {"price", "qty"}),
    ({"a": 1, "items": {"$slice": 1}}, {"_id", "a", "items"}, {"items"}),
    ({"items": {"$slice": 1}}, None, {"items"}),
    ({"m": {"$meta": "textScore"}}, None, set()),
    ({"a": 1, "m": {"$meta": "textScore"}}, {"_id", "a"}, set()),
    ({"a": 1, "m": {"$meta": "indexKey"}}, None, {""}),
    ({"_id": "$x"}, {"x"}, {"x"}),
    ({"_id.x": 0}, None, set()),
    ({"a": 1, "b": 0}, None, set()),
    ({"items": {"sku": 0}}, None, set()),
    ({"items": {}}, None, set()),
    ({"a": 1, "b": {"$elemMatch": {"c": 1}}}, {"_id", "a", "b"}, {"b", "b.c"}),
    ({"b": {"$elemMatch": {"c": 1}}}, None, {"b", "b.c"}),
    ({"a": {"$numberInt": "0"}}, None, set()),
    ({"a": None}, None, set()),
]


@pytest.mark.parametrize(("projection", "returned", "used"), PROJECTIONS, ids=spelt)
def test_a_projection_returns_these_fields(projection, returned, used) -> None:
    fields = fields_of_find(projection=projection)
    assert (None if fields.returned is None else set(fields.returned)) == returned
    assert set(fields.filtered) == used


LOOKUP = {"$lookup": {"from": "c", "localField": "cid", "foreignField": "_id", "as": "o.c"}}
LOOKUP_AS_C = {"$lookup": {"from": "c", "localField": "cid", "foreignField": "_id", "as": "c"}}
NARROW_LOOKUP = {
    "$lookup": {
        "from": "c",
        "let": {"v": "$ssn"},
        "pipeline": [{"$project": {"_id": 0, "name": 1, "mine": "$$v"}}],
        "as": "c",
    }
}
GRAPH = {"from": "c", "startWith": "$a", "connectFromField": "b", "connectToField": "d", "as": "c"}
NAMES = {"$project": {"total": 1, "c.name": 1}}
WINDOW = {"partitionBy": "$p", "sortBy": {"s": 1}, "output": {"r": {"$rank": {}}}}
SCORED = {"$project": {"_id": 0, "title": 1, "score": {"$meta": "searchScore"}}}
PIPELINES: list[tuple[list[dict], set[str] | None, set[str]]] = [
    ([], None, set()),
    ([{"$match": {"a": 1}}, {"$project": {"b": 1}}], {"_id", "b"}, {"a"}),
    ([{"$project": {"b": 1}}, {"$project": {"c": 0}}], {"_id", "b"}, set()),
    ([{"$project": {"b": {"$numberInt": "0"}}}], None, set()),
    ([{"$group": {"_id": "$a", "n": {"$sum": "$b"}}}], {"a", "b"}, {"a", "b"}),
    ([{"$group": {"_id": None, "d": {"$push": "$$ROOT"}}}], None, {""}),
    ([{"$group": {"_id": 0, "t": {"$top": {"sortBy": {"s": 1}, "output": "$a"}}}}], {"s", "a"}, {"s", "a"}),
    ([{"$addFields": {"x": "$ssn"}}, {"$project": {"x": 1}}], {"_id", "ssn"}, {"ssn"}),
    ([{"$addFields": {"x": "$p"}}, {"$project": {"x.ssn": 1, "_id": 0}}], {"p.ssn"}, {"p"}),
    ([{"$addFields": {"x.y": "$ssn"}}, {"$project": {"x": 1, "_id": 0}}], {"x", "ssn"}, {"ssn"}),
    ([{"$addFields": {"x": {"y": "$ssn"}}}, {"$project": {"x.z": 1, "_id": 0}}], {"x.z", "ssn"}, {"ssn"}),
    ([{"$addFields": {"x": "$ssn"}}, {"$unset": ["ssn"]}, {"$project": {"x": 1, "ssn": 1}}], {"_id", "ssn"}, {"ssn"}),
    ([{"$addFields": {"a": "$b", "b": "$a"}}, {"$project": {"a": 1, "_id": 0}}], {"b"}, {"a", "b"}),
    ([{"$project": {"t": {"$multiply": ["$p", "$q"]}, "_id": 0}}], {"p", "q"}, {"p", "q"}),
    (
        [{"$project": {"t": {"$multiply": ["$p", "$q"]}, "_id": 0}}, {"$addFields": {"u": "$t"}}],
        {"p", "q"},
        {"p", "q", "t"},
    ),
    ([{"$project": {"first": {"$slice": ["$items", 1]}}}], {"_id", "items"}, {"items"}),
    ([{"$project": {"m": {"$meta": "textScore"}}}], {"_id"}, set()),
    ([{"$project": {"m": {"$meta": "searchHighlights"}}}], None, {""}),
    ([{"$project": {"a": {"$numberInt": "1"}}}], {"_id", "a"}, set()),
    ([{"$project": {"a": {"$literal": 1}}}], {"_id"}, set()),
    ([{"$project": {"a": 1}}, {"$project": {"b": "$$ROOT"}}], {"_id", "a"}, {""}),
    ([{"$project": {"a.b": 1, "_id": 0}}, {"$project": {"x": "$a.b.c"}}], {"_id", "a.b.c"}, {"a.b.c"}),
    ([{"$group": {"_id": "$a", "n": {"$sum": "$b"}}}, {"$project": {"n": 1, "_id": 0}}], {"b"}, {"a", "b"}),
    ([{"$group": {"_id": {"k": "$a"}, "d": {"$push": {"x": "$b"}}}}, {"$unwind": "$d"}], {"a", "b"}, {"a", "b", "d"}),
    ([{"$replaceRoot": {"newRoot": "$p"}}, {"$project": {"ssn": 1, "_id": 0}}], {"p.ssn"}, {"p"}),
    ([{"$replaceRoot": {"newRoot": {"x": "$a", "y": {"$add": ["$b", 1]}}}}], {"a", "b"}, {"a", "b"}),
    ([{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"x": 1}]}}], None, {""}),
    ([{"$replaceWith": "$$ROOT"}, {"$project": {"a": 1}}], {"_id", "a"}, set()),
    ([{"$unwind": {"path": "$a", "includeArrayIndex": "i"}}, {"$project": {"i": 1, "_id": 0}}], {"a"}, {"a"}),
    ([{"$project": {"x": {"$let": {"vars": {"v": "$ssn"}, "in": "$$v.y"}}, "_id": 0}}], {"ssn"}, {"ssn"}),
    ([{"$project": {"x": {"$getField": {"$literal": "ssn"}}, "_id": 0}}], {"ssn"}, {"ssn"}),
    ([{"$project": {"x": {"$cond": ["$secret", 1, 0]}, "_id": 0}}], {"secret"}, {"secret"}),
    ([{"$project": {"a.0.b": 1, "_id": 0}}], {"a.b"}, set()),
    ([{"$match": {"a": 1}}, {"$count": "n"}], set(), {"a"}),
    ([{"$sortByCount": "$a"}], {"a"}, {"a"}),
    ([{"$replaceWith": "$p"}, {"$match": {"ssn": 1}}], {"p"}, {"p", "ssn"}),
    ([{"$unset": "a"}], None, set()),
    ([{"$redact": {"$cond": [{"$eq": ["$a", 1]}, "$$PRUNE", "$$KEEP"]}}], None, {""}),
    ([LOOKUP, {"$match": {"o.c.ssn": 1}}], None, {"cid", "_id", "o.c.ssn", "ssn"}),
    ([{"$match": {"o.c.ssn": 1}}, LOOKUP], None, {"cid", "_id", "o.c.ssn", "ssn"}),
    ([LOOKUP, {"$project": {"x": "$o"}}], None, {""}),
    ([{"$facet": {"f": [{"$match": {"a": 1}}]}}, {"$match": {"f.ssn": 1}}], None, {"a", "f.ssn", "ssn"}),
    ([LOOKUP_AS_C, {"$unwind": "$c"}], None, {"cid", "_id"}),
    ([LOOKUP_AS_C, {"$unwind": {"path": "$c"}}, NAMES], {"_id", "total", "c.name", "name"}, {"cid", "_id"}),
    ([LOOKUP_AS_C, {"$project": {"c": 1}}], None, {"cid", "_id"}),
    ([LOOKUP_AS_C, {"$project": {"n": {"$size": "$c"}}}], None, {""}),
    ([NARROW_LOOKUP, {"$project": {"c": 1, "_id": 0}}], {"name", "ssn"}, {"ssn"}),
    ([{"$graphLookup": GRAPH}, NAMES], {"_id", "total", "c.name", "name"}, {"a", "b", "d"}),
    ([{"$project": {"a": 1}}, {"$unionWith": "z"}], None, set()),
    ([{"$unionWith": "z"}, {"$project": {"a": 1}}], {"_id", "a"}, set()),
    (
        [{"$project": {"a": 1}}, {"$unionWith": {"coll": "z", "pipeline": [{"$project": {"b": 1}}]}}],
        {"_id", "a", "b"},
        set(),
    ),
    ([{"$facet": {"x": [{"$group": {"_id": "$a"}}], "y": [{"$count": "n"}]}}], {"a"}, {"a"}),
    ([{"$facet": {"x": [{"$match": {"a": 1}}]}}, {"$project": {"x.b": 1}}], None, {"a"}),
    ([{"$project": {"a": 1}}, {"$facet": {"x": [{"$match": {"a": 1}}]}}], {"_id", "a"}, {"a"}),
    ([{"$setWindowFields": WINDOW}, {"$project": {"r": 1, "_id": 0}}], {"p", "s"}, {"p", "s"}),
    (
        [{"$fill": {"sortBy": {"s": 1}, "output": {"a": {"method": "locf"}}}}, {"$project": {"a": 1}}],
        {"_id", "a", "s"},
        {"a", "s"},
    ),
    ([{"$setWindowFields": {"sortBy": {"a": 1}, "output": {"r": {"$sum": "$b", "window": {}}}}}], None, {"a", "b"}),
    ([{"$fill": {"output": {"a": {"method": "locf"}, "b": {"value": "$c"}}}}], None, {"a", "b", "c"}),
    ([{"$densify": {"field": "a", "range": {"step": 1, "bounds": "full"}}}], None, {"a"}),
    ([{"$bucket": {"groupBy": "$a", "boundaries": [1, 2], "output": {"m": {"$max": "$b"}}}}], {"a", "b"}, {"a", "b"}),
    ([{"$geoNear": {"near": [0, 0], "distanceField": "d", "query": {"a": 1}}}], None, {""}),
    ([{"$search": {"text": {"query": "x", "path": "a"}}}, {"$project": {"b": 1}}], {"_id", "b"}, {""}),
    ([{"$search": {"text": {"query": "x", "path": "a"}}}, SCORED], {"title"}, {""}),
    ([{"$search": {"text": {"query": "x", "path": "a"}}}], None, {""}),
    ([{"$searchMeta": {"facet": {}}}, {"$project": {"b": 1}}], None, {""}),
    ([{"$collStats": {"count": {}}}, {"$project": {"b": 1}}], None, set()),
    ([{"$sortByCount": "$a"}, {"$project": {"count": 1, "_id": 0}}], set(), {"a"}),
    ([{"$merge": {"into": "t", "on": ["k"], "whenMatched": [{"$set": {"x": "$old"}}]}}], None, {"k", "old"}),
]


@pytest.mark.parametrize(("pipeline", "returned", "used"), PIPELINES, ids=spelt)
def test_a_pipeline_uses_and_returns_these_fields(pipeline, returned, used) -> None:
    fields = fields_of_pipeline(*pipeline)
    assert (None if fields.returned is None else set(fields.returned)) == returned
    assert set(fields.filtered) == used


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"$set": {"a.b": 1}}, {"a.b"}),
        ({"$rename": {"ssn": "name"}}, {"ssn", "name"}),
        ({"$pull": {"a": {"b": 1}}, "$inc": {"c.$[].d": 1}}, {"a", "c.$[].d", "c.d"}),
    ],
)
def test_an_update_uses_every_field_it_touches(update, expected) -> None:
    command = derive(ToolCall(name="update-many", arguments={**COLL, "filter": {"f": 1}, "update": update})).command
    assert set(command.fields.filtered) == {"f", *expected}
    assert command.fields.returned == ()


def test_an_operator_of_expressions_is_never_the_key_of_a_typed_value() -> None:
    """An object with one such key is read as an operation at once, without a look at the types."""
    assert EXPRESSION.isdisjoint(TYPES)
    assert SCALAR < EXPRESSION
