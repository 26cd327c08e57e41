"""More is asked than can be done in time: what is refused for that alone, and when it is worth to ask again."""

from typing import ClassVar

from sidecar.errors import DecisionUnavailable, SidecarError, TooManyBytes
from sidecar.faults import PdpFault


class Overloaded(DecisionUnavailable):
    """The question could not be put to OPA in time, or its answer not be read in time. OPA itself is well.

    Args:
        detail: for the log.
        retry_after_s: in how many seconds the same call may be decided; from 1.
        fault: where the time went.
    """

    label = "overloaded"
    public = "More is being asked than can be decided in time; nothing was done. Make the same call again in a moment."

    def __init__(self, detail: str, *, retry_after_s: int, fault: PdpFault = PdpFault.OVERLOADED) -> None:
        super().__init__(detail, fault=fault)
        self.retry_after_s = retry_after_s


class ByteBudgetSpent(TooManyBytes):
    """So much of large messages is under way for this caller, or for all callers, that this one has no place."""

    label = "byte_budget"
    public = "As many bytes of large messages are under way as may be; nothing was done. Send it again in a moment."
    retry_after_s: ClassVar[int] = 1
    """Nothing says when there is a place; this is the least that ``Retry-After`` can say (RFC 9110 section 10.2.3)."""


def retry_after_s(error: SidecarError) -> int | None:
    """Return in how many seconds the same may be tried again, where the error says so."""
    return error.retry_after_s if isinstance(error, Overloaded | ByteBudgetSpent) else None
