"""Views as a real database lists them: learned, kept for a while, refreshed, and refused where they cannot be had."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Code, Int64, ObjectId, Regex
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import OperationFailure
from pymongo.uri_parser import parse_uri

from sidecar.commands.derive import derive
from sidecar.commands.views import View
from sidecar.enforcement.views import through_views
from sidecar.errors import CommandNotDerivable, ConfigurationError, SidecarError, ViewsUnavailable
from sidecar.model import Namespace, ToolCall
from sidecar.views.mongodb import MongoViews
from tests import parts
from tests.patience import HANG_S

# PyMongo's monitor may be dialling at the moment its client is closed, and leaves that socket to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")

REFRESH_S = 30.0
TIMEOUT_S = 5.0


@dataclass
class Hand:
    """A clock that is set by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


class Relay:
    """The way to the database: counts what is asked, and can be held or cut."""

    def __init__(self, uri: str) -> None:
        [self._there] = parse_uri(uri)["nodelist"]
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.uri = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Relay"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        try:
            self.uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
            yield self
        finally:
            await self.cut()

    async def cut(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        self.open.set()
        await asyncio.gather(*self._served, self._server.wait_closed())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._served.add(task)
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._pump(reader, there_writer, held=True), self._pump(there_reader, writer, held=False))
        await asyncio.gather(writer.wait_closed(), there_writer.wait_closed(), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if held and b"listCollections" in data:
                    self.asked += 1
                    await self.open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def relay(database):
    async with Relay(database).listening() as listening:
        yield listening


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture
async def learn(clock):
    """Make a catalog over these connections; closed afterwards."""
    made = []

    def make(*uris, timeout_s=TIMEOUT_S, **options):
        made.append(MongoViews(uris, clock, refresh_s=REFRESH_S, timeout_s=timeout_s, **options))
        return made[-1]

    yield make
    for catalog in made:
        await catalog.close()


@pytest.fixture
async def db(database, database_name):
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(database)
    try:
        yield client[database_name]
    finally:
        await client.close()


async def define(db, name, on, pipeline=()):
    await db.command("create", name, viewOn=on, pipeline=list(pipeline))


def expected(db, name, on, pipeline=()):
    names = Namespace(database=db.name, collection=name), Namespace(database=db.name, collection=on)
    return View(namespace=names[0], source=names[1], pipeline=list(pipeline))


def find(db, name):
    arguments = {"connectionId": "preconfigured", "database": db.name, "collection": name}
    return ToolCall(name="find", arguments=arguments)


async def until(true):
    async with asyncio.timeout(HANG_S):
        while not await true():  # noqa: ASYNC110 - the relay and the catalog say nothing when they are done
            await asyncio.sleep(0.01)


# --- what is learned --------------------------------------------------------------------------------------------------


async def test_views_are_learned_and_collections_are_not_views(database, db, learn):
    await db.orders.insert_one({})
    await define(db, "v", "orders", [{"$match": {"region": "EU"}}])
    await define(db, "w", "v")
    views = await learn(database).views({db.name}, "alice")
    assert views == {
        view.namespace: (view,)
        for view in (expected(db, "v", "orders", [{"$match": {"region": "EU"}}]), expected(db, "w", "v"))
    }


async def test_a_database_that_does_not_exist_has_none(database, database_name, learn):
    assert await learn(database).views({database_name}, "alice") == {}
    assert await learn(database).views(set(), "alice") == {}


async def test_every_bson_value_becomes_one_that_the_walker_reads(database, db, learn):
    key, when = ObjectId(), datetime(2026, 1, 2, tzinfo=UTC)
    match = {"_id": key, "n": Int64(5), "at": {"$gt": when}, "name": Regex("^a", "i"), "ratio": float("inf")}
    await define(db, "v", "orders", [{"$match": match}, {"$limit": Int64(5)}])
    [[view]] = (await learn(database).views({db.name}, "alice")).values()
    assert view.pipeline == [
        {
            "$match": {
                "_id": {"$oid": str(key)},
                "n": 5,
                "at": {"$gt": {"$date": "2026-01-02T00:00:00Z"}},
                "name": {"$regularExpression": {"pattern": "^a", "options": "i"}},
                "ratio": {"$numberDouble": "Infinity"},
            }
        },
        {"$limit": 5},
    ]


async def test_javascript_in_a_definition_is_still_seen_as_such(database, db, learn):
    await define(db, "v", "orders", [{"$match": {"$expr": {"a": Code("function() {}")}}}])
    [[view]] = (await learn(database).views({db.name}, "alice")).values()
    assert view.pipeline == [{"$match": {"$expr": {"a": {"$code": "function() {}"}}}}]


async def test_connections_are_taken_together_with_every_definition(database, db, learn):
    with parts.running_database() as other:
        with MongoClient[dict[str, Any]](other) as client:
            client[db.name].command("create", "v", viewOn="salaries", pipeline=[])
            client[db.name].command("create", "same", viewOn="orders", pipeline=[])
        await define(db, "v", "orders")
        await define(db, "same", "orders")
        catalog = learn(database, other)
        views = await catalog.views({db.name}, "alice")
        await catalog.close()
    name = Namespace(database=db.name, collection="v")
    if other != database:  # with a database of the caller's own there is but one
        assert views[name] == (expected(db, "v", "orders"), expected(db, "v", "salaries"))
    assert views[Namespace(database=db.name, collection="same")] == (expected(db, "same", "orders"),)


# --- how long it is kept ----------------------------------------------------------------------------------------------


async def test_what_is_young_is_not_asked_for_again(relay, db, learn, clock):
    await define(db, "v", "orders")
    catalog = learn(relay.uri)
    first = await catalog.views({db.name}, "alice")
    clock.now += REFRESH_S - 1
    assert await catalog.views({db.name}, "alice") == first
    assert relay.asked == 1


async def test_a_change_is_seen_after_the_refresh(relay, db, learn, clock):
    catalog = learn(relay.uri)
    assert await catalog.views({db.name}, "alice") == {}
    await define(db, "v", "orders")
    clock.now += REFRESH_S
    await catalog.views({db.name}, "alice")

    async def seen():
        return len(await catalog.views({db.name}, "alice")) == 1

    await until(seen)
    assert relay.asked == 2


async def test_while_it_is_refreshed_the_older_answer_stands_and_nobody_waits(relay, db, learn, clock):
    catalog = learn(relay.uri)
    await catalog.views({db.name}, "alice")
    await define(db, "v", "orders")
    relay.open.clear()
    clock.now += 2 * REFRESH_S - 1
    assert await catalog.views({db.name}, "alice") == {}
    assert await catalog.views({db.name}, "alice") == {}


async def test_beyond_twice_the_refresh_a_call_waits_for_the_new_answer(relay, db, learn, clock):
    catalog = learn(relay.uri)
    await catalog.views({db.name}, "alice")
    await define(db, "v", "orders")
    clock.now += 2 * REFRESH_S
    assert len(await catalog.views({db.name}, "alice")) == 1


async def test_an_answer_is_as_old_as_its_question(relay, db, learn, clock):
    catalog = learn(relay.uri)
    relay.open.clear()
    waiting = asyncio.create_task(catalog.views({db.name}, "alice"))

    async def asked():
        return relay.asked == 1

    await until(asked)
    clock.now += 2 * REFRESH_S
    relay.open.set()
    await waiting
    await catalog.views({db.name}, "alice")
    assert relay.asked == 2


async def test_many_callers_are_one_question(relay, db, learn):
    catalog = learn(relay.uri)
    await define(db, "v", "orders")
    answers = await asyncio.gather(*(catalog.views({db.name}, "alice") for _ in range(20)))
    assert relay.asked == 1
    assert all(len(answer) == 1 for answer in answers)


async def test_a_caller_that_gives_up_takes_nobody_with_it(relay, db, learn):
    catalog = learn(relay.uri)
    relay.open.clear()
    leaving, staying = (asyncio.create_task(catalog.views({db.name}, "alice")) for _ in range(2))

    async def asked():
        return relay.asked == 1

    await until(asked)
    leaving.cancel()
    relay.open.set()
    assert await staying == {}
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_the_databases_that_are_kept_are_bounded(relay, db, learn):
    catalog = learn(relay.uri, max_databases=2)
    for name in ("a", "b", "c"):
        await catalog.views({f"{db.name}_{name}"}, "alice")
    assert relay.asked == 3
    await catalog.views({f"{db.name}_b", f"{db.name}_c"}, "alice")
    assert relay.asked == 3
    await catalog.views({f"{db.name}_a"}, "alice")
    assert relay.asked == 4


async def test_one_asker_makes_nobody_elses_be_forgotten(relay, db, learn):
    catalog = learn(relay.uri, max_databases=5, max_asked=3)
    await catalog.views({f"{db.name}_mine"}, "alice")
    for number in range(20):
        await catalog.views({f"{db.name}_{number}"}, "mallory")
    await catalog.views({f"{db.name}_other"}, "bob")
    assert relay.asked == 22
    assert catalog.knows({f"{db.name}_mine", f"{db.name}_other", f"{db.name}_19", f"{db.name}_18", f"{db.name}_17"})
    assert not catalog.knows({f"{db.name}_16"})
    await catalog.views({f"{db.name}_more"}, "bob")
    assert catalog.knows({f"{db.name}_mine", f"{db.name}_other", f"{db.name}_more"})
    assert not catalog.knows({f"{db.name}_17"}), "room is made by the one who has the most"


async def test_what_is_too_old_to_be_used_is_not_known(relay, db, learn, clock):
    catalog = learn(relay.uri)
    assert not catalog.knows({db.name})
    await catalog.views({db.name}, "alice")
    clock.now += 2 * REFRESH_S - 1
    assert catalog.knows({db.name})
    clock.now += 1
    assert not catalog.knows({db.name})
    assert catalog.knows(set())


# --- where it cannot be had -------------------------------------------------------------------------------------------


async def test_nobody_there_is_a_refusal(learn, free_port):
    catalog = learn(f"mongodb://someone:canary@127.0.0.1:{free_port}/", timeout_s=0.3)
    with pytest.raises(ViewsUnavailable) as caught:
        await catalog.views({"sales"}, "alice")
    assert "canary" not in f"{caught.value} {caught.value.detail} {caught.value.__cause__}"


async def test_one_connection_that_is_down_is_no_answer(database, db, learn, free_port):
    await define(db, "v", "orders")
    catalog = learn(database, f"mongodb://127.0.0.1:{free_port}/", timeout_s=0.3)
    with pytest.raises(ViewsUnavailable):
        await catalog.views({db.name}, "alice")


async def test_a_database_that_never_answers_is_given_up(relay, db, learn):
    relay.open.clear()
    with pytest.raises(ViewsUnavailable):
        await learn(relay.uri, timeout_s=0.3).views({db.name}, "alice")


async def test_what_was_known_stands_for_twice_the_refresh_and_no_longer(relay, db, learn, clock):
    catalog = learn(relay.uri, timeout_s=0.3)
    await define(db, "v", "orders")
    known = await catalog.views({db.name}, "alice")
    await relay.cut()
    clock.now += 2 * REFRESH_S - 1
    assert await catalog.views({db.name}, "alice") == known
    clock.now += 1
    with pytest.raises(ViewsUnavailable):
        await catalog.views({db.name}, "alice")


async def test_after_a_failure_it_is_asked_again(relay, db, learn):
    catalog = learn(relay.uri, timeout_s=0.3)
    relay.open.clear()
    with pytest.raises(ViewsUnavailable):
        await catalog.views({db.name}, "alice")
    relay.open.set()
    assert await catalog.views({db.name}, "alice") == {}


@pytest.mark.parametrize("text", ["", "canary", "http://canary", "mongodb://", "mongodb://a:canary@h:x/"])
def test_a_connection_string_that_is_none_is_said_without_repeating_it(text, clock):
    with pytest.raises(ConfigurationError) as caught:
        MongoViews([text], clock, refresh_s=1, timeout_s=1)
    assert "canary" not in str(caught.value)


def test_no_connection_is_a_mistake_of_the_configuration(clock):
    with pytest.raises(ConfigurationError):
        MongoViews([], clock, refresh_s=1, timeout_s=1)


async def test_it_closes_while_something_is_under_way(relay, db, learn):
    catalog = learn(relay.uri)
    relay.open.clear()
    waiting = asyncio.create_task(catalog.views({db.name}, "alice"))

    async def asked():
        return relay.asked == 1

    await until(asked)
    await catalog.close()
    with pytest.raises((SidecarError, asyncio.CancelledError)):
        await waiting


# --- through to the command -------------------------------------------------------------------------------------------


async def test_views_that_lead_elsewhere_are_asked_for_there_too(database, db, learn):
    """Only Data Federation has them; a definition of one deployment and the views of another meet the same way."""
    await define(db, "v", "w", [{"$unionWith": {"db": f"{db.name}_b", "coll": "x"}}])
    async with AsyncMongoClient[dict[str, Any]](database) as client:
        other = client[f"{db.name}_b"]
        await define(other, "x", "salaries")
        call = find(db, "v")
        command = await through_views(derive(call).command, learn(database), "alice")
        await client.drop_database(other.name)
    assert {(access.namespace.database, access.namespace.collection) for access in command.accesses} == {
        (db.name, "v"),
        (db.name, "w"),
        (f"{db.name}_b", "x"),
        (f"{db.name}_b", "salaries"),
    }


async def test_a_definition_that_the_walker_does_not_know_is_refused_at_the_call(database, db, learn):
    try:
        await define(db, "v", "orders", [{"$_internalSecret": {}}])
    except OperationFailure:
        pytest.skip("this database refuses such a view")
    call = find(db, "v")
    with pytest.raises(CommandNotDerivable, match="view_not_derivable"):
        await through_views(derive(call).command, learn(database), "alice")


# --- another connection -----------------------------------------------------------------------------------------------


async def test_another_connection_is_asked_from_then_on_and_a_wrong_one_is_not(database, db, learn, relay, clock):
    await db.orders.insert_one({})
    await define(db, "v", "orders")
    catalog = learn(database, timeout_s=1.0)
    for text in ("https://db", "mongodb://127.0.0.1:1/", "mongodb://a:wrong@127.0.0.1:1/"):
        with pytest.raises(ConfigurationError) as refused:
            await catalog.renew([text])
        assert "wrong" not in refused.value.detail
    assert len(await catalog.views({db.name}, "alice")) == 1
    await catalog.renew([relay.uri])
    clock.now += 3 * REFRESH_S
    asked = relay.asked
    assert len(await catalog.views({db.name}, "alice")) == 1
    assert relay.asked > asked
    await relay.cut()
    with pytest.raises(ConfigurationError, match="lists no views"):
        await catalog.renew([f"{relay.uri}&appname=again"])
    await catalog.renew([database])
    clock.now += 3 * REFRESH_S
    assert len(await catalog.views({db.name}, "alice")) == 1
