"""Sessions that ended at one replica are ended at the others within a look or two."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.mcp import EndedSessions
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.ended import MongoEndedSessions
from sidecar.system import SystemClock
from tests.store.shared_database import way_to

pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


class Told:
    def __init__(self, stack: AsyncExitStack, uri: str, name: str, timeout_s: float = 5.0) -> None:
        store = MongoStore(uri, name, timeout_s=timeout_s)
        stack.push_async_callback(store.close)
        self.ended = EndedSessions()
        self.shared = MongoEndedSessions(store, "ended", self.ended, SystemClock(), lifetime_s=60)


def digest(n: int) -> bytes:
    return n.to_bytes(16, "big")


async def test_what_ends_at_one_is_ended_at_the_others_also_at_one_that_starts_later(
    database: str, database_name: str
) -> None:
    async with AsyncExitStack() as stack:
        here, there = (Told(stack, database, database_name) for _ in range(2))
        await there.shared.look()
        for n in range(300):
            here.ended.end(digest(n), digest(n % 7), 0)
        await here.shared.look()
        await there.shared.look()
        assert all(digest(n) in there.ended for n in range(300))
        there.ended.end(digest(1000), b"o", 0)
        await there.shared.look()
        await here.shared.look()
        assert digest(1000) in here.ended
        late = Told(stack, database, database_name)
        await late.shared.look()
        assert len(late.ended) == 301
    with MongoClient[dict[str, Any]](database) as client:
        indexes = client[database_name]["ended"].index_information()
        assert indexes["until_1"]["expireAfterSeconds"] == 0


async def test_what_could_not_be_told_is_told_later(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(database))
        here, there = Told(stack, way.uri, database_name, 1.0), Told(stack, database, database_name)
        await here.shared.look()
        await way.vanish()
        here.ended.end(digest(1), b"o", 0)
        await here.shared.look()
        await there.shared.look()
        assert digest(1) not in there.ended
        await way.appear()
        await here.shared.look()
        await there.shared.look()
        assert digest(1) in there.ended


@pytest.mark.parametrize(
    "document", [{"_id": 1}, {"_id": "x" * 32}, {"_id": "a" * 31}, {"at": "today"}, {"_id": "0" * 32, "at": 1}], ids=str
)
async def test_a_document_that_no_sidecar_wrote_is_no_mark(
    database: str, database_name: str, document: dict[str, Any]
) -> None:
    with MongoClient[dict[str, Any]](database) as client:
        client[database_name]["ended"].insert_one(dict(document))
    async with AsyncExitStack() as stack:
        here = Told(stack, database, database_name)
        await here.shared.look()
        assert len(here.ended) == 0
        here.ended.end(digest(1), b"o", 0)
        await here.shared.look()
        assert len(here.ended) == 1
