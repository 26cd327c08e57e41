"""A chain in MongoDB for tests: the real adapter on a collection of its own, straight or over a way that can be cut."""

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sidecar.audit import CheckpointSigner, HeldAgainst, Selection, record
from sidecar.model import JsonObject
from sidecar.store import AuditSpool, MongoAuditReader, MongoAuditSink, MongoHeads, MongoStore, SpoolReader
from sidecar.system import SystemClock
from tests.asking.conftest import decided, facts

_NUMBERS = itertools.count(1)


def intent(user: str = "ann", place: str = "hr.salaries", **more: Any) -> JsonObject:
    number = next(_NUMBERS)
    made = record.intent(
        facts(number, user, "desk", place, "find"),
        decided("hr", allow=True),
        record_id=f"r{number}",
        time_ns=SystemClock().time_ns(),
    )
    return {**made, **more}


class AuditWorld:
    """One collection, and the sinks on it."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.collection = f"audit_{uuid.uuid4().hex[:10]}"

    @asynccontextmanager
    async def store(self, uri: str = "", timeout_s: float = 5.0) -> AsyncIterator[MongoStore]:
        store = MongoStore(uri or self.uri, "evidence_tests", timeout_s=timeout_s)
        try:
            yield store
        finally:
            await store.close()

    def sink(
        self,
        store: MongoStore,
        *,
        instance: str = "one",
        spool: AuditSpool | None = None,
        signer: CheckpointSigner | None = None,
        keep: timedelta | None = None,
        checkpoint_s: float = 3600.0,
    ) -> MongoAuditSink:
        return MongoAuditSink(
            store,
            self.collection,
            instance=instance,
            clock=SystemClock(),
            heads=MongoHeads(store, self.collection, instance, signer, keep),
            checkpoint_s=checkpoint_s,
            spool=spool,
            keep=keep,
        )

    def spool(self, most: int = 1_000_000, **given: Any) -> AuditSpool:
        return AuditSpool(self.folder / "spool.jsonl", most=most, **given)

    def reader(
        self, store: MongoStore, instance: str = "", keep: timedelta | None = None, *, spooled: str = ""
    ) -> MongoAuditReader:
        """A reader of the collection; with the name of a chain in ``spooled``, of what waits for it too."""
        spool = SpoolReader(self.folder / "spool.jsonl", spooled) if spooled else None
        return MongoAuditReader(store, self.collection, instance=instance, clock=SystemClock(), keep=keep, spool=spool)

    async def stored(self, instance: str = "one") -> list[str]:
        """The ids of the records of a chain that verifies, in its order."""
        async with self.store() as store:
            reader = self.reader(store, instance)
            [report] = await reader.verify(HeldAgainst())
            assert report.holds, report.findings
            return [entry.id async for batch in reader.read(Selection()) for entry, _ in batch]


async def started_and_closed(sink: MongoAuditSink) -> None:
    try:
        await sink.start()
    finally:
        await sink.close()
