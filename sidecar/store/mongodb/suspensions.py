"""Suspensions that several sidecars share, one document each (``sidecar.ports.SuspensionStore``).

Each sidecar reads the names and digests once a second, and at once where the deployment has change streams; what it has
not read before is fetched and put in force. Nobody is served on a view that is older than ``stale_after_s``: a sidecar
that cannot read knows what was suspended up to then only, so it refuses everybody until it can.

A document carries the SHA-256 of its text, and two operators cannot overwrite each other: a write names the version
that it replaces. Of two suspensions of one name that meet, the one that lasts longer stays.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

import msgspec
import rfc8785
from bson.errors import BSONError
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from sidecar.enforcement import MOST_SUSPENSIONS
from sidecar.errors import SuspensionsUnavailable
from sidecar.identity import CallerName, Suspension, read_suspension
from sidecar.model import JsonValue
from sidecar.ports import Clock
from sidecar.store.mongodb.connection import MongoStore, StoreCollection, StoredDocument
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""How often the shared suspensions are read."""

_MOST: Final = 2 * MOST_SUSPENSIONS
"""Each sidecar refuses one too many for itself; several at once can exceed the bound by little."""

_KEPT_AFTER_END: Final = timedelta(days=1)
"""More than clocks of a deployment differ by."""

_CHANGE_STREAMS_MISSING: Final = frozenset({40573, 40324, 115, 303})
"""Codes of MongoDB for: only with a replica set, no such stage, not supported."""

_ATTEMPTS: Final = 3
_CALM_S: Final = 0.05
"""Between two questions to a change stream: many changes are one look."""

