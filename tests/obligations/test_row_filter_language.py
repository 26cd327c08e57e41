"""Row filters of policy: which are understood, and what they admit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.obligations.row_filter import FilterNotUsable, read_filter

EU: dict[str, Any] = {"region": "EU"}
NOON: dict[str, Any] = {"$date": "2026-03-31T12:00:00Z"}
MAY: dict[str, Any] = {"$date": "2026-05-01T00:00:00.000Z"}
HER: dict[str, Any] = {"$oid": "0123456789abcdef01234567"}
USABLE: list[dict[str, Any]] = [
    EU,
    {"live": False, "level": 3},
    {"org.region": {"$eq": "EU"}},
    {"region": {"$in": ["EU", "US"]}},
    {"level": {"$gte": 1, "$lt": 5}},
    {"$or": [EU, {"$and": [{"owner": "alice"}, {"level": {"$lte": 2}}]}]},
    {"day": NOON, "by": HER},
    {"day": {"$gte": NOON, "$lt": MAY}},
    {"by": {"$in": [HER, {"$oid": "f" * 24}]}},
    {"by": {"$eq": HER}},
]
UNUSABLE: list[Any] = [
    {},
    {"region": None},
    {"region": ""},
    {"region": []},
    {"region": ["EU"]},
    {"region": {}},
    {"region": {"$ne": "EU"}},
    {"region": {"$in": []}},
    {"region": {"$in": "EU"}},
    {"region": {"$in": [["EU"]]}},
    {"region": {"$in": [None]}},
    {"region": {"$eq": {"x": 1}}},
    {"region": {"x": "EU"}},
    {"by": {"$oid": "A" * 24}},
    {"by": {"$oid": "0" * 23}},
    {"by": {"$oid": 5}},
    {"by": {**HER, "$gt": 1}},
    {"by": {**HER, **NOON}},
    {"day": {"$date": "2026-02-30T00:00:00Z"}},
    {"day": {"$date": "2026-03-31T12:00:00"}},
    {"day": {"$date": "2026-03-31T12:00:00+02:00"}},
    {"day": {"$date": "2026-03-31"}},
    {"day": {"$date": {"$numberLong": "0"}}},
    {"day": {"$gte": {"$date": "next year"}}},
    {"day": {"$timestamp": {"t": 1, "i": 1}}},
    {"level": {"$numberLong": "5"}},
    NOON,
    {"region": {"$gt": None}},
    {"region": {"$gt": True}},
    {"region": float("nan")},
    {"level": 2**53},
    {"$or": []},
    {"$or": EU},
    {"$or": ["EU"]},
    {"$or": [{}]},
    {"$nor": [EU]},
    {"$where": "true"},
    {"$expr": {"$eq": [1, 1]}},
    {"a.$b": 1},
    {"a.0.b": 1},
    {"a..b": 1},
    {"__proto__": 1},
    {"a.__proto__.b": 1},
    {"x" * 300: 1},
    {"region": {"$in": ["x"] * 2000}},
    {f"f{number}": 1 for number in range(300)},
]


@pytest.mark.parametrize("query", USABLE, ids=str)
def test_equality_in_and_ranges_are_understood(query: dict[str, Any]) -> None:
    assert read_filter(query).query is query


@pytest.mark.parametrize("query", UNUSABLE, ids=lambda query: str(query)[:60])
def test_everything_else_is_not(query: dict[str, Any]) -> None:
    with pytest.raises(FilterNotUsable) as caught:
        read_filter(query)
    assert "EU" not in str(caught.value)


def test_what_is_nested_without_end_is_not() -> None:
    query: dict[str, Any] = EU
    for _ in range(20):
        query = {"$or": [query]}
    with pytest.raises(FilterNotUsable):
        read_filter(query)


@pytest.mark.parametrize(
    ("query", "document", "admitted"),
    [
        (EU, {"region": "EU", "x": None}, True),
        ({"day": NOON}, {"day": NOON}, True),
        ({"day": NOON}, {"day": {"$date": "2026-03-31T12:00:00.000Z"}}, True),
        ({"day": NOON}, {"day": {"$date": "2026-03-31T12:00:00.001Z"}}, False),
        ({"day": NOON}, {"day": "2026-03-31T12:00:00Z"}, False),
        ({"day": NOON}, {"day": {"$date": {"$numberLong": "1774958400000"}}}, False),
        ({"day": NOON}, {"day": [NOON]}, False),
        ({"day": {"$gte": NOON, "$lt": MAY}}, {"day": {"$date": "2026-04-30T23:59:59.999Z"}}, True),
        ({"day": {"$gte": NOON, "$lt": MAY}}, {"day": MAY}, False),
        ({"day": {"$gte": NOON}}, {"day": HER}, False),
        ({"day": {"$gte": NOON}}, {"day": "9"}, False),
        ({"day": {"$gte": "2"}}, {"day": NOON}, False),
        ({"by": HER}, {"by": HER}, True),
        ({"by": HER}, {"by": {"$oid": HER["$oid"].upper()}}, False),
        ({"by": HER}, {"by": HER["$oid"]}, False),
        ({"by": {"$lte": HER}}, {"by": {"$oid": "0" * 24}}, True),
        ({"by": {"$lte": HER}}, {"by": {"$oid": "f" * 24}}, False),
        (EU, {"region": "US"}, False),
        (EU, {}, False),
        (EU, {"region": None}, False),
        (EU, {"region": ["EU"]}, False),
        (EU, {"region": {"$symbol": "EU"}}, False),
        (EU, {"regions": "EU"}, False),
        ({"org.region": "EU"}, {"org": {"region": "EU"}}, True),
        ({"org.region": "EU"}, {"org.region": "EU"}, False),
        ({"org.region": "EU"}, {"org": [{"region": "EU"}]}, False),
        ({"org.region": "EU"}, {"org": {"region": "EU", "$oid": "0" * 24}}, False),
        ({"live": True}, {"live": True}, True),
        ({"live": True}, {"live": 1}, False),
        ({"level": 1}, {"level": True}, False),
        ({"level": 1}, {"level": 1.0}, True),
        ({"level": 1}, {"level": {"$numberLong": "1"}}, False),
        ({"level": {"$gte": 1, "$lt": 5}}, {"level": 1}, True),
        ({"level": {"$gte": 1, "$lt": 5}}, {"level": 5}, False),
        ({"level": {"$gt": 1}}, {"level": "2"}, False),
        ({"level": {"$gt": 1}}, {"level": 1}, False),
        ({"level": {"$lte": 1}}, {"level": 1}, True),
        ({"level": {"$lte": 1}}, {"level": True}, False),
        ({"name": {"$gte": "é"}}, {"name": "z"}, False),
        ({"name": {"$gte": "é"}}, {"name": "\U0001f600"}, True),
        ({"$or": [EU, {"owner": "me"}]}, {"region": "US", "owner": "me"}, True),
        ({"$or": [EU, {"owner": "me"}]}, {"owner": "me"}, False),
        ({"$or": [EU, {"region": "US"}]}, {"region": "US"}, True),
        ({"$and": [{"level": {"$in": [1, 2]}}, EU]}, {"region": "EU", "level": 3}, False),
    ],
    ids=str,
)
def test_a_document_is_admitted_where_it_is_certainly_a_row(query: Any, document: Any, admitted: bool) -> None:
    assert read_filter(query).admits(document) is admitted


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "EU", "US"]) | st.lists(st.just("EU"))


@given(st.dictionaries(st.sampled_from(["region", "level"]), VALUES))
def test_a_document_without_every_field_as_a_plain_value_is_never_admitted(document: dict[str, Any]) -> None:
    plain = all(isinstance(document.get(field), bool | int | str) for field in ("region", "level"))
    admitted = read_filter({"region": "EU", "level": {"$gte": 0}}).admits(document)
    assert admitted is (
        plain and document["region"] == "EU" and type(document["level"]) is int and document["level"] >= 0
    )
