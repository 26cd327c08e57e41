"""The audit chain of one sidecar in MongoDB (``sidecar.ports.AuditSink``).

The rules, and why:

- A receipt means stored: by a majority, journaled; or, with a spool, on this machine's disk (``audit_spool``).
- Calls that wait at the same time share one ordered insertion. A record is linked right before it is sent, and a line
  that was sent never changes afterwards: whether an insertion that was not answered took place is not known, so the
  same line is sent again, or spooled, before anything that links to it.
- The chain belongs to one process. Where the store has another hash for a number, another process writes this chain,
  and this one stores nothing more. Only before the first record of a process can that be the last insertion of the
  process before it, which arrived late: then the end is read again. For the same reason a process puts nothing into an
  empty spool before it has stored its first record.
- While records wait in the spool, all later ones go there, and are brought to the store in the order of the chain.
- What was acknowledged is looked for again from time to time: a store that lost it is not believed any more.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from sidecar.audit import BrokenRecord, Checkpoint
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.model import JsonObject
from sidecar.ports import AuditReceipt, Clock
from sidecar.store.audit_spool import AuditSpool
from sidecar.store.mongodb.audit_batches import BATCH, BATCH_BYTES, PendingRecord, fail, first
from sidecar.store.mongodb.audit_chain import (
    ChainPlace,
    ForkedChainError,
    LinkedRecord,
    MongoChain,
    StoreAwayError,
    linked,
    read_line,
)
from sidecar.store.mongodb.audit_heads import MongoHeads
from sidecar.store.mongodb.connection import MongoStore
from sidecar.system import Outage

_LOG: Final = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""How often a store that was away is tried."""

_TRIES: Final = 5


