"""Spellings, depths and counts of ordinary use are accepted, and what is stored or compared with is data."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.commands.derive import derive
from sidecar.errors import CallRefused, CommandNotDerivable, InvalidArguments
from sidecar.mcp.jsonrpc import Request, decode, encode
from sidecar.model import Command, ToolCall

COLL: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
OID = {"$oid": "56e1fc72e0c917e9c4714161"}


def run(name: str, **arguments: Any) -> Command:
    return derive(ToolCall(name=name, arguments={**COLL, **arguments})).command


def pipeline(*stages: Any) -> Command:
    return run("aggregate", pipeline=[*stages])


def find(query: Any) -> Command:
    return run("find", filter=query)


def decoded(name: str, **arguments: Any) -> Command:
    """As ``run``, by way of the bytes of a message."""
    params: dict[str, Any] = {"name": name, "arguments": {**COLL, **arguments}}
    message = decode(encode({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
    assert isinstance(message, Request)
    received: dict[str, Any] = message.params
    return derive(ToolCall(name=received["name"], arguments=received["arguments"])).command


WHOLE = [5, 5.0, {"$numberInt": "5"}, {"$numberLong": "5"}, {"$numberLong": "+5"}, {"$numberDouble": "5.0"}]
WHOLE += [{"$numberDouble": "5E0"}, {"$numberDecimal": "5"}, {"$numberDecimal": "0.5E1"}]
NOT_WHOLE = [
    5.5,
    True,
    "5",
    None,
    [],
    {},
    {"$numberDouble": "5.5"},
    {"$numberDecimal": "5.5"},
    {"$numberDouble": "NaN"},
]
NOT_WHOLE += [{"$numberDecimal": "Infinity"}, OID, {"$numberLong": "5", "x": 1}, {"$literal": 5}, 1e20, -1]
NOT_WHOLE += [{"$numberDecimal": "9223372036854775808"}, {"$numberLong": "-1"}, {"$numberLong": "x"}]


@pytest.mark.parametrize("number", WHOLE, ids=str)
def test_a_whole_number_is_one_in_any_spelling(number) -> None:
    assert pipeline({"$limit": number}).limit == 5
    assert pipeline({"$sample": {"size": number}}).limit == 5
    assert pipeline({"$limit": 9}, {"$skip": number}).limit == 9
    assert pipeline({"$sort": {"a": number}}).fields.filtered == ("a",)


@pytest.mark.parametrize("number", NOT_WHOLE, ids=str)
def test_what_is_no_whole_number_of_documents_is_none_in_any_spelling(number) -> None:
    for stage in ({"$limit": number}, {"$skip": number}, {"$sample": {"size": number}}):
        with pytest.raises(CommandNotDerivable):
            pipeline(stage)


def test_zero_documents_may_be_skipped_but_not_returned() -> None:
    for zero in (0, {"$numberLong": "0"}):
        assert pipeline({"$skip": zero}).limit is None
        with pytest.raises(CommandNotDerivable):
            pipeline({"$limit": zero})


def test_the_largest_limit_is_that_of_mongodb() -> None:
    assert pipeline({"$limit": {"$numberLong": "9223372036854775807"}}).limit == 2**63 - 1


@pytest.mark.parametrize("limit", [1e20, -1e20, 2**53, 1e300])
def test_a_limit_beyond_exact_numbers_is_the_callers_error_with_its_bound(limit) -> None:
    with pytest.raises(InvalidArguments) as caught:
        run("find", limit=limit)
    assert (caught.value.reason, caught.value.path) == ("out_of_range", "/arguments/limit")
    assert str(2**53 - 1) in caught.value.message
    assert run("find", limit=2**53 - 1).limit == 2**53 - 1


PATTERN = {"$regularExpression": {"pattern": "smith", "options": "i"}}


@pytest.mark.parametrize(
    "condition",
    [
        {"$regex": PATTERN},
        {"$not": {"$regex": PATTERN}},
        {"$not": PATTERN},
        {"$regex": PATTERN, "$options": "m"},
        {"$regex": PATTERN, "$ne": "smithers"},
        {"$regex": "smith", "$options": "i"},
        {"$elemMatch": {"$regex": PATTERN}},
        {"$in": [PATTERN, {"$regex": "x"}]},
    ],
    ids=str,
)
def test_a_typed_pattern_is_one_wherever_a_pattern_is(condition) -> None:
    assert find({"name": condition}).fields.filtered == ("name",)
    assert pipeline({"$match": {"name": condition}}).fields.filtered == ("name",)


@pytest.mark.parametrize(
    "condition",
    [
        {"$regex": {"$regularExpression": {"pattern": "a", "options": "g"}}},
        {"$regex": {"$regularExpression": {"pattern": "a"}}},
        {"$regex": {"$oid": OID["$oid"]}},
        {"$regex": {"pattern": "a", "options": ""}},
        {"$regex": {}},
        {"$regex": 5},
        {"$regex": None},
        {"$regex": [PATTERN]},
        {"$regex": PATTERN, "$options": {"$code": "x"}},
        {"$regex": PATTERN, "$options": "g"},
        {"$regex": PATTERN, "$date": "2024-01-01"},
        {"$regex": PATTERN, "$regularExpression": PATTERN["$regularExpression"]},
        {"$regex": {"$regex": {"$regex": "a"}}},
    ],
    ids=str,
)
def test_a_pattern_that_is_none_is_refused(condition) -> None:
    with pytest.raises(CommandNotDerivable):
        find({"name": condition})
    with pytest.raises(CommandNotDerivable):
        find({"name": {"$not": condition}})


@pytest.mark.parametrize(
    ("query", "used"),
    [
        ({"authors": {"$elemMatch": {"$id": OID}}}, {"authors", "authors.$id"}),
        ({"authors": {"$elemMatch": {"$ref": "people"}}}, {"authors", "authors.$ref"}),
        (
            {"authors": {"$elemMatch": {"$ref": "people", "$id": {"$in": [OID]}, "$db": "hr"}}},
            {"authors", "authors.$id"},
        ),
        ({"authors": {"$elemMatch": {"$or": [{"$id": 1}, {"role": "x"}]}}}, {"authors.$id", "authors.role"}),
        ({"author.$id": OID}, {"author.$id", "author"}),
        ({"author": {"$ref": "people", "$id": OID}}, {"author"}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_the_parts_of_a_reference_are_fields(query, used) -> None:
    assert used <= set(find(query).fields.filtered)


@pytest.mark.parametrize(
    "query",
    [
        {"authors": {"$elemMatch": {"$id": OID, "$gt": 1}}},
        {"authors": {"$elemMatch": {"$Id": OID}}},
        {"authors": {"$elemMatch": {"$ref": "hr.people", "$id": OID}}},
        {"authors": {"$elemMatch": {"$id": {"$nope": 1}}}},
        {"author": {"$id": OID}},
    ],
    ids=str,
)
def test_what_only_looks_like_the_part_of_a_reference_is_refused(query) -> None:
    with pytest.raises(CommandNotDerivable):
        find(query)


def nested_condition(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"$cond": [{"$gt": ["$a", 1]}, value, 1]}
    return value


def test_what_mongodb_nests_is_derived_from_the_message_itself() -> None:
    command = decoded("aggregate", pipeline=[{"$project": {"x": nested_condition(47)}}])
    assert "a" in command.fields.filtered
    assert decoded("insert-many", documents=[{"a": nested_lists(98, {"$timestamp": {"t": 1, "i": 1}})}]).accesses
    wrapped = {"name": "find", "arguments": {"filter": {"a": nested_lists(95)}}}
    assert decoded("explain", method=[wrapped]).fields.filtered == ("a",)


def nested_lists(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "query",
    [
        nested_lists(100),
        {"a": nested_lists(100)},
        {"$expr": nested_condition(50)},
    ],
    ids=["list", "field", "expression"],
)
def test_one_level_more_than_mongodb_nests_is_refused(query) -> None:
    with pytest.raises(CallRefused):
        run("count", query=query)


WRAPPERS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "$not": ({"$gt": 1}, lambda inner: {"$not": inner}, lambda condition: {"a": condition}),
    "$elemMatch": ({"$gt": 1}, lambda inner: {"$elemMatch": {"a": inner}}, lambda condition: {"a": condition}),
    "$and": ({"a": 1}, lambda inner: {"$and": [inner]}, lambda query: query),
    "$getField": ("$a", lambda inner: {"$getField": {"field": "b", "input": inner}}, lambda value: {"$expr": value}),
    "$let": ("$a", lambda inner: {"$let": {"vars": {"v": inner}, "in": "$$v"}}, lambda value: {"$expr": value}),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_deepest_nesting_of_each_kind_is_walked_to_its_end(kind) -> None:
    value, wrap, as_query = WRAPPERS[kind]
    outcomes = []
    for _ in range(110):
        value = wrap(value)
        outcomes.append(outcome(as_query(value)))
    derived = outcomes.count("derived")
    assert derived > 30
    assert outcomes == ["derived"] * derived + ["too_deep"] * (110 - derived)


def outcome(query: Any) -> str:
    try:
        run("delete-many", filter=query)
    except CommandNotDerivable as refusal:
        return refusal.reason
    return "derived"


def test_a_list_of_values_may_be_as_long_as_a_message() -> None:
    command = decoded("find", filter={"_id": {"$in": [OID] * 26_000}})
    assert command.fields.filtered == ("_id",)
    assert decoded("find", filter={"n": {"$in": [*range(100_000)]}}).fields.filtered == ("n",)


DATA = [{"$schema": "x"}, [{"$out": "t"}], {"a": {"$where": "1"}}, {"$Date": "2024-01-01"}, {"$numberlong": "5"}]


@pytest.mark.parametrize("data", DATA, ids=str)
def test_keys_with_dollars_are_refused_alike_in_whatever_is_stored(data) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("insert-many", {"documents": [{"a": data}]}),
        ("update-many", {"filter": {"b": 1}, "update": {"$set": {"a": data}}}),
        ("update-many", {"filter": {"b": 1}, "update": {"$setOnInsert": {"a": data}}, "upsert": True}),
        ("update-many", {"filter": {"b": 1}, "update": {"$push": {"a": data}}}),
        ("update-many", {"filter": {"b": 1}, "update": {"$push": {"a": {"$each": [data], "$slice": 5}}}}),
        ("update-many", {"filter": {"b": 1}, "update": {"$addToSet": {"a": {"$each": [data]}}}}),
        ("update-many", {"filter": {"b": 1}, "update": {"$pullAll": {"a": [data]}}}),
    ]
    for name, arguments in calls:
        with pytest.raises(CommandNotDerivable) as caught:
            run(name, **arguments)
        assert caught.value.reason == "operator_in_document"
    with pytest.raises(CommandNotDerivable):
        run("update-many", filter={"a": {"$eq": data}}, update={"$set": {"c": 1}}, upsert=True)


@pytest.mark.parametrize("data", DATA, ids=str)
@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$all"])
def test_a_misspelt_type_is_not_compared_with(operator, data) -> None:
    value = [data] if operator in ("$in", "$nin", "$all") else data
    with pytest.raises(CommandNotDerivable) as caught:
        run("delete-many", filter={"a": {operator: value}})
    assert caught.value.reason == "operator_in_value"
    with pytest.raises(CommandNotDerivable):
        run("delete-many", filter={"a": [data]})


@pytest.mark.parametrize(
    "update",
    [
        {"$set": {"a": {"b": OID, "c": {"$ref": "people", "$id": OID}}}},
        {"$inc": {"n": {"$numberLong": "5"}}},
        {"$push": {"a": {"$each": [1, OID], "$slice": -5, "$sort": {"x": 1}, "$position": 0}}},
        {"$addToSet": {"a": {"$each": [{"b": 1}]}}},
        {"$pull": {"a": {"$in": [1, 2]}}},
        {"$pull": {"a": {"b": {"$gte": 8}, "c": OID}}},
        {"$pull": {"a": OID}},
        {"$pull": {"a": {"$elemMatch": {"b": 1}}}},
        {"$pull": {"a": {"$regex": "^x"}}},
        {"$pull": {"a": {"$ref": "people", "$id": OID}}},
        {"$currentDate": {"a": {"$type": "date"}}},
        {"$bit": {"a": {"and": {"$numberInt": "5"}}}},
    ],
    ids=str,
)
def test_ordinary_updates_pass(update) -> None:
    assert set(run("update-many", filter={"b": 1}, update=update, upsert=True).fields.filtered) >= {"b"}


@pytest.mark.parametrize(
    "query",
    [
        {"a": {"$in": [OID, {"$date": "2024-01-01"}, [1, {"b": 2}]]}},
        {"a": {"$eq": {"b": OID}}},
        {"a": {"$all": [{"$elemMatch": {"b": {"$gt": 1}}}, 5, OID]}},
        {"a": {"$gt": {"$minKey": 1}}},
        {"a": {"$ne": {"$ref": "people", "$id": OID}}},
        {"a": {"b": {"c": OID}}},
    ],
    ids=str,
)
def test_ordinary_operands_pass(query) -> None:
    assert "a" in run("delete-many", filter=query).fields.filtered
