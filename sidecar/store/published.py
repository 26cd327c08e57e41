"""How far the heads of a chain are published, against what is stored."""

import os
from dataclasses import dataclass
from pathlib import Path

from sidecar.audit import BrokenRecord, chain
from sidecar.errors import ConfigurationError
from sidecar.store.audit_opening import LONGEST_LINE
from sidecar.store.checkpoints import Checkpoints
from sidecar.store.mongodb.audit_chain import MongoChain, StoreAwayError
from sidecar.store.mongodb.audit_heads import MongoHeads
from sidecar.store.mongodb.connection import MongoStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedHeads:
    """The end of a chain, and the newest head of it that is published."""

    last: int
    """Number of the last record; 0 where there is none."""
    made: str
    """When its call came (RFC 3339)."""
    published: int
    """Number of the newest published head; 0 where there is none."""


def heads_of_file(path: Path) -> PublishedHeads:
    """Read the end of an audit file, and the checkpoints beside it.

    Raises:
        ConfigurationError: the file cannot be read, or its last record does not hold.
    """
    newest = Checkpoints(path).newest()
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LONGEST_LINE))
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines[-2:] if line.endswith(b"\n")]  # the last one may be being written
        place, record = chain.opened(whole[-1].rstrip(b"\n")) if whole else (None, {})
    except OSError as error:
        raise ConfigurationError(error.strerror or type(error).__name__) from None
    except BrokenRecord as error:
        raise ConfigurationError(f"its last record does not hold: {error}") from None
    last, made = (0, "") if place is None else (place.seq, str(record.get("time", "")))
    return PublishedHeads(last=last, made=made, published=0 if newest is None else newest.seq)


async def heads_of_collection(store: MongoStore, collection: str, instance: str) -> PublishedHeads:
    """Read the end of a chain in MongoDB, and its newest checkpoint.

    Raises:
        ConfigurationError: the store does not say, or the last record does not hold.
    """
    try:
        end = await MongoChain(store, collection, instance).end()
        newest = await MongoHeads(store, collection, instance, None, None).newest()
    except StoreAwayError as error:
        raise ConfigurationError(f"it does not answer ({error})") from None
    except BrokenRecord as error:
        raise ConfigurationError(f"its last record does not hold: {error}") from None
    return PublishedHeads(last=end.seq, made=end.time, published=0 if newest is None else newest.seq)
