"""What waits in a spool is read behind what the store has, each record once, also while the spool is shipped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from sidecar.audit import HeldAgainst, Selection
from sidecar.errors import ConfigurationError
from sidecar.store import AuditSpool, MongoAuditReader, MongoAuditSink, SpoolReader, WaitingRecords
from tests.patience import HANG_S
from tests.store.audit_world import AuditWorld, intent
from tests.store.shared_database import Way

SHORT_S = 0.5
EVERYTHING = Selection()


@pytest_asyncio.fixture
async def way(database) -> AsyncIterator[Way]:
    way = Way(database)
    await way.appear()
    yield way
    await way.vanish()


@asynccontextmanager
async def spooling(world: AuditWorld, way: Way, *, before: int = 2, waiting: int = 3) -> AsyncIterator[Any]:
    """A sink whose store is away: some of its records are stored, and some wait."""
    async with world.store(way.uri, SHORT_S) as store:
        sink = world.sink(store, spool=world.spool())
        await sink.start()
        ids = [(await sink.append(intent())).id for _ in range(before)]
        await way.vanish()
        ids += [(await sink.append(intent())).id for _ in range(waiting)]
        assert sink.spooling
        yield sink, ids
        await sink.close()


async def shipped(sink: MongoAuditSink, way: Way) -> None:
    await way.appear()
    async with asyncio.timeout(HANG_S):
        while sink.spooling:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.05)


async def read(reader: MongoAuditReader, selection: Selection = EVERYTHING) -> list[str]:
    return [entry.id async for batch in reader.read(selection) for entry, _ in batch]


async def test_records_that_wait_are_answered_proven_and_replayed_behind_those_of_the_store(world, way):
    async with spooling(world, way) as (_, ids), world.store() as store:
        reader = world.reader(store, spooled="one")
        assert await read(reader) == ids
        assert await read(world.reader(store)) == ids[:2], "without the spool, what the store has"
        [report] = await reader.verify(HeldAgainst())
        assert (report.holds, report.records, report.files) == (True, 5, ("one", "spool.jsonl"))
        [chain] = await reader.chains()
        assert len([line async for line in chain.lines]) == 5
        [named] = await world.reader(store, "one", spooled="one").verify(HeldAgainst())
        assert named == report


async def test_a_question_is_asked_of_what_waits_too(world, way):
    async with world.store(way.uri, SHORT_S) as down, world.store() as store:
        sink = world.sink(down, spool=world.spool())
        await sink.start()
        await sink.append(intent("ann"))
        await way.vanish()
        await sink.append(intent("bob"))
        last = await sink.append(intent("ann"))
        found = await read(world.reader(store, spooled="one"), Selection(users=frozenset({"ann"})))
        assert len(found) == 2
        assert found[-1] == last.id
        assert await read(world.reader(store, spooled="one"), Selection(users=frozenset({"eve"}))) == []
        await sink.close()


async def test_the_chain_of_another_sidecar_has_nothing_to_do_with_the_spool(world, way):
    async with spooling(world, way), world.store() as store:
        other = world.sink(store, instance="two")
        await other.start()
        await other.append(intent())
        await other.close()
        reports = await world.reader(store, spooled="one").verify(HeldAgainst())
        assert [(report.files, report.records, report.holds) for report in reports] == [
            (("one", "spool.jsonl"), 5, True),
            (("two",), 1, True),
        ]
        [only] = await world.reader(store, "two", spooled="one").verify(HeldAgainst())
        assert only.records == 1


async def test_an_altered_record_that_waits_is_found_by_its_line(world, way):
    async with spooling(world, way) as (_, _), world.store() as store:
        spool = world.folder / "spool.jsonl"
        whole = spool.read_bytes().splitlines(keepends=True)
        for change, what in (
            (whole[1].replace(b"salaries", b"salaried"), "the hash does not match the record"),
            (b"nonsense\n", "not JSON"),
            (b"", "sequence gap: record 4 missing where 4 was expected"),
        ):
            spool.write_bytes(b"".join([whole[0], change, whole[2]]))
            [report] = await world.reader(store, spooled="one").verify(HeldAgainst())
            finding = report.findings[0]
            assert (finding.file, finding.line, finding.what) == ("spool.jsonl", 2, what)
        spool.write_bytes(b"".join([whole[0], b"nonsense\n", whole[2]]))
        with pytest.raises(ConfigurationError, match="audit verify"):
            await read(world.reader(store, spooled="one"))
        spool.write_bytes(b"".join(whole))


async def test_a_spool_that_is_shipped_while_it_is_read_loses_no_record(world, way):
    async with spooling(world, way) as (sink, ids), world.store() as store:
        lines = world.reader(store, spooled="one")._lines("one")
        found = [await anext(lines)]
        await shipped(sink, way)
        found += [line async for line in lines]
        assert len(found) == len(ids)
        assert await read(world.reader(store, spooled="one")) == ids


async def test_a_spool_that_is_shipped_and_filled_again_while_it_is_read_loses_no_record(world, way):
    async with spooling(world, way) as (sink, ids), world.store() as store:
        lines = world.reader(store, spooled="one")._lines("one")
        found = [await anext(lines)]
        await shipped(sink, way)
        await way.vanish()
        later = [(await sink.append(intent())).id for _ in range(9)]
        assert sink.spooling
        found += [line async for line in lines]
        assert len(found) == len(ids), "what came after the spool was opened is another question's"
        assert await read(world.reader(store, spooled="one")) == [*ids, *later]


async def test_what_is_followed_is_told_once_on_its_way_through_the_spool(world, way):
    async with spooling(world, way) as (sink, _), world.store() as store:
        told: list[str] = []

        async def follow() -> None:
            async for batch in world.reader(store, spooled="one").follow(EVERYTHING):
                told.extend(entry.id for entry, _ in batch)
                started.set()

        async def until(wanted: list[str]) -> None:
            async with asyncio.timeout(HANG_S):
                while told != wanted:
                    assert told == wanted[: len(told)]
                    await asyncio.sleep(0.05)

        started = asyncio.Event()
        following = asyncio.create_task(follow())
        await asyncio.wait_for(started.wait(), HANG_S)
        fresh = [(await sink.append(intent())).id for _ in range(2)]
        await until(fresh)
        await shipped(sink, way)
        fresh.append((await sink.append(intent())).id)
        await until(fresh)
        following.cancel()


async def test_a_store_that_is_away_says_how_many_records_wait(world, way):
    async with spooling(world, way, waiting=4), world.store(way.uri, SHORT_S) as down:
        with pytest.raises(
            ConfigurationError, match=r"4 records wait on this machine, which --file .*spool\.jsonl shows"
        ):
            await read(world.reader(down, spooled="one"))
        with pytest.raises(ConfigurationError, match=r"cannot be read: \w+$"):
            await read(world.reader(down))


async def test_where_nothing_waits_there_is_no_spool_in_the_answer(world):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent())
        await sink.close()
        for content in (None, b""):
            if content is not None:
                (world.folder / "spool.jsonl").write_bytes(content)
            [report] = await world.reader(store, spooled="one").verify(HeldAgainst())
            assert (report.files, report.records) == (("one",), 1)
            assert SpoolReader(world.folder / "spool.jsonl", "one").count() == 0
        with pytest.raises(ConfigurationError, match="no such chain"):
            await world.reader(store, "none", spooled="one").chains()


def test_a_spool_that_cannot_be_opened_is_said(tmp_path):
    (tmp_path / "spool").symlink_to(tmp_path / "spool")
    with pytest.raises(ConfigurationError, match=r"audit\.spool"):
        SpoolReader(tmp_path / "spool", "one").count()


async def test_how_much_waits_and_since_when(world, way):
    async with spooling(world, way, before=1, waiting=1) as (sink, _):
        spool = sink.spool
        for _ in range(3):
            await sink.append(intent())
        lines = (world.folder / "spool.jsonl").read_bytes().splitlines()
        first = spool.waiting
        assert (first.records, first.size) == (4, sum(len(line) + 1 for line in lines))
        assert f'"time":"{first.since}"'.encode() in lines[0]
        spool.shipped(spool.next_lines(1, 1))
        assert (spool.waiting.records, spool.waiting.size) == (3, first.size - len(lines[0]) - 1)
        assert f'"time":"{spool.waiting.since}"'.encode() in lines[1]
        assert spool.waiting.since > first.since
        sink._broken = "ended by the test"
    again = AuditSpool(world.folder / "spool.jsonl", most=1_000_000)
    assert again.waiting == first, "the next start ships all of it again"
    again.shipped(again.next_lines(10, 1 << 20))
    assert again.waiting == WaitingRecords()
    again.close()


def test_the_age_of_what_cannot_be_read_is_not_known(tmp_path):
    spool = AuditSpool(tmp_path / "spool.jsonl", most=1000)
    assert spool.waiting == WaitingRecords()
    spool._size, spool._records = 5, 1
    (tmp_path / "spool.jsonl").write_bytes(b"{}\n{}")
    assert (spool.waiting.records, spool.waiting.since) == (1, "")
    spool.close()