_FAILURES: Final = (PyMongoError, BSONError, OSError, ValueError, RecursionError, msgspec.DecodeError)
"""TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """One document as it was read or written last."""

    digest: str
    suspension: Suspension


class MongoSuspensions:
    """Keeps suspensions in a collection.

    Args:
        store: the connection.
        collection: its name.
        clock: says how old a view is.
        stale_after_s: how old a view may be.
    """

    def __init__(self, store: MongoStore, collection: str, clock: Clock, *, stale_after_s: float) -> None:
        self._of_now = store.lasting(collection)
        self._timeout_s = store.timeout_s
        self._await_ms = max(1, round(store.timeout_s * 500))  # below the longest that an operation may take
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._turn = asyncio.Lock()
        self._stored: dict[str, _Stored] = {}
        self._unsaved: dict[str, Suspension] = {}
        """In force here, and could not be stored."""
        self._read_at: float | None = None
        self._wake = asyncio.Event()
        what = "the shared store of suspensions"
        self._outage = Outage(_LOG, what, lost="does not answer", found="answers again", level=logging.ERROR)

    @property
    def _collection(self) -> StoreCollection:
        return self._of_now()

    async def load(self) -> tuple[Suspension, ...]:
        """Return what is kept now, once, at the start: ``follow`` tells what changes after that.

        Raises:
            SuspensionsUnavailable: it cannot be read, or something there is not what a sidecar writes.
        """
        try:
            async with self._turn, asyncio.timeout(self._timeout_s):
                await self._prepare()
                await self._read()
        except _FAILURES as error:
            self._outage.begins(type(error).__name__)
            raise _unavailable(error) from error
        return tuple(one.suspension for one in self._stored.values())

    async def save(self, suspensions: tuple[Suspension, ...]) -> None:
        """Store what is new or longer among these, and remove what is no longer among them.

        Raises:
            SuspensionsUnavailable: not all of that was done; what is in force here and could not be stored is tried
                again with every look.
        """
        wanted = {_id(one.target.name): one for one in suspensions}
        async with self._turn:
            known = {identifier: stored.suspension for identifier, stored in self._stored.items()}
            self._unsaved = {identifier: one for identifier, one in wanted.items() if known.get(identifier) != one}
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._store_unsaved()
                    for identifier in [identifier for identifier in self._stored if identifier not in wanted]:
                        await self._remove(identifier)
            except _FAILURES as error:
                raise _unavailable(error) from error

    async def intact(self) -> bool:
        """See ``ports.SuspensionStore``: whether the last reading is young enough to decide by."""
        return self._left() > 0

    async def follow(
        self, changed: Callable[[Collection[Suspension], Collection[CallerName]], None], known: Callable[[bool], None]
    ) -> None:
        """Keep reading, for as long as the sidecar runs.

        Args:
            changed: told what other sidecars suspended, and the names of what they resumed.
            known: told after each look whether the view is young enough to decide by.
        """
        listening = asyncio.create_task(self._listen(), name="suspensions: change stream")
        try:
            while True:
                try:
                    await self._look(changed)
                except Exception:  # noqa: BLE001 - a defect must refuse everybody, and leave no old view in force
                    _LOG.exception("the shared suspensions cannot be followed")
                    self._read_at, self._stored = None, {}
                known(self._left() > 0)
                # No later than the moment at which the view is too old.
                pause = min(LOOK_S, left) if (left := self._left()) > 0 else LOOK_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
                self._wake.clear()
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    def _left(self) -> float:
        """Seconds for which the last reading is good."""
        return 0.0 if self._read_at is None else self._read_at + self._stale_after_s - self._clock.monotonic()

    async def _look(self, changed: Callable[[Collection[Suspension], Collection[CallerName]], None]) -> None:
        left = self._left()
        try:
            async with asyncio.timeout(min(self._timeout_s, left) if left > 0 else self._timeout_s), self._turn:
                if self._read_at is None:
                    await self._prepare()
                before = dict(self._stored)
                await self._read()
                # In the same turn of the loop as the reading: what is in force follows what is known to be stored.
                self._tell(before, changed)
                await self._store_unsaved()
        except _FAILURES as error:
            self._outage.begins(type(error).__name__)
        else:
            self._outage.ends()

    def _tell(
        self,
        before: Mapping[str, _Stored],
        changed: Callable[[Collection[Suspension], Collection[CallerName]], None],
    ) -> None:
        added = [
            now.suspension
            for identifier, now in self._stored.items()
            if identifier not in before or before[identifier].digest != now.digest
        ]
        gone = [
            was.suspension.target.name
            for identifier, was in before.items()
            if identifier not in self._stored and identifier not in self._unsaved
        ]
        if added or gone:
            changed(added, gone)

    async def _prepare(self) -> None:
        """Have documents removed a while after they have ended by themselves."""
        await self._collection.create_index("ends", expireAfterSeconds=int(_KEPT_AFTER_END.total_seconds()))

    async def _read(self) -> None:
        """Learn what is stored: the digests of everything, and the text of what is new."""
        at = self._clock.monotonic()
        found = await self._collection.find({}, {"_id": 1, "sha256": 1}).to_list(_MOST + 1)
        if len(found) > _MOST:
            raise ValueError("more suspensions than sidecars ever write")
        digests = {_text(one.get("_id")): _text(one.get("sha256")) for one in found}
        fresh = [
            name for name, digest in digests.items() if name not in self._stored or self._stored[name].digest != digest
        ]
        read = [_parse(one) for one in await self._collection.find({"_id": {"$in": fresh}}).to_list()] if fresh else []
        stored = {name: one for name, one in self._stored.items() if name in digests and name not in fresh}
        # One that was removed between the two readings is not there; the next look sees the same.
        stored |= read
        self._stored = stored
        self._read_at = at

    async def _store_unsaved(self) -> None:
        for identifier, suspension in list(self._unsaved.items()):
            await self._put(identifier, suspension)
            del self._unsaved[identifier]

    async def _put(self, identifier: str, suspension: Suspension) -> None:
        """Store one, unless another sidecar stored one meanwhile that lasts as long."""
        document = _render(identifier, suspension)
        for _ in range(_ATTEMPTS):
            known = self._stored.get(identifier)
            if known is not None and known.suspension == suspension:
                return
            try:
                if known is None:
                    await self._collection.insert_one(document)
                    replaced = True
                else:
                    result = await self._collection.replace_one({"_id": identifier, "sha256": known.digest}, document)
                    replaced = bool(result.matched_count)
            except DuplicateKeyError:
                replaced = False
            if replaced:
                self._stored[identifier] = _Stored(digest=document["sha256"], suspension=suspension)
                return
            theirs = await self._collection.find_one({"_id": identifier})
            if theirs is None:
                self._stored.pop(identifier, None)
                continue
            _, other = _parse(theirs)
            if _lasts(other.suspension) >= _lasts(suspension):
                return  # the next look puts it in force here: its digest is not the known one
            self._stored[identifier] = other
        raise ValueError("other sidecars keep changing it")

    async def _remove(self, identifier: str) -> None:
        known = self._stored[identifier]
        result = await self._collection.delete_one({"_id": identifier, "sha256": known.digest})
        if not result.deleted_count and await self._collection.find_one({"_id": identifier}) is not None:
            raise ValueError("another sidecar changed it meanwhile")
        del self._stored[identifier]

    async def _listen(self) -> None:
        """Look at once when something changes, where the deployment can tell that."""
        while True:
            try:
                async with await self._collection.watch(max_await_time_ms=self._await_ms) as stream:
                    while stream.alive:
                        if await stream.try_next() is not None:
                            self._wake.set()
                        await asyncio.sleep(_CALM_S)
            except OperationFailure as error:
                if error.code in _CHANGE_STREAMS_MISSING:
                    _LOG.info("the shared store has no change streams: suspensions are read every %.0f s", LOOK_S)
                    return
            except (PyMongoError, OSError) as error:
                _LOG.debug("the change stream of suspensions ended: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)


def _id(name: CallerName) -> str:
    """A name of fixed length: subjects can be longer than an index takes."""
    return sha256(rfc8785.dumps(list(name))).hexdigest()


def _lasts(suspension: Suspension) -> float:
    return float("inf") if suspension.until is None else float(suspension.until)


def _render(identifier: str, suspension: Suspension) -> StoredDocument:
    text = rfc8785.dumps(suspension.document()).decode()
    document: StoredDocument = {"_id": identifier, "text": text, "sha256": sha256(text.encode()).hexdigest()}
    if suspension.until is not None:
        document["ends"] = datetime.fromtimestamp(min(suspension.until, _LAST_SECOND), UTC)
    return document


_LAST_SECOND: Final = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())


def _parse(document: Mapping[str, object]) -> tuple[str, _Stored]:
    """Read one document.

    Raises:
        ValueError: it is not what ``_render`` makes.
    """
    identifier, text, digest = (_text(document.get(part)) for part in ("_id", "text", "sha256"))
    if sha256(text.encode()).hexdigest() != digest:
        raise ValueError("its digest does not match its text")
    entry: JsonValue = msgspec.json.decode(text)
    suspension = read_suspension(entry)
    if _id(suspension.target.name) != identifier:
        raise ValueError("it is stored under another name")
    return identifier, _Stored(digest=digest, suspension=suspension)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a document of suspensions")  # noqa: TRY004 - a fault of the document like the others
    return value


def _unavailable(error: BaseException) -> SuspensionsUnavailable:
    what = str(error) if type(error) is ValueError else type(error).__name__
    return SuspensionsUnavailable(f"the shared store of suspensions: {what}")
