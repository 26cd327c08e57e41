"""What was used once was used for every sidecar of one store."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.enforcement import UsedInMemory
from sidecar.errors import KeysUnavailable, ProofRejected
from sidecar.mcp import StatesUnavailable
from sidecar.oauth import ProofsInMemory
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.marks import SKEW_S, MarkKind, MongoMarks, SharedProofs, SharedStates
from sidecar.system import SystemClock
from tests.store.shared_database import HandClock, way_to

pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


async def marks(stack: AsyncExitStack, uri: str, name: str, timeout_s: float = 5.0) -> MongoMarks:
    store = MongoStore(uri, name, timeout_s=timeout_s)
    stack.push_async_callback(store.close)
    return MongoMarks(store, "marks")


async def test_of_many_sidecars_that_are_shown_one_proof_one_takes_it(database: str, database_name: str) -> None:
    clock = SystemClock()
    until = clock.time_ns() / 1e9 + 60
    async with AsyncExitStack() as stack:
        replicas = [SharedProofs(ProofsInMemory(clock), await marks(stack, database, database_name)) for _ in range(4)]
        for n in range(20):
            taken = await asyncio.gather(*(one.is_first(bytes([n]) * 32, "key", until) for one in replicas * 2))
            assert sum(taken) == 1


async def test_the_memory_of_the_process_is_asked_first(database: str, database_name: str) -> None:
    clock = HandClock()
    async with AsyncExitStack() as stack:
        shared = await marks(stack, database, database_name)
        proofs = SharedProofs(ProofsInMemory(clock, most=8), shared)
        assert await proofs.is_first(b"a", "key", 2000.0)
        with pytest.raises(ProofRejected):
            await proofs.is_first(b"b", "key", 2000.0)
    with MongoClient[dict[str, Any]](database) as client:
        assert client[database_name]["marks"].count_documents({}) == 1, "one key cannot fill the store"


async def test_a_store_that_is_away_refuses_and_a_proof_that_was_not_told_apart_is_spent(
    database: str, database_name: str
) -> None:
    clock = SystemClock()
    until = clock.time_ns() / 1e9 + 60
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(database))
        proofs = SharedProofs(ProofsInMemory(clock), await marks(stack, way.uri, database_name, 1.0))
        assert await proofs.is_first(b"1" * 32, "key", until)
        await way.vanish()
        with pytest.raises(KeysUnavailable):
            await proofs.is_first(b"2" * 32, "key", until)
        await way.appear()
        assert not await proofs.is_first(b"2" * 32, "key", until), "it may have reached the store"
        assert await proofs.is_first(b"3" * 32, "key", until)


async def test_marks_are_removed_when_they_have_no_meaning_any_more(database: str, database_name: str) -> None:
    until = 4_000_000_000.0
    async with AsyncExitStack() as stack:
        shared = await marks(stack, database, database_name)
        assert await shared.set_first(MarkKind.PROOF, b"x", until)
    with MongoClient[dict[str, Any]](database, tz_aware=True) as client:
        collection = client[database_name]["marks"]
        assert collection.index_information()["until_1"]["expireAfterSeconds"] == 0
        [mark] = collection.find()
        assert mark["until"].timestamp() == until + SKEW_S
        assert mark["_id"] == "proof:78"


async def test_of_many_sidecars_that_are_given_one_request_state_one_takes_it(
    database: str, database_name: str
) -> None:
    clock = SystemClock()
    until = clock.time_ns() / 1e9 + 60
    async with AsyncExitStack() as stack:
        shared = [await marks(stack, database, database_name) for _ in range(3)]
        replicas = [SharedStates(UsedInMemory(clock), one) for one in shared]
        taken = await asyncio.gather(*(one.is_first(b"s" * 32, b"who", until) for one in replicas * 2))
        assert sum(taken) == 1
        proofs = SharedProofs(ProofsInMemory(clock), shared[0])
        assert await proofs.is_first(b"s" * 32, "key", until), "a proof of the same bytes is another mark"


async def test_a_request_state_is_refused_where_the_store_is_away(database: str, database_name: str) -> None:
    clock = SystemClock()
    until = clock.time_ns() / 1e9 + 60
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(database))
        states = SharedStates(UsedInMemory(clock), await marks(stack, way.uri, database_name, 1.0))
        assert await states.is_first(b"1" * 32, b"who", until)
        await way.vanish()
        with pytest.raises(StatesUnavailable):
            await states.is_first(b"2" * 32, b"who", until)
