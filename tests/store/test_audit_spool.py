"""The audit store away, slow, lying or gone: a call is refused, or its record is on this machine's disk first."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from typing_extensions import override

from sidecar.audit import HeldAgainst, Selection
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.store.mongodb.audit_sink import MongoAuditSink
from tests.patience import HANG_S
from tests.store.audit_world import AuditWorld, intent, started_and_closed
from tests.store.shared_database import Way
from tests.store.unsteady_way import Mood, UnsteadyWay

SHORT_S = 0.5


class TamperedWay(Way):
    """A way that changes messages."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.requests: tuple[bytes, bytes] | None = None
        """In messages with an insertion, one text becomes another of the same length."""
        self.answers: tuple[bytes, bytes] | None = None

    @override
    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        try:
            while data := await source.read(1 << 20):
                await self.open.wait()
                if answers and self.garbage:
                    break
                change = self.answers if answers else self.requests if b"insert\0" in data else None
                sink.write(data.replace(*change) if change else data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@pytest_asyncio.fixture
async def way(database) -> AsyncIterator[TamperedWay]:
    way = TamperedWay(database)
    await way.appear()
    yield way
    await way.vanish()


async def drained(sink: MongoAuditSink) -> None:
    async with asyncio.timeout(HANG_S):
        while sink.spooling:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.05)


async def back(sink: MongoAuditSink) -> None:
    """Wait until the sink has found out that its store is there."""
    async with asyncio.timeout(HANG_S):
        while not sink.ready:
            await sink.look()
            await asyncio.sleep(0.05)


async def test_records_wait_on_the_disk_and_are_shipped_in_order(world, way):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        ids = [(await sink.append(intent())).id]
        await way.vanish()
        for _ in range(3):
            ids += [one.id for one in await asyncio.gather(*(sink.append(intent()) for _ in range(4)))]
        assert (sink.spooling, sink.ready) == (True, True)
        assert (world.folder / "spool.jsonl").read_bytes().count(b"\n") == 12
        assert (world.folder / "spool.jsonl").stat().st_mode & 0o777 == 0o600
        await way.appear()
        ids.append((await sink.append(intent())).id)
        await drained(sink)
        ids.append((await sink.append(intent())).id)
        assert (world.folder / "spool.jsonl").read_bytes() == b""
        await sink.close()
    assert await world.stored() == ids


async def test_without_a_spool_calls_are_refused_until_the_store_is_back(world, way):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store)
        await sink.start()
        first = await sink.append(intent())
        await way.vanish()
        for _ in range(2):
            with pytest.raises(AuditUnavailable):
                await sink.append(intent())
        assert not sink.ready
        await way.appear()
        await back(sink)
        last = await sink.append(intent())
        await sink.close()
    ids = await world.stored()
    assert (ids[0], ids[-1]) == (first.id, last.id)
    assert len(ids) <= 3, "the one that was sent, and no other refused call, may be there"


@pytest.mark.parametrize("spooled", [False, True])
async def test_an_insertion_that_was_carried_out_and_not_answered_is_there_once(world, way, spooled):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool() if spooled else None)
        await sink.start()
        await sink.append(intent())
        way.garbage = True
        results = await asyncio.gather(*(sink.append(intent()) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, AuditUnavailable) != spooled for one in results)
        way.garbage = False
        await back(sink)
        last = await sink.append(intent())
        await drained(sink)
        await sink.close()
    ids = await world.stored()
    assert len(ids) == len(set(ids)) == 5
    assert ids[-1] == last.id


async def test_a_store_that_stalls_holds_calls_no_longer_than_its_time(world, way):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        ids = [(await sink.append(intent())).id]
        way.open.clear()
        ids += [(await sink.append(intent())).id for _ in range(3)]
        assert sink.spooling
        way.open.set()
        await drained(sink)
        await sink.close()
    assert await world.stored() == ids


