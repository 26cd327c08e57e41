"""Everything that can end a call early: one tree, one place.

Each class says three things about itself: the ``label`` under which metrics and audit records count it, the ``public``
sentence that a caller may read (constant per class, so that no reply can carry a token, a claim or the text of a
dependency), and, for errors that JSON-RPC has a number for, the ``code``. The detail given to the constructor goes to
the log and nowhere else. HTTP statuses (``sidecar.edge``) and the wording of denials (``sidecar.mcp``) live elsewhere.
"""

from typing import ClassVar

from sidecar.faults import PdpFault, TokenFault


class SidecarError(Exception):
    """The root of the taxonomy; never raised itself."""

    label: ClassVar[str] = "internal"
    public: ClassVar[str] = "The request failed inside the sidecar."
    code: ClassVar[int] = -32603
    """JSON-RPC error code, where the error is answered as a protocol error. Own codes are positive: MCP 2026-07-28
    (basic, error codes) reserves -32768…-32000 for JSON-RPC and for itself."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.public)
        self.detail = detail


class MessageError(SidecarError):
    """The peer's bytes are not one well-formed message."""


class ParseError(MessageError):
    """The body is not strict JSON."""

    label = "parse_error"
    public = "The body is not valid JSON."
    code = -32700


class InvalidRequest(MessageError):
    """The JSON is not a JSON-RPC 2.0 message that MCP allows here."""

    label = "invalid_request"
    public = "The message is not a valid JSON-RPC request."
    code = -32600


class DatabaseCredentials(InvalidRequest):
    """A header holds a connection string: a caller who brings credentials for the database asks to be let round it."""

    label = "database_credentials"
    public = "Credentials for the database are not taken from callers: leave the connection string out."


class ProxyCertificate(InvalidRequest):
    """A trusted proxy's header with the client's certificate is ambiguous or malformed."""

    label = "proxy_certificate"


class InvalidParams(MessageError):
    """The method is known, its parameters are not of the method's form."""

    label = "invalid_params"
    public = "The parameters are not valid for this method."
    code = -32602


class MessageTooLarge(MessageError):
    """The body exceeds the configured limit."""

    label = "too_large"
    public = "The request is larger than this server accepts."
    code = -32600


class TooManyBytes(MessageError):
    """So much is being sent by this caller, or by all callers, that there is no place for the body."""

    label = "too_many_bytes"
    public = "Too much is being sent at once; nothing was done. Send it again in a moment."
    code = 1429


class MediaTypeRefused(MessageError):
    """The request's media type, encoding or Accept header is not one that Streamable HTTP defines."""

    label = "media_type"
    public = "Send application/json in UTF-8 and accept application/json and text/event-stream."
    code = -32600


class NotAcceptable(MediaTypeRefused):
    """The Accept header leaves out a media type that the answer may have."""

    label = "not_acceptable"


class MessageIncomplete(MessageError):
    """The body ended early or did not arrive in time."""

    label = "incomplete"
    public = "The request body did not arrive completely in time."
    code = -32600


class OriginRefused(SidecarError):
    """Host or Origin is not one that this endpoint serves (DNS rebinding, MCP 2025-11-25 transports, security)."""

    label = "origin"
    public = "This host or origin is not allowed."
    code = -32600


class HostRefused(OriginRefused):
    """The Host header names an authority that is not this endpoint's (RFC 9110 section 7.4: misdirected)."""

    label = "host"


class McpRevisionError(SidecarError):
    """The protocol revision in the header is malformed, unsupported, or not the session's."""

    label = "revision"
    public = "The MCP protocol version is not supported here."
    code = -32600


class LegRefused(SidecarError):
    """The HTTP method belongs to sessions, and the request is of a revision without them."""

    label = "leg_refused"
    public = "This revision of MCP has POST only."
    code = -32600


class SessionRequired(SidecarError):
    """A request other than initialize came without a session id."""

    label = "session_required"
    public = "Send the MCP-Session-Id that initialize returned."
    code = -32600


