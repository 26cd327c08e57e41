"""A typed value (MongoDB Extended JSON v2) passes only if it is one, wherever it stands.

Without that the server reads most of what is refused here as 1970, 0 or NaN, and says nothing (seen on js-bson 7.3).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable, SidecarError
from sidecar.model import Command, ToolCall, Trait

COLL: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
OID = "56e1fc72e0c917e9c4714161"
CORPUS = json.loads((Path(__file__).parent / "data" / "bson_corpus.json").read_text())  # noqa: TID251 - our own file


def spelt(value: object) -> str:
    return json.dumps(value)[:60]


def in_filter(value: Any) -> tuple[str, dict[str, Any], str]:
    return "delete-many", {**COLL, "filter": {"a": {"$gt": value}}}, "/arguments/filter/a/$gt"


def in_pipeline(value: Any) -> tuple[str, dict[str, Any], str]:
    return (
        "aggregate",
        {**COLL, "pipeline": [{"$set": {"x": {"$literal": [value]}}}]},
        "/arguments/pipeline/0/$set/x/$literal/0",
    )


def in_document(value: Any) -> tuple[str, dict[str, Any], str]:
    return "insert-many", {**COLL, "documents": [{"b": [{"c": value}]}]}, "/arguments/documents/0/b/0/c"


PLACES = (in_filter, in_pipeline, in_document)


def attempt(name: str, arguments: dict[str, Any]) -> Command | SidecarError:
    try:
        return derive(ToolCall(name=name, arguments=arguments)).command
    except SidecarError as refusal:
        return refusal


LIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"$date": "next year"}, {"$date": "2027-01-01T00:00:00Z"}),
    ({"$date": ""}, {"$date": "2027-01-01"}),
    ({"$date": "20240101"}, {"$date": "2024-01-01"}),
    ({"$date": "10000-01-01T00:00:00Z"}, {"$date": "9999-12-31T23:59:59.999Z"}),
    ({"$date": "+010000-01-01T00:00:00Z"}, {"$date": {"$numberLong": "253402300800000"}}),
    ({"$date": "2024-02-30"}, {"$date": "2024-02-29"}),
    ({"$date": "2023-02-29T00:00:00Z"}, {"$date": "2000-02-29T00:00:00Z"}),
    ({"$date": "1900-02-29T00:00:00Z"}, {"$date": "0000-02-29T00:00:00Z"}),
    ({"$date": "2024-04-31T00:00:00Z"}, {"$date": "2024-04-30T00:00:00Z"}),
    ({"$date": "2024-13-01T00:00:00Z"}, {"$date": "2024-12-01T00:00:00Z"}),
    ({"$date": "2024-01-01T00:00:00"}, {"$date": "2024-01-01T00:00:00+00:00"}),
    ({"$date": "2024-01-01 00:00:00Z"}, {"$date": "2024-01-01t00:00:00z"}),
    ({"$date": "2024-01-01T24:00:00Z"}, {"$date": "2024-01-01T23:00:00Z"}),
    ({"$date": "2024-01-01T23:59:60Z"}, {"$date": "2024-01-01T23:59:59Z"}),
    ({"$date": "2024-01-01T10:00:00+24:00"}, {"$date": "2024-01-01T10:00:00+23:59"}),
    ({"$date": "2024-01-01T10:00:00+01"}, {"$date": "2024-01-01T10:00:00+0100"}),
    ({"$date": "2024-01-01T10:00:00.123456Z"}, {"$date": "2024-01-01T10:00:00.123000Z"}),
    ({"$date": "2024-01-01T10:00:00,123Z"}, {"$date": "2024-01-01T10:00:00.1Z"}),
    ({"$date": "1"}, {"$date": "0001-01-01T00:00Z"}),
    ({"$date": "Jan 1 2024"}, {"$date": "2024-01-01T00:00Z"}),
    ({"$date": "٢٠٢٤-01-01"}, {"$date": "2024-01-01"}),
    ({"$date": 42}, {"$date": {"$numberLong": "42"}}),
    ({"$date": 8_640_000_000_000_001}, {"$date": 8_640_000_000_000_000}),
    ({"$date": {"$numberLong": "8640000000000001"}}, {"$date": {"$numberLong": "-8640000000000000"}}),
    ({"$date": {"$numberInt": "42"}}, {"$date": {"$numberLong": "+42"}}),
    ({"$date": {"$numberLong": "42", "x": 1}}, {"$date": {"$numberLong": "42"}}),
    ({"$date": ["2024-01-01"]}, {"$date": "2024-01-01"}),
    ({"$numberInt": "5000000000"}, {"$numberInt": "2147483647"}),
    ({"$numberInt": "-2147483649"}, {"$numberInt": "-2147483648"}),
    ({"$numberInt": "abc"}, {"$numberInt": "0"}),
    ({"$numberInt": "5.5"}, {"$numberInt": "5"}),
    ({"$numberInt": "1e3"}, {"$numberInt": "1000"}),
    ({"$numberInt": "0x10"}, {"$numberInt": "16"}),
    ({"$numberInt": " 5"}, {"$numberInt": "+5"}),
    ({"$numberInt": 5}, {"$numberInt": "5"}),
    ({"$numberLong": "9223372036854775808"}, {"$numberLong": "9223372036854775807"}),
    ({"$numberLong": "-9223372036854775809"}, {"$numberLong": "-9223372036854775808"}),
    ({"$numberLong": "1_000"}, {"$numberLong": "1000"}),
    ({"$numberLong": ""}, {"$numberLong": "0"}),
    ({"$numberDouble": "abc"}, {"$numberDouble": "NaN"}),
    ({"$numberDouble": "1abc"}, {"$numberDouble": "1"}),
    ({"$numberDouble": "1e400"}, {"$numberDouble": "1e308"}),
    ({"$numberDouble": "1e-400"}, {"$numberDouble": "0e-400"}),
    ({"$numberDouble": "inf"}, {"$numberDouble": "-Infinity"}),
    ({"$numberDouble": "9007199254740993"}, {"$numberDouble": "9007199254740992"}),
    ({"$numberDouble": "123456789012345678901.0"}, {"$numberDouble": "123456789012345680000.0"}),
    ({"$numberDecimal": "+"}, {"$numberDecimal": "+0"}),
    ({"$numberDecimal": "1E-20000"}, {"$numberDecimal": "1E-6176"}),
    ({"$numberDecimal": "1E+6145"}, {"$numberDecimal": "1E+6144"}),
    ({"$numberDecimal": "1" * 35}, {"$numberDecimal": "1" * 34}),
    ({"$numberDecimal": "1 000"}, {"$numberDecimal": "1000"}),
    ({"$numberDecimal": "1_000"}, {"$numberDecimal": "-Infinity"}),
    ({"$binary": {"base64": "AQID", "subType": "zz"}}, {"$binary": {"base64": "AQID", "subType": "fF"}}),
    ({"$binary": {"base64": "AQID", "subType": ""}}, {"$binary": {"base64": "AQID", "subType": "0"}}),
    ({"$binary": {"base64": "AQID", "subType": "100"}}, {"$binary": {"base64": "AQID", "subType": "80"}}),
    ({"$binary": {"base64": "A@QI", "subType": "00"}}, {"$binary": {"base64": "AQID", "subType": "00"}}),
    ({"$binary": {"base64": "AQ", "subType": "00"}}, {"$binary": {"base64": "AQ==", "subType": "00"}}),
    ({"$binary": {"base64": "AR==", "subType": "00"}}, {"$binary": {"base64": "AQ==", "subType": "00"}}),
    ({"$binary": {"base64": "-_-_", "subType": "00"}}, {"$binary": {"base64": "+/+/", "subType": "00"}}),
    ({"$binary": {"base64": "AQID\n", "subType": "00"}}, {"$binary": {"base64": "", "subType": "00"}}),
    (
        {"$binary": {"base64": "AQID", "subType": "04"}},
        {"$binary": {"base64": "c//SZESzTGmQ6OfR38A11A==", "subType": "04"}},
    ),
    ({"$binary": {"base64": "Jw==", "subType": "09"}}, {"$binary": {"base64": "JwA=", "subType": "09"}}),
    ({"$binary": {"base64": "JwAAAA==", "subType": "09"}}, {"$binary": {"base64": "JwAAAP5C", "subType": "09"}}),
    ({"$binary": {"base64": "EAg=", "subType": "09"}}, {"$binary": {"base64": "EAA=", "subType": "09"}}),
    ({"$binary": "AQID", "$type": "00"}, {"$binary": {"base64": "AQID", "subType": "00"}}),
    ({"$binary": "AQID"}, {"$binary": {"subType": "00", "base64": "AQID"}}),
    ({"$oid": "0"}, {"$oid": OID}),
    ({"$oid": "z" * 24}, {"$oid": "A" * 24}),
    ({"$oid": "a" * 12}, {"$oid": "a" * 24}),
    ({"$oid": {"$oid": OID}}, {"$oid": OID.upper()}),
    ({"$uuid": "x"}, {"$uuid": "73ffd264-44b3-4c69-90e8-e7d1dfc035d4"}),
    ({"$uuid": "73ffd264-44b34c69-90e8-e7d1dfc035d4"}, {"$uuid": "73FFD26444B34C6990E8E7D1DFC035D4"}),
    ({"$timestamp": {"t": 2**32, "i": 1}}, {"$timestamp": {"t": 2**32 - 1, "i": 1}}),
    ({"$timestamp": {"t": 1, "i": -1}}, {"$timestamp": {"i": 0, "t": 0}}),
    ({"$timestamp": {"t": 1.5, "i": 1}}, {"$timestamp": {"t": 1.0, "i": 1}}),
    ({"$timestamp": {"t": True, "i": 1}}, {"$timestamp": {"t": 1, "i": 1}}),
    ({"$minKey": 0}, {"$minKey": 1}),
    ({"$maxKey": True}, {"$maxKey": 1}),
    (
        {"$regularExpression": {"pattern": "a", "options": "g"}},
        {"$regularExpression": {"pattern": "a", "options": "mi"}},
    ),
    ({"$regularExpression": {"pattern": "a\0", "options": ""}}, {"$regularExpression": {"pattern": "", "options": ""}}),
    ({"$regex": "a", "$options": "gi"}, {"$regex": "a", "$options": "xi"}),
    ({"$regex": "a", "$options": 5}, {"$options": "i", "$regex": "a"}),
    ({"$regex": "a\0"}, {"$regex": "a"}),
    ({"$code": 5}, {"$code": ""}),
    ({"$code": "x", "$scope": None}, {"$code": "x", "$scope": {}}),
    ({"$code": "x", "$scope": {"$oid": OID}}, {"$code": "x", "$scope": {"a": {"$oid": OID}}}),
    ({"$code": "x", "$scope": {"$ref": "c", "$id": 1}}, {"$code": "x", "$scope": {"d": {"$ref": "c", "$id": 1}}}),
    ({"$ref": "a.b", "$id": 1}, {"$ref": "a.b.c", "$id": 1}),
    ({"$ref": "", "$id": 1}, {"$ref": "a", "$id": 1, "x": 2}),
    ({"$ref": "a", "$id": 1, "$db": ""}, {"$id": 1, "$ref": "a", "$db": "b"}),
    ({"$symbol": "a"}, {"$regex": "a"}),
    ({"$undefined": True}, {"$minKey": 1}),
    ({"$undefined": False}, {"$maxKey": 1.0}),
    ({"$dbPointer": {"$ref": "a", "$id": {"$oid": OID}}}, {"$ref": "a", "$id": {"$oid": OID}}),
    ({"$oid": OID, "$date": "2024-01-01"}, {"$date": "2024-01-01"}),
    ({"$oid": OID, "note": 1}, {"$oid": OID}),
    ({"note": 1, "$numberLong": "1"}, {"$numberLong": "1"}),
]
"""A value that is not of its type, and beside it the nearest one that is."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("lie", "near_miss"), LIES, ids=spelt)
def test_a_typed_value_that_is_not_of_its_type_is_refused_with_its_pointer(place, lie, near_miss) -> None:
    name, arguments, at = place(lie)
    refusal = attempt(name, arguments)
    assert isinstance(refusal, CommandNotDerivable)
    assert refusal.reason == "ejson_refused"
    assert refusal.path in {f"{at}/{key}" for key in lie if key.startswith("$")}
    name, arguments, _ = place(near_miss)
    assert isinstance(attempt(name, arguments), Command)


