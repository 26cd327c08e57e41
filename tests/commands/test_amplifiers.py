"""A few bytes that take a server's memory are told from those that do not: by their number, wherever they stand."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from sidecar.commands.amplifiers import MOST, ORDINARY, WORDS, literal_number
from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable, SidecarError
from sidecar.model import Command, JsonValue, ToolCall, Trait
from tests.commands.manual import PIPELINES
from tests.ledger.rows import rows
from tests.soundness.calls import TOOLS, calls

LEAST_ORDINARY: Final = 1_000
DATA: Final = Path(__file__).parents[2] / "policies" / "platform" / "data.json"
COLL: Final[dict[str, JsonValue]] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


def spelt(value: object) -> str:
    return repr(value)[:60]


def aggregate(*stages: Any) -> Command:
    return derive(ToolCall(name="aggregate", arguments={**COLL, "pipeline": list(stages)})).command


def numbers(command: Command) -> dict[str, float | None]:
    return {one.construct: one.number for one in command.amplifiers}


def setting(expression: Any) -> dict[str, Any]:
    return {"$set": {"x": expression}}


def grouped(accumulator: Any) -> dict[str, Any]:
    return {"$group": {"_id": "$g", "x": accumulator}}


def reducing(step: Any, source: Any = "$a", initial: Any = None) -> dict[str, Any]:
    return {"$reduce": {"input": source, "initialValue": [] if initial is None else initial, "in": step}}


def replacing(source: Any, find: Any, replacement: Any) -> Any:
    return {"$replaceAll": {"input": source, "find": find, "replacement": replacement}}


def nested_let(depth: int) -> Any:
    value: Any = {"$concatArrays": ["$$v", "$$v"]}
    for _ in range(depth):
        value = {"$let": {"vars": {"v": {"$concatArrays": ["$$v", "$$v"]}}, "in": value}}
    return {"$let": {"vars": {"v": "$a"}, "in": value}}


def nested_map(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"$map": {"input": "$a", "in": value}}
    return value


def nested_schema(depth: int) -> Any:
    value: Any = {"bsonType": "string"}
    for _ in range(depth):
        value = {"not": value}
    return value


DOUBLING: Final = {"$concatArrays": ["$$value", "$$value"]}
LONG: Final = {"$range": [0, 5000]}
DAY: Final = [{"$date": "2024-01-01T00:00:00Z"}, {"$date": "2024-01-02T00:00:00Z"}]

OVER: Final[list[tuple[str, list[Any]]]] = [
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": 1e11}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": 1001}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$numberLong": "100000000000"}}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$literal": 1e11}}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$literal": {"$numberDecimal": "1E+11"}}}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$add": [1, 1]}}}]),
    ("$bucketAuto.buckets", [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$numberDouble": "Infinity"}}}]),
    ("$densify.step", [{"$densify": {"field": "a", "range": {"step": 1e-300, "bounds": "full"}}}]),
    ("$densify.step", [{"$densify": {"field": "a", "range": {"step": {"$numberDouble": "1e-300"},
        "bounds": "partition"}}}]),
    ("$densify.step", [{"$densify": {"field": "a", "range": {"step": 1, "unit": "millisecond", "bounds": "full"}}}]),
    ("$densify.step", [{"$densify": {"field": "a", "range": {"step": 1, "unit": "eon", "bounds": "full"}}}]),
    ("$densify.range", [{"$densify": {"field": "a", "range": {"step": 1, "bounds": [0, 1e9]}}}]),
    ("$densify.range", [{"$densify": {"field": "a", "range": {"step": 0, "bounds": [0, 1]}}}]),
    ("$densify.range", [{"$densify": {"field": "a", "range": {"step": 1, "unit": "millisecond", "bounds": DAY}}}]),
    ("$sample.size", [{"$sample": {"size": 10_000_000}}]),
    ("$topN.n", [grouped({"$topN": {"n": 1e308, "sortBy": {"a": 1}, "output": "$a"}})]),
    ("$topN.n", [grouped({"$bottomN": {"n": "$n", "sortBy": {"a": 1}, "output": "$a"}})]),
    ("$firstN.n", [grouped({"$firstN": {"n": 1e9, "input": "$a"}})]),
    ("$firstN.n", [setting({"$lastN": {"n": {"$size": "$a"}, "input": "$a"}})]),
    ("$maxN.n", [grouped({"$maxN": {"input": "$a", "n": {"$toInt": "5"}}})]),
    ("$maxN.n", [grouped({"$minN": {"input": "$a"}})]),
    ("$maxN.n", [{"$setWindowFields": {"output": {"x": {"$minN": {"input": "$a", "n": 1e6}, "window": {}}}}}]),
    ("$window.documents", [{"$setWindowFields": {"output": {"x": {"$sum": "$a", "window": {"documents": [-1e9,
        1e9]}}}}}]),
    ("$window.documents", [{"$setWindowFields": {"output": {"x": {"$sum": "$a", "window": {"documents": ["$a",
        0]}}}}}]),
    ("$window.range", [{"$setWindowFields": {"output": {"x": {"$sum": "$a", "window": {"range": [-1e300, 1]}}}}}]),
    ("$range.length", [setting({"$range": [0, 1_000_000]})]),
    ("$range.length", [setting({"$range": [1_000_000, 0, -1]})]),
    ("$range.length", [setting({"$range": [0, "$n"]})]),
    ("$range.length", [setting({"$range": ["$n", 5]})]),
    ("$range.length", [setting({"$range": [0, 10, "$step"]})]),
    ("$range.length", [setting({"$range": [0, {"$multiply": [1000, {"$size": "$a"}]}]})]),
    ("$range.length", [setting({"$range": [0, {"$add": [{"$size": "$a"}, 1_000_000]}]})]),
    ("$range.length", [setting({"$range": {"$literal": [0, 1_000_000]}})]),
    ("$reduce.copies", [setting(reducing(DOUBLING))]),
    ("$reduce.copies", [setting(reducing(["$$value", "$$value"]))]),
    ("$reduce.copies", [setting(reducing({"a": "$$value.a", "b": {"$concatArrays": ["$$value.a", "$$value.b"]}}))]),
    ("$reduce.copies", [setting(reducing({"$mergeObjects": ["$$value", {"x": "$$value"}]}))]),
    ("$reduce.copies", [setting(reducing({"$let": {"vars": {"v": "$$value"}, "in": ["$$v", "$$v"]}}))]),
    ("$reduce.copies", [setting(reducing({"$map": {"input": "$$value", "in": "$$value"}}))]),
    ("$reduce.copies", [setting(reducing({"$cond": ["$$this", DOUBLING, []]}))]),
    ("$reduce.copies", [grouped({"$push": reducing(DOUBLING)})]),
    ("$reduce.copies", [setting(reducing(reducing(["$$value", "$$value"], "$$value")))]),
    ("growth", [setting({"$map": {"input": LONG, "in": LONG}})]),
    ("growth", [setting({"$size": {"$filter": {"input": LONG, "cond": {"$filter": {"input": LONG, "cond": True}}}}})]),
    ("growth", [setting(replacing("$x", "a", "a" * 20))] * 5),
    ("growth", [setting(replacing("$x", "", "abc"))] * 10),
    ("growth", [setting(replacing("$x", {"$literal": "a"}, {"$literal": "$$$$$$$$$$"}))] * 10),
    ("growth", [setting(replacing("$x", "$f", "a" * 20))] * 5),
    ("growth", [setting(replacing("$x", "a", "$x"))] * 20),
    ("$reduce.copies", [setting(reducing(replacing("$$value", "a", "aa"), initial="a"))]),
    ("growth", [setting(LONG), setting({"$map": {"input": "$x", "in": "$x"}})]),
    ("growth", [{"$set": {"a": LONG, "b": LONG}}, {"$unwind": "$a"}, {"$unwind": "$b"}]),
    ("growth", [{"$set": {"a": {"$concatArrays": ["$a", "$a"]}}}] * 30),
    ("growth", [{"$set": {"a": ["$a", "$b"], "b": ["$b", "$a"]}}] * 30),
    ("growth", [{"$replaceWith": {"a": "$$ROOT", "b": "$$ROOT"}}] * 30),
    ("growth", [{"$project": {"a": ["$a", "$a", "$a"]}}] * 20),
    ("growth", [grouped({"$push": ["$x", "$x"]}), grouped({"$push": ["$x", "$x"]})] * 12),
    ("growth", [setting(nested_let(20))]),
    ("growth", [setting(LONG), {"$lookup": {"from": "c", "as": "x", "let": {"v": "$x"}, "pipeline": [
        {"$replaceWith": {"y": {"$map": {"input": "$$v", "in": "$$v"}}}}]}}]),
    ("growth", [{"$unionWith": {"pipeline": [{"$documents": {"$map": {"input": LONG, "in": {"a": LONG}}}}]}}]),
    ("$map.depth", [setting(nested_map(7))]),
    ("$lookup.count", [{"$lookup": {"from": "c", "as": f"j{index}", "localField": "a",
        "foreignField": "b"}} for index in range(17)]),
    ("$unionWith.count", [{"$unionWith": "c"}] * 33),
    ("$unwind.count", [{"$unwind": "$a"}] * 13),
    ("$facet.pipelines", [{"$facet": {f"f{index}": [] for index in range(33)}}]),
    ("$trim.chars", [setting({"$trim": {"input": "$a", "chars": "x" * 1000}})]),
    ("$trim.chars", [setting({"$ltrim": {"input": "$a", "chars": "$b"}})]),
    ("$bitsAllSet.positions", [{"$match": {"a": {"$bitsAnySet": list(range(2000))}}}]),
    ("$or.combinations", [{"$match": {"$and": [{"$or": [{"a": 1}, {"b": 1}]}] * 20}}]),
    ("$or.combinations", [{"$match": {"$nor": [{"a": 1, "b": 1}] * 20}}]),
    ("$jsonSchema.depth", [{"$match": {"$jsonSchema": nested_schema(40)}}]),
]  # fmt: skip


@pytest.mark.parametrize(("construct", "pipeline"), OVER, ids=spelt)
def test_what_asks_for_too_much_is_amplifying_and_says_its_number(construct, pipeline) -> None:
    command = aggregate(*pipeline)
    assert Trait.AMPLIFYING in command.traits
    number = numbers(command)[construct]
    assert number is None or number > ORDINARY[construct]


WITHIN: Final[list[list[Any]]] = [
    [{"$bucketAuto": {"groupBy": "$a", "buckets": 1000}}],
    [{"$bucketAuto": {"groupBy": "$a", "buckets": {"$numberInt": "5"}}}],
    [{"$densify": {"field": "a", "range": {"step": 1, "bounds": [0, 1000]}}}],
    [{"$densify": {"field": "a", "range": {"step": 1, "unit": "hour", "bounds": DAY}}}],
    [{"$densify": {"field": "a", "range": {"step": 1, "unit": "second", "bounds": "full"}}}],
    [grouped({"$topN": {"n": 10, "sortBy": {"a": 1}, "output": "$a"}})],
    [setting({"$range": [0, {"$size": "$a"}]})],
    [setting({"$range": [0, {"$size": "$a"}, 100]})],
    [setting({"$range": [0, {"$subtract": [{"$size": "$a"}, 1]}]})],
    [setting({"$range": [0, {"$ceil": {"$divide": [{"$size": "$a"}, 10]}}]})],
    [setting({"$range": [0, {"$min": [100, "$n"]}]})],
    [setting(reducing({"$concatArrays": ["$$value", "$$this"]}))],
    [setting(reducing({"$concat": ["$$value", {"$cond": [{"$eq": ["$$value", ""]}, "", ", "]}, "$$this"]},
        initial=""))],
    [setting(reducing({"$cond": [{"$gt": ["$$this", "$$value"]}, "$$this", "$$value"]}, initial=0))],
    [setting(reducing({"sum": {"$add": ["$$value.sum", "$$this"]}, "n": {"$add": ["$$value.n", 1]}}))],
    [setting(reducing({"$concatArrays": ["$$value", {"$cond": [{"$in": ["$$this", "$$value"]}, [], ["$$this"]]}]}))],
    [setting(reducing({"$replaceAll": {"input": "$$value", "find": "$$this.f", "replacement": "$$this.t"}},
        initial="$a"))],
    [setting(replacing("$x", "abc", "de"))] * 100,
    [setting(replacing("$x", "&", "&amp;"))] * 5,
    [setting(reducing(replacing("$$value", "$$this", " "), initial="$x"))],
    [setting({"$map": {"input": "$a", "as": "i", "in": {"$mergeObjects": ["$$i", {"n": {"$add": ["$$i.n", 1]}}]}}})],
    [setting(nested_map(5))],
    [{"$set": {"a": {"$concat": ["$a", "x"]}}}] * 100,
    [{"$match": {"$or": [{"a": index} for index in range(1000)]}}],
    [{"$match": {"$and": [{"$or": [{"a": 1}, {"b": 1}]}] * 5}}],
    [{"$lookup": {"from": "c", "as": "j", "localField": "a", "foreignField": "b"}}, {"$unwind": "$j"}] * 8,
]  # fmt: skip


@pytest.mark.parametrize("pipeline", WITHIN, ids=spelt)
def test_its_near_miss_is_not(pipeline) -> None:
    assert Trait.AMPLIFYING not in aggregate(*pipeline).traits


PLACES: Final[dict[str, Callable[[dict[str, Any]], list[Any]]]] = {
    "facet": lambda stage: [{"$facet": {"f": [stage]}}],
    "lookup": lambda stage: [{"$lookup": {"from": "c", "as": "j", "pipeline": [stage]}}],
    "union": lambda stage: [{"$unionWith": {"coll": "c", "pipeline": [stage]}}],
    "fusion": lambda stage: [{"$rankFusion": {"input": {"pipelines": {"p": [stage]}}}}],
    "merge": lambda stage: [{"$merge": {"into": "t", "whenMatched": [stage]}}],
    "match": lambda stage: [{"$match": {"$or": [{"$expr": stage["$set"]["x"]}]}}],
    "window": lambda stage: [{"$setWindowFields": {"output": {"x": {"$push": stage["$set"]["x"]}}}}],
    "bucket": lambda stage: [{"$bucket": {"groupBy": stage["$set"]["x"], "boundaries": [1, 2]}}],
    "documents": lambda stage: [{"$unionWith": {"pipeline": [{"$documents": [{"a": stage["$set"]["x"]}]}]}}],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("expression", [{"$range": [0, 1_000_000]}, reducing(DOUBLING)], ids=spelt)
def test_it_is_found_wherever_it_stands(place, expression) -> None:
    pipeline = PLACES[place](setting(expression))
    assert Trait.AMPLIFYING in aggregate(*pipeline).traits
    for tool, key in (("explain", "method"), ("export", "exportTarget")):
        wrapped: list[JsonValue] = [{"name": "aggregate", "arguments": {"pipeline": pipeline}}]
        more: dict[str, JsonValue] = {"exportTitle": "t", "jsonExportFormat": "relaxed"} if tool == "export" else {}
        command = derive(ToolCall(name=tool, arguments={**COLL, key: wrapped, **more})).command
        assert Trait.AMPLIFYING in command.traits


@pytest.mark.parametrize("tool", ["find", "count", "update-many", "delete-many"])
def test_filters_and_projections_of_other_tools_are_looked_at_too(tool) -> None:
    key = "query" if tool == "count" else "filter"
    more: dict[str, JsonValue] = {"update": {"$set": {"a": 1}}} if tool == "update-many" else {}
    expression: JsonValue = {"$expr": {"$gt": [{"$size": {"$range": [0, 1e9]}}, 1]}}
    assert Trait.AMPLIFYING in derive(ToolCall(name=tool, arguments={**COLL, key: expression, **more})).command.traits
    if tool == "find":
        projected = derive(ToolCall(name=tool, arguments={**COLL, "projection": {"a": {"$range": [0, 1e9]}}})).command
        assert Trait.AMPLIFYING in projected.traits


def test_one_construct_is_reported_once_with_its_largest_number_and_place() -> None:
    command = aggregate(*[{"$bucketAuto": {"groupBy": "$a", "buckets": number}} for number in (3, 9, 4)])
    [found] = command.amplifiers
    assert (found.construct, found.number, found.at) == (
        "$bucketAuto.buckets",
        9,
        "/arguments/pipeline/1/$bucketAuto/buckets",
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5), (5.5, 5.5), ({"$numberInt": "5"}, 5), ({"$numberLong": "-5"}, -5), ({"$numberDouble": "1e3"}, 1000),
        ({"$numberDecimal": "5"}, 5), ({"$literal": {"$const": 5}}, 5), (1e308, MOST), ({"$numberLong": "9" * 18},
            MOST),
        (True, None), ("5", None), ("$n", None), ({"$numberDouble": "NaN"}, None), ({"$numberInt": "x"}, None),
        ({"$add": [1]}, None), (None, None), ([5], None), ({}, None), (float("inf"), None),
    ],
)  # fmt: skip
def test_a_number_is_read_in_each_of_its_spellings(value, expected) -> None:
    assert literal_number(value) == expected


def test_the_shipped_bounds_are_what_is_ordinary() -> None:
    assert msgspec.json.decode(DATA.read_bytes())["mcp"]["platform"]["amplifiers"] == ORDINARY
    assert WORDS.keys() == ORDINARY.keys()


def ledgers() -> Iterator[ToolCall]:
    """Calls of the other tests: attacks whose harm is elsewhere, and the benign neighbours of all attacks."""
    for row in rows():
        for call in (row.get("call"), row.get("near_miss")):
            if call is not None:
                yield ToolCall(name=call["name"], arguments=call["arguments"])
    for tool in TOOLS:
        yield from calls(tool, seed=1)


def ordinary() -> Iterator[Command]:
    for pipeline in PIPELINES:
        yield aggregate(*pipeline)
    for call in ledgers():
        with suppress(SidecarError):
            yield derive(call).command


def test_pipelines_of_the_manual_and_of_the_ledgers_stay_below_the_bounds(record_property) -> None:
    largest: dict[str, float] = {}
    looked_at = 0
    for command in ordinary():
        looked_at += 1
        for construct, number in numbers(command).items():
            assert number is not None, (construct, command)
            largest[construct] = max(number, largest.get(construct, 0))
    assert looked_at > LEAST_ORDINARY
    print(f"{looked_at} commands")  # noqa: T201  # the measurement is what this test is for
    for construct, bound in ORDINARY.items():
        line = f"{construct:28} largest {largest.get(construct, 0):>12,.5g}   bound {bound:>16,}"
        print(line)  # noqa: T201
        record_property(construct, largest.get(construct, 0))
        assert largest.get(construct, 0) <= bound, construct


@pytest.mark.parametrize(
    "stage",
    [
        {"$rankFusion": {"input": {"pipelines": {"a": []}}}},
        {"$scoreFusion": {"input": {"pipelines": {"a": "x"}}}},
        {"$rankFusion": {"input": {"pipelines": {"a": [{"$limit": 1}]}}, "combination": {"weights": {"b": 1}}}},
        {"$setWindowFields": {"sortBy": {"a": {"$meta": "textScore"}}, "output": {"x": {"$linearFill": "$a"}}}},
        {"$fill": {"sortBy": {"a": {"$meta": "randVal"}}, "output": {"x": {"method": "linear"}}}},
        {"$group": {"_id": 1, "x": {"$topN": {"n": 1, "sortBy": {"a": 1}, "output": "$a", "extra": 1}}}},
        {"$group": {"_id": 1, "x": {"$top": {"n": 1, "sortBy": {"a": 1}, "output": "$a"}}}},
        {"$group": {"_id": 1, "x": {"$percentile": {"input": "$a", "p": [0.5], "method": "approximate", "q": 1}}}},
        {"$set": {"x": {"$reduce": {"input": "$a", "initialValue": 0, "in": 1, "into": 2}}}},
        {"$set": {"x": {"$map": {"input": "$a", "as": "$x", "in": 1}}}},
        {"$set": {"x": {"$switch": {"branches": "x"}}}},
    ],
    ids=spelt,
)
def test_what_crashed_servers_is_refused_by_its_form(stage) -> None:
    with pytest.raises(CommandNotDerivable):
        aggregate(stage)
