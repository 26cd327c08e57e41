"""The evidence where it lies: whether the sidecar's own user could change it, and whether its heads are published."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sidecar import settings
from sidecar.doctor.findings import Check, PostureFinding
from sidecar.errors import ConfigurationError
from sidecar.settings import Settings
from sidecar.store import MongoStore, PublishedHeads, evidence_fault, heads_of_collection, heads_of_file
from sidecar.store_settings import collection

_WHERE: Final = "audit.store"
_WAIT_S: Final = 5.0
_LATE: Final = 3
"""Times ``audit.checkpoint_s`` after which a record must be behind a published head."""


async def examine_stored_evidence(config: Settings, now: datetime) -> list[PostureFinding]:
    """Return what is wrong with the evidence of the configured store.

    Args:
        config: the settings.
        now: the time.
    """
    audit, name = config.audit, collection(config.audit.store)
    try:
        if name is None:
            file = audit.path
            held = heads_of_file(file) if file is not None and file.exists() else None
            return [] if held is None else list(_unpublished(held, audit.checkpoint_s, now))
        store = MongoStore(
            settings.secret(config.mongodb.uri, config.mongodb.uri_file), config.mongodb.database, timeout_s=_WAIT_S
        )
        try:
            found = list(_changeable(await evidence_fault(store, name)))
            held = await heads_of_collection(store, name, audit.chain_name)
        finally:
            await store.close()
        return [*found, *_unpublished(held, audit.checkpoint_s, now)]
    except ConfigurationError as error:
        what = f"the evidence cannot be read: {error.detail}"
        return [_found(Check.EVIDENCE_UNREADABLE, what, "mcp-sidecar audit verify")]


def _changeable(fault: str) -> Iterator[PostureFinding]:
    if fault:
        yield _found(Check.EVIDENCE_CHANGEABLE, fault, "mcp-sidecar audit init")


def _unpublished(held: PublishedHeads, checkpoint_s: int, now: datetime) -> Iterator[PostureFinding]:
    if held.last <= held.published:
        return
    if (now - datetime.fromisoformat(held.made)).total_seconds() > _LATE * checkpoint_s:
        what = f"records up to {held.last} are stored, and their heads are published up to {held.published} only"
        yield _found(Check.HEADS_UNPUBLISHED, what, "start the sidecar, and look in its log for checkpoints")


def _found(check: Check, what: str, fix: str) -> PostureFinding:
    return PostureFinding(check=check, where=_WHERE, what=what, fix=fix)
