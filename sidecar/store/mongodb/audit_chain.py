"""One chain in a collection: lines go in once each, in their order, and its end is read back.

``_id`` and a unique index hold each number once. Whether an insertion that was not answered took place is not known;
so the same lines can be sent again: one that is there with its hash is there, one with another hash is a fork.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import DESCENDING, InsertOne
from pymongo.errors import BulkWriteError, PyMongoError

from sidecar.audit import GENESIS, chain
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from sidecar.store.mongodb.audit_documents import CHECKPOINTS, document_id, document_of, line_of
from sidecar.store.mongodb.audit_rights import EvidenceRights, has_unique_index, rights_on
from sidecar.store.mongodb.connection import MongoStore, StoreCollection, StoreConnection

_LOG: Final = logging.getLogger(__name__)

_TRIES: Final = 5
_CALM_S: Final = 0.05
"""Between tries, where the store has what it does not show yet (a majority has to have it)."""

_DUPLICATE: Final = 11000
_FAILURES: Final = (PyMongoError, BSONError, OSError)
"""TimeoutError is an OSError."""


_StoreReply = TypeVar("_StoreReply")


class StoreAwayError(Exception):
    """The store did not say that it has the lines, or what it has."""


class ForkedChainError(Exception):
    """The store has another record with the number of one of these.

    Args:
        mine: whether it also has one of these.
    """

    def __init__(self, *, mine: bool) -> None:
        super().__init__()
        self.mine = mine


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlace:
    """A record's place."""

    seq: int = 0
    head: str = GENESIS
    time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedRecord:
    """One record, as it is sent and spooled."""

    place: ChainPlace
    id: str
    line: bytes
    document: RawBSONDocument


def linked(record: JsonObject, before: ChainPlace, instance: str, expires: datetime | None) -> LinkedRecord:
    """Give a record its place.

    Raises:
        ValueError: it has no canonical form, or none as a document.
    """
    line, digest = chain.link(record, before.seq + 1, before.head)
    return _whole({**record, "seq": before.seq + 1, "prev": before.head, "hash": digest}, line, instance, expires)


def read_line(line: bytes, instance: str, expires: datetime | None) -> LinkedRecord:
    """Read a line back.

    Raises:
        BrokenRecord: it is no record.
    """
    place, record = chain.opened(line)
    return _whole({**record, "hash": place.hash}, line, instance, expires)


def _whole(record: JsonObject, line: bytes, instance: str, expires: datetime | None) -> LinkedRecord:
    place = ChainPlace(seq=int(str(record["seq"])), head=str(record["hash"]), time=str(record["time"]))
    try:
        document = RawBSONDocument(bson.encode(document_of(record, instance, expires)))
    except (BSONError, OverflowError) as error:
        raise ValueError(f"no document: {error}") from error
    return LinkedRecord(place=place, id=str(record["id"]), line=line, document=document)


