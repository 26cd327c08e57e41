"""The closed table of MCP methods: what becomes of a message, by its method and direction.

A method that is not in the table is refused (law 2), in both directions. Methods that MCP defines and the sidecar does
not carry are listed as refused, so that leaving them out is visibly a decision.

What does not live here: tools (``sidecar.commands``) and parameters (``sidecar.mcp.tools``).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sidecar.mcp.jsonrpc import Notification, Request


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


_REQUESTS: Final[Mapping[str, Treatment]] = MappingProxyType(
    {
        "initialize": Treatment.LOCAL,
        "ping": Treatment.LOCAL,
        "tools/call": Treatment.ENFORCE,
        "tools/list": Treatment.FILTER,
        # Exports are read through a tool, so that a policy sees them; configuration and debug resources are not served.
        "resources/list": Treatment.REFUSE,
        "resources/templates/list": Treatment.REFUSE,
        "resources/read": Treatment.REFUSE,
        "resources/subscribe": Treatment.REFUSE,
        "resources/unsubscribe": Treatment.REFUSE,
        "prompts/list": Treatment.REFUSE,
        "prompts/get": Treatment.REFUSE,
        "completion/complete": Treatment.REFUSE,
        "logging/setLevel": Treatment.LOCAL,
        # Tasks (2025-11-25 and the extension of 2026-07-28): a second way to a tool's result.
        "tasks/get": Treatment.REFUSE,
        "tasks/result": Treatment.REFUSE,
        "tasks/list": Treatment.REFUSE,
        "tasks/cancel": Treatment.REFUSE,
        "tasks/update": Treatment.REFUSE,
        # 2026-07-28 only; sidecar.mcp.revision says what such a client is told.
        "server/discover": Treatment.REFUSE,
        "subscriptions/listen": Treatment.REFUSE,
        # Server to client; a client that sends them has the direction wrong.
        "sampling/createMessage": Treatment.REFUSE,
        "elicitation/create": Treatment.REFUSE,
        "roots/list": Treatment.REFUSE,
    }
)

_NOTIFICATIONS: Final[Mapping[str, Treatment]] = MappingProxyType(
    {
        "notifications/initialized": Treatment.LOCAL,
        "notifications/cancelled": Treatment.LOCAL,
        "notifications/progress": Treatment.DROP,
        "notifications/roots/list_changed": Treatment.DROP,
        "notifications/tasks/status": Treatment.DROP,
        "notifications/elicitation/complete": Treatment.DROP,
    }
)

KNOWN: Final = frozenset(_REQUESTS) | frozenset(_NOTIFICATIONS)
"""Every method of MCP that a client may send, served or not: the bound of a label set."""

_UPSTREAM_REQUESTS: Final = MappingProxyType(
    {
        "ping": Treatment.LOCAL,
        "sampling/createMessage": Treatment.REFUSE,
        "elicitation/create": Treatment.REFUSE,
        "roots/list": Treatment.REFUSE,
    }
)

_UPSTREAM_NOTIFICATIONS: Final = MappingProxyType(
    {
        "notifications/tools/list_changed": Treatment.LOCAL,
        "notifications/resources/list_changed": Treatment.REFUSE,
        "notifications/resources/updated": Treatment.REFUSE,
        "notifications/prompts/list_changed": Treatment.REFUSE,
        "notifications/progress": Treatment.RELAY,
        "notifications/cancelled": Treatment.REFUSE,
        "notifications/message": Treatment.RELAY,
        "notifications/elicitation/complete": Treatment.REFUSE,
        "notifications/tasks/status": Treatment.REFUSE,
    }
)


def batchable(method: str) -> bool:
    """Return whether the method may stand in a batch: all but ``initialize`` (MCP 2025-03-26, lifecycle)."""
    return method != "initialize"


def classify(message: Request | Notification) -> Treatment:
    """Return what becomes of a client's message, by method and kind.

    A request sent as a notification is refused: it would act without an answer and, in gateways that look for an id,
    without a decision (``tools/call`` without an id has gone round several). A notification sent as a request is
    refused too. A notification that is not known is dropped: no client waits for an answer, and clients of MCP's later
    revisions and extensions send some that are not defined here (JSON-RPC 2.0 section 4.1).
    """
    match message:
        case Request():
            return _REQUESTS.get(message.method, Treatment.REFUSE)
        case Notification():
            default = Treatment.REFUSE if message.method in _REQUESTS else Treatment.DROP
            return _NOTIFICATIONS.get(message.method, default)


def from_upstream(method: str, *, notification: bool) -> Treatment:
    """Return what becomes of a message that the MongoDB MCP server sends of its own accord, by method and kind.

    Progress and log messages reach the client whose call they are about, if it asked for them, and nobody else.
    ``ping`` is answered (MCP, utilities, ping: the receiver must respond promptly).
    """
    table = _UPSTREAM_NOTIFICATIONS if notification else _UPSTREAM_REQUESTS
    return table.get(method, Treatment.REFUSE)