DEPRECATED = ("$symbol", "$undefined", "$dbPointer")


def is_a_value(value: Any) -> bool:
    """Whether an entry of the corpus is a value: not a deprecated one, not a document that is about keys with ``$``."""
    if not isinstance(value, dict):
        return True
    if not {key for key in value if key.startswith("$")} <= {"$ref", "$id", "$db", *TYPED}:
        return False
    return not value.keys() & set(DEPRECATED) and not isinstance(value.get("$regex"), dict)


TYPED = {
    *(
        "$oid",
        "$uuid",
        "$numberInt",
        "$numberLong",
        "$numberDouble",
        "$numberDecimal",
        "$binary",
        "$date",
        "$timestamp",
    ),
    *("$regularExpression", "$regex", "$options", "$minKey", "$maxKey", "$code", "$scope", *DEPRECATED),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_valid_value_of_the_bson_corpus_passes(place) -> None:
    values = [value for value in CORPUS["valid"] if is_a_value(value)]
    assert len(values) > 780
    refused = []
    for value in values:
        name, arguments, _ = place(value)
        if not isinstance(attempt(name, arguments), Command):
            refused.append(value)
    assert refused == []


@pytest.mark.parametrize("place", PLACES)
def test_every_parse_error_of_the_bson_corpus_is_refused(place) -> None:
    assert len(CORPUS["parse_errors"]) > 170
    passed = []
    for value in CORPUS["parse_errors"]:
        name, arguments, _ = place(value)
        if isinstance(attempt(name, arguments), Command):
            passed.append(value)
    assert passed == []


def test_code_is_server_side_javascript_with_and_without_a_scope() -> None:
    for code in ({"$code": "x"}, {"$code": "x", "$scope": {"y": 1}}):
        command = attempt(*in_document(code)[:2])
        assert isinstance(command, Command)
        assert command.traits == {Trait.SERVER_SIDE_JS}


def test_the_scope_of_code_is_looked_into() -> None:
    name, arguments, at = in_document({"$code": "x", "$scope": {"d": {"$date": "soon"}}})
    refusal = attempt(name, arguments)
    assert isinstance(refusal, CommandNotDerivable)
    assert (refusal.reason, refusal.path) == ("ejson_refused", f"{at}/$scope/d/$date")


@pytest.mark.parametrize(
    "document", [{"$oid": OID}, {"$date": "2024-01-01"}, {"$regex": "a"}, {"$code": "x"}], ids=spelt
)
def test_a_typed_value_is_no_document(document) -> None:
    refusal = attempt("insert-many", {**COLL, "documents": [{"a": 1}, document]})
    assert isinstance(refusal, CommandNotDerivable)
    assert refusal.reason == "operator_in_document"


MISREAD: list[dict[str, Any]] = [
    {"filter": {"$oid": OID}},
    {"filter": {"$and": [{"$date": "2024-01-01"}]}},
    {"filter": {"a": {"$elemMatch": {"$oid": OID}}}},
    {"filter": {"$expr": {"$Date": "2024-01-01"}}},
    {"filter": {"a": {"$gt": {"$oid": OID, "$OID": OID}}}},
    {"filter": {"a": {"$gt": {"$date\0": "2024-01-01"}}}},
    {"filter": {"a": {"$gt": {"$date": {"$date": "2024-01-01"}}}}},
    {"filter": {"a": {"$gt": {"$date": {"__isLong__": True}}}}},
    {"filter": {"a": {"$regex": {"_bsontype": "BSONRegExp"}}}},
    {"filter": {"a": {"$in": [{"$numberLong": ["5"]}]}}},
    {"filter": {"a": {"$timestamp": {"t": 1, "i": 1, "__proto__": 1}}}},
    {"filter": {"a": {"$eq": {"$ref": "hr.people", "$id": 1, "x": {"$numberInt": "5"}}}}},
]


@pytest.mark.parametrize("arguments", MISREAD, ids=spelt)
def test_values_where_none_belong_and_values_that_only_look_like_one_are_refused(arguments) -> None:
    assert isinstance(attempt("delete-many", {**COLL, **arguments}), CommandNotDerivable)


MISPLACED: list[dict[str, Any]] = [
    {"$oid": OID},
    {"$match": {"$oid": OID}},
    {"$project": {"$date": "2024-01-01"}},
    {"$set": {"$numberInt": "1"}},
    {"$sort": {"$numberInt": "1"}},
    {"$unset": {"$regex": "a"}},
    {"$count": {"$code": "x"}},
    {"$facet": {"a": {"$oid": OID}}},
    {"$out": {"$oid": OID}},
    {"$unionWith": {"$regex": "a"}},
    {"$lookup": {"from": {"$regex": "a"}, "as": "b"}},
    {"$lookup": {"from": "a", "as": {"$oid": OID}}},
    {"$graphLookup": {"$oid": OID}},
    {"$unwind": {"$date": "2024-01-01"}},
]


@pytest.mark.parametrize("stage", MISPLACED, ids=spelt)
def test_a_typed_value_is_no_stage_no_option_and_no_name(stage) -> None:
    assert isinstance(attempt("aggregate", {**COLL, "pipeline": [stage]}), CommandNotDerivable)


@pytest.mark.parametrize("key", ["$regex", "$date", "$code", "$oid", "$scope"])
def test_typed_keys_inside_one_another_are_refused_without_recursion(key) -> None:
    value: Any = "a"
    for _ in range(50_000):
        value = {key: value}
    name, arguments, _ = in_filter(value)
    assert isinstance(attempt(name, arguments), CommandNotDerivable)
