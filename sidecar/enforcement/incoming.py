"""What one body of a client comes to: a message, or a refusal that is still about one."""

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.enforcement.turn import Exchange
from sidecar.errors import MessageError
from sidecar.mcp import ClientMessage, Envelope, Response, tools


@dataclass(frozen=True, slots=True)
class RefusedBody:
    """A body that is refused as a whole, but whose id is certain."""

    envelope: Envelope
    error: MessageError


Incoming: TypeAlias = ClientMessage | RefusedBody


def trace_context(message: Incoming, exchange: Exchange) -> tuple[str | None, str | None]:
    """Return parent and link: if ``params._meta`` has the parent, the HTTP context becomes a link (SEP-414)."""
    inner = None if isinstance(message, Response | RefusedBody) else tools.traceparent(message.params)
    if inner is None:
        return exchange.traceparent, None
    return inner, exchange.traceparent
