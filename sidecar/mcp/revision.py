"""Protocol revisions: which ones are spoken, which era a request is of, what ``initialize`` agrees on.

Clients of both eras are served on one endpoint. Which era a request is of is told by the header and the body together;
where they disagree, it is refused: a peer that went by one of them would have read another request (the Python SDK
2.3.0 routes on the header alone).

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
    """The released revisions; the last one has no handshake."""

    V2024_11_05 = "2024-11-05"
    V2025_03_26 = "2025-03-26"
    V2025_06_18 = "2025-06-18"
    V2025_11_25 = "2025-11-25"
    V2026_07_28 = "2026-07-28"


STATELESS: Final = frozenset({McpRevision.V2026_07_28})
"""Those without a handshake."""

HANDSHAKE: Final = frozenset(McpRevision) - STATELESS
"""Those that begin with ``initialize``."""

LATEST: Final = McpRevision.V2025_11_25
"""The latest that ``initialize`` can agree on."""

SUPPORTED: Final = tuple(one.value for one in reversed(McpRevision))
"""What clients are told, the latest first. The sidecar translates, so it does not depend on the server behind it."""

PROTOCOL_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
"""The ``_meta`` key that every request of 2026-07-28 carries, and no earlier one (MCP 2026-07-28, basic, _meta)."""

MAX_REVISION_CHARACTERS: Final = 32
"""A revision longer than this is not repeated in an error."""


class UnsupportedMcpRevision(McpRevisionError):
    """The request is of a revision that is not spoken here, or not in that way.

    Args:
        requested: what it claimed.
    """

    label: ClassVar[str] = "revision_unsupported"
    public: ClassVar[str] = "Unsupported protocol version."
    code: ClassVar[int] = -32022

    def __init__(self, requested: str = "") -> None:
        super().__init__("a revision that is not spoken here")
        self.requested = requested

    @property
    def data(self) -> JsonObject:
        """The ``data`` member of the JSON-RPC error."""
        asked = self.requested
        shown = asked if len(asked) <= MAX_REVISION_CHARACTERS and asked.isprintable() else ""
        return {"supported": [*SUPPORTED], "requested": shown}


class HeaderMismatch(McpRevisionError):
    """A header that repeats a part of the body is missing, malformed, or says something else."""

    label: ClassVar[str] = "header_mismatch"
    public: ClassVar[str] = (
        "A header does not match the body: MCP-Protocol-Version, Mcp-Method, Mcp-Name and Mcp-Param-* repeat it."
    )
    code: ClassVar[int] = -32020
    """MCP 2026-07-28, basic, error codes."""


def negotiate(requested: JsonValue) -> McpRevision:
    """Return the revision of a new session: the requested one, else the latest (MCP 2025-11-25, lifecycle).

    Raises:
        InvalidParams: ``requested`` is not a string.
    """
    if not isinstance(requested, str):
        raise InvalidParams("protocolVersion is not a string")
    return next((one for one in HANDSHAKE if one == requested), LATEST)


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


def era_of_header(header: str | None) -> Era:
    """Return the era that the ``MCP-Protocol-Version`` header alone tells."""
    return Era.STATELESS if header in STATELESS else Era.HANDSHAKE


def era_of(header: str | None, method: str, params: JsonObject, *, over_http: bool) -> Era:
    """Return the era that a message is of.

    Over HTTP the header chooses, and the body must not contradict it. Elsewhere there are no headers, and the body
    chooses. ``initialize`` without the key that only stateless requests have is of the handshake: what the body asks
    for is negotiated, and the header, which the client cannot know yet, does not count.

    Args:
        header: ``MCP-Protocol-Version``.
        method: the body's.
        params: the body's.
        over_http: whether the transport has headers.

    Raises:
        HeaderMismatch: the body has the key and the header tells a revision with a handshake, or none, or another one.
        UnsupportedMcpRevision: both tell a revision that is not spoken here.
        InvalidParams: both tell one with a handshake.
    """
    meta = params.get("_meta")
    claims = isinstance(meta, dict) and PROTOCOL_VERSION_KEY in meta
    if not claims:
        return Era.HANDSHAKE if method == "initialize" or not over_http else era_of_header(header)
    if not over_http or header in STATELESS:
        return Era.STATELESS
    if header is not None and isinstance(meta, dict) and header == meta[PROTOCOL_VERSION_KEY]:
        if header in HANDSHAKE:
            raise InvalidParams("a revision with a handshake has no such key")
        raise UnsupportedMcpRevision(header)
    raise HeaderMismatch("the body is of a revision that the header does not tell")
