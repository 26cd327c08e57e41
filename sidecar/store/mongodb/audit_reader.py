"""Reading the chains of a collection for questions (``sidecar.audit.AuditReader``).

The database looks for what a question names; what it finds is read as a line again and compared with the question here,
so that a document that says something else beside its record changes no answer. Several chains are put together by
time, each in its own order.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import PyMongoError

from sidecar.audit import (
    GENESIS,
    AuditEntry,
    ChainFinding,
    ChainReport,
    Checkpoint,
    CheckpointSignatures,
    HeldAgainst,
    ReadProgress,
    Selection,
    StoredChain,
    Survey,
    Unreadable,
    Verdict,
    read_entry,
    record,
)
from sidecar.errors import ConfigurationError
from sidecar.ports import Clock
from sidecar.store.checkpoints import read_checkpoints
from sidecar.store.mongodb.audit_documents import CHECKPOINTS, line_of
from sidecar.store.mongodb.audit_heads import checkpoint_of
from sidecar.store.mongodb.connection import MongoStore, StoredDocument
from sidecar.store.spool_reader import SpoolReader, number_of

BATCH: Final = 1000
POLL_S: Final = 0.5
_TOLD: Final = 5000


class MongoAuditReader:
    """Reads the chains of one collection.

    Args:
        store: the connection.
        collection: its name.
        instance: the one chain that is meant; empty for all.
        clock: says which records have to be there still.
        keep: how long records are kept; None for ever.
        spool: where records of this machine's sidecar wait for the store; they are behind those that it has.
    """

    def __init__(
        self,
        store: MongoStore,
        collection: str,
        *,
        instance: str,
        clock: Clock,
        keep: timedelta | None,
        spool: SpoolReader | None = None,
    ) -> None:
        self._records = store.collection(collection)
        self._heads = store.collection(collection + CHECKPOINTS)
        self._instance = instance
        self._clock = clock
        self._keep = keep
        self._spool = spool

    async def read(
        self, selection: Selection, progress: ReadProgress | None = None
    ) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield the records that are meant, some at a time, those of one chain in its order.

        Raises:
            ConfigurationError: the store does not answer, or a document is not a record.
        """
        asked = filter_of(selection)
        async with self._answering():
            names = await self._names(self._records)
            total = 0 if progress is None else await self._records.count_documents(asked | self._of(names))
            found: list[tuple[AuditEntry, bytes]] = []
            done = 0
            async for entry, line in _merged([self._entries(name, asked) for name in names]):
                done += 1
                if selection.matches(entry):
                    found.append((entry, line))
                if len(found) >= BATCH:
                    yield found
                    found = []
                if progress is not None and done % BATCH == 0:
                    progress(done, max(total, done))
            if found:
                yield found

    async def follow(self, selection: Selection) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield records that are stored from now on, without end, those of new chains too.

        Raises:
            ConfigurationError: the store does not answer, or a document is not a record.
        """
        async with self._answering():
            ends = {name: await self._last(name) for name in await self._names(self._records)}
            if self._spool is not None:
                with self._spool.opened() as seen:
                    waiting = max(map(number_of, seen.lines()), default=0)
                ends[self._spool.instance] = max(waiting, ends.get(self._spool.instance, 0))
            while True:
                found: list[tuple[AuditEntry, bytes]] = []
                for name in await self._names(self._records):
                    async for entry, line in self._entries(name, {}, after=ends.get(name, 0)):
                        ends[name] = entry.seq
                        if selection.matches(entry):
                            found.append((entry, line))
                yield found
                await asyncio.sleep(POLL_S)

    async def verify(self, against: HeldAgainst, progress: ReadProgress | None = None) -> tuple[ChainReport, ...]:
        """Prove each chain.

        Raises:
            ConfigurationError: the store does not answer, there is no chain, or it is not clear which is meant.
        """
        async with self._answering():
            names = sorted({*await self._names(self._records), *await self._names(self._heads)})
            if not names:
                raise ConfigurationError("there is no such chain in the audit store")
            if len(names) > 1 and (against.head or against.checkpoints):
                raise ConfigurationError(f"of which chain, say with --instance: {', '.join(names)}")
            total = 0 if progress is None else await self._records.count_documents(self._of(names))
            reports: list[ChainReport] = []
            for name in names:
                before = sum(report.records for report in reports)
                reports.append(await self._verified(name, against, progress, before, total))
            return tuple(reports)

    async def chains(self) -> tuple[StoredChain, ...]:
        """Return each chain.

        Raises:
            ConfigurationError: the store does not answer, or there is no chain.
        """
        async with self._answering():
            chains = []
            for name in await self._names(self._records):
                seq, head = await self._before(name)
                chains.append(StoredChain(name=name, lines=self._lines(name), seq=seq, head=head))
        if not chains:
            raise ConfigurationError("there is no such chain in the audit store")
        return tuple(chains)

    async def _verified(
        self, name: str, against: HeldAgainst, progress: ReadProgress | None, before: int, total: int
    ) -> ChainReport:
        # The heads first: what is published later is not in what is read then.
        published, proven, findings = await self._published(name, against)
        seq, head = await self._before(name)
        if not any(each.seq >= seq for each in proven):
            seq, head = 0, GENESIS
        missing = [each for each in proven if 0 < each.seq <= seq and self._has_to_be_there(each)]
        if missing:
            what = f"records up to {max(each.seq for each in missing)} are missing before their time"
            findings.append(ChainFinding(file=name, line=0, what=what))
        heads = frozenset([against.head] if against.head and against.head != GENESIS else [])
        expected = {number: found for number, found in published.items() if number > seq}
        survey = Survey(seq=seq, head=head, published=expected, heads=heads)
        survey.begin(name)
        done = 0
        async for line in self._lines(name, begin=survey.begin):
            survey.take(line)
            done += 1
            if progress is not None and done % _TOLD == 0:
                progress(before + done, max(total, before + done))
        report = survey.report()
        return replace(report, findings=(*findings, *report.findings))

    async def _published(
        self, name: str, against: HeldAgainst
    ) -> tuple[Mapping[int, str], list[Checkpoint], list[ChainFinding]]:
        """Return the heads that were published, those whose signature holds, and what is wrong with the others."""
        published: dict[int, str] = {}
        proven: list[Checkpoint] = []
        findings: list[ChainFinding] = []
        kept = await self._kept(name, against)
        signatures = CheckpointSignatures([each for _, _, each in kept if each is not None], against.verifier)
        for source, number, each in kept:
            fault = "not a checkpoint" if each is None else signatures.fault(each)
            if each is not None and not fault and published.get(each.seq, each.head) != each.head:
                fault = f"another checkpoint has another hash for record {each.seq}"
            if fault or each is None:
                findings.append(ChainFinding(file=source, line=number, what=fault))
                continue
            published[each.seq] = each.head
            proven += [each] if against.verifier is not None else []
        return published, proven, findings

    async def _kept(self, name: str, against: HeldAgainst) -> list[tuple[str, int, Checkpoint | None]]:
        found: list[tuple[str, int, Checkpoint | None]] = []
        source = f"{name}{CHECKPOINTS}"
        async for document in self._heads.find({"instance": name}).sort("seq", ASCENDING):
            found.append((source, len(found) + 1, checkpoint_of(document)))
        for file in against.checkpoints:
            try:
                kept, foreign = await asyncio.to_thread(read_checkpoints, Path(file))
            except OSError as error:
                raise ConfigurationError(f"{file}: {error.strerror or error}") from error
            found += [(file, number, each) for number, each in enumerate(kept, start=1)]
            found += [(file, 0, None)] * bool(foreign)
        return found

    def _has_to_be_there(self, checkpoint: Checkpoint) -> bool:
        """Whether the record of a checkpoint is younger than records are kept."""
        if self._keep is None:
            return True
        try:
            made = datetime.fromisoformat(checkpoint.time)
        except ValueError:
            return True
        return made + self._keep > datetime.fromtimestamp(self._clock.time_ns() / 1e9, UTC)

    async def _names(self, collection: Any) -> list[str]:
        """Return the names of the chains that are meant."""
        waiting = self._waiting()
        if self._instance:
            found = await collection.find_one({"instance": self._instance}, {"_id": 1})
            return [self._instance] if found is not None or self._instance == waiting else []
        return sorted({*map(str, await collection.distinct("instance")), *([waiting] if waiting else [])})

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Translate what the driver raises.

        Raises:
            ConfigurationError: the store does not answer.
        """
        try:
            yield
        except (PyMongoError, BSONError, OSError) as error:
            waiting = ""
            if self._spool is not None and (count := self._spool.count()):
                waiting = f"; {count} records wait on this machine, which --file {self._spool.path} shows"
            raise ConfigurationError(f"the audit store cannot be read: {type(error).__name__}{waiting}") from error

    def _waiting(self) -> str:
        """Return the chain of which records wait; empty for none."""
        if self._spool is None:
            return ""
        with self._spool.opened() as seen:
            return self._spool.instance if next(seen.lines(), None) is not None else ""

    def _of(self, names: list[str]) -> StoredDocument:
        return {"instance": {"$in": names}}

    async def _last(self, name: str) -> int:
        found = await self._records.find_one({"instance": name}, {"seq": 1}, sort=[("seq", DESCENDING)])
        return 0 if found is None else int(found["seq"])

    async def _before(self, name: str) -> tuple[int, str]:
        """Return number and hash of the record before the first that is stored."""
        first = await self._records.find_one({"instance": name}, {"seq": 1, "prev": 1}, sort=[("seq", ASCENDING)])
        match first:
            case {"seq": int(seq), "prev": str(prev)} if seq > 1:
                return seq - 1, prev
            case _:
                return 0, GENESIS

    async def _lines(self, name: str, *, begin: Callable[[str], None] | None = None) -> AsyncIterator[bytes]:
        async with self._answering():
            async for line in self._chain(name, {}, begin=begin):
                yield line + b"\n"

    async def _chain(
        self, name: str, asked: StoredDocument, *, after: int = 0, begin: Callable[[str], None] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a chain, each without its line break.

        Args:
            name: the chain.
            asked: what the store is asked for; of what waits in the spool everything is there.
            after: the number before the first that is meant.
            begin: is told the name of the spool before its first line.
        """
        spool = self._spool
        if spool is None or spool.instance != name:
            async for line in self._stored(name, asked, after):
                yield line
            return
        with spool.opened() as seen:
            last = await self._last(name)
            async for line in self._stored(name, asked, after, last):
                yield line
            last, begun = max(after, last), False
            for line in seen.lines():
                number = number_of(line)
                if 0 < number <= last:
                    continue
                if begin is not None and not begun:
                    begin(spool.path.name)
                begun, last = True, number or last
                yield line
            if seen.emptied:
                async for line in self._stored(name, asked, last):
                    yield line

    async def _stored(
        self, name: str, asked: StoredDocument, after: int, upto: int | None = None
    ) -> AsyncIterator[bytes]:
        numbers = {"$gt": after} | ({} if upto is None else {"$lte": upto})
        async for document in self._records.find({"instance": name, "seq": numbers, **asked}).sort("seq", ASCENDING):
            yield line_of(document)

    async def _entries(
        self, name: str, asked: StoredDocument, *, after: int = 0
    ) -> AsyncIterator[tuple[AuditEntry, bytes]]:
        async for line in self._chain(name, asked, after=after):
            try:
                entry = read_entry(line)
            except Unreadable as fault:
                raise ConfigurationError(f"{name}: {fault}; mcp-sidecar audit verify tells which line") from None
            yield entry, line


def filter_of(selection: Selection) -> StoredDocument:
    """Return what the database looks for: every record that is meant, and perhaps others."""
    parts: list[StoredDocument] = []
    for member, values in (
        ("subject.id", selection.users),
        ("subject.issuer", selection.issuers),
        ("actor.id", selection.agents),
        ("tool", selection.tools),
    ):
        if values:
            parts.append({member: {"$in": sorted(values)}})
    places: list[StoredDocument] = [{"accesses.database": {"$in": sorted(selection.databases)}}]
    places = places if selection.databases else []
    places += [
        {"accesses": {"$elemMatch": {"database": database, "collection": collection}}}
        for database, collection in sorted(selection.collections)
    ]
    if places:
        parts.append({"$or": places})
    for members, values in (
        (("decision.reasons.code", "outcome.error"), selection.reasons),
        (("request_id", "trace_id"), selection.requests),
    ):
        if values:
            parts.append({"$or": [{member: {"$in": sorted(values)}} for member in members]})
    if selection.verdict is Verdict.DENY:
        parts.append({"event": record.Event.REFUSAL.value})
    if selection.verdict is Verdict.ALLOW:
        parts.append({"event": {"$in": [record.Event.INTENT.value, record.Event.OUTCOME.value]}})
    span = {"$gte": selection.since} if selection.since else {}
    span |= {"$lt": selection.until} if selection.until else {}
    parts += [{"time": span}] if span else []
    return {"$and": parts} if parts else {}


async def _merged(
    chains: list[AsyncIterator[tuple[AuditEntry, bytes]]],
) -> AsyncIterator[tuple[AuditEntry, bytes]]:
    """Yield the records of several chains, the oldest of their next ones first."""
    heads: list[tuple[AuditEntry, bytes, AsyncIterator[tuple[AuditEntry, bytes]]]] = []
    fresh = chains
    while heads or fresh:
        for each in fresh:
            with suppress(StopAsyncIteration):
                heads.append((*await anext(each), each))
        if not heads:
            return
        oldest = min(heads, key=lambda head: head[0].time)
        heads.remove(oldest)
        yield oldest[0], oldest[1]
        fresh = [oldest[2]]
