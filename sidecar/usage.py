"""How much a caller may use in a span of time: the limits that policy says with an allow, and what exceeding one is."""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.errors import AccessDenied, DependencyError


class UsageUnit(StrEnum):
    """What is counted."""

    CALLS = "calls"
    DOCUMENTS = "documents"
    BYTES = "bytes"


class UsagePart(StrEnum):
    """What is counted apart."""

    SUBJECT = "subject"
    AGENT = "agent"
    TOOL = "tool"
    TEAM = "team"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimit:
    """One limit that a call counts towards (``policies/schema/decision.json``)."""

    id: str
    per: tuple[UsagePart, ...]
    team: str
    """The team that it counts for; empty where it does not count by team."""
    window_s: int
    """Seconds. Windows follow one another from the epoch."""
    most: tuple[tuple[UsageUnit, int], ...]
    """How much there is of each unit in a window; at least one."""


class LimitReached(AccessDenied):
    """A limit of the platform's is used up for this caller, until its window ends.

    Args:
        limit: which.
        unit: what of it is used up.
        free_at: seconds since the epoch.
        wait_s: seconds until then, from 1.
    """

    label = "limit_reached"
    public = "A limit on use is reached; nothing was done. Wait until it is free again."
    code = 1429

    def __init__(self, limit: UsageLimit, unit: UsageUnit, *, free_at: int, wait_s: int) -> None:
        super().__init__(f"{limit.id}: {unit}")
        self.limit = limit
        self.unit = unit
        self.free_at = free_at
        self.wait_s = wait_s

    @property
    def most(self) -> int:
        """How much there is in a window."""
        return dict(self.limit.most)[self.unit]


class LimitsUnavailable(DependencyError):
    """How much a caller has used could not be read or counted."""

    label = "limits_unavailable"
    public = "The counts of use are not available; nothing was done. Try again shortly."
