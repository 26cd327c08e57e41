"""The evidence of a ``mongodb:`` store, for commands: it is asked, and its collections are made."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sidecar import settings
from sidecar.audit import AuditReader
from sidecar.errors import ConfigurationError
from sidecar.settings import Settings
from sidecar.store import MongoAuditReader, MongoStore, SpoolReader, found_evidence, role_of_writer
from sidecar.store_settings import collection
from sidecar.system import SystemClock

READ_TIMEOUT_S = 60.0
"""Of one question to the database: a person waits, no call does."""

T = TypeVar("T")


async def asked_of_store(config: Settings, work: Callable[[AuditReader], Awaitable[T]], instance: str) -> T:
    """Do what a command has to do with the evidence of the configured store.

    Raises:
        ConfigurationError: the store cannot be read.
    """
    if (name := collection(config.audit.store)) is None:
        raise ConfigurationError("there is no audit store")
    given = config.audit
    spool = None if given.spool_path is None else SpoolReader(given.spool_path, given.chain_name)
    store = _connected(config, settings.secret(config.mongodb.uri, config.mongodb.uri_file))
    try:
        clock = SystemClock()
        return await work(MongoAuditReader(store, name, instance=instance, clock=clock, keep=given.keep, spool=spool))
    finally:
        await store.close()


async def founded(uri_file: Path | None) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Make the collections of the configured store with another user's connection string.

    Returns:
        The indexes, and the command that makes the role of the user that writes.

    Raises:
        ConfigurationError: the store is a file, there is no connection string, or the database does not allow it.
    """
    config = settings.load()
    name = collection(config.audit.store)
    if name is None:
        raise ConfigurationError("audit.store is a file, which needs nothing made; this is for mongodb:")
    store = _connected(config, settings.founder_uri(uri_file))
    try:
        return await found_evidence(store, name), role_of_writer(config.mongodb.database, name)
    finally:
        await store.close()


def _connected(config: Settings, uri: str) -> MongoStore:
    return MongoStore(uri, config.mongodb.database, timeout_s=READ_TIMEOUT_S)