@pytest.mark.parametrize("mood", [Mood.NO_PRIMARY, Mood.STEPPING_DOWN])
async def test_a_store_that_steps_down_gets_each_record_once(world, database, mood):
    unsteady = UnsteadyWay(database)
    await unsteady.appear()
    async with world.store(unsteady.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        ids = [(await sink.append(intent())).id]
        unsteady.become(mood)
        ids += [one.id for one in await asyncio.gather(*(sink.append(intent()) for _ in range(3)))]
        assert sink.spooling
        unsteady.become(Mood.OPEN)
        ids.append((await sink.append(intent())).id)
        await drained(sink)
        await sink.close()
    await unsteady.vanish()
    assert await world.stored() == ids


async def test_a_full_spool_refuses_and_leaves_no_part_of_a_record(world, way):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool(most=3000))
        await sink.start()
        ids = [(await sink.append(intent())).id]
        await way.vanish()
        with suppress(AuditUnavailable):
            while True:
                ids.append((await sink.append(intent())).id)
        with pytest.raises(AuditUnavailable, match="full"):
            await sink.append(intent())
        assert len(ids) > 1
        await way.appear()
        await drained(sink)
        ids.append((await sink.append(intent())).id)
        await sink.close()
    assert await world.stored() == ids


async def test_a_spool_that_cannot_be_made_durable_refuses(world, way):
    failing = False

    def flush(fd: int) -> None:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool(flush=flush))
        await sink.start()
        ids = [(await sink.append(intent())).id]
        await way.vanish()
        failing = True
        refused = intent()
        with pytest.raises(AuditUnavailable, match="spool"):
            await sink.append(refused)
        with pytest.raises(AuditUnavailable, match="spool"):
            await sink.append(intent())
        assert (world.folder / "spool.jsonl").read_bytes() == b""
        failing = False
        ids.append((await sink.append(intent())).id)
        await way.appear()
        await drained(sink)
        await sink.close()
    # It was about to be sent when the store went away; what is not known to be stored stays in the chain.
    assert [one for one in await world.stored() if one != refused["id"]] == ids


async def killed_with_a_spool(world: AuditWorld, way: Way, count: int = 3) -> list[str]:
    """A process that ended while records waited; its spool stays."""
    async with world.store(way.uri, SHORT_S) as store:
        spool = world.spool()
        sink = world.sink(store, spool=spool)
        await sink.start()
        ids = [(await sink.append(intent())).id]
        await way.vanish()
        ids += [(await sink.append(intent())).id for _ in range(count)]
        await sink.close()
        await way.appear()
    return ids


async def test_the_next_start_ships_what_waited(world, way):
    ids = await killed_with_a_spool(world, way)
    assert len(await world.stored()) == 1
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        assert not sink.spooling
        ids.append((await sink.append(intent())).id)
        await sink.close()
    assert await world.stored() == ids


async def test_a_start_without_the_store_goes_on_from_the_spool_and_else_refuses(world, way):
    ids = await killed_with_a_spool(world, way)
    await way.vanish()
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        ids.append((await sink.append(intent())).id)
        await way.appear()
        await drained(sink)
        await sink.close()
    assert await world.stored() == ids
    await way.vanish()
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        assert not sink.ready
        with pytest.raises(AuditUnavailable):  # where the chain ends is not known
            await sink.append(intent())
        await way.appear()
        await back(sink)
        ids.append((await sink.append(intent())).id)
        await sink.close()
    assert await world.stored() == ids


async def test_a_torn_end_of_the_spool_is_put_aside(world, way):
    ids = await killed_with_a_spool(world, way)
    file = world.folder / "spool.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:100])
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        await sink.close()
    assert [each.read_bytes() for each in world.folder.glob("spool.jsonl.torn-*")] == [whole[:100]]
    assert await world.stored() == ids


async def test_a_spool_that_was_shipped_already_changes_nothing(world, way):
    ids = await killed_with_a_spool(world, way)
    whole = (world.folder / "spool.jsonl").read_bytes()
    for _ in range(2):
        (world.folder / "spool.jsonl").write_bytes(whole)
        async with world.store(way.uri, SHORT_S) as store:
            sink = world.sink(store, spool=world.spool())
            await sink.start()
            ids.append((await sink.append(intent())).id)
            await sink.close()
    assert await world.stored() == ids


async def test_a_spool_of_another_history_ends_the_start_and_stays(world, way):
    await killed_with_a_spool(world, way)
    async with world.store() as store:
        sink = world.sink(store)  # the same name, without the spool
        await sink.start()
        await sink.append(intent())
        await sink.close()
        before = (world.folder / "spool.jsonl").read_bytes()
        spool = world.spool()
        sink = world.sink(store, spool=spool)
        with pytest.raises(ConfigurationError, match="keep the spool"):
            await started_and_closed(sink)
    assert (world.folder / "spool.jsonl").read_bytes() == before


