"""Approvals in one local file, for one sidecar (``sidecar.identity.ApprovalStore``).

All of them are in memory too, and each change is durable before it counts. While the file is not what was written last,
nothing counts: a restart would read something else.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.identity import (
    Approval,
    ApprovalState,
    ApprovalsUnavailable,
    CallerName,
    TooManyApprovals,
    read_approval,
)
from sidecar.ports import Clock
from sidecar.store.whole_file import WholeFile

_LOG = logging.getLogger(__name__)

MOST: Final = 512
"""Approvals that are kept; the largest take 32 MiB."""

MOST_OF_ONE: Final = 8
"""Of one requester, through all agents together: nobody can keep the others from asking."""


class FileApprovals:
    """Keeps approvals in a file.

    Args:
        path: the file; it is created with mode 0600.
        clock: says what has expired.
        most: how many are kept.
        most_of_one: how many of them of one requester.
        flush: makes a file descriptor's bytes durable; a parameter so that a failing disk can be staged.

    Raises:
        ConfigurationError: another sidecar has the file, or its folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        most: int = MOST,
        most_of_one: int = MOST_OF_ONE,
        flush: Callable[[int], None] = os.fsync,
    ) -> None:
        self._file = WholeFile(path, "approvals", flush=flush)
        self._clock = clock
        self._most = most
        self._most_of_one = most_of_one
        self._turn = asyncio.Lock()
        self._kept: dict[str, Approval] | None = None
        """By id, in the order in which they were asked for; None where they cannot be read."""

    async def load(self) -> None:
        """Read what was kept before; where that cannot be read, every method raises until the next start."""
        try:
            self._kept = {one.id: one for one in map(read_approval, await asyncio.to_thread(self._file.read))}
        except FileNotFoundError:
            self._kept = {}
            await self._write({})
        except (OSError, ValueError) as error:
            why = error.strerror or str(error) if isinstance(error, OSError) else "it is damaged"
            _LOG.error("the file of approvals cannot be used", extra={"path": str(self._file.path), "error": why})

    @property
    def usable(self) -> bool:
        """Whether what was kept before could be read."""
        return self._kept is not None

    def close(self) -> None:
        """Let another process have the file."""
        self._file.close()

    async def of_call(self, binding: str) -> Approval | None:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            return next((one for one in (await self._now_kept()).values() if one.binding == binding), None)

    async def get(self, approval_id: str) -> Approval | None:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            return (await self._now_kept()).get(approval_id)

    async def waiting(self) -> tuple[Approval, ...]:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            return tuple(one for one in (await self._now_kept()).values() if one.state is ApprovalState.WAITING)

    async def add(self, approval: Approval) -> Approval:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            kept = await self._now_kept()
            known = next((one for one in kept.values() if one.binding == approval.binding), None)
            if known is not None:
                return known
            of_one = Counter(requester_of(one) for one in kept.values())
            if len(kept) >= self._most or of_one[requester_of(approval)] >= self._most_of_one:
                raise TooManyApprovals
            await self._write({**kept, approval.id: approval})
            return approval

    async def decide(self, decided: Approval) -> bool:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            kept = await self._now_kept()
            known = kept.get(decided.id)
            if known is None or known.state is not ApprovalState.WAITING:
                return False
            await self._write({**kept, decided.id: decided})
            return True

    async def spend(self, approval: Approval) -> bool:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            kept = await self._now_kept()
            if kept.get(approval.id) != approval or approval.state is not ApprovalState.APPROVED:
                return False
            await self._write({key: one for key, one in kept.items() if key != approval.id})
            return True

    async def remove(self, approval: Approval) -> None:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            kept = await self._now_kept()
            if approval.id in kept:
                await self._write({key: one for key, one in kept.items() if key != approval.id})

    async def void(self, name: CallerName) -> int:
        """See ``identity.ApprovalStore``."""
        async with self._turn:
            kept = await self._now_kept()
            rest = {key: one for key, one in kept.items() if not one.concerns(name)}
            if len(rest) < len(kept):
                await self._write(rest)
            return len(kept) - len(rest)

    async def _now_kept(self) -> dict[str, Approval]:
        """Return what is kept and has not expired.

        Raises:
            ApprovalsUnavailable: it could not be read, or the file is no longer what was written.
        """
        if self._kept is None or not await asyncio.to_thread(self._file.intact):
            raise ApprovalsUnavailable(f"the file of approvals {self._file.path} is not what was written")
        now = self._clock.time_ns() / 1e9
        return {key: one for key, one in self._kept.items() if not one.over(now)}

    async def _write(self, kept: dict[str, Approval]) -> None:
        """Keep exactly these; what was kept before stands where they cannot be made durable.

        Raises:
            ApprovalsUnavailable: they cannot.
        """
        work = asyncio.create_task(asyncio.to_thread(self._file.write, [one.document() for one in kept.values()]))
        try:
            # A caller who leaves must not leave the file ahead of what is known of it.
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            if work.exception() is None:
                self._kept = kept
            raise
        except OSError as error:
            _LOG.error("approvals cannot be kept", extra={"path": str(self._file.path), "error": error.strerror})
            raise ApprovalsUnavailable(f"the file of approvals: {error.strerror or error}") from error
        self._kept = kept


def requester_of(approval: Approval) -> tuple[str, str]:
    """Return whose share of the room an approval takes; agents are not counted apart, for a user can have many."""
    return (approval.requester.issuer, approval.requester.subject)
