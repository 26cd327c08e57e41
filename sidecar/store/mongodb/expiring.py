"""A collection of the shared store whose documents the database removes when they have no meaning any more."""

import logging

from sidecar.store.mongodb.connection import MongoStore, StoreCollection
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)


class ExpiringCollection:
    """Documents with the moment after which each is removed, in ``until``.

    Args:
        store: the connection.
        name: the collection's.
        holds: what it holds, for the log.
    """

    def __init__(self, store: MongoStore, name: str, holds: str) -> None:
        self._of_now = store.lasting(name)
        self.outage = Outage(_LOG, f"the shared store of {holds}", lost="does not answer", found="answers again")
        self._prepared = False

    @property
    def documents(self) -> StoreCollection:
        """The collection."""
        return self._of_now()

    async def prepare(self) -> None:
        """Have documents removed, which else are there for ever; tried again at the next use where it fails.

        Raises:
            PyMongoError: the store does not answer, or does not allow it.
        """
        if not self._prepared:
            await self.documents.create_index("until", expireAfterSeconds=0)
            self._prepared = True
