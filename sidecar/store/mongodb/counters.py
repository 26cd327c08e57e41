"""How much callers used, counted for all sidecars of one store (``sidecar.ports.UsageCounters``)."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from bson.errors import BSONError
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from sidecar.ports import UsageCounter
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.expiring import ExpiringCollection
from sidecar.usage import LimitsUnavailable

KEPT_AFTER_S: Final = 3600
"""A counter stays this long after its window has ended, more than clocks of a deployment differ by."""

_MOST: Final = 2**62
"""A counter that holds more than this is none that sidecars wrote."""


class MongoCounters:
    """One document for each counter, which the database removes some time after its window has ended.

    An amount is added in one step of the database, so that none is lost, whichever sidecars add at the same time.

    Args:
        store: the connection.
        collection: its name.
    """

    def __init__(self, store: MongoStore, collection: str) -> None:
        self._counters = ExpiringCollection(store, collection, "counts of use")

    async def add(self, amounts: Mapping[UsageCounter, int]) -> Mapping[UsageCounter, int]:
        """See ``ports.UsageCounters``."""
        try:
            await self._counters.prepare()
            totals = await asyncio.gather(*(self._add(counter, amount) for counter, amount in amounts.items()))
        except (PyMongoError, BSONError, OSError, ValueError) as error:
            self._counters.outage.begins(type(error).__name__)
            raise LimitsUnavailable(f"the shared store of counts of use: {type(error).__name__}") from error
        self._counters.outage.ends()
        return dict(zip(amounts, totals, strict=True))

    async def _add(self, counter: UsageCounter, amount: int) -> int:
        name = _id(counter)
        if not amount:
            return await self._read(name) or 0
        try:
            found = await self._increased(name, counter, amount)
        except DuplicateKeyError:  # another sidecar made it at the same moment
            found = await self._increased(name, counter, amount)
        if found is not None:
            return _count(found.get("n"))
        # Seen of the stand-in where several make one counter: it was made, and is not in the answer.
        total = await self._read(name)
        if total is None:
            raise ValueError("a counter that was added to is not there")
        return total

    async def _read(self, name: str) -> int | None:
        found = await self._counters.documents.find_one({"_id": name}, {"n": 1})
        return None if found is None else _count(found.get("n"))

    async def _increased(self, name: str, counter: UsageCounter, amount: int) -> dict[str, object] | None:
        until = datetime.fromtimestamp(counter.ends + KEPT_AFTER_S, UTC)
        return await self._counters.documents.find_one_and_update(
            {"_id": name},
            {"$inc": {"n": amount}, "$setOnInsert": {"until": until}},
            projection={"n": 1},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )


def _id(counter: UsageCounter) -> str:
    """Return a name of bounded length; what is counted apart is a digest already."""
    limit = sha256(counter.limit.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{counter.unit}:{counter.ends}:{counter.window_s}:{limit}:{counter.who}"


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_MOST < value < _MOST:
        raise ValueError("not a count")
    return value