async def test_two_processes_of_one_name_one_with_a_spool_fork_nothing(world, way):
    async with world.store(way.uri, SHORT_S) as far, world.store() as near:
        one, other = world.sink(far, spool=world.spool()), world.sink(near)
        await one.start()
        ids = [(await one.append(intent())).id]
        await way.vanish()
        waiting = [(await one.append(intent())).id for _ in range(2)]
        await other.start()
        ids += [(await other.append(intent())).id for _ in range(2)]
        await way.appear()
        async with asyncio.timeout(HANG_S):
            while one.ready:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.05)
        with pytest.raises(AuditUnavailable, match="another process"):
            await one.append(intent())
        kept = (world.folder / "spool.jsonl").read_text()
        assert all(each in kept for each in waiting)
        ids.append((await other.append(intent())).id)
        await one.close()
        await other.close()
        [report] = await world.reader(near).verify(HeldAgainst())
        found = [entry.id async for batch in world.reader(near).read(Selection()) for entry, _ in batch]
    assert found == ids
    # What the first one acknowledged is not in the chain, and its head says so.
    assert [finding.what.partition(":")[0] for finding in report.findings] == [
        "record 3 is not the one whose hash was published"
    ]


async def test_calls_that_come_while_the_store_is_tried_are_refused_with_those_before(world, way):
    async with world.store(way.uri, 1.0) as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent())
        way.open.clear()
        calls = []
        for _ in range(5):
            calls.append(asyncio.ensure_future(sink.append(intent())))
            await asyncio.sleep(0.02)
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, AuditUnavailable) for one in done)
        assert len({str(one) for one in done}) == 1, "told by one try"
        way.open.set()
        await back(sink)
        await sink.append(intent())
        await sink.close()
    assert len(await world.stored()) == 3


async def test_an_altered_spool_is_not_shipped(world, way):
    await killed_with_a_spool(world, way)
    file = world.folder / "spool.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"ann"', b'"anx"', 1))
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        with pytest.raises(ConfigurationError, match="spool"):
            await started_and_closed(sink)
    assert len(await world.stored()) == 1


async def test_a_spool_that_begins_with_something_else_is_not_opened(world):
    (world.folder / "spool.jsonl").touch(mode=0o600)
    (world.folder / "spool.jsonl").write_bytes(b"my shopping list\n")
    with pytest.raises(ConfigurationError):
        world.spool()


async def test_two_processes_cannot_hold_one_spool(world):
    spool = world.spool()
    with pytest.raises(ConfigurationError, match="in use by another process"):
        world.spool()
    spool.close()


async def test_a_store_that_counts_fewer_than_it_was_sent_is_not_believed(world, way):
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent())
        way.answers = (b"\x10n\0\x01\0\0\0", b"\x10n\0\0\0\0\0")
        with pytest.raises(AuditUnavailable):
            await sink.append(intent())
        way.answers = None
        await sink.append(intent())
        await sink.close()
    assert len(await world.stored()) == 3


async def test_a_store_that_says_it_has_what_it_has_not_is_found_out_and_not_believed_again(world, way):
    async with world.store(way.uri, 5.0) as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent())
        name = world.collection.encode()
        way.requests = (name, b"x" + name[1:])
        await sink.append(intent())
        way.requests = None
        await sink.look()
        assert not sink.ready
        with pytest.raises(AuditUnavailable, match="acknowledged"):
            await sink.append(intent())
        await sink.close()
        [report] = await world.reader(store).verify(HeldAgainst())
    assert [each.what for each in report.findings] == [
        "records 2 to 2 are missing: the end was cut off (published head)"
    ]


async def test_a_record_that_is_removed_stops_the_chain(world):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent())
        await sink.look()
        assert sink.ready
        await store.collection(world.collection).delete_many({})
        await sink.look()
        assert not sink.ready
        await sink.close()


async def test_a_call_that_is_given_up_before_it_is_linked_leaves_no_record(world, way):
    async with world.store(way.uri, 5.0) as store:
        sink = world.sink(store)
        await sink.start()
        way.open.clear()
        first = asyncio.ensure_future(sink.append(intent()))
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(sink.append(intent()))
        await asyncio.sleep(0)
        second.cancel()
        way.open.set()
        receipt = await first
        await sink.append(intent())
        await sink.close()
    ids = await world.stored()
    assert len(ids) == 2
    assert ids[0] == receipt.id
