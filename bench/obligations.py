"""Costs of row filters and masks: from a decided call to the call that is sent, compared with deriving the call alone.

Run ``python bench/obligations.py``; with ``--json`` for programs.

Prints the processor time of the fastest of several rounds, in microseconds. The aim for a simple command is 60.
"""

import json
import sys
import timeit
from collections.abc import Callable
from dataclasses import replace
from time import process_time
from typing import Final

from sidecar.commands import derive
from sidecar.model import AccessVerdict, Decision, JsonObject, JsonValue, ToolCall
from sidecar.obligations import plan

AIM_US: Final = 60.0

_ON: Final[JsonObject] = {"connectionId": "preconfigured", "database": "shop", "collection": "orders"}
_JOIN: Final[JsonObject] = {"from": "customers", "localField": "customer", "foreignField": "_id", "as": "c"}

CALLS: Final[dict[str, ToolCall]] = {
    "find": ToolCall(name="find", arguments={**_ON, "filter": {"status": "open", "amount": {"$gt": 5}}, "limit": 10}),
    "count": ToolCall(name="count", arguments={**_ON, "query": {"status": "open"}}),
    "aggregate": ToolCall(
        name="aggregate",
        arguments={
            **_ON,
            "pipeline": [{"$match": {"status": "open"}}, {"$group": {"_id": "$region", "n": {"$sum": 1}}}],
        },
    ),
    "joins": ToolCall(
        name="aggregate",
        arguments={
            **_ON,
            "pipeline": [
                {"$lookup": _JOIN},
                {"$lookup": {**_JOIN, "as": "d", "pipeline": [{"$unionWith": "staff"}, {"$lookup": _JOIN}]}},
                {"$facet": {"a": [{"$unionWith": {"coll": "orders", "pipeline": []}}], "b": [{"$count": "n"}]}},
            ],
        },
    ),
}
SIMPLE: Final = ("find", "count", "aggregate")


MASK: Final[tuple[JsonValue, ...]] = ("ssn", "contact.email", {"field": "card", "as": "last4"})


def decided(call: ToolCall, mask: tuple[JsonValue, ...] = ()) -> Decision:
    """Return an allow with a row filter on each access, and a mask."""
    accesses = derive(call).command.accesses
    query: JsonObject = {"region": {"$in": ["EU", "UK"]}}
    verdicts = tuple(AccessVerdict(owner="sales", filter=query, mask=mask) for _ in accesses)
    return Decision(allow=True, reasons=(), server="ro", accesses=verdicts, revision="r")


def measured_us(call: ToolCall) -> dict[str, float]:
    """Return the costs of planning and of deriving the rewritten call again, and of deriving the call itself."""
    decision, derivation = decided(call), derive(call)
    named: ToolCall = replace(call, arguments={**call.arguments, "projection": {"card": 1, "contact": 1, "status": 1}})
    masked = call if call.name != "find" else named  # of a part of a field, find gives what it names
    both, derived = decided(masked, MASK), derive(masked)
    sent = plan(decision, call, derivation).call
    assert sent is not None
    return {
        "derive": _best_us(lambda: derive(call)),
        "plan and rewrite": _best_us(lambda: plan(decision, call, derivation)),
        "plan and rewrite with a mask": _best_us(lambda: plan(both, masked, derived)),
        "derive again": _best_us(lambda: derive(sent)),
    }


def _best_us(work: Callable[[], object], rounds: int = 7, number: int = 400) -> float:
    return min(timeit.repeat(work, timer=process_time, number=number, repeat=rounds)) / number * 1e6


def main() -> int:
    """Print the table; the status says whether the simple commands are within the aim."""
    found = {name: measured_us(call) for name, call in CALLS.items()}
    if "--json" in sys.argv[1:]:
        print(json.dumps(found))
    else:
        for name, costs in found.items():
            print(f"{name:10}", "  ".join(f"{what} {cost:7.1f} µs" for what, cost in costs.items()))
    return 0 if all(cost <= AIM_US for name in SIMPLE for what, cost in found[name].items() if "plan" in what) else 1


if __name__ == "__main__":
    sys.exit(main())