class MongoAuditSink:
    """Appends records to one chain. To be used from one event loop.

    Args:
        store: the connection.
        collection: its name.
        instance: the chain's name; one process at a time writes it.
        clock: says when documents end.
        heads: publishes heads.
        checkpoint_s: how often, seconds, while records come.
        spool: where records wait while the store is away; None: calls are refused then.
        keep: how long records are kept; None for ever.
    """

    def __init__(
        self,
        store: MongoStore,
        collection: str,
        *,
        instance: str,
        clock: Clock,
        heads: MongoHeads,
        checkpoint_s: float = 60.0,
        spool: AuditSpool | None = None,
        keep: timedelta | None = None,
    ) -> None:
        self._chain = MongoChain(store, collection, instance)
        self._instance = instance
        self._clock = clock
        self._heads = heads
        self._checkpoint_s = checkpoint_s
        self.spool: Final = spool
        self._keep = keep
        self._end = ChainPlace()
        """Of the chain, with what was sent and not acknowledged."""
        self._durable = ChainPlace()
        self._doubt: list[LinkedRecord] = []
        """Sent, and not known to be stored."""
        self._known = False
        self._owned = False
        self._broken = ""
        """Why nothing is stored any more until the next start."""
        self._waiting: list[PendingRecord] = []
        self._committer: asyncio.Task[None] | None = None
        self._shipper: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._published_at = float("-inf")
        self._outage = Outage(
            _LOG, "the audit store", lost="does not answer", found="answers again", level=logging.ERROR
        )

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that was stored; 0 and GENESIS before the first."""
        return (self._durable.seq, self._durable.head)

    @property
    def ready(self) -> bool:
        """Whether the next record would be stored, as far as is known."""
        return self._known and not self._broken and (self._outage.there or self.spooling)

    @property
    def spooling(self) -> bool:
        """Whether records wait on this machine."""
        return self.spool is not None and self.spool.holds

    async def start(self) -> None:
        """Continue the chain. A store that is away ends no start: calls are refused until it is back.

        Raises:
            ConfigurationError: the user may change evidence, the last record does not hold, or what waits in the spool
                belongs to another chain.
        """
        try:
            async with self._turn:
                await self._begin()
        except StoreAwayError as error:
            self._outage.begins(error)
        if self._broken:
            raise ConfigurationError(self._broken)

    async def append(self, record: JsonObject) -> AuditReceipt:
        """Number, link and store one record; return only when it is stored.

        Raises:
            AuditUnavailable: it is not known to be stored. Works again by itself when the store does.
        """
        pending = PendingRecord(record=record, stored=asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit(), name="audit: group commit")
        return await pending.stored

    async def look(self) -> None:
        """See whether records are stored, and whether those are there that were; publish the head when it is due."""
        try:
            if not self._turn.locked():
                async with self._turn:
                    await self._begin()
                    if self.spool is not None and self.spool.holds:
                        self._ship_soon(self.spool)
                    else:
                        await self._settle()
            if self._owned and not self._broken and not self.spooling:
                await self._still_there()
        except StoreAwayError as error:
            self._outage.begins(error)
        except ForkedChainError:
            self._breaks(self._forked())
        now = asyncio.get_running_loop().time()
        if self._durable.seq > self._heads.last and now - self._published_at >= self._checkpoint_s:
            self._published_at = now
            await self._publish("periodic")

    async def close(self) -> None:
        """Wait for what is being stored, publish the head, and release the spool."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        if self._shipper is not None:
            self._shipper.cancel()
            await asyncio.wait([self._shipper])
        self._broken = self._broken or "the sink is closed"
        if self._durable.seq > self._heads.last:
            await self._publish("end")
        if self.spool is not None:
            self.spool.close()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = first(self._waiting)
                try:
                    async with self._turn:
                        await self._keep_batch(batch)
                except AuditUnavailable as error:
                    # Those that came meanwhile too: else each batch would wait for the store in turn.
                    batch, self._waiting = [*batch, *self._waiting], []
                    fail(batch, error)
                except Exception as error:  # noqa: BLE001 - a defect must refuse those that wait, and hang none
                    _LOG.exception("records cannot be stored")
                    fail(batch, AuditUnavailable(f"a defect: {type(error).__name__}"))
        finally:
            self._committer = None

    async def _keep_batch(self, batch: list[PendingRecord]) -> None:
        for _ in range(_TRIES):
            try:
                await self._begin()
                if self._broken:
                    raise AuditUnavailable(self._broken)
                if self._keep is not None and self._heads.overdue(self._now(), self._keep / 2):
                    raise AuditUnavailable("no checkpoint could be stored for half the time after which records end")
                await self._keep_part(batch)
            except ForkedChainError as fork:
                if self._owned or fork.mine:
                    raise self._breaks(self._forked()) from None
                self._known, self._doubt = False, []
            except StoreAwayError as error:
                self._outage.begins(error)
                raise AuditUnavailable(f"the audit store: {error}") from error
            else:
                return
        raise AuditUnavailable(f"other processes keep writing the chain of {self._instance}")

    async def _keep_part(self, part: list[PendingRecord]) -> None:
        """Store some records; where the store does not take them, put them into the spool.

        Raises:
            StoreAwayError: neither, because there is no spool, or none may be begun.
            AuditUnavailable: the spool does not take them.
        """
        fresh: list[tuple[PendingRecord, LinkedRecord]] | None = None
        if not self.spooling:
            try:
                if self.spool is not None:
                    self.spool.mend()
                await self._settle()
                fresh = self._link(part)
                await self._settle()
            except OSError as error:
                raise AuditUnavailable(f"the spool: {error.strerror or error}") from error
            except StoreAwayError as error:
                if self.spool is None or not self._owned:
                    raise
                self._outage.begins(error)
        if self.spool is not None and (self.spooling or self._doubt or fresh is None):
            end, doubt = self._end, self._doubt
            try:
                fresh = self._link(part) if fresh is None else fresh
                await self._put_into(self.spool)
            except AuditUnavailable:
                self._end, self._doubt = end, doubt  # what was not sent is not in doubt
                raise
        for pending, one in fresh or ():
            if not pending.stored.done():
                pending.stored.set_result(AuditReceipt(id=one.id, seq=one.place.seq, hash=one.place.head))

    def _link(self, part: list[PendingRecord]) -> list[tuple[PendingRecord, LinkedRecord]]:
        """Link records behind the end; one that has no canonical form is refused alone, one given up is left out."""
        fresh, end, expires = [], self._end, self._expires()
        for pending in part:
            if pending.stored.done():
                continue
            try:
                one = linked(pending.record, end, self._instance, expires)
            except (ValueError, RecursionError) as error:
                fail([pending], AuditUnavailable(f"the record has no canonical form: {error}"))
                continue
            fresh.append((pending, one))
            end = one.place
        self._end, self._doubt = end, [*self._doubt, *(one for _, one in fresh)]
        return fresh

    async def _settle(self) -> None:
        """Have what is in doubt stored.

        Raises:
            StoreAwayError: it is not known to be.
            ForkedChainError: another record is in its place.
        """
        if self._doubt:
            await self._chain.send(self._doubt)
            self._durable, self._doubt, self._owned = self._doubt[-1].place, [], True
            self._outage.ends()

    async def _put_into(self, spool: AuditSpool) -> None:
        """Put what is in doubt on the disk.

        Raises:
            AuditUnavailable: it cannot be.
        """
        if self._doubt:
            try:
                await spool.append([one.line for one in self._doubt])
            except OSError as error:
                why = error.strerror or str(error)
                raise AuditUnavailable(f"the audit store is away, and the spool {spool.path}: {why}") from error
            self._durable, self._doubt = self._doubt[-1].place, []
        self._ship_soon(spool)

    async def _begin(self) -> None:
        """Learn where the chain ends, once.

        Raises:
            StoreAwayError: the store does not say, and nothing waits here that would.
        """
        if self._known or self._broken:
            return
        spool = self.spool
        try:
            await self._see_rights()
            while spool is not None and self._waits(spool):
                self._shipped(spool, await self._send_oldest(spool))
            if not self._broken:
                await self._continue()
        except ForkedChainError:
            self._breaks(
                f"the spool and the store hold other records: {self._forked()}, and keep the spool as evidence"
            )
        except BrokenRecord as broken:
            self._breaks(f"the last record of {self._instance} in the audit store does not hold ({broken})")
        except StoreAwayError:
            if spool is None or not spool.holds:
                raise
            end = spool.end
            self._end = self._durable = ChainPlace(seq=end.seq, head=end.head, time=end.time)
            self._known = self._owned = True
            self._ship_soon(spool)

    async def _continue(self) -> None:
        end, published = await self._chain.end(), await self._heads.newest()
        if end.seq and not self._chain.outlives(self._expires()):
            self._breaks(
                "audit.keep_days: records would end before older ones; begin a chain with another audit.instance"
            )
            return
        gone = published is not None and published.seq > end.seq
        if published is not None and not end.seq:
            # Everything has ended, or is gone: numbers are not given twice.
            end = ChainPlace(seq=published.seq, head=published.head, time=published.time)
        if published is not None and gone:
            _LOG.error(
                "audit records that were published are missing at the end of the chain",
                extra={"instance": self._instance, "last": end.seq, "published": published.seq},
            )
        self._end = self._durable = end
        if published is not None and (published.seq, published.head) == (end.seq, end.head):
            self._heads.last, self._heads.failing_since = published.seq, None
        elif end.seq or self._keep is not None:
            await self._publish("start")
            if self._keep is not None and self._heads.failing_since is not None:
                raise StoreAwayError("it takes no checkpoint, and records are to end")
        self._known = True
        self._outage.ends()

    async def _see_rights(self) -> None:
        if why := await self._chain.misgiven():
            self._breaks(why)

    async def _still_there(self) -> None:
        """See that the last record that was acknowledged is in the store."""
        durable = self._durable
        if not await self._chain.has(durable):
            self._breaks(f"record {durable.seq} of {self._instance}, which was acknowledged, is not in the store")
        elif not self._doubt:
            self._outage.ends()

    def _ship_soon(self, spool: AuditSpool) -> None:
        if self._shipper is None and self._waits(spool):
            _LOG.warning("audit records wait on this machine", extra={"spool": str(spool.path)})
            self._shipper = asyncio.create_task(self._ship(spool), name="audit: spool")

    async def _ship(self, spool: AuditSpool) -> None:
        """Bring what waits to the store, as soon as that is possible."""
        try:
            while self._waits(spool):
                await asyncio.sleep(RETRY_S)
                try:
                    await self._see_rights()
                    while self._waits(spool):
                        lines = await self._send_oldest(spool)  # calls go on to the spool meanwhile
                        async with self._turn:
                            self._shipped(spool, lines)
                except StoreAwayError as error:
                    self._outage.begins(error)
                except ForkedChainError:
                    self._breaks(f"{self._forked()}; {spool.path} keeps the records that waited")
            if not self._broken:
                self._outage.ends()
                _LOG.warning("the audit records that waited are in the store", extra={"spool": str(spool.path)})
        finally:
            self._shipper = None

    def _waits(self, spool: AuditSpool) -> bool:
        return spool.holds and not self._broken

    async def _send_oldest(self, spool: AuditSpool) -> list[bytes]:
        try:
            lines = spool.next_lines(BATCH, BATCH_BYTES)
            await self._chain.send([read_line(line, self._instance, self._expires()) for line in lines])
        except (OSError, ValueError) as error:
            self._breaks(f"the spool {spool.path} cannot be read: {error}")
            return []
        return lines

    def _shipped(self, spool: AuditSpool, lines: list[bytes]) -> None:
        try:
            spool.shipped(lines)
        except OSError as error:
            self._breaks(f"the spool {spool.path} cannot be emptied: {error.strerror or error}")

    def _breaks(self, why: str) -> AuditUnavailable:
        if not self._broken:
            self._broken = why
            _LOG.error("nothing is stored as evidence any more, so calls are refused: %s", why)
        return AuditUnavailable(why)

    def _forked(self) -> str:
        return f"another process writes the chain of {self._instance}: give each sidecar its own audit.instance"

    def _expires(self) -> datetime | None:
        """When records end that come now."""
        return None if self._keep is None else self._now() + self._keep

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_ns() / 1e9, UTC)

    async def _publish(self, reason: str) -> None:
        end = self._durable
        now = self._now()
        time = end.time or f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z"
        await self._heads.publish(Checkpoint(seq=end.seq, head=end.head, time=time, why=reason), now)
