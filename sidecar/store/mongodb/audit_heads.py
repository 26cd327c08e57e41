"""Where the heads of a chain in MongoDB are published: the log, and a collection beside it."""

import json
import logging
from datetime import datetime, timedelta
from typing import Final

from bson.errors import BSONError
from pymongo import DESCENDING
from pymongo.errors import DuplicateKeyError, PyMongoError

from sidecar.audit import BadCheckpoint, Checkpoint, CheckpointSigner, read_checkpoint
from sidecar.store.mongodb.audit_chain import StoreAwayError
from sidecar.store.mongodb.audit_documents import CHECKPOINTS, document_id
from sidecar.store.mongodb.connection import MongoStore, StoreCollection, StoredDocument

_LOG: Final = logging.getLogger(__name__)

FAILURES: Final = (PyMongoError, BSONError, OSError)


class MongoHeads:
    """Publishes the heads of one chain.

    Args:
        store: the connection.
        collection: that of the records.
        instance: whose chain it is.
        signer: signs them, where they are signed.
        keep: how long records are kept; None for ever.
    """

    def __init__(
        self,
        store: MongoStore,
        collection: str,
        instance: str,
        signer: CheckpointSigner | None,
        keep: timedelta | None,
    ) -> None:
        self._of_now = store.lasting(collection + CHECKPOINTS)
        self._instance = instance
        self._signer = signer
        self._keep = keep
        self.last = 0
        """Number of the record that was published last."""
        self.failing_since: datetime | None = None
        """Since when those that were published are in the log only."""

    @property
    def _documents(self) -> StoreCollection:
        return self._of_now()

    async def publish(self, checkpoint: Checkpoint, now: datetime) -> None:
        """Log one head and keep it. What cannot be kept is logged, and refuses no call."""
        if self._signer is not None:
            checkpoint = self._signer.sign(checkpoint)
        document = checkpoint.document()
        _LOG.info("audit checkpoint", extra={"checkpoint": document, "instance": self._instance})
        self.last = checkpoint.seq
        stored: StoredDocument = {
            "_id": f"{document_id(self._instance, checkpoint.seq)}:{checkpoint.head}",
            "instance": self._instance,
            **document,
        }
        if self._keep is not None:
            stored["expires"] = now + 2 * self._keep
        try:
            await self._documents.insert_one(stored)
        except DuplicateKeyError:
            self.failing_since = None
        except FAILURES as error:
            if self.failing_since is None:
                _LOG.error("a checkpoint cannot be stored", extra={"error": type(error).__name__})
            self.failing_since = self.failing_since or now
        else:
            self.failing_since = None

    def overdue(self, now: datetime, most: timedelta) -> bool:
        """Whether none could be stored for longer than a time."""
        return self.failing_since is not None and now - self.failing_since > most

    async def newest(self) -> Checkpoint | None:
        """Return the checkpoint with the highest number, if there is one that can be read.

        Raises:
            StoreAwayError: the store does not say.
        """
        try:
            found = await self._documents.find_one({"instance": self._instance}, sort=[("seq", DESCENDING)])
        except FAILURES as error:
            raise StoreAwayError(type(error).__name__) from error
        return None if found is None else checkpoint_of(found)


def checkpoint_of(document: StoredDocument) -> Checkpoint | None:
    """Return what a document holds; None where that is no checkpoint."""
    plain = {name: value for name, value in document.items() if name not in {"_id", "instance", "expires"}}
    try:
        return read_checkpoint(json.dumps(plain).encode())
    except (BadCheckpoint, TypeError, ValueError):
        return None
