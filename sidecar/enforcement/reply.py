"""What a transport sends back for one message: four kinds, and nothing else.

Enforcement has recorded every refusal by the time a transport sees it; a transport only renders.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from sidecar.enforcement.event_stream import StreamEvent
from sidecar.errors import SidecarError
from sidecar.mcp import CapabilityMissing, Era, RequestId, ResourceNotFound, UnknownPrompt, jsonrpc, revision
from sidecar.saturation import retry_after_s

_TOLD: Final = (revision.UnsupportedMcpRevision, ResourceNotFound, CapabilityMissing)
"""What says more than its class in the ``data`` of a JSON-RPC error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One JSON-RPC message, or the array that answers a batch. Denials of tool calls are answers too."""

    body: bytes
    session_id: str | None = None
    """The new session, on the answer to initialize."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """It was taken in, and there is nothing to say: a notification, a response, the end of a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Messages one after the other. Where a request was asked, the last one is its answer."""

    events: AsyncIterator[StreamEvent]
    """The transport iterates it to its end or closes it; what stands behind the stream ends with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal of its own kind on the wire, where the transport has one (an HTTP status, a challenge)."""

    error: SidecarError
    body: bytes
    """One JSON-RPC error."""
    era: Era = Era.HANDSHAKE
    """Whose rules say how it is reported."""
    addressed: bool = False
    """``body`` names the request that is refused; else no id could be read, or none was there."""

    @classmethod
    def of(cls, error: SidecarError, request_id: RequestId | None = None, *, era: Era = Era.HANDSHAKE) -> Self:
        """Refuse in the words of the error's class, so that nothing of the request or a dependency leaks."""
        data = error.data if isinstance(error, _TOLD) else None
        if (seconds := retry_after_s(error)) is not None:
            data = {"retry_after_s": seconds}
        # Only the handshake revisions have a code for a resource that is not there (MCP 2026-07-28, resources).
        absent = isinstance(error, ResourceNotFound) and era is Era.STATELESS
        code = UnknownPrompt.code if absent else error.code
        body = jsonrpc.encode_error(request_id, code, error.public, data)
        return cls(error=error, body=body, era=era, addressed=request_id is not None)

    @classmethod
    def explained(cls, era: Era, error: SidecarError, body: bytes) -> Self:
        """Refuse in these words, which name the request."""
        return cls(error=error, body=body, era=era, addressed=True)


Reply: TypeAlias = Answer | Accepted | Stream | Refused


def joined(replies: Sequence[Reply]) -> Answer | Accepted:
    """Return the one reply to a batch (JSON-RPC 2.0 section 6: nothing, where nothing is answered).

    Raises:
        ValueError: a member was answered with a stream; within an array there is no place for one.
    """
    bodies = []
    for reply in replies:
        match reply:
            case Answer():
                bodies.append(reply.body)
            case Refused() if reply.addressed:
                bodies.append(reply.body)
            case Stream():
                raise ValueError("a member of a batch is answered with one message")
            case _:
                pass
    return Answer(body=jsonrpc.encode_batch(bodies)) if bodies else Accepted()
