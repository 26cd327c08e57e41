"""A chain in MongoDB: stored before it is acknowledged, continued, and refused to a second writer."""

import asyncio
import json

import pytest

from sidecar.audit import GENESIS, HeldAgainst, Selection, chain
from sidecar.errors import AuditUnavailable
from sidecar.store.mongodb.audit_documents import document_of, line_of
from tests.store.audit_world import AuditWorld, intent


@pytest.fixture
def world(database, tmp_path):
    return AuditWorld(database, tmp_path)


async def test_what_is_acknowledged_is_there_as_the_line_that_was_linked(world):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        receipts = await asyncio.gather(*(sink.append(intent()) for _ in range(20)))
        assert sink.head == (20, receipts[-1].hash)
        await sink.close()
        assert [one.seq for one in receipts] == [*range(1, 21)]
        [found] = await world.reader(store).chains()
        lines = [line async for line in found.lines]
        assert [chain.read(line[:-1]).hash for line in lines] == [one.hash for one in receipts]
    assert await world.stored() == [one.id for one in receipts]


async def test_the_next_start_continues_the_chain(world):
    for _ in range(3):
        async with world.store() as store:
            sink = world.sink(store)
            await sink.start()
            await sink.append(intent())
            await sink.close()
    assert len(await world.stored()) == 3


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "a", "x.y": {"$gt": 1}},
        {"": {"\0": 1.5}, "n": 1e20, "m": -0.0, "b": True},
        [],
        [{"a": [None, 2**53 - 1]}],
        "json",
        {"json": "x"},
        None,
    ],
    ids=lambda value: json.dumps(value)[:20].encode().hex(),
)
async def test_what_callers_and_policies_choose_comes_back_as_it_was(world, value):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        await sink.append(intent(arguments={"filter": value}, extra=value, obligations=[{"access": 0, "value": value}]))
        await sink.close()
    assert len(await world.stored()) == 1


async def test_a_record_without_canonical_form_is_refused_alone(world):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        good, bad, after = (
            asyncio.ensure_future(sink.append(one)) for one in (intent(), intent(extra="\ud800"), intent())
        )
        with pytest.raises(AuditUnavailable):
            await bad
        assert await world.stored() == [(await good).id, (await after).id]
        await sink.close()


async def test_two_processes_with_one_name_cannot_fork_a_chain(world):
    async with world.store() as first, world.store() as second:
        one, other = world.sink(first), world.sink(second)
        await one.start()
        await other.start()
        kept = [await one.append(intent())]
        kept.append(await other.append(intent()))  # its first record: it may be what the process before it left
        with pytest.raises(AuditUnavailable, match="another process"):
            await one.append(intent())
        with pytest.raises(AuditUnavailable, match="another process"):
            await one.append(intent())
        assert not one.ready
        kept.append(await other.append(intent()))
        await one.close()
        await other.close()
    assert await world.stored() == [receipt.id for receipt in kept]


async def test_two_names_are_two_chains_and_questions_are_of_both(world):
    async with world.store() as store:
        sinks = [world.sink(store, instance=name) for name in ("one", "two")]
        ids = []
        for sink in sinks * 2:
            await sink.start()
            ids.append((await sink.append(intent())).id)
        for sink in sinks:
            await sink.close()
        reports = await world.reader(store).verify(HeldAgainst())
        assert [(report.files, report.records, report.holds) for report in reports] == [
            (("one",), 2, True),
            (("two",), 2, True),
        ]
        found = [entry.id async for batch in world.reader(store).read(Selection()) for entry, _ in batch]
        assert found == ids, "by time"
    assert await world.stored("two") == ids[1::2]


def test_a_document_that_is_no_record_is_a_line_that_is_none():
    line, digest = chain.link(intent(), 1, GENESIS)
    good = document_of({**chain.opened(line)[1], "hash": digest}, "one", None)
    assert line_of(good) == line
    for changed in (
        {"extra": {"a": 1}},
        {"tool": object()},
        {"extra": {"json": "{"}},
        {"extra": {"json": "1", "b": 1}},
    ):
        assert line_of({**good, **changed}) != line
