"""How long a derivation takes: median and least of many runs for each shape of call, and the bound it is held to.

Run ``python bench/derive.py``. Prints one line per shape; asserts nothing, because a shared machine proves nothing. Of
two revisions compare the least: on a busy machine it varies by a hundredth, the median by a half.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

from sidecar.commands.derive import derive
from sidecar.errors import SidecarError
from sidecar.model import ToolCall

BASE = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}

FIND = {**BASE, "filter": {"region": "EU", "total": {"$gte": 100}}, "projection": {"total": 1}, "limit": 10}

INNERMOST = [{"$match": {"active": True}}, {"$project": {"name": 1}}]
MIDDLE = [{"$match": {"region": "EU"}}, {"$unionWith": {"coll": "archive", "pipeline": INNERMOST}}, {"$sort": {"n": 1}}]
PIPELINE = [
    {"$match": {"region": "EU", "total": {"$gt": 3}}},
    {"$lookup": {"from": "customers", "localField": "customer", "foreignField": "_id", "as": "c", "pipeline": MIDDLE}},
    {"$group": {"_id": "$region", "total": {"$sum": {"$multiply": ["$price", "$count"]}}}},
    {"$sort": {"total": -1}},
    {"$limit": 20},
]

FLAT_PIPELINE = [
    {"$match": {"region": "EU", "total": {"$gt": 3}, "status": {"$in": ["open", "paid"]}}},
    {"$lookup": {"from": "customers", "localField": "customer", "foreignField": "_id", "as": "c"}},
    {"$unwind": "$c"},
    {"$addFields": {"year": {"$year": "$date"}, "net": {"$subtract": ["$total", "$tax"]}}},
    {"$match": {"c.country": "LV"}},
    {
        "$group": {
            "_id": {"region": "$region", "year": "$year"},
            "total": {"$sum": {"$multiply": ["$price", "$count"]}},
            "n": {"$sum": 1},
        }
    },
    {"$project": {"_id": 0, "region": "$_id.region", "total": 1, "n": 1}},
    {"$sort": {"total": -1}},
    {"$skip": 5},
    {"$limit": 20},
]

SMALL_DOCUMENTS = [{"n": index} for index in range(100_000)]
DOCUMENTS = [
    {"_id": index, "name": f"customer {index}", "address": {"city": "Riga", "lines": ["a", "b"]}, "n": [1, 2, 3]}
    for index in range(10_000)
]


def nested(depth: int) -> object:
    """Return a filter of that many levels."""
    value: object = 1
    for _ in range(depth):
        value = {"$and": [value]}
    return value


def call(name: str, arguments: dict) -> ToolCall:
    """Return a tool call."""
    return ToolCall(name=name, arguments=arguments)


SHAPES: list[tuple[str, float, int, ToolCall]] = [
    ("simple find", 40e-6, 3000, call("find", FIND)),
    ("count", 40e-6, 3000, call("count", {**BASE, "query": {"region": "EU"}})),
    ("pipeline, 10 stages", 250e-6, 2000, call("aggregate", {**BASE, "pipeline": FLAT_PIPELINE})),
    ("pipeline, 10 stages, 3 deep", 250e-6, 2000, call("aggregate", {**BASE, "pipeline": PIPELINE})),
    ("insert-many, 10,000 documents", 60e-3, 20, call("insert-many", {**BASE, "documents": DOCUMENTS})),
    ("insert-many, 100,000 tiny documents", 60e-3, 20, call("insert-many", {**BASE, "documents": SMALL_DOCUMENTS})),
    ("nesting bomb, 900 levels (refused)", 5e-3, 200, call("find", {**BASE, "filter": nested(450)})),
    (
        "100,000 keys (refused)",
        60e-3,
        20,
        call("find", {**BASE, "filter": {f"k{index}": 1 for index in range(100_000)}}),
    ),
    ("40,000 clauses", 150e-3, 5, call("find", {**BASE, "filter": {"$or": [{"a": index} for index in range(20_000)]}})),
]


def durations(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median and the least duration of ``run`` in seconds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times), min(times)


def attempt(tool_call: ToolCall) -> None:
    """Derive a call that may be refused; the answer does not matter."""
    try:
        derive(tool_call)
    except SidecarError:
        return


def main() -> int:
    """Print one line per shape."""
    for title, bound, rounds, tool_call in SHAPES:
        median, least = durations(lambda tool_call=tool_call: attempt(tool_call), rounds)  # type: ignore[misc]  # bound early
        size = len(json.dumps(tool_call.arguments)) if "bomb" not in title else 0
        said = f"p50 {median * 1e6:12,.1f} µs   least {least * 1e6:12,.1f} µs   bound {bound * 1e6:10,.0f} µs"
        print(f"{title:36} {said}   {size:>10,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
