"""The closed table of MCP methods: what becomes of a message, by its method and direction.

A method that is not in the table is refused (law 2), in both directions. Methods that MCP defines and the sidecar does
not carry are listed as refused, so that leaving them out is visibly a decision.

What does not live here: tools (``sidecar.commands``) and parameters (``sidecar.mcp.tools``).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from sidecar.mcp.jsonrpc import Notification, Request
from sidecar.mcp.revision import Era


class Treatment(StrEnum):
    """What becomes of a message."""

    ENFORCE = "enforce"
    """Decided by policy, then forwarded under a permit."""
    FILTER = "filter"
    """Answered from the server's list, reduced to what this caller may see."""
    RELAY = "relay"
    """Goes on to the one client whose call it is about; dropped where there is none, or none that wants it."""
    LOCAL = "local"
    """Answered or noted by the sidecar itself; never forwarded."""
    DROP = "drop"
    """A client's notification that nothing here acts on: accepted, counted, never forwarded."""
    REFUSE = "refuse"
    """Answered with an error, or dropped where no answer is expected."""


class _ByEra(NamedTuple):
    """What becomes of a client's message in each era."""

    handshake: Treatment
    stateless: Treatment

    def of(self, era: Era) -> Treatment:
        match era:
            case Era.HANDSHAKE:
                return self.handshake
            case Era.STATELESS:
                return self.stateless


_NEITHER: Final = _ByEra(Treatment.REFUSE, Treatment.REFUSE)

_REQUESTS: Final[Mapping[str, _ByEra]] = MappingProxyType(
    {
        # Removed in 2026-07-28: an unknown method there (transports, protocol version header).
        "initialize": _ByEra(Treatment.LOCAL, Treatment.REFUSE),
        "ping": _ByEra(Treatment.LOCAL, Treatment.REFUSE),
        "tools/call": _ByEra(Treatment.ENFORCE, Treatment.ENFORCE),
        "tools/list": _ByEra(Treatment.FILTER, Treatment.FILTER),
        # Exports, and what settings name; where there is neither, ``enforcement.offers`` refuses them.
        "resources/list": _ByEra(Treatment.FILTER, Treatment.FILTER),
        "resources/templates/list": _ByEra(Treatment.FILTER, Treatment.FILTER),
        "resources/read": _ByEra(Treatment.ENFORCE, Treatment.ENFORCE),
        # Removed in 2026-07-28, where ``subscriptions/listen`` names resources; each is enforced like this one.
        "resources/subscribe": _ByEra(Treatment.ENFORCE, Treatment.REFUSE),
        "resources/unsubscribe": _ByEra(Treatment.LOCAL, Treatment.REFUSE),
        "prompts/list": _ByEra(Treatment.FILTER, Treatment.FILTER),
        "prompts/get": _ByEra(Treatment.ENFORCE, Treatment.ENFORCE),
        "completion/complete": _ByEra(Treatment.ENFORCE, Treatment.ENFORCE),
        "logging/setLevel": _ByEra(Treatment.LOCAL, Treatment.REFUSE),
        # Tasks (2025-11-25 and the extension of 2026-07-28): a second way to a tool's result.
        "tasks/get": _NEITHER,
        "tasks/result": _NEITHER,
        "tasks/list": _NEITHER,
        "tasks/cancel": _NEITHER,
        "tasks/update": _NEITHER,
        # 2026-07-28 only.
        "server/discover": _ByEra(Treatment.REFUSE, Treatment.LOCAL),
        "subscriptions/listen": _ByEra(Treatment.REFUSE, Treatment.LOCAL),
        # Server to client; a client that sends them has the direction wrong.
        "sampling/createMessage": _NEITHER,
        "elicitation/create": _NEITHER,
        "roots/list": _NEITHER,
    }
)

_NOTED: Final = _ByEra(Treatment.LOCAL, Treatment.DROP)
_DROPPED: Final = _ByEra(Treatment.DROP, Treatment.DROP)

_NOTIFICATIONS: Final[Mapping[str, _ByEra]] = MappingProxyType(
    {
        # 2026-07-28 has no notifications of clients over HTTP, and nothing that outlives a request for one to act on:
        # who could cancel by a request's id could cancel the request of another client that chose the same one.
        "notifications/initialized": _NOTED,
        "notifications/cancelled": _NOTED,
        "notifications/progress": _DROPPED,
        "notifications/roots/list_changed": _DROPPED,
        "notifications/tasks/status": _DROPPED,
        "notifications/elicitation/complete": _DROPPED,
    }
)

KNOWN: Final = frozenset(_REQUESTS) | frozenset(_NOTIFICATIONS)
"""Every method of MCP that a client may send, served or not: the bound of a label set."""

_UPSTREAM_REQUESTS: Final = MappingProxyType(
    {
        "ping": Treatment.LOCAL,
        "sampling/createMessage": Treatment.RELAY,
        "elicitation/create": Treatment.RELAY,
        "roots/list": Treatment.RELAY,
    }
)

_UPSTREAM_NOTIFICATIONS: Final = MappingProxyType(
    {
        "notifications/tools/list_changed": Treatment.LOCAL,
        "notifications/resources/list_changed": Treatment.REFUSE,
        "notifications/resources/updated": Treatment.LOCAL,
        "notifications/prompts/list_changed": Treatment.LOCAL,
        "notifications/progress": Treatment.RELAY,
        "notifications/cancelled": Treatment.REFUSE,
        "notifications/message": Treatment.RELAY,
        "notifications/elicitation/complete": Treatment.REFUSE,
        "notifications/tasks/status": Treatment.REFUSE,
    }
)

KNOWN_FROM_SERVER: Final = frozenset(_UPSTREAM_REQUESTS) | frozenset(_UPSTREAM_NOTIFICATIONS)
"""The same of what a server may send of its own accord."""


def batchable(method: str) -> bool:
    """Return whether the method may stand in a batch.

    All but ``initialize`` (MCP 2025-03-26, lifecycle), and what is answered with a stream, for which an array has no
    place; over stdio, members of a batch can be of the revision that has such a method.
    """
    return method not in {"initialize", "subscriptions/listen"}


def classify(message: Request | Notification, era: Era) -> Treatment:
    """Return what becomes of a client's message, by method, kind and era.

    A request sent as a notification is refused: it would act without an answer and, in gateways that look for an id,
    without a decision (``tools/call`` without an id has gone round several). A notification sent as a request is
    refused too. A notification that is not known is dropped: no client waits for an answer, and clients of MCP's later
    revisions and extensions send some that are not defined here (JSON-RPC 2.0 section 4.1).
    """
    match message:
        case Request():
            return _REQUESTS.get(message.method, _NEITHER).of(era)
        case Notification():
            return _NOTIFICATIONS.get(message.method, _NEITHER if message.method in _REQUESTS else _DROPPED).of(era)


def decided_as(method: str) -> str:
    """Return the method that policy is asked about: who may be told that a resource changed is who may read it."""
    return "resources/read" if method == "resources/subscribe" else method


def from_upstream(method: str, *, notification: bool) -> Treatment:
    """Return what becomes of a message that the MongoDB MCP server sends of its own accord, by method and kind.

    Progress, log messages and questions reach the client whose call they are about, if it asked for them or can be
    asked, and nobody else; questions besides confirmations only where settings and policy allow their kind.
    ``ping`` is answered (MCP, utilities, ping: the receiver must respond promptly).
    """
    table = _UPSTREAM_NOTIFICATIONS if notification else _UPSTREAM_REQUESTS
    return table.get(method, Treatment.REFUSE)
