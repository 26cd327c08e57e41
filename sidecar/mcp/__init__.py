"""The MCP wire language without I/O: bytes to messages and back, the closed method table, revisions, sessions."""

from sidecar.mcp import denials, jsonrpc, methods, mirrored, questions, resources, revision, stateless_results, tools
from sidecar.mcp.conversation import Conversation
from sidecar.mcp.ended import MOST_ENDED, EndedSessions
from sidecar.mcp.envelope import Ends, Envelope, read_envelope
from sidecar.mcp.handles import (
    CarriedQuestions,
    HandleKeys,
    SealedQuestion,
    SealedSession,
    handle_digest,
    identity_digest,
)
from sidecar.mcp.input_required import (
    CapabilityMissing,
    GivenInput,
    InputRequired,
    StateFault,
    StateRejected,
    StatesUnavailable,
    read_call,
    split,
)
from sidecar.mcp.jsonrpc import Batch, ClientMessage, InvalidMessage, Notification, Request, RequestId, Response
from sidecar.mcp.lines import LineFraming, OversizeLine
from sidecar.mcp.methods import Treatment, from_upstream
from sidecar.mcp.mirrored import MirroredHeaders
from sidecar.mcp.request_meta import claimed_revision, read_request_meta
from sidecar.mcp.resources import ResourceNotFound, UnknownPrompt
from sidecar.mcp.revision import Era, HeaderMismatch, McpRevision
from sidecar.mcp.session import IdentityKey, Session, Sessions
from sidecar.mcp.sse import EventDecoder
from sidecar.mcp.subscriptions import Subscription, parse_listen

__all__ = [
    "MOST_ENDED",
    "Batch",
    "CapabilityMissing",
    "CarriedQuestions",
    "ClientMessage",
    "Conversation",
    "EndedSessions",
    "Ends",
    "Envelope",
    "Era",
    "EventDecoder",
    "GivenInput",
    "HandleKeys",
    "HeaderMismatch",
    "IdentityKey",
    "InputRequired",
    "InvalidMessage",
    "LineFraming",
    "McpRevision",
    "MirroredHeaders",
    "Notification",
    "OversizeLine",
    "Request",
    "RequestId",
    "ResourceNotFound",
    "Response",
    "SealedQuestion",
    "SealedSession",
    "Session",
    "Sessions",
    "StateFault",
    "StateRejected",
    "StatesUnavailable",
    "Subscription",
    "Treatment",
    "UnknownPrompt",
    "claimed_revision",
    "denials",
    "from_upstream",
    "handle_digest",
    "identity_digest",
    "jsonrpc",
    "methods",
    "mirrored",
    "parse_listen",
    "questions",
    "read_call",
    "read_envelope",
    "read_request_meta",
    "resources",
    "revision",
    "split",
    "stateless_results",
    "tools",
]
