"""Records that wait to be stored, and how many of them are stored together."""

import asyncio
from dataclasses import dataclass
from typing import Final

from sidecar.errors import AuditUnavailable
from sidecar.model import JsonObject
from sidecar.ports import AuditReceipt

BATCH: Final = 500
"""Records that are sent at a time at most."""

BATCH_BYTES: Final = 8 << 20
"""Of their lines; below the 48 MB that a message to MongoDB may have, also where each has a megabyte of arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRecord:
    """One record, and who waits for it."""

    record: JsonObject
    stored: asyncio.Future[AuditReceipt]


def first(waiting: list[PendingRecord]) -> tuple[list[PendingRecord], list[PendingRecord]]:
    """Divide what waits into what is sent together and the rest; arguments and questions make records large."""
    size = 0
    for number, one in enumerate(waiting[:BATCH]):
        size += sum(len(str(one.record.get(name, ""))) for name in ("arguments", "question"))
        if number and size > BATCH_BYTES:
            return waiting[:number], waiting[number:]
    return waiting[:BATCH], waiting[BATCH:]


def fail(batch: list[PendingRecord], error: AuditUnavailable) -> None:
    """Tell those that still wait that they are not stored."""
    for one in batch:
        if not one.stored.done():
            one.stored.set_exception(error)