class SessionNotFound(SidecarError):
    """The session does not exist, has ended, or belongs to another caller; all three are answered alike."""

    label = "session_not_found"
    public = "The session does not exist or has ended; initialize again."
    code = -32600


class TooManySessions(SidecarError):
    """This identity, or the process, has as many sessions as it may have."""

    label = "too_many_sessions"
    public = "Too many open sessions; end one and try again."
    code = 1003


class NotConfirmed(SidecarError):
    """The server asks for a confirmation, and the user did not give it, or could not be asked."""

    label = "not_confirmed"
    public = "The server asks for a confirmation of this call (elicitation). There was none, so it was not carried out."


class StreamConflict(SidecarError):
    """No stream is opened any more: the listener is shutting down."""

    label = "stream_conflict"
    public = "No stream can be opened; the server is shutting down."
    code = -32600


class TooManyCalls(SidecarError):
    """This identity has as many tool calls under way as it may have."""

    label = "too_many_calls"
    public = "Too many calls under way; nothing was done. Wait for one to finish."
    code = 1429


class MethodRefused(SidecarError):
    """The closed method table has no entry for this method in this direction."""

    label = "method_refused"
    public = "The method is not available."
    code = -32601


class UnknownTool(SidecarError):
    """No such tool, or none that this caller may see; both are answered alike."""

    label = "unknown_tool"
    public = "Unknown tool."
    code = -32602


class ToolGroupOff(UnknownTool):
    """The tool is known, but no configured server has its group on; the caller reads what an unknown name gets."""

    label = "tool_group_off"


class AuthenticationError(SidecarError):
    """It is not known who is calling."""

    public = "Authentication is required."
    code = 1401


class TokenMissing(AuthenticationError):
    """The request carries no bearer token."""

    label = "token_missing"
    public = "A bearer token is required."


class TokenRejected(AuthenticationError):
    """The token is malformed, expired, not for this resource, not of a trusted issuer, or lacks a user or an agent."""

    label = "token_rejected"
    public = "The bearer token is not valid for this resource."

    def __init__(self, detail: str = "", *, fault: TokenFault = TokenFault.REJECTED) -> None:
        super().__init__(detail)
        self.fault = fault


class ProofRejected(TokenRejected):
    """The proof of possession shows nothing for this request and this token (RFC 9449 section 4.3)."""

    label = "proof_rejected"
    public = "The DPoP proof is not valid for this request."


class NonceRequired(ProofRejected):
    """The proof needs the nonce that the answer carries (RFC 9449 section 9)."""

    label = "nonce_required"
    public = "The DPoP proof needs the nonce of the DPoP-Nonce header."


class MalformedAuthorization(AuthenticationError):
    """The Authorization header is not one bearer credential (RFC 6750 section 3.1: invalid_request, 400)."""

    label = "authorization_malformed"
    public = "The Authorization header is malformed."


