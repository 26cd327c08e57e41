"""Suspensions that several sidecars share through MongoDB: who sees what, when, and what is refused in an outage."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo import MongoClient

from sidecar.enforcement import Suspensions
from sidecar.errors import SuspensionsUnavailable
from sidecar.identity import CallerName, Suspendable, Suspension, SuspensionTarget
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.suspensions import MongoSuspensions
from sidecar.system import SystemClock
from tests.patience import HANG_S
from tests.store.shared_database import HandClock, way_to

# PyMongo's monitor may be dialling at the moment its client is closed, and leaves that socket to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")

STALE_S = 2.0


def user(name: str, until: int | None = None) -> Suspension:
    target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject=name)
    return Suspension(target=target, until=until, reason="r", operator="o", since=1)


ANN, BOB = user("ann"), user("bøb\u202e")
LATE = 4_000_000_000


class Replica:
    """One sidecar's view: its store, its table, and what it was told."""

    def __init__(self, store: MongoStore, *, clock: HandClock | SystemClock | None = None) -> None:
        self.kept = MongoSuspensions(store, "suspensions", clock or SystemClock(), stale_after_s=STALE_S)
        self.table = Suspensions(SystemClock(), known=False)
        self.told: list[tuple[Suspension, ...]] = []

    def changed(self, added: Collection[Suspension], gone: Collection[CallerName]) -> None:
        self.told.append(tuple(added))
        for one in added:
            self.table.add(one)
        for name in gone:
            self.table.drop(name)

    async def suspend(self, one: Suspension) -> None:
        self.table.add(one)
        await self.kept.save(self.table.all())

    async def resume(self, one: Suspension) -> None:
        await self.kept.save(tuple(other for other in self.table.all() if other.target != one.target))
        self.table.drop(one.target.name)

    def names(self) -> set[str]:
        return {one.target.subject for one in self.table.all()}

    @asynccontextmanager
    async def following(self) -> AsyncIterator["Replica"]:
        task = asyncio.create_task(self.kept.follow(self.changed, self.table.set_known))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})


@asynccontextmanager
async def store(uri: str, name: str, timeout_s: float = 5.0) -> AsyncIterator[MongoStore]:
    one = MongoStore(uri, name, timeout_s=timeout_s)
    try:
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def replica(uri: str, name: str, timeout_s: float = 5.0) -> AsyncIterator[Replica]:
    async with store(uri, name, timeout_s) as connection:
        yield Replica(connection)


@asynccontextmanager
async def two(uri: str, name: str) -> AsyncIterator[tuple[Replica, Replica]]:
    async with replica(uri, name) as here, replica(uri, name) as there:
        yield here, there


async def stored(uri: str, name: str) -> set[str]:
    """What a sidecar that starts now would read."""
    async with replica(uri, name) as third:
        return {one.target.subject for one in await third.kept.load()}


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - of other tasks and processes
            await asyncio.sleep(0.02)
    assert condition(), what


async def test_what_one_sidecar_suspends_and_resumes_is_seen_by_another(database: str, database_name: str) -> None:
    async with two(database, database_name) as (here, there), here.following(), there.following():
        await until(lambda: here.table.known and there.table.known, "both can read")
        await here.suspend(ANN)
        await until(lambda: there.names() == {"ann"}, "suspended there")
        await there.suspend(BOB)
        await until(lambda: here.names() == {"ann", "bøb\u202e"}, "suspended here")
        await there.resume(ANN)
        await until(lambda: here.names() == {"bøb\u202e"}, "resumed here")
        assert there.told[0] == (ANN,)
    async with replica(database, database_name) as third:
        assert await third.kept.load() == (BOB,), "it outlives every sidecar"


async def test_without_change_streams_it_is_seen_with_the_next_look(
    database: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(_self: MongoSuspensions) -> None:
        """As where the deployment has none."""

    monkeypatch.setattr(MongoSuspensions, "_listen", deaf)
    async with two(database, database_name) as (here, there), there.following():
        await until(lambda: there.table.known, "it can read")
        await here.kept.load()
        await here.suspend(ANN)
        await until(lambda: there.names() == {"ann"}, "suspended there")


async def test_two_sidecars_that_suspend_at_once_lose_nothing(database: str, database_name: str) -> None:
    async with two(database, database_name) as (here, there):
        await asyncio.gather(here.kept.load(), there.kept.load())
        await asyncio.gather(*(one.suspend(user(f"u{n}")) for n, one in enumerate([here, there] * 10)))
        assert await stored(database, database_name) == {f"u{n}" for n in range(20)}
        await here.resume(user("u0"))
        assert await stored(database, database_name) == {f"u{n}" for n in range(1, 20)}


@pytest.mark.parametrize(("first", "second"), [(None, LATE), (LATE, None), (LATE, LATE + 1), (LATE + 1, LATE)])
async def test_of_two_suspensions_of_one_name_the_longer_one_stays(
    database: str, database_name: str, first: int | None, second: int | None
) -> None:
    async with two(database, database_name) as (here, there):
        await asyncio.gather(here.kept.load(), there.kept.load())
        await here.suspend(user("ann", first))
        await there.suspend(user("ann", second))
        [kept] = await here.kept.load()
        longest = None if None in {first, second} else max(first or 0, second or 0)
        assert kept.until == longest


async def test_what_another_operator_made_longer_is_not_resumed_unseen(database: str, database_name: str) -> None:
    async with two(database, database_name) as (here, there):
        await here.kept.load()
        await here.suspend(user("ann", LATE))
        there.table = Suspensions(SystemClock(), await there.kept.load())
        await there.suspend(user("ann"))
        with pytest.raises(SuspensionsUnavailable, match="another sidecar changed it"):
            await here.resume(ANN)
        assert await there.kept.load() == (ANN,)


async def test_one_that_was_resumed_elsewhere_can_be_resumed_here(database: str, database_name: str) -> None:
    async with two(database, database_name) as (here, there):
        await here.kept.load()
        await here.suspend(ANN)
        there.table = Suspensions(SystemClock(), await there.kept.load())
        await there.resume(ANN)
        await here.resume(ANN)
        assert await here.kept.load() == ()


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"text": "{}"}},
        {"$set": {"sha256": "0" * 64}},
        {"$unset": {"sha256": 1}},
        {"$set": {"sha256": 1}},
        {"$set": {"text": 7, "sha256": "0" * 64}},
    ],
    ids=["text", "digest", "no-digest", "digest-type", "text-type"],
)
async def test_a_document_that_no_sidecar_wrote_makes_everything_unreadable(
    database: str, database_name: str, change: dict[str, Any]
) -> None:
    async with two(database, database_name) as (here, there):
        await here.kept.load()
        await here.suspend(ANN)
        with MongoClient[dict[str, Any]](database) as client:
            client[database_name]["suspensions"].update_one({}, change)
        with pytest.raises(SuspensionsUnavailable):
            await there.kept.load()
        assert not await there.kept.intact()


