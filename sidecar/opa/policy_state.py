"""Which policy set an OPA serves, and what became of the newest one."""

from dataclasses import dataclass
from enum import StrEnum


class Load(StrEnum):
    """How the last attempt to load a policy set ended."""

    LOADED = "loaded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """Which set serves, and what became of the newest one."""

    revision: str
    """Of the set that serves."""
    since: float
    """When it began to serve, in seconds since the epoch."""
    result: Load
    error: str = ""
    """Why the folder's present content does not serve, with file and line; for logs, empty where it does."""
    routed: frozenset[str] | None = None
    """The MCP servers that the routes of the set that serves lead to; None where that is not known."""
