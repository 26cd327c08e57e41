"""The one table from an error and an era to an HTTP status.

What a refused *message* gets is decided by what clients make of it. Measured with the official SDKs 2.3.0 and 2.4.0
(reference A-09): the TypeScript client loses a JSON-RPC error that comes with a 4xx or 5xx status, the Python one reads
it. So every answer to one well-formed message within a session is a JSON-RPC one, with status 200; HTTP statuses
are for what the transport and the authorization chapter of MCP give one to.
"""

from typing import Final, NamedTuple

from sidecar import errors, questions, saturation, usage
from sidecar.edge.stdio import EndingProcess
from sidecar.enforcement import (
    AnswerTooLarge,
    ConfirmationMissing,
    TimeLimitReached,
    TooManyStreams,
    TooManyWatches,
)
from sidecar.errors import MessageError, SidecarError
from sidecar.identity import (
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    ApprovalsUnavailable,
    TooManyApprovals,
)
from sidecar.mcp import (
    CapabilityMissing,
    Era,
    InputRequired,
    ResourceNotFound,
    StateRejected,
    StatesUnavailable,
    UnknownPrompt,
)


class Statuses(NamedTuple):
    """The status of one error, by the era of the request that it answers."""

    handshake: int
    stateless: int

    def of(self, era: Era) -> int:
        """Return the status in one era."""
        match era:
            case Era.HANDSHAKE:
                return self.handshake
            case Era.STATELESS:
                return self.stateless


def both(status: int) -> Statuses:
    """Return the row of an error that no era has a rule of its own for."""
    return Statuses(status, status)


HTTP_STATUS: Final[dict[type[SidecarError], Statuses]] = {
    # the message (MCP 2025-11-25 transports, sending messages; RFC 9110 section 15.5)
    errors.ParseError: both(400),
    errors.InvalidRequest: both(400),
    errors.DatabaseCredentials: both(400),
    errors.ProxyCertificate: both(400),
    errors.InvalidParams: Statuses(handshake=200, stateless=400),
    errors.MessageTooLarge: both(413),
    errors.TooManyBytes: both(429),
    saturation.ByteBudgetSpent: both(429),
    errors.MessageIncomplete: both(408),
    errors.MediaTypeRefused: both(415),
    errors.NotAcceptable: both(406),
    # the transport (MCP 2025-11-25 transports, security warning, session management, protocol version header)
    errors.OriginRefused: both(403),
    errors.HostRefused: both(421),
    errors.McpRevisionError: both(400),
    errors.LegRefused: both(405),
    errors.SessionRequired: both(400),
    errors.SessionNotFound: both(404),
    errors.TooManySessions: both(429),
    errors.StreamConflict: both(409),
    TooManyStreams: both(429),
    # what is not there for this caller; 404 for an unknown method belongs to 2026-07-28 (transports, protocol version)
    errors.MethodRefused: Statuses(handshake=200, stateless=404),
    errors.UnknownTool: both(200),
    ResourceNotFound: both(200),
    UnknownPrompt: both(200),
    errors.ToolGroupOff: both(200),
    errors.TooManyCalls: both(200),
    TooManyWatches: both(200),
    # who is calling (MCP 2025-11-25 authorization, error handling; RFC 6750 section 3.1)
    errors.TokenMissing: both(401),
    errors.TokenRejected: both(401),
    errors.ProofRejected: both(401),
    errors.NonceRequired: both(401),
    errors.MalformedAuthorization: both(400),
    errors.InsufficientScope: both(403),
    # RFC 9110 section 15.5.4; without a challenge (RFC 6750 section 3.1), because no other token would do
    errors.CallerSuspended: both(403),
    errors.SuspensionsUnavailable: both(503),
    # what was asked and refused, or failed: a tool result or a JSON-RPC error
    errors.InvalidArguments: both(200),
    errors.CommandNotDerivable: both(200),
    errors.PolicyDenied: both(200),
    errors.ObligationNotSupported: both(200),
    ApprovalRequired: both(200),
    TooManyApprovals: both(200),
    ApprovalsUnavailable: both(200),
    usage.LimitReached: both(200),
    usage.LimitsUnavailable: both(200),
    errors.DecisionUnavailable: both(200),
    saturation.Overloaded: both(200),
    errors.AuditUnavailable: both(200),
    errors.ViewsUnavailable: both(200),
    errors.NotConfirmed: both(200),
    questions.QuestionUnanswered: both(200),
    ConfirmationMissing: both(200),
    InputRequired: both(200),
    CapabilityMissing: both(400),
    StateRejected: both(200),
    StatesUnavailable: both(200),
    errors.UpstreamUnreachable: both(200),
    errors.UpstreamTimedOut: both(200),
    TimeLimitReached: both(200),
    AnswerTooLarge: both(200),
    errors.UpstreamProtocolViolation: both(200),
    errors.UpstreamRefused: both(200),
    questions.ClientLacks: both(200),
    # a second person at the endpoint for approvals, which has no JSON-RPC
    ApprovalNotFound: both(404),
    ApprovalConflict: both(409),
    # stdio only, where there are no statuses
    EndingProcess: both(503),
    # no caller was authenticated, so there is no session to answer in
    errors.KeysUnavailable: both(503),
}

INTERNAL: Final = both(500)


def http_status(error: SidecarError, era: Era = Era.HANDSHAKE, *, addressed: bool = False) -> int:
    """Return the status for an error: its class's, else that of the class it refines, else 500.

    Args:
        error: what is answered.
        era: whose rules count.
        addressed: the answer names the request that is refused. Then JSON-RPC alone reports what is wrong
            with its content: to both official Python 1.x clients, which only know the handshake, an HTTP error is the
            end of the session (measured).
    """
    if addressed and era is Era.HANDSHAKE and isinstance(error, MessageError):
        return 200
    return next((HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS), INTERNAL).of(era)