class MongoChain:
    """The chain of one sidecar.

    Args:
        store: the connection.
        collection: its name.
        instance: the chain's.
    """

    def __init__(self, store: MongoStore, collection: str, instance: str) -> None:
        self._of_now = store.lasting(collection, journaled=True)
        self._heads_of_now = store.lasting(collection + CHECKPOINTS)
        store.demand(partial(_unfit, collection=collection))
        self._timeout_s = store.timeout_s * 1.5
        self._store = store
        self._seen = False
        self._ends: datetime | None = None
        """When the last record ends that was there at the start; None for never."""
        self._fault = ""
        self._instance = instance

    @property
    def _documents(self) -> StoreCollection:
        return self._of_now()

    async def send(self, lines: list[LinkedRecord]) -> None:
        """Have lines stored, each once; return when a majority has them in its journals.

        Raises:
            StoreAwayError: not all of them are known to be.
            ForkedChainError: another record has the number of one.
        """
        left = lines
        for _ in range(_TRIES):
            if not left:
                return
            inserted = left
            left = await self._asked(lambda: self._insert(inserted))  # noqa: B023 - awaited before the next round
            if left:
                await asyncio.sleep(_CALM_S)
        if left:
            raise StoreAwayError("it has some of the records, and does not show them")

    async def end(self) -> ChainPlace:
        """Return the place of the last record.

        Raises:
            StoreAwayError: the store does not say.
            BrokenRecord: its hash does not hold.
        """
        found = await self._asked(
            lambda: self._documents.find_one({"instance": self._instance}, sort=[("seq", DESCENDING)])
        )
        if found is None:
            return ChainPlace()
        place, record = chain.opened(line_of(found))
        ends = found.get("expires")
        self._ends = ends.replace(tzinfo=UTC) if isinstance(ends, datetime) else None
        return ChainPlace(seq=place.seq, head=place.hash, time=str(record["time"]))

    def outlives(self, expires: datetime | None) -> bool:
        """Whether records that end then are still there when the last one that was read is not."""
        return expires is None or (self._ends is not None and self._ends <= expires)

    async def has(self, place: ChainPlace) -> bool:
        """Whether a record is there.

        Raises:
            StoreAwayError: the store does not say.
        """
        asked = {"_id": document_id(self._instance, place.seq)}
        found = await self._asked(lambda: self._documents.find_one(asked, {"hash": 1}))
        return found is not None and found.get("hash") == place.head

    async def misgiven(self) -> str:
        """Return why this connection must not write evidence, empty where it may; what is not known is logged, once.

        Raises:
            StoreAwayError: the store does not say.
        """
        if not self._seen:
            found = [await self._asked(partial(rights_on, each)) for each in (self._documents, self._heads_of_now())]
            self._fault = _misgiven(found, local=self._store.local)
            if not found[0].user and not self._fault:
                _LOG.warning("the audit store asks nobody who they are: everybody on this machine can change evidence")
            elif found[0].unread:
                _LOG.warning("rights on the audit store: %s", found[0].unread)
            if not await self._asked(partial(has_unique_index, self._documents)):
                _LOG.warning("the audit collection has no unique index of chain and number: run mcp-sidecar audit init")
            self._seen = True
        return self._fault

    async def _insert(self, lines: list[LinkedRecord]) -> list[LinkedRecord]:
        """Insert lines in their order; return those that are not there yet, because others were there before."""
        try:
            result = await self._documents.bulk_write([InsertOne[Any](one.document) for one in lines], ordered=True)
        except BulkWriteError as error:
            if _DUPLICATE not in _codes(error):
                raise
        else:
            if result.inserted_count != len(lines):
                raise StoreAwayError(f"of {len(lines)} records it says that it has {result.inserted_count}")
            return []
        asked = {"instance": self._instance, "seq": {"$gte": lines[0].place.seq, "$lte": lines[-1].place.seq}}
        there: dict[int, str] = {}
        async for one in self._documents.find(asked, {"seq": 1, "hash": 1}):
            there[one["seq"]] = one["hash"]
        same = [there.get(one.place.seq) == one.place.head for one in lines]
        if any(one.place.seq in there and not held for one, held in zip(lines, same, strict=True)):
            raise ForkedChainError(mine=any(same))
        return [one for one, held in zip(lines, same, strict=True) if not held]

    async def _asked(self, question: Callable[[], Awaitable[_StoreReply]]) -> _StoreReply:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await question()
        except BulkWriteError as error:
            raise StoreAwayError(f"it refuses records (code {', '.join(map(str, _codes(error)))})") from error
        except _FAILURES as error:
            raise StoreAwayError(type(error).__name__) from error


async def evidence_fault(store: MongoStore, collection: str) -> str:
    """Say why the user of a store must not write evidence, or could not; empty where it may.

    Raises:
        ConfigurationError: the store does not say.
    """
    try:
        return await _unfit(store, collection=collection)
    except _FAILURES as error:
        raise ConfigurationError(f"it does not answer ({type(error).__name__})") from None


async def _unfit(connection: StoreConnection | MongoStore, *, collection: str) -> str:
    found = [await rights_on(connection.collection(name)) for name in (collection, collection + CHECKPOINTS)]
    lacking = sorted(set().union(*(one.lacking for one in found)))
    lacks = f"its user has no right of {', '.join(lacking)} on the evidence" if lacking else ""
    return _misgiven(found, local=connection.local) or lacks


def _misgiven(found: Iterable[EvidenceRights], *, local: bool) -> str:
    return next(filter(None, (_judged(rights, local=local) for rights in found)), "")


def _judged(rights: EvidenceRights, *, local: bool) -> str:
    if not rights.user:
        return "" if local else "the audit store is on another machine and asks nobody who they are"
    if not rights.too_many:
        return ""
    many = ", ".join(sorted(rights.too_many))
    return (
        f"the database user {rights.user} may do more with the evidence than find and insert: {many}; "
        "mcp-sidecar audit init prints the role that it needs"
    )


def _codes(error: BulkWriteError) -> list[int]:
    details = error.details or {}
    parts = (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ()))
    return [int(one.get("code", 0)) for one in parts]
