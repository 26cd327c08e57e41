"""What a person writes down to ask about a call, as the question that the sidecar would put to policy."""

from dataclasses import dataclass
from typing import Final

from sidecar.commands import NO_GENERIC_TOOLS, GenericTools, derive
from sidecar.errors import CallRefused, MessageError, TokenRejected, UnknownTool
from sidecar.identity import ClaimMap, IdentityRules, identify
from sidecar.mcp import jsonrpc, tools
from sidecar.model import AccessRequest, Command, Identity, JsonObject, JsonValue, RequestContext, ToolCall
from sidecar.policy import decision_document
from sidecar.sites import Derivation

DEFAULT_ISSUER: Final = "https://issuer.example"
_EXPIRY: Final = 253_402_300_799
"""Claims that are written by hand do not expire."""

_REGISTERED: Final = frozenset(
    {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp", "act", "scope", "scp", "groups", "roles"}
)
"""RFC 7519 section 4.1, RFC 8693 section 4, RFC 9068 section 2.2; what is not here may be meant for policies."""

_BEFORE, _AFTER = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":', b"}"
"""The text is read inside a message, so that it passes the very decoder that serves."""


class QuestionRefused(Exception):
    """What was asked is refused before policy is asked."""

    def __init__(self, code: str, message: str, path: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path

    def document(self) -> JsonObject:
        """Render it as ``inspect`` does."""
        return {"refused": {"code": self.code, "message": self.message, "path": self.path}}


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedQuestion:
    """One question, read and derived."""

    identity: Identity
    derivation: Derivation
    call: ToolCall
    question: JsonObject
    arguments: JsonValue = None
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> Command:
        """What the call would do."""
        return self.derivation.command


def read_object(text: bytes) -> JsonObject:
    """Read one strict JSON object.

    Raises:
        QuestionRefused: it is none.
    """
    try:
        message = jsonrpc.decode(_BEFORE + text.strip() + _AFTER)
    except MessageError as error:
        raise QuestionRefused(error.label, error.public, "") from None
    if not isinstance(message, jsonrpc.Request):
        raise QuestionRefused("invalid_request", "The question is not one JSON object.", "")
    return message.params


def read_identity(claims: JsonValue, rules: IdentityRules | None) -> tuple[Identity, tuple[str, ...]]:
    """Return whom claims speak of, and what was assumed; ``iss`` and ``exp`` need not be there.

    Args:
        claims: the claims of a token.
        rules: how the issuer's tokens are read; None takes the usual ones and passes all others on to policy.

    Raises:
        QuestionRefused: no user, no agent, or a claim that is not of its form.
    """
    if not isinstance(claims, dict):
        raise QuestionRefused("invalid_request", "claims is not an object.", "/claims")
    notes: tuple[str, ...] = ()
    if rules is None:
        extra = tuple(sorted(name for name in claims if name and name not in _REGISTERED))
        rules = IdentityRules(claims=ClaimMap(extra=extra))
        if extra:
            notes = (f"assumed to reach policies (issuers.claims.extra): {', '.join(extra)}",)
    try:
        return identify({"iss": DEFAULT_ISSUER, "exp": _EXPIRY, **claims}, rules), notes
    except TokenRejected as error:
        raise QuestionRefused(error.label, f"The token would be rejected: {error.detail}.", "/claims") from None


def read_question(
    text: bytes, rules: IdentityRules | None, context: RequestContext, generic: GenericTools = NO_GENERIC_TOOLS
) -> DerivedQuestion:
    """Read ``{"claims": {…}, "call": {"name", "arguments"}}``, or the two members of the call beside the claims.

    Raises:
        QuestionRefused: it is not of this form, or the call is refused before policy is asked.
    """
    document = read_object(text)
    if document.keys() == {"claims", "call"}:
        params, prefix = document["call"], "/call"
    elif {"claims", "name"} <= document.keys() <= {"claims", "name", "arguments"}:
        params, prefix = {key: value for key, value in document.items() if key != "claims"}, ""
    else:
        raise QuestionRefused(
            "invalid_request", 'The question must be {"claims": {…}, "call": {"name": …, "arguments": {…}}}.', ""
        )
    if not isinstance(params, dict):
        raise QuestionRefused("invalid_request", "call is not an object.", prefix)
    identity, notes = read_identity(document["claims"], rules)
    call, derivation = _derive(params, prefix, generic)
    request = AccessRequest(identity=identity, method="tools/call", command=derivation.command, context=context)
    return DerivedQuestion(
        identity=identity,
        derivation=derivation,
        call=call,
        question=decision_document(request),
        arguments=params.get("arguments"),
        notes=notes,
    )


def _derive(params: JsonObject, prefix: str, generic: GenericTools) -> tuple[ToolCall, Derivation]:
    try:
        call = tools.parse_call(params)
        return call, derive(call, generic)
    except CallRefused as error:
        raise QuestionRefused(error.reason, error.message, prefix + error.path) from None
    except UnknownTool as error:
        raise QuestionRefused(error.label, error.public, f"{prefix}/name") from None
    except MessageError as error:
        raise QuestionRefused(error.label, error.public, prefix) from None
