"""How much one message, and one caller, may make grow; an operator sets it (docs/limits.md)."""

from dataclasses import dataclass

from sidecar.mcp import jsonrpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds that settings can change."""

    nesting: int = jsonrpc.MAX_DEPTH
    """Levels of arrays and objects in a message."""
    batch_members: int = jsonrpc.MAX_BATCH
    """Members of one batch."""
    watches_per_subscriber: int = 64
    """Resources that one session, or one request to listen, may watch."""
    watches: int = 4096
    """Watches in all; beyond that, the oldest of the user who has most makes room."""
    listeners_per_identity: int = 16
    """Requests to listen that one user through one agent may have open; a newer one ends the oldest."""
