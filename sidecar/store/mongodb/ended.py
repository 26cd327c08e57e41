"""Sessions that ended at one replica are told to the others through a collection, once a second."""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from sidecar.mcp import MOST_ENDED, EndedSessions
from sidecar.ports import Clock
from sidecar.store.mongodb.connection import MongoStore, StoreCollection, StoredDocument
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How often sessions that ended are told and learned."""

_OVERLAP: Final = timedelta(seconds=30)
"""Marks are read again for this long: one can become visible after a later one (writes of other replicas that are under
way take no longer, ``mongodb.timeout_ms``)."""


class MongoEndedSessions:
    """Keeps the ended sessions of all replicas known in this one.

    A store that does not answer holds nobody up: until it does, a session that was ended elsewhere is good here, for
    its owner only.

    Args:
        store: the connection.
        collection: its name.
        ended: what is known here.
        clock: says until when a mark is needed.
        lifetime_s: the longest that a handle is good.
    """

    def __init__(
        self, store: MongoStore, collection: str, ended: EndedSessions, clock: Clock, *, lifetime_s: int
    ) -> None:
        self._of_now = store.lasting(collection)
        self._timeout_s = store.timeout_s
        self._ended = ended
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._prepared = False
        self._since: datetime | None = None
        self._outage = Outage(_LOG, "the shared store of ended sessions", lost="does not answer", found="answers again")

    @property
    def _collection(self) -> StoreCollection:
        return self._of_now()

    async def look(self) -> None:
        """Tell what ended here, and learn what ended elsewhere."""
        untold = self._ended.take_untold()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._prepare()
                if untold:
                    await self._tell(untold)
                untold = ()
                await self._learn()
        except (PyMongoError, BSONError, OSError) as error:  # TimeoutError is an OSError
            self._ended.put_back(untold)
            self._outage.begins(type(error).__name__)
        else:
            self._outage.ends()

    async def follow(self) -> None:
        """Keep looking, for as long as the sidecar runs."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._collection.create_index("until", expireAfterSeconds=0)
            await self._collection.create_index("at")
            self._prepared = True

    async def _tell(self, digests: tuple[bytes, ...]) -> None:
        until = datetime.fromtimestamp(self._clock.time_ns() / 1e9 + self._lifetime_s, UTC) + timedelta(days=1)
        # By the clock of the database, which is one for all replicas.
        change = {"$setOnInsert": {"until": until}, "$currentDate": {"at": True}}
        await self._collection.bulk_write(
            [UpdateOne({"_id": digest.hex()}, change, upsert=True) for digest in digests], ordered=False
        )

    async def _learn(self) -> None:
        """Read the marks since the last reading; of too many, the newest."""
        asked = {} if self._since is None else {"at": {"$gte": self._since - _OVERLAP}}
        found = await self._collection.find(asked).sort("at", -1).limit(MOST_ENDED).to_list()
        marks = [mark for mark in reversed(found) if _is_mark(mark)]
        self._ended.learn(bytes.fromhex(mark["_id"]) for mark in marks)
        self._since = marks[-1]["at"] if marks else self._since


def _is_mark(document: StoredDocument) -> bool:
    name = document.get("_id")
    return isinstance(document.get("at"), datetime) and isinstance(name, str) and bool(_DIGEST.match(name))


_DIGEST: Final = re.compile(r"[0-9a-f]{32}\Z")
