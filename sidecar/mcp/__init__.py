"""The MCP wire language without I/O: bytes to messages and back, the closed method table, revisions, sessions."""

from sidecar.mcp import denials, jsonrpc, methods, revision, tools
from sidecar.mcp.conversation import Conversation
from sidecar.mcp.envelope import Ends, Envelope, read_envelope
from sidecar.mcp.jsonrpc import Batch, ClientMessage, InvalidMessage, Notification, Request, RequestId, Response
from sidecar.mcp.lines import LineFraming, OversizeLine
from sidecar.mcp.methods import Treatment, from_upstream
from sidecar.mcp.revision import Era, McpRevision
from sidecar.mcp.session import IdentityKey, Session, Sessions
from sidecar.mcp.sse import EventDecoder

__all__ = [
    "Batch",
    "ClientMessage",
    "Conversation",
    "Ends",
    "Envelope",
    "Era",
    "EventDecoder",
    "IdentityKey",
    "InvalidMessage",
    "LineFraming",
    "McpRevision",
    "Notification",
    "OversizeLine",
    "Request",
    "RequestId",
    "Response",
    "Session",
    "Sessions",
    "Treatment",
    "denials",
    "from_upstream",
    "jsonrpc",
    "methods",
    "read_envelope",
    "revision",
    "tools",
]
