"""Where approvals are kept: the same rules in a file and in MongoDB, and what each is refused for."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient

from sidecar.errors import ConfigurationError
from sidecar.identity import (
    Approval,
    ApprovalState,
    ApprovalStore,
    ApprovalsUnavailable,
    Party,
    TooManyApprovals,
    read_approval,
)
from sidecar.model import JsonObject
from sidecar.store import FileApprovals, MongoApprovals, MongoStore
from tests.patience import HANG_S
from tests.store.shared_database import HandClock, way_to

pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")

ISSUER = "https://idp.example"
READ: JsonObject = {"kind": "read", "database": "d", "collection": "c", "via": "/x", "owner": "red", "waits": True}


def party(user: str, agent: str = "desk") -> Party:
    return Party(issuer=ISSUER, subject=user, agent=agent, names=(("user", ISSUER, user), ("agent", ISSUER, agent)))


def wanted(number: int, user: str = "ann", **changes: Any) -> Approval:
    """One that waits; different numbers are different calls."""
    first = Approval(
        id=f"{number:032x}",
        binding=f"{number:064x}",
        state=ApprovalState.WAITING,
        requester=party(user),
        server="rw",
        method="tools/call",
        tool="delete-many",
        accesses=(READ,),
        arguments={"filter": {"n": number, "f": 0.1, "t": "\u202e"}},
        arguments_sha256="x",
        revision="r1",
        requested=1000,
        expires=2000,
        request_id="q",
        trace_id="t",
    )
    return replace(first, **changes)


def approved(one: Approval, by: str = "lea", expires: int = 3000) -> Approval:
    return one.decided_by(party(by, "console"), ApprovalState.APPROVED, 1500, expires)


class Kept:
    """A place that can be opened again, as another process or another replica does."""

    def __init__(self, kind: str, folder: Path, uri: str, name: str) -> None:
        self.kind, self.folder, self.uri, self.name = kind, folder, uri, name
        self.clock = HandClock(1200.0)

    @asynccontextmanager
    async def opened(self, most: int = 512, most_of_one: int = 8) -> AsyncIterator[ApprovalStore]:
        if self.kind == "file":
            file = FileApprovals(self.folder / "kept", self.clock, most=most, most_of_one=most_of_one)
            try:
                await file.load()
                yield file
            finally:
                file.close()
        else:
            store = MongoStore(self.uri, self.name, timeout_s=5.0)
            try:
                yield MongoApprovals(store, "approvals", self.clock, most=most, most_of_one=most_of_one)
            finally:
                await store.close()


@pytest.fixture(params=["file", "mongodb"])
def kept(request, tmp_path, database, database_name) -> Kept:
    return Kept(request.param, tmp_path, database, database_name)


async def test_what_was_asked_for_and_decided_is_there_when_it_is_opened_again(kept: Kept) -> None:
    one, two = wanted(1), wanted(2)
    async with kept.opened() as store:
        assert await store.add(one) == one
        assert await store.add(two) == two
        assert await store.decide(approved(one))
    async with kept.opened() as store:
        assert await store.of_call(one.binding) == approved(one)
        assert await store.get(two.id) == two
        assert await store.waiting() == (two,)
        assert await store.get("f" * 32) is None
        assert await store.of_call("f" * 64) is None


async def test_a_call_waits_once(kept: Kept) -> None:
    one = wanted(1)
    async with kept.opened() as store:
        found = await asyncio.gather(*(store.add(replace(one, id=f"{n:032x}")) for n in range(1, 6)))
        assert len({each.id for each in found}) == 1
        assert len(await store.waiting()) == 1


async def test_it_is_used_up_once(kept: Kept) -> None:
    one = wanted(1)
    async with kept.opened() as store:
        await store.add(one)
        assert not await store.spend(one), "nobody approved it"
        await store.decide(approved(one))
        assert not await store.spend(one)
        assert not await store.spend(approved(one, by="leo")), "another approval than the one that is kept"
        assert sorted(await asyncio.gather(*(store.spend(approved(one)) for _ in range(6)))) == [False] * 5 + [True]
        assert await store.of_call(one.binding) is None
    async with kept.opened() as store:
        assert not await store.spend(approved(one))


async def test_it_is_decided_once(kept: Kept) -> None:
    one = wanted(1)
    denied = one.decided_by(party("leo"), ApprovalState.DENIED, 1500, 2000)
    async with kept.opened() as store:
        await store.add(one)
        decided = await asyncio.gather(store.decide(approved(one)), store.decide(denied))
        assert sorted(decided) == [False, True]
        assert not await store.decide(approved(one))
        assert not await store.decide(approved(wanted(9)))


async def test_what_expired_is_not_there_and_makes_room(kept: Kept) -> None:
    one = wanted(1)
    async with kept.opened(most=1) as store:
        await store.add(one)
        kept.clock.now = 1999.0
        assert await store.get(one.id) == one
        with pytest.raises(TooManyApprovals):
            await store.add(wanted(2, "bob"))
        kept.clock.now = 2000.0
        assert (await store.get(one.id), await store.of_call(one.binding), await store.waiting()) == (None, None, ())
        later = replace(one, id=f"{7:032x}", requested=2000, expires=3000)
        assert await store.add(later) == later, "the same call waits again"


async def test_there_are_so_many_of_one_and_in_all(kept: Kept) -> None:
    async with kept.opened(most=4, most_of_one=2) as store:
        for number in (1, 2):
            await store.add(wanted(number))
        with pytest.raises(TooManyApprovals):
            await store.add(wanted(3, requester=party("ann", "another agent")))
        for number in (4, 5):
            await store.add(wanted(number, "bob"))
        with pytest.raises(TooManyApprovals):
            await store.add(wanted(6, "cid"))
        await store.remove(wanted(1))
        await store.remove(wanted(1))
        assert await store.add(wanted(6, "cid")) == wanted(6, "cid")


@pytest.mark.parametrize("name", [("user", ISSUER, "ann"), ("user", ISSUER, "lea"), ("agent", ISSUER, "console")])
async def test_a_suspension_removes_what_concerns_it(kept: Kept, name: tuple[str, ...]) -> None:
    one, other = wanted(1), wanted(2, "bob")
    async with kept.opened() as store:
        await store.add(one)
        await store.decide(approved(one))
        await store.add(other)
        assert await store.void(name) == 1
        assert await store.void(name) == 0
        assert await store.of_call(one.binding) is None
        assert await store.of_call(other.binding) == other


def test_every_byte_of_the_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "kept"

    async def written() -> None:
        store = FileApprovals(path, HandClock(1200.0))
        await store.load()
        await store.add(wanted(1))
        store.close()

    async def readable() -> bool:
        store = FileApprovals(path, HandClock(1200.0))
        try:
            await store.load()
            return await store.get(wanted(1).id) is not None
        except ApprovalsUnavailable:
            return False
        finally:
            store.close()

    asyncio.run(written())
    assert path.stat().st_mode & 0o777 == 0o600
    whole = path.read_bytes()
    assert asyncio.run(readable())
    for position in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert not asyncio.run(readable()), position


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes().replace(b"delete-many", b"delete-none")),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o666),
    ],
    ids=["written by others", "gone", "writable by others"],
)
async def test_while_the_file_is_not_what_was_written_nothing_counts(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    path, one = tmp_path / "kept", wanted(1)
    store = FileApprovals(path, HandClock(1200.0))
    try:
        await store.load()
        await store.add(one)
        await store.decide(approved(one))
        change(path)
        with pytest.raises(ApprovalsUnavailable):
            await store.spend(approved(one))
        with pytest.raises(ApprovalsUnavailable):
            await store.waiting()
    finally:
        store.close()


async def test_what_the_disk_does_not_take_does_not_count(tmp_path: Path) -> None:
    full = False

    def flush(fd: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        os.fsync(fd)

    store = FileApprovals(tmp_path / "kept", HandClock(1200.0), flush=flush)
    try:
        await store.load()
        await store.add(wanted(1))
        full = True
        with pytest.raises(ApprovalsUnavailable):
            await store.decide(approved(wanted(1)))
        with pytest.raises(ApprovalsUnavailable):
            await store.add(wanted(2))
        full = False
        assert await store.get(wanted(1).id) == wanted(1)
        assert await store.get(wanted(2).id) is None
    finally:
        store.close()


def test_one_process_has_the_file(tmp_path: Path) -> None:
    first = FileApprovals(tmp_path / "kept", HandClock())
    with pytest.raises(ConfigurationError):
        FileApprovals(tmp_path / "kept", HandClock())
    first.close()


@pytest.mark.parametrize("part", ["state", "text", "sha256", "who", "names", "approval", "_id"])
async def test_a_document_that_was_changed_counts_for_nothing(database: str, database_name: str, part: str) -> None:
    one = wanted(1)
    async with AsyncExitStack() as stack:
        shared = MongoStore(database, database_name, timeout_s=5.0)
        stack.push_async_callback(shared.close)
        store = MongoApprovals(shared, "approvals", HandClock(1200.0))
        await store.add(one)
        with MongoClient[dict[str, Any]](database) as client:
            collection = client[database_name]["approvals"]
            document: Any = collection.find_one_and_delete({})
            other: Any = {"state": "approved", "text": document["text"].replace("waiting", "approved"), "names": []}
            document[part] = other.get(part, "0" * 64)
            collection.insert_one(document)
        binding = document["_id"]
        with pytest.raises(ApprovalsUnavailable):
            await store.of_call(binding)
        assert not await store.spend(approved(one))


async def test_a_shared_store_that_is_away_refuses(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(database))
        shared = MongoStore(way.uri, database_name, timeout_s=5.0)
        stack.push_async_callback(shared.close)
        store = MongoApprovals(shared, "approvals", HandClock(1200.0))
        await store.add(wanted(1))
        await way.vanish()
        said = await asyncio.gather(
            store.of_call(wanted(1).binding),
            store.get(wanted(1).id),
            store.waiting(),
            store.add(wanted(2)),
            store.decide(approved(wanted(1))),
            store.spend(approved(wanted(1))),
            store.remove(wanted(1)),
            store.void(("user", ISSUER, "ann")),
            return_exceptions=True,
        )
        assert {type(one) for one in said} == {ApprovalsUnavailable}
        await way.appear()
        async with asyncio.timeout(HANG_S):
            while (found := await of_call_if_there(store)) is None:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.05)
        assert found == wanted(1)


async def of_call_if_there(store: MongoApprovals) -> Approval | None:
    """What is found, once the driver has found its store again."""
    with suppress(ApprovalsUnavailable):
        return await store.of_call(wanted(1).binding)
    return None


async def test_of_many_sidecars_one_uses_it_up(database: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(3):
            shared = MongoStore(database, database_name, timeout_s=5.0)
            stack.push_async_callback(shared.close)
            replicas.append(MongoApprovals(shared, "approvals", HandClock(1200.0)))
        for number in range(10):
            one = wanted(number + 1, f"user {number}")
            await replicas[0].add(one)
            assert await replicas[1].decide(approved(one))
            used = await asyncio.gather(*(replica.spend(approved(one)) for replica in replicas * 2))
            assert sum(used) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(
    st.dictionaries(texts, texts | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)),
    st.sampled_from([*ApprovalState]),
)
def test_what_is_kept_is_read_as_it_was(arguments: JsonObject, state: ApprovalState) -> None:
    one = wanted(1, arguments=arguments)
    if state is not ApprovalState.WAITING:
        one = one.decided_by(party("lea"), state, 1500, 2000)
    assert read_approval(one.document()) == one


@pytest.mark.parametrize(
    "change",
    [
        {"state": "spent"},
        {"state": "approved"},
        {"approver": party("lea").document()},
        {"decided": 5},
        {"id": "x"},
        {"binding": "0" * 63},
        {"requester": {**party("ann").document(), "names": []}},
        {"requester": {"issuer": ISSUER}},
        {"accesses": []},
        {"accesses": [{**READ, "waits": False}]},
        {"accesses": ["x"]},
        {"accesses": {}},
        {"arguments": "[]"},
        {"arguments": "{}" + " " * 16_384},
        {"arguments": "{"},
        {"expires": 1.5},
        {"expires": True},
        {"expires": 0},
        {"tool": None},
        {"more": 1},
    ],
    ids=repr,
)
def test_what_no_sidecar_writes_is_not_read(change: JsonObject) -> None:
    with pytest.raises(ValueError):
        read_approval({**wanted(1).document(), **change})
    with pytest.raises(ValueError):
        read_approval([])
