"""More is asked than can be done in time: what is refused for that alone, and when it is worth to ask again."""

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
    """So many bytes of large messages are under way for this caller, or for all callers, that this one has no place.

    Args:
        detail: for the log.
        retry_after_s: in how many seconds there may be one; from 1.
    """

    label = "byte_budget"
    public = "As many bytes of large messages are under way as may be; nothing was done. Send it again in a moment."

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


def retry_after_s(error: SidecarError) -> int | None:
    """Return in how many seconds the same may be tried again, where the error says so."""
    return error.retry_after_s if isinstance(error, Overloaded | ByteBudgetSpent) else None
