"""Use is counted for all sidecars of one store, and no amount is lost."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.enforcement.limits import Limits
from sidecar.model import Actor, Identity, Principal
from sidecar.ports import UsageCounter
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.counters import KEPT_AFTER_S, MongoCounters
from sidecar.system import SystemClock
from sidecar.telemetry import OtelMetrics
from sidecar.usage import LimitReached, LimitsUnavailable, UsageLimit, UsagePart, UsageUnit
from tests.store.shared_database import way_to

pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")

ENDS = 4_000_000_020
CALLS = UsageCounter(limit="minute", window_s=60, unit=UsageUnit.CALLS, who="ab" * 16, ends=ENDS)
NEIGHBOURS = [
    replace(CALLS, limit="minute2"),
    replace(CALLS, window_s=30),
    replace(CALLS, unit=UsageUnit.BYTES),
    replace(CALLS, who="cd" * 16),
    replace(CALLS, ends=ENDS + 60),
    replace(CALLS, limit="l" * 10_000),
]


def counters(stack: AsyncExitStack, uri: str, name: str, timeout_s: float = 10.0) -> MongoCounters:
    store = MongoStore(uri, name, timeout_s=timeout_s)
    stack.push_async_callback(store.close)
    return MongoCounters(store, "usage")


async def test_amounts_of_several_sidecars_add_up(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        sidecars = [counters(stack, database, database_name) for _ in range(3)]
        totals = await asyncio.gather(*(one.add({CALLS: 1, NEIGHBOURS[2]: 1000}) for one in sidecars * 20))
        assert {total[CALLS] for total in totals} <= set(range(1, 61))
        assert len({total[CALLS] for total in totals}) > 50, "each saw its own amount on top of the others"
        assert (await sidecars[0].add({CALLS: 0})) == {CALLS: 60}
        assert (await sidecars[1].add({CALLS: -1})) == {CALLS: 59}
        assert (await sidecars[2].add({NEIGHBOURS[2]: 0})) == {NEIGHBOURS[2]: 60_000}


async def test_each_counter_is_one_of_its_own_and_reading_makes_none(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        one = counters(stack, database, database_name)
        assert set((await one.add(dict.fromkeys([CALLS, *NEIGHBOURS], 0))).values()) == {0}
        with MongoClient[dict[str, Any]](database, tz_aware=True) as client:
            collection = client[database_name]["usage"]
            assert collection.count_documents({}) == 0
            await one.add({CALLS: 5})
            assert list((await one.add(dict.fromkeys([CALLS, *NEIGHBOURS], 0))).values()) == [5, *[0] * len(NEIGHBOURS)]
            [document] = collection.find()
            assert document["until"].timestamp() == ENDS + KEPT_AFTER_S
            assert collection.index_information()["until_1"]["expireAfterSeconds"] == 0


@pytest.mark.parametrize("value", ["5", None, True, 2**62, 1.5], ids=repr)
async def test_what_is_no_count_is_not_taken_for_one(database: str, database_name: str, value: object) -> None:
    async with AsyncExitStack() as stack:
        one = counters(stack, database, database_name)
        await one.add({CALLS: 1})
        with MongoClient[dict[str, Any]](database) as client:
            client[database_name]["usage"].update_one({}, {"$set": {"n": value}})
        with pytest.raises(LimitsUnavailable):
            await one.add({CALLS: 0})


async def test_a_store_that_is_away_cannot_tell(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(database))
        one = counters(stack, way.uri, database_name, 1.0)
        await one.add({CALLS: 1})
        await way.vanish()
        with pytest.raises(LimitsUnavailable):
            await one.add({CALLS: 1})
        await way.appear()
        assert (await one.add({CALLS: 0}))[CALLS] == 1


async def test_a_limit_is_one_for_two_sidecars(database: str, database_name: str) -> None:
    limit = UsageLimit(id="hour", per=(UsagePart.SUBJECT,), team="", window_s=3600, most=((UsageUnit.CALLS, 10),))
    ann = Identity(principal=Principal(issuer="https://i.example", subject="ann"), actor=Actor(id="a"), expires_at=0)
    metrics = OtelMetrics(methods=(), tools=(), servers=(), endpoint_configured=False, protocol="", version="0")
    now_ns = 4_000_000_000 * 10**9
    async with AsyncExitStack() as stack:
        sidecars = [Limits(counters(stack, database, database_name), SystemClock(), metrics) for _ in range(2)]
        results = await asyncio.gather(
            *(one.admit([limit], ann, "find", now_ns) for one in sidecars * 10), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, LimitReached)]
        assert len(refused) >= 10, "never more than the limit allows, for both together"
        assert len(results) - len(refused) <= 10
        assert results.count(None) + len(refused) == 20
