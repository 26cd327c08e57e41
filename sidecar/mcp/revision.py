"""Protocol revisions: which ones are spoken, what ``initialize`` agrees on, what each request must repeat.

The sidecar speaks the revisions that open with a handshake. A client of the stateless revision 2026-07-28 is told so in
the words that make both official SDKs fall back to the handshake.

Revisions are an enumeration; they are never compared as strings (MCP 2026-07-28, basic, versioning).
"""

from enum import StrEnum
from typing import ClassVar, Final

from sidecar.errors import InvalidParams, McpRevisionError
from sidecar.model import JsonObject, JsonValue


class Era(StrEnum):
    """How a client opens (MCP 2026-07-28, basic, versioning, terminology: "legacy" and "modern")."""

    HANDSHAKE = "handshake"
    """2024-11-05 to 2025-11-25: ``initialize``, then a session."""
    STATELESS = "stateless"
    """2026-07-28: every request says all that is to be known of it."""


class McpRevision(StrEnum):
    """The released revisions that begin with ``initialize``."""

    V2024_11_05 = "2024-11-05"
    V2025_03_26 = "2025-03-26"
    V2025_06_18 = "2025-06-18"
    V2025_11_25 = "2025-11-25"


LATEST: Final = McpRevision.V2025_11_25

MODERN: Final[frozenset[str]] = frozenset({"2026-07-28"})
"""Released revisions without a handshake."""

PROTOCOL_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
"""The ``_meta`` key that every request of 2026-07-28 carries, and no earlier one (MCP 2026-07-28, basic, _meta)."""

MAX_REVISION_CHARACTERS: Final = 32
"""A revision longer than this is not repeated in an error."""


class UnsupportedMcpRevision(McpRevisionError):
    """The request claims a revision without a handshake.

    Args:
        requested: what it claimed.
    """

    label: ClassVar[str] = "revision_unsupported"
    public: ClassVar[str] = "Unsupported protocol version: open with initialize."
    code: ClassVar[int] = -32022

    def __init__(self, requested: str = "") -> None:
        super().__init__("a revision without a handshake")
        self.requested = requested

    @property
    def data(self) -> JsonObject:
        """The ``data`` member of the JSON-RPC error."""
        return unsupported_revision_data(self.requested)


def negotiate(requested: JsonValue) -> McpRevision:
    """Return the revision of a new session: the requested one, else the latest (MCP 2025-11-25, lifecycle).

    Raises:
        InvalidParams: ``requested`` is not a string.
    """
    if not isinstance(requested, str):
        raise InvalidParams("protocolVersion is not a string")
    try:
        return McpRevision(requested)
    except ValueError:
        return LATEST


def check_header(header: str | None, session: McpRevision) -> None:
    """Check the ``MCP-Protocol-Version`` header of a request within a session.

    An absent header is accepted: clients before 2025-06-18 do not send it, and the server knows the revision from the
    handshake, which MCP names as the way to tell (2025-11-25, transports, protocol version header). A header that
    differs from what was agreed is refused, so that no request is read by the rules of another revision.

    Raises:
        McpRevisionError: the header is not the session's revision.
    """
    if header is not None and header != session.value:
        raise McpRevisionError("the header is not the session's revision")


def allows_batch(revision: McpRevision) -> bool:
    """Return whether arrays of messages are part of the revision: 2025-03-26 alone (removed in 2025-06-18)."""
    return revision is McpRevision.V2025_03_26


def modern_claim(header: str | None, params: JsonObject) -> bool:
    """Return whether a request presents itself as one of a revision without a handshake.

    Either mark is enough: the header, or the ``_meta`` key that only such revisions have, with any value.
    """
    meta = params.get("_meta")
    return header in MODERN or (isinstance(meta, dict) and PROTOCOL_VERSION_KEY in meta)


def check_era(header: str | None, params: JsonObject) -> None:
    """Refuse a request that claims a revision without a handshake.

    Raises:
        UnsupportedMcpRevision: answer HTTP 400 with its ``code``, ``public`` and ``data`` (MCP 2026-07-28, versioning).
    """
    if modern_claim(header, params):
        meta = params.get("_meta")
        claimed = meta.get(PROTOCOL_VERSION_KEY) if isinstance(meta, dict) else None
        raise UnsupportedMcpRevision(claimed if isinstance(claimed, str) else header or "")


def unsupported_revision_data(requested: str = "") -> JsonObject:
    """Return the ``data`` of a ``-32022`` error.

    Only the latest handshake revision is listed. Measured with the official SDKs (Python 2.3.0, TypeScript 2.4.0, in
    mode auto): a list with just that entry makes both fall back to ``initialize``; one that also names 2026-07-28
    makes the TypeScript client fail for good. ``requested`` is required by the schema.
    """
    shown = requested if len(requested) <= MAX_REVISION_CHARACTERS and requested.isprintable() else ""
    return {"supported": [LATEST.value], "requested": shown}