async def test_a_suspension_under_the_name_of_another_is_unreadable(database: str, database_name: str) -> None:
    async with two(database, database_name) as (here, there):
        await here.kept.load()
        await here.suspend(ANN)
        with MongoClient[dict[str, Any]](database) as client:
            collection = client[database_name]["suspensions"]
            [document] = collection.find()
            collection.insert_one({**document, "_id": "a" * 64})
        with pytest.raises(SuspensionsUnavailable, match="another name"):
            await there.kept.load()


async def test_a_store_that_goes_away_refuses_everybody_in_time_and_comes_back_by_itself(
    database: str, database_name: str
) -> None:
    async with way_to(database) as way, replica(way.uri, database_name, 1.0) as here, here.following():
        await until(lambda: here.table.known, "it can read")
        await here.suspend(ANN)
        await way.vanish()
        await until(lambda: not here.table.known, "refused")
        assert here.names() == {"ann"}, "what was known stays"
        with pytest.raises(SuspensionsUnavailable):
            await here.suspend(BOB)
        await way.appear()
        await until(lambda: here.table.known, "it can read again")
        async with replica(database, database_name) as other, other.following():
            # What could not be stored in the outage is stored by a later look.
            await until(lambda: other.names() == {"ann", "bøb\u202e"}, "stored")


@pytest.mark.parametrize("fault", ["held", "garbage"])
async def test_a_store_that_is_slow_or_answers_nonsense_refuses_everybody(
    database: str, database_name: str, fault: str
) -> None:
    async with way_to(database) as way, replica(way.uri, database_name, 1.0) as here, here.following():
        await until(lambda: here.table.known, "it can read")
        if fault == "held":
            way.open.clear()
        else:
            way.garbage = True
        await until(lambda: not here.table.known, "refused")
        way.garbage = False
        way.open.set()
        await until(lambda: here.table.known, "it can read again")


async def test_a_store_that_is_away_at_the_start_is_read_when_it_comes(database: str, database_name: str) -> None:
    async with replica(database, database_name) as other:
        await other.kept.load()
        await other.suspend(ANN)
    async with way_to(database) as way:
        await way.vanish()
        async with replica(way.uri, database_name, 1.0) as here:
            with pytest.raises(SuspensionsUnavailable):
                await here.kept.load()
            async with here.following():
                assert not here.table.known
                await way.appear()
                await until(lambda: here.table.known, "it can read")
                assert here.names() == {"ann"}


async def test_a_defect_in_what_follows_refuses_everybody_and_is_tried_again(database: str, database_name: str) -> None:
    states: list[bool] = []
    faults = 2

    async with two(database, database_name) as (here, there):
        await here.kept.load()
        await here.suspend(ANN)

        def changed(added: Collection[Suspension], gone: Collection[CallerName]) -> None:
            nonlocal faults
            if faults:
                faults -= 1
                raise RuntimeError("staged")
            there.changed(added, gone)

        def known(now: bool) -> None:
            states.append(now)
            there.table.set_known(now)

        task = asyncio.create_task(there.kept.follow(changed, known))
        try:
            await until(lambda: there.table.known, "it can read")
        finally:
            task.cancel()
            await asyncio.wait({task})
        assert states[:3] == [False, False, True]
        assert there.names() == {"ann"}, "what was read and not taken up is told again"


async def test_a_view_is_good_for_as_long_as_it_says_and_no_longer(database: str, database_name: str) -> None:
    clock = HandClock()
    async with store(database, database_name) as connection:
        here = Replica(connection, clock=clock)
        assert not await here.kept.intact(), "nothing was read yet"
        await here.kept.load()
        clock.now += STALE_S - 0.001
        assert await here.kept.intact()
        clock.now += 0.002
        assert not await here.kept.intact()


async def test_ended_suspensions_are_removed_by_the_database_a_day_later(database: str, database_name: str) -> None:
    async with replica(database, database_name) as here:
        await here.kept.load()
        await here.suspend(user("ann", LATE))
        await here.suspend(user("eve", 2**40 - 1))
        await here.suspend(BOB)
    with MongoClient[dict[str, Any]](database) as client:
        collection = client[database_name]["suspensions"]
        assert collection.index_information()["ends_1"]["expireAfterSeconds"] == 86_400
        assert sum("ends" in document for document in collection.find()) == 2
