"""Where approvals are kept, as enforcement sees it: a port like those of ``sidecar.ports``."""

from typing import Protocol

from sidecar.identity.approval import Approval
from sidecar.identity.suspension import CallerName


class ApprovalStore(Protocol):
    """Where the calls are kept that wait for a second person, and what was decided of them.

    Every method raises ApprovalsUnavailable where it cannot be told, or is not kept. What has expired is not there.
    """

    async def of_call(self, binding: str) -> Approval | None:
        """Return the one of exactly this call."""
        ...

    async def get(self, approval_id: str) -> Approval | None:
        """Return the one of this id."""
        ...

    async def waiting(self) -> tuple[Approval, ...]:
        """Return those that nobody has decided, the oldest first."""
        ...

    async def add(self, approval: Approval) -> Approval:
        """Keep a new one, and return it; or the one that the same call has by now.

        Raises:
            TooManyApprovals: there are as many as there may be, of this requester or in all.
        """
        ...

    async def decide(self, decided: Approval) -> bool:
        """Put it in the place of the one that waits; return whether that one was there, and nobody decided it."""
        ...

    async def spend(self, approval: Approval) -> bool:
        """Remove one that is approved; return True to one caller only, in every process that shares the store."""
        ...

    async def remove(self, approval: Approval) -> None:
        """Remove one that counts no more."""
        ...

    async def void(self, name: CallerName) -> int:
        """Remove what concerns a caller who is suspended from now on; return how many there were."""
        ...
