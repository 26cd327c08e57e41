"""Approvals that several sidecars share, one document each (``sidecar.identity.ApprovalStore``).

The id of a document is the binding of its call, so that a call has one at most, at whichever sidecar it asks. What is
decided and what is used up is a change of one document that is still as it was read: of two at the same moment, one
finds nothing. A document carries the SHA-256 of its text; one that does not match is as if the store could not be read.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import msgspec
import rfc8785
from bson.errors import BSONError
from pymongo.errors import DuplicateKeyError, PyMongoError

from sidecar.identity import (
    Approval,
    ApprovalState,
    ApprovalsUnavailable,
    CallerName,
    TooManyApprovals,
    read_approval,
)
from sidecar.ports import Clock
from sidecar.store.approvals import MOST, MOST_OF_ONE, requester_of
from sidecar.store.mongodb.connection import MongoStore, StoreCollection, StoredDocument
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)

_KEPT_S: Final = 86_400.0
"""After one has expired: more than clocks of a deployment differ by."""

_FAILURES: Final = (PyMongoError, BSONError, OSError, ValueError, RecursionError, msgspec.DecodeError)
"""TimeoutError is an OSError."""


class MongoApprovals:
    """Keeps approvals in a collection.

    Bounds are counted before a document is added, so that sidecars that add at the same moment can exceed them by one
    each.

    Args:
        store: the connection.
        collection: its name.
        clock: says what has expired.
        most: how many are kept.
        most_of_one: how many of them of one requester.
    """

    def __init__(
        self, store: MongoStore, collection: str, clock: Clock, *, most: int = MOST, most_of_one: int = MOST_OF_ONE
    ) -> None:
        self._of_now = store.lasting(collection)
        self._clock = clock
        self._most = most
        self._most_of_one = most_of_one
        self._prepared = False
        self._outage = Outage(_LOG, "the shared store of approvals", lost="does not answer", found="answers again")

    @property
    def _collection(self) -> StoreCollection:
        return self._of_now()

    async def of_call(self, binding: str) -> Approval | None:
        """See ``identity.ApprovalStore``."""
        return await self._find({"_id": binding})

    async def get(self, approval_id: str) -> Approval | None:
        """See ``identity.ApprovalStore``."""
        return await self._find({"approval": approval_id})

    async def waiting(self) -> tuple[Approval, ...]:
        """See ``identity.ApprovalStore``."""
        with _Translated(self._outage):
            asked = {"state": ApprovalState.WAITING.value, "ends": {"$gt": self._now()}}
            # One too many of every sidecar, and no more: what else stands there no sidecar wrote.
            found = await self._collection.find(asked).sort("at", 1).limit(2 * self._most).to_list()
            return tuple(map(_parse, found))

    async def add(self, approval: Approval) -> Approval:
        """See ``identity.ApprovalStore``."""
        with _Translated(self._outage):
            await self._prepare()
            there = {"ends": {"$gt": self._now()}}
            own = {**there, "who": _who(approval)}
            if (
                await self._collection.count_documents(there, limit=self._most) >= self._most
                or await self._collection.count_documents(own, limit=self._most_of_one) >= self._most_of_one
            ):
                raise TooManyApprovals
            # One that has expired, and that the database has not removed yet, is in the way of a new one.
            await self._collection.delete_one({"_id": approval.binding, "ends": {"$lte": self._now()}})
            try:
                await self._collection.insert_one(_render(approval))
            except DuplicateKeyError:
                found = await self._collection.find_one({"_id": approval.binding})
                if found is None:
                    raise ValueError("another sidecar removed it meanwhile") from None
                return _parse(found)
            return approval

    async def decide(self, decided: Approval) -> bool:
        """See ``identity.ApprovalStore``."""
        with _Translated(self._outage):
            waiting = {"_id": decided.binding, "approval": decided.id, "state": ApprovalState.WAITING.value}
            result = await self._collection.replace_one(waiting, _render(decided))
            return bool(result.matched_count)

    async def spend(self, approval: Approval) -> bool:
        """See ``identity.ApprovalStore``."""
        if approval.state is not ApprovalState.APPROVED:
            return False
        with _Translated(self._outage):
            as_read = {"_id": approval.binding, "approval": approval.id, "sha256": _render(approval)["sha256"]}
            return await self._collection.find_one_and_delete(as_read, projection={"_id": 1}) is not None

    async def remove(self, approval: Approval) -> None:
        """See ``identity.ApprovalStore``."""
        with _Translated(self._outage):
            await self._collection.delete_one({"_id": approval.binding, "approval": approval.id})

    async def void(self, name: CallerName) -> int:
        """See ``identity.ApprovalStore``."""
        with _Translated(self._outage):
            return (await self._collection.delete_many({"names": _digest(name)})).deleted_count

    async def _find(self, asked: StoredDocument) -> Approval | None:
        with _Translated(self._outage):
            found = await self._collection.find_one({**asked, "ends": {"$gt": self._now()}})
            return None if found is None else _parse(found)

    async def _prepare(self) -> None:
        """Have documents removed a while after they have expired, and found by their ids."""
        if not self._prepared:
            await self._collection.create_index("ends", expireAfterSeconds=int(_KEPT_S))
            await self._collection.create_index("approval")
            self._prepared = True

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_ns() / 1e9, UTC)


class _Translated:
    """Turns every failure of the store into ApprovalsUnavailable, and tells of outages."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._outage.ends()
        elif isinstance(error, _FAILURES):
            self._outage.begins(type(error).__name__)
            what = str(error) if type(error) is ValueError else type(error).__name__
            raise ApprovalsUnavailable(f"the shared store of approvals: {what}") from error


def _digest(name: CallerName) -> str:
    """A name of fixed length: subjects can be longer than an index takes."""
    return sha256(rfc8785.dumps(list(name))).hexdigest()


def _who(approval: Approval) -> str:
    return _digest(requester_of(approval))


def _render(approval: Approval) -> StoredDocument:
    text = rfc8785.dumps(approval.document()).decode()
    return {
        "_id": approval.binding,
        "approval": approval.id,
        "state": approval.state.value,
        "who": _who(approval),
        "names": sorted({_digest(name) for party in approval.parties for name in party.names}),
        "at": datetime.fromtimestamp(approval.requested, UTC),
        "ends": datetime.fromtimestamp(approval.expires, UTC),
        "text": text,
        "sha256": sha256(text.encode()).hexdigest(),
    }


def _parse(document: Mapping[str, object]) -> Approval:
    """Read one document.

    Raises:
        ValueError: it is not what ``_render`` makes.
    """
    text = document.get("text")
    if not isinstance(text, str):
        raise ValueError("not a document of approvals")  # noqa: TRY004 - a fault of the document like the others
    approval = read_approval(msgspec.json.decode(text))
    # Everything beside the text is made of it: who changes one of the two alone changes nothing.
    rendered = _render(approval)
    if {key: document.get(key) for key in rendered if key not in _MOMENTS} != {
        key: value for key, value in rendered.items() if key not in _MOMENTS
    }:
        raise ValueError("the document does not match its text")
    return approval


_MOMENTS: Final = frozenset({"at", "ends"})
"""Come back without a time zone; what counts is in the text."""