class InsufficientScope(SidecarError):
    """A token with more scope would succeed (RFC 6750 section 3.1)."""

    label = "insufficient_scope"
    public = "The token's scope does not cover this operation."
    code = 1403

    def __init__(self, detail: str = "", *, missing: tuple[str, ...] = (), scopes: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.missing = missing
        """What the token lacks."""
        self.scopes = scopes
        """What to ask the caller's issuer for, in its words: those, after what the token has already."""


class CallerSuspended(SidecarError):
    """An operator took the user's or the agent's rights away; why is not the caller's to know."""

    label = "suspended"
    public = "Access is suspended; a call that was under way may have taken effect. Ask the platform team."
    code = 1403


class AccessDenied(SidecarError):
    """The call was understood and refused."""

    label = "denied"
    public = "The call was refused."
    code = 1403


class CallRefused(AccessDenied):
    """A tool call that never reaches policy, because its exact effect cannot be derived.

    Args:
        reason: stable snake_case code that a machine can act on.
        message: one sentence for the model. It may repeat keys that the caller sent, never their values.
        path: JSON pointer into the ``tools/call`` params, for example ``/arguments/pipeline/1/$lookup``.
    """

    def __init__(self, reason: str, message: str, path: str = "") -> None:
        super().__init__(f"{reason} at {path or '/'}: {message}")
        self.reason = reason
        self.message = message
        self.path = path


class InvalidArguments(CallRefused):
    """The arguments are not of the tool's schema."""

    label = "invalid_arguments"


class CommandNotDerivable(CallRefused):
    """The arguments are well-formed, but which namespaces they would touch is not known for certain."""

    label = "not_derivable"


class PolicyDenied(AccessDenied):
    """OPA answered, and the answer is no."""

    label = "policy_denied"


class ObligationNotSupported(AccessDenied):
    """OPA allowed under an obligation that cannot be discharged on this command.

    Args:
        access: the index of the access that the obligation is on.
        conditions: which obligations, by their keys of the decision contract.
    """

    label = "obligation_unsupported"
    public = "The call is allowed only under a condition that cannot be applied to it."
    because = ""  # for the caller: the construct for which it cannot, and what to change; no value of policy's

    def __init__(self, detail: str = "", *, access: int | None = None, conditions: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.access = access
        self.conditions = conditions


class DependencyError(SidecarError):
    """Something that a decision or its proof needs is not there; the call is refused."""

    code = 1503


class DecisionUnavailable(DependencyError):
    """OPA did not give a decision: unreachable, slow, failed, or an answer that is not of the contract."""

    label = "decision_unavailable"
    public = "The policy decision point is not available; nothing was done. Try again shortly."

    def __init__(self, detail: str = "", *, fault: PdpFault = PdpFault.CONTRACT) -> None:
        super().__init__(detail)
        self.fault = fault


class AuditUnavailable(DependencyError):
    """The audit record could not be stored, so nothing may be forwarded."""

    label = "audit_unavailable"
    public = "The audit store is not available; nothing was done. Try again shortly."


class ViewsUnavailable(DependencyError):
    """Which names are views, and what of, could not be learned from the database."""

    label = "views_unavailable"
    public = "The definitions of the database's views are not known at the moment; nothing was done. Try again shortly."


class SuspensionsUnavailable(DependencyError):
    """Who is suspended could not be read, so everybody is refused."""

    label = "suspensions_unavailable"
    public = "It is not known whose access is suspended, so nothing was done. Tell the platform team."


class KeysUnavailable(DependencyError):
    """The issuer's keys could not be had."""

    label = "keys_unavailable"
    public = "The token cannot be verified at the moment. Try again shortly."


class UpstreamError(SidecarError):
    """The MongoDB MCP server did not answer a permitted call; whether it took effect is unknown."""

    label = "upstream"
    public = "The MongoDB MCP server failed."
    code = 1502


class UpstreamUnreachable(UpstreamError):
    """The server is not running or went away while the call was in flight."""

    label = "upstream_unreachable"
    public = "The MongoDB MCP server is not reachable, or went away during the call; a write may have taken effect."


class UpstreamTimedOut(UpstreamError):
    """The server gave no answer in time."""

    label = "upstream_timeout"
    public = "The MongoDB MCP server did not answer in time; a write may have taken effect."


class UpstreamProtocolViolation(UpstreamError):
    """The server answered with something that is not MCP."""

    label = "upstream_protocol"
    public = "The MongoDB MCP server gave an answer that is not valid."


class UpstreamRefused(UpstreamError):
    """The server answered with a JSON-RPC error."""

    label = "upstream_refused"
    public = "The MongoDB MCP server does not accept this call."


class ConfigurationError(SidecarError):
    """The settings or the files that they name cannot be used; start-up only, exit status 78 (EX_CONFIG)."""

    label = "configuration"
    public = "The configuration is not usable."
