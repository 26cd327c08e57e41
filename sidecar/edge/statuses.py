"""The one table from an error to an HTTP status.

What a refused *message* gets is decided by what clients make of it. Measured with the official SDKs 2.3.0 and 2.4.0
(reference A-09): the TypeScript client loses a JSON-RPC error that comes with a 4xx or 5xx status, the Python one reads
it. So every answer to one well-formed message within a session is a JSON-RPC one, with status 200; HTTP statuses
are for what the transport and the authorization chapter of MCP give one to.
"""

from typing import Final

from sidecar import errors
from sidecar.errors import MessageError, SidecarError

HTTP_STATUS: Final[dict[type[SidecarError], int]] = {
    # the message (MCP 2025-11-25 transports, sending messages; RFC 9110 section 15.5)
    errors.ParseError: 400,
    errors.InvalidRequest: 400,
    errors.DatabaseCredentials: 400,
    errors.ProxyCertificate: 400,
    errors.InvalidParams: 200,
    errors.MessageTooLarge: 413,
    errors.TooManyBytes: 429,
    errors.MessageIncomplete: 408,
    errors.MediaTypeRefused: 415,
    errors.NotAcceptable: 406,
    # the transport (MCP 2025-11-25 transports, security warning, session management, protocol version header)
    errors.OriginRefused: 403,
    errors.HostRefused: 421,
    errors.McpRevisionError: 400,
    errors.SessionRequired: 400,
    errors.SessionNotFound: 404,
    errors.TooManySessions: 429,
    errors.StreamConflict: 409,
    # what is not there for this caller; 404 for an unknown method belongs to 2026-07-28 only (M-11)
    errors.MethodRefused: 200,
    errors.UnknownTool: 200,
    errors.ToolGroupOff: 200,
    errors.TooManyCalls: 200,
    # who is calling (MCP 2025-11-25 authorization, error handling; RFC 6750 section 3.1)
    errors.TokenMissing: 401,
    errors.TokenRejected: 401,
    errors.ProofRejected: 401,
    errors.NonceRequired: 401,
    errors.MalformedAuthorization: 400,
    errors.InsufficientScope: 403,
    # RFC 9110 section 15.5.4; without a challenge (RFC 6750 section 3.1), because no other token would do
    errors.CallerSuspended: 403,
    errors.SuspensionsUnavailable: 503,
    # what was asked and refused, or failed: a tool result or a JSON-RPC error
    errors.InvalidArguments: 200,
    errors.CommandNotDerivable: 200,
    errors.PolicyDenied: 200,
    errors.ObligationNotSupported: 200,
    errors.DecisionUnavailable: 200,
    errors.AuditUnavailable: 200,
    errors.ViewsUnavailable: 200,
    errors.UpstreamUnreachable: 200,
    errors.UpstreamTimedOut: 200,
    errors.UpstreamProtocolViolation: 200,
    errors.UpstreamRefused: 200,
    # no caller was authenticated, so there is no session to answer in
    errors.KeysUnavailable: 503,
}

INTERNAL: Final = 500


def http_status(error: SidecarError, *, addressed: bool = False) -> int:
    """Return the status for an error: its class's, else that of the class it refines, else 500.

    Args:
        error: what is answered.
        addressed: the answer names the request that is refused. Then JSON-RPC alone reports what is wrong
            with its content: to both official Python 1.x clients an HTTP error is the end of the session (measured).
    """
    if addressed and isinstance(error, MessageError):
        return 200
    return next((HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS), INTERNAL)
