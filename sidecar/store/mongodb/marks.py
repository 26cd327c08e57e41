"""Marks that are set once: what may be used a single time was used, in every sidecar of one store.

A mark is a document whose id exists once; the database removes it some time after it has no meaning any more.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from bson.errors import BSONError
from pymongo.errors import DuplicateKeyError, PyMongoError

from sidecar.errors import KeysUnavailable
from sidecar.mcp import StatesUnavailable
from sidecar.ports import ProofMemory, UsedStates
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.expiring import ExpiringCollection

SKEW_S: Final = 600.0
"""The database removes by its own clock, so a mark is kept this much longer than the clock here asks for."""

FAILURES: Final = (PyMongoError, BSONError, OSError)


class MarkKind(StrEnum):
    """What a mark is about; the same bytes of two kinds are two marks."""

    PROOF = "proof"
    REQUEST_STATE = "state"


class MongoMarks:
    """A collection of marks.

    Args:
        store: the connection.
        collection: its name.
    """

    def __init__(self, store: MongoStore, collection: str) -> None:
        self._marks = ExpiringCollection(store, collection, "marks")
        self.prepare = self._marks.prepare

    async def set_first(self, kind: MarkKind, mark: bytes, until: float) -> bool:
        """Set a mark and return whether it was not there before.

        Args:
            kind: what it is about.
            mark: at most 64 bytes, usually a digest.
            until: seconds since the epoch after which nobody asks for it.

        Raises:
            PyMongoError: it cannot be told.
        """
        try:
            await self.prepare()
            document = {"_id": f"{kind}:{mark.hex()}", "until": datetime.fromtimestamp(until + SKEW_S, UTC)}
            await self._marks.documents.insert_one(document)
        except DuplicateKeyError:
            self._marks.outage.ends()
            return False
        except FAILURES as error:
            self._marks.outage.begins(type(error).__name__)
            raise
        self._marks.outage.ends()
        return True


class SharedProofs:
    """Which proofs of possession were presented before, to this sidecar or another (``ports.ProofMemory``).

    The memory of this process is asked first: it bounds what one key may present, and most replays come the same way.
    """

    def __init__(self, here: ProofMemory, marks: MongoMarks) -> None:
        self._here = here
        self._marks = marks

    async def is_first(self, proof: bytes, key: str, until: float) -> bool:
        """See ``ports.ProofMemory``."""
        if not await self._here.is_first(proof, key, until):
            return False
        try:
            return await self._marks.set_first(MarkKind.PROOF, proof, until)
        except FAILURES as error:
            raise KeysUnavailable(f"whether a proof was used elsewhere is not known: {type(error).__name__}") from error


class SharedStates:
    """Which request states were used, at this sidecar or another (``ports.UsedStates``); here is asked first."""

    def __init__(self, here: UsedStates, marks: MongoMarks) -> None:
        self._here = here
        self._marks = marks

    async def is_first(self, state: bytes, identity: bytes, until: float) -> bool:
        """See ``ports.UsedStates``."""
        if not await self._here.is_first(state, identity, until):
            return False
        try:
            return await self._marks.set_first(MarkKind.REQUEST_STATE, state, until)
        except FAILURES as error:
            raise StatesUnavailable(type(error).__name__) from error
