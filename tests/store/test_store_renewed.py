"""Another user or certificate for the shared store while it is used: taken up once it is as good as the one before."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pymongo import MongoClient

from sidecar.errors import ConfigurationError
from sidecar.identity import Suspension
from sidecar.store import MongoMarks, MongoStore, MongoSuspensions
from sidecar.store.mongodb.marks import MarkKind
from sidecar.system import SystemClock
from tests.doctor.conftest import Access, running
from tests.patience import HANG_S
from tests.store.audit_world import AuditWorld, intent
from tests.store.test_suspensions_shared import ANN

# PyMongo's monitor may be dialling at the moment its client is closed, and leaves that socket to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")

DATABASE = "evidence_tests"
APPENDING = {
    "createRole": "appending",
    "privileges": [{"resource": {"db": DATABASE, "collection": ""}, "actions": ["find", "insert", "createIndex"]}],
    "roles": [],
}
"""What evidence takes, and marks."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    folder = tmp_path_factory.mktemp("guarded")
    with running(folder) as address, MongoClient[dict[str, object]](f"mongodb://{address}/") as client:
        client.admin.command({"createUser": "operator", "pwd": "secret", "roles": [{"role": "root", "db": "admin"}]})
    with running(folder, "--auth") as address:
        access = Access(address=address)
        access.make("before", [{"role": "appending", "db": "admin"}], APPENDING)
        access.make("after", [{"role": "appending", "db": "admin"}])
        for name in ("changing", "changing-too"):
            access.make(name, [{"role": "readWrite", "db": DATABASE}])
        access.make("elsewhere", [{"role": "readWrite", "db": "other"}])
        yield access


def gone(access: Access, user: str) -> None:
    with MongoClient[dict[str, object]](access.uri("operator")) as client:
        client.admin.command({"dropUser": user})


@asynccontextmanager
async def store_of(uri: str, timeout_s: float = 5.0) -> AsyncIterator[MongoStore]:
    store = MongoStore(uri, DATABASE, timeout_s=timeout_s)
    try:
        yield store
    finally:
        await store.close()


async def user_of(store: MongoStore) -> str:
    status = await store.collection("x").database.client.admin.command("connectionStatus")
    return str(status["authInfo"]["authenticatedUsers"][0]["user"])


async def test_records_and_marks_go_on_over_another_user_and_need_the_old_one_no_more(
    guarded: Access, tmp_path: Path
) -> None:
    world = AuditWorld(guarded.uri("before"), tmp_path)
    guarded.make("leaving", [{"role": "appending", "db": "admin"}])
    async with store_of(guarded.uri("leaving")) as store:
        sink, marks = world.sink(store), MongoMarks(store, "marks")
        await sink.start()
        assert await marks.set_first(MarkKind.PROOF, b"1", 2e9)
        calls = [asyncio.create_task(sink.append(intent())) for _ in range(20)]
        await store.renew(guarded.uri("after"))
        calls += [asyncio.create_task(sink.append(intent())) for _ in range(20)]
        await asyncio.gather(*calls)
        gone(guarded, "leaving")
        assert await user_of(store) == "after"
        await sink.append(intent())
        await sink.look()
        assert sink.ready
        assert not await marks.set_first(MarkKind.PROOF, b"1", 2e9)
        assert await marks.set_first(MarkKind.PROOF, b"2", 2e9)
        await sink.close()
    assert len(await world.stored()) == 41


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("mongodb://after:none@{address}/?authSource=admin", "does not take it"),
        ("mongodb://nobody:secret@{address}/?authSource=admin", "does not take it"),
        ("mongodb://{address}/", "right of find|does not take it"),
        ("mongodb://elsewhere:secret@{address}/?authSource=admin", "right of find"),
        ("mongodb://changing:secret@{address}/?authSource=admin", "may do more with the evidence"),
        ("mongodb://operator:secret@{address}/?authSource=admin", "may do more with the evidence"),
        ("mongodb://after:secret@127.0.0.1:1/?authSource=admin", "names no host"),
        ("mongodb://after:secret@{address},db.corp.example/?authSource=admin", "tls=true"),
        ("mongodb+srv://after:secret@{address}/?authSource=admin", "PyMongo|names no host"),
        ("mongodb://after:secret@{address}/?authSource=admin&unheard=1", "option"),
        ("", "begins with"),
    ],
)
async def test_one_that_is_less_good_or_may_do_more_changes_nothing(
    guarded: Access, tmp_path: Path, uri: str, why: str
) -> None:
    world = AuditWorld(guarded.uri("before"), tmp_path)
    async with store_of(guarded.uri("before")) as store:
        sink = world.sink(store)
        await sink.start()
        with pytest.raises(ConfigurationError, match=why) as refused:
            await store.renew(uri.format(address=guarded.address))
        assert "secret" not in refused.value.detail
        await sink.append(intent())
        assert await user_of(store) == "before"
        await sink.close()
    assert len(await world.stored()) == 1


async def test_a_user_that_is_gone_is_no_reason_to_keep_it(guarded: Access) -> None:
    """Where the old user was removed first, the new one cannot be less."""
    guarded.make("early", [{"role": "appending", "db": "admin"}])
    async with store_of(guarded.uri("early")) as store:
        marks = MongoMarks(store, "marks")
        gone(guarded, "early")
        await store.renew(guarded.uri("after"))
        assert await marks.set_first(MarkKind.PROOF, b"3", 2e9)


async def test_suspensions_are_followed_on_over_the_new_connection_when_the_old_one_is_closed(guarded: Access) -> None:
    guarded.make("follower", [{"role": "readWrite", "db": DATABASE}])
    heard: list[Suspension] = []
    async with store_of(guarded.uri("follower"), timeout_s=0.5) as here, store_of(guarded.uri("changing")) as there:
        kept = MongoSuspensions(here, "suspensions", SystemClock(), stale_after_s=HANG_S)
        other = MongoSuspensions(there, "suspensions", SystemClock(), stale_after_s=HANG_S)
        assert await kept.load() == await other.load() == ()
        following = asyncio.create_task(kept.follow(lambda added, _: heard.extend(added), lambda _: None))
        before = here.collection("x").database.client
        await here.renew(guarded.uri("changing-too"))
        gone(guarded, "follower")
        async with asyncio.timeout(HANG_S):
            while not before._closed:  # noqa: ASYNC110 - a client that is closed says nothing
                await asyncio.sleep(0.05)
            await other.save((ANN,))
            while not heard:  # noqa: ASYNC110 - told by the next look
                await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.wait({following})
    assert [one.target.name for one in heard] == [ANN.target.name]
