"""A chain in MongoDB: stored before it is acknowledged, continued, and refused to a second writer."""

import asyncio
import json
from typing import Any

import pytest

from sidecar.audit import GENESIS, HeldAgainst, Selection, Verdict, chain
from sidecar.authoring.replaying import ReplayVerdict, ReplayWanted, replay
from sidecar.errors import AuditUnavailable
from sidecar.store.audit_reader import FileAuditReader
from sidecar.store.file import FileAuditSink
from sidecar.store.mongodb.audit_documents import document_of, line_of
from sidecar.store.mongodb.audit_founding import found_evidence
from tests.asking.conftest import entries
from tests.authoring.test_replay_reading import Refusing
from tests.patience import HANG_S
from tests.store.audit_world import intent
from tests.store.unsteady_way import UnsteadyWay


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


async def test_calls_that_wait_together_share_one_insertion_that_a_majority_has_in_its_journals(world, database):
    way = UnsteadyWay(database)
    await way.appear()
    async with world.store(way.uri) as store:
        sink = world.sink(store)
        await sink.start()
        way.insertions.clear()
        await asyncio.gather(*(sink.append(intent()) for _ in range(20)))
        concern = {"w": "majority", "j": True}
        assert [(one["insert"], one["ordered"], one["writeConcern"]) for one in way.insertions] == [
            (world.collection, True, concern)
        ]
        await sink.close()
    await way.vanish()


@pytest.mark.parametrize("asked", [b"connectionStatus", b"listIndexes", b"find\0", b".checkpoints"])
async def test_a_store_that_fails_in_the_middle_of_a_start_is_waited_for(world, database, asked):
    way = UnsteadyWay(database)
    await way.appear()
    async with world.store(way.uri, 0.5) as store:
        sink = world.sink(store)
        way.closed_to = asked
        await sink.start()
        await sink.look()
        assert not sink.ready
        with pytest.raises(AuditUnavailable):
            await sink.append(intent())
        way.closed_to = b""
        async with asyncio.timeout(HANG_S):
            while not sink.ready:
                await sink.look()
                await asyncio.sleep(0.05)
        await sink.append(intent())
        await sink.close()
    await way.vanish()
    assert len(await world.stored()) == 1


async def test_a_collection_that_nobody_founded_is_said_to_have_no_index(world, caplog):
    for founded in (False, True):
        async with world.store() as store:
            if founded:
                await found_evidence(store, world.collection)
            sink = world.sink(store)
            caplog.clear()
            await sink.start()
            await sink.close()
            assert ("mcp-sidecar audit init" in caplog.text) != founded


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


async def test_replay_reads_a_chain_of_the_store(world):
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        for _ in range(3):
            await sink.append(intent())
        await sink.close()
        [found] = await world.reader(store).chains()
        report = await replay(found, Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
        assert (report.proof.holds, report.proof.records) == (True, 3)
        await store.collection(world.collection).delete_one({"seq": 1})
        [found] = await world.reader(store).chains()
        report = await replay(found, Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
        assert (report.proof.holds, report.counts[ReplayVerdict.NOT_RECORDED]) == (True, 2)
        await store.collection(world.collection).update_one({"seq": 3}, {"$set": {"tool": "x"}})
        [found] = await world.reader(store).chains()
        report = await replay(found, Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
        assert report.proof.fault is not None


async def test_what_is_stored_from_now_on_is_followed_also_of_new_chains(world):
    async with world.store() as store, asyncio.timeout(HANG_S):
        one = world.sink(store)
        await one.start()
        await one.append(intent())
        coming = world.reader(store).follow(Selection(users=frozenset({"ann"})))
        assert await anext(coming) == []
        await one.append(intent(user="bob"))
        kept = [await one.append(intent())]
        other = world.sink(store, instance="two")
        await other.start()
        kept.append(await other.append(intent()))
        found: list[str] = []
        while len(found) < len(kept):
            found += [entry.id for entry, _ in await anext(coming)]
        assert found == [receipt.id for receipt in kept]
        await one.close()
        await other.close()


def naming(part: str, name: str) -> Selection:
    given: dict[str, Any] = {part: frozenset({name})}
    return Selection(**given)


SELECTIONS = [
    Selection(),
    *(
        naming(part, name)
        for part in ("users", "agents", "tools", "reasons", "requests", "databases", "issuers")
        for name in ("ann", "bob", "desk", "bot", "find", "not_granted", "token_missing", "hr", "sales", "req-0003")
    ),
    *(
        Selection(collections=frozenset({place}))
        for place in (("hr", "salaries"), ("sales", "orders"), ("hr", "orders"))
    ),
    *(Selection(verdict=verdict, users=frozenset({"ann", "bob"})) for verdict in Verdict),
    Selection(since="2026-11-27T09:00:00.000000Z"),
    Selection(until="2026-11-27T09:00:00.000000Z", databases=frozenset({"hr"}), verdict=Verdict.ALLOW),
    Selection(databases=frozenset({"hr"}), collections=frozenset({("sales", "orders")}), users=frozenset({"carol"})),
]


async def test_the_database_finds_what_the_file_finds(world, tmp_path):
    file = FileAuditSink(tmp_path / "audit.jsonl")
    async with world.store() as store:
        sink = world.sink(store)
        await sink.start()
        for entry in entries():
            await file.append(entry)
            await sink.append(entry)
        assert sink.head == file.head
        await sink.close()
        await file.close()
        readers = (FileAuditReader(tmp_path / "audit.jsonl"), world.reader(store))
        found = 0
        for wanted in SELECTIONS:
            there, here = [[line async for batch in one.read(wanted) for _, line in batch] for one in readers]
            assert here == there, wanted
            found += bool(here)
        assert len(SELECTIONS) > found > 15


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
