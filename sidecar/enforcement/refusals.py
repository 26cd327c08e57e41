"""What the caller reads of a refused call: one sentence for the model, and an object for machines."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from sidecar.audit import record
from sidecar.enforcement.reply import Answer, Refused
from sidecar.enforcement.turn import Turn
from sidecar.enforcement.views import BEHIND, folded
from sidecar.errors import (
    CallRefused,
    DecisionUnavailable,
    InsufficientScope,
    NotConfirmed,
    ObligationNotSupported,
    PolicyDenied,
    SidecarError,
)
from sidecar.identity import ApprovalRequired, ApprovalState
from sidecar.mcp import CapabilityMissing, Era, RequestId, StateRejected, denials, jsonrpc, stateless_results
from sidecar.model import Access, Command, Decision, JsonObject, Principal, Reason, StepUp
from sidecar.questions import ClientLacks
from sidecar.saturation import Overloaded, retry_after_s
from sidecar.usage import LimitReached

OWN_SOURCE: Final = "sidecar"
"""Who says a reason that is not policy's."""

_SCOPE_MISSING: Final = "scope_missing"
"""The reason of policy that an access is of a kind which no scope of the token opens."""

MAX_SCOPE_CHARACTERS: Final = 2048
"""Of a challenge; what a token has already is left out beyond that. Proxies hold a whole header in 4 kB (nginx,
proxy_buffer_size)."""

_NOT_GRANTED: Final = "not_granted"
"""What a caller reads where a view cannot be read for certain: the same as where one of its sources is not granted."""


def denial(turn: Turn, error: SidecarError, server_version: str) -> bytes:
    """Return the tool result of a refused call, as the client's revision has it."""
    result = denials.denial(*_explained(turn, error))
    return stateless_results.completed(result, server_version) if turn.era is Era.STATELESS else result


def of_call(request_id: RequestId, turn: Turn, error: SidecarError, server_version: str) -> Answer | Refused:
    """Return the reply to a refused call: a tool result, or that its client has to say that it can ask its user.

    A state that is not good for a call is an error of the protocol where a server may ask anything (MCP 2026-07-28,
    mrtr); of a call that is to be confirmed, models read why it was not carried out.
    """
    conversation, result = turn.known_conversation, denial(turn, error, server_version)
    if isinstance(error, StateRejected) and turn.call is not None and turn.call.name in turn.generic:
        return Refused.of(error, request_id, era=turn.era)
    if isinstance(error, ClientLacks) and turn.era is Era.STATELESS and (lacks := error.kinds - conversation.answers):
        return Refused.of(CapabilityMissing(error.detail, lacks), request_id, era=turn.era)
    if turn.era is Era.STATELESS and isinstance(error, NotConfirmed) and not (conversation.elicits or turn.given):
        return Refused.of(CapabilityMissing(error.detail), request_id, era=turn.era)
    return Answer(body=jsonrpc.encode_result(request_id, result))


def challenge(turn: Turn, error: SidecarError) -> bytes:
    """Return the JSON-RPC error of a refused use that has no tool result, or that goes with a challenge.

    Clients that do not sign in again show its message (measured: reference A-09).
    """
    text, meta = _explained(turn, error)
    return jsonrpc.encode_error(turn.rpc_id, error.code, text, meta)


def insufficient_scope(step_up: StepUp, caller: Principal) -> InsufficientScope:
    """Return the refusal of a call that lacks nothing but these scopes.

    What the token has already is asked for as well: the specification of 2026-07-28 leaves it to clients to keep it,
    that of 2025-11-25 to servers, and the official Python clients up to 1.26 ask for exactly what a challenge says.
    """
    scopes = _asked(caller, (*step_up.held, *step_up.missing))
    if sum(map(len, scopes)) + len(scopes) > MAX_SCOPE_CHARACTERS:
        scopes = _asked(caller, step_up.missing)
    return InsufficientScope(", ".join(step_up.missing), missing=step_up.missing, scopes=scopes)


def _asked(caller: Principal, scopes: Sequence[str]) -> tuple[str, ...]:
    """Return scopes as clients ask the caller's issuer for them."""
    return tuple(caller.scope_prefix + scope for scope in scopes)


def _explained(turn: Turn, error: SidecarError) -> tuple[str, JsonObject]:
    """Return the sentence for the model and the object for machines."""
    turn.error = error.label
    if turn.committed:
        turn.span.fail(error.label, error.public)
    said = _said_of(turn, error)
    body: JsonObject = {
        "allow": False,
        "reasons": [_reason(reason) for reason in said.reasons],
        "request_id": turn.request_id,
        "trace_id": turn.span.trace_id,
        "owner": said.owner,
    }
    if said.path:
        body["path"] = said.path
    if isinstance(error, LimitReached):
        body["limit"] = reached(error)
    if (seconds := retry_after_s(error)) is not None:
        body["retry_after_s"] = seconds
    if isinstance(error, ApprovalRequired):
        body["approval"] = {
            "id": error.approval.id,
            "state": error.approval.state.value,
            "expires": record.rfc3339(error.approval.expires * 10**9),
        }
    meta: JsonObject = {denials.DECISION_KEY: body}
    if isinstance(error, InsufficientScope):
        missing = _asked(turn.identity.principal, error.missing)
        meta[denials.STEP_UP_KEY] = {"error": error.label, "scope": " ".join(error.scopes), "missing": [*missing]}
    return said.text, meta


def reached(error: LimitReached) -> JsonObject:
    """Return a used up limit for machines, the same to the caller and in the evidence."""
    limit = error.limit
    return {
        "id": limit.id,
        "unit": error.unit.value,
        "most": error.most,
        "window_s": limit.window_s,
        "per": [part.value for part in limit.per],
        "team": limit.team or None,
        "free_at": error.free_at,
    }


class _Said(NamedTuple):
    """How a refusal is worded: the sentence, the reasons, whom to ask, and where in the call."""

    text: str
    reasons: Sequence[Reason]
    owner: str | None
    path: str = ""


def _said_of(turn: Turn, error: SidecarError) -> _Said:
    decision, command = turn.decision, turn.command
    named: tuple[Access, ...] = turn.named.accesses if turn.named is not None else ()
    owner = owner_to_ask(decision) if decision is not None else None
    own = (Reason(code=error.label, source=OWN_SOURCE),)
    match error:
        case PolicyDenied() | InsufficientScope() | ObligationNotSupported() if decision and command:
            return _decided(turn, error, decision, command)
        case CallRefused() if named and error.reason in BEHIND:
            home = next((index for index, access in enumerate(named) if access.via == error.path), None)
            reasons = (Reason(code=_NOT_GRANTED, source="platform", access=home),)
            return _Said(denials.explain(reasons, named, ()), reasons, owner)
        case CallRefused():
            reasons = (Reason(code=error.reason, source=OWN_SOURCE),)
            return _Said(denials.unreadable(error.message, error.path), reasons, owner, error.path)
        case LimitReached():
            return _Said(denials.used_up(error), own, owner)
        case ApprovalRequired(approval=approval):
            denied = approval.state is ApprovalState.DENIED
            text = denials.waiting(approval.id, approval.owners, denied=denied, left_s=error.left_s)
            return _Said(text, own, next(iter(approval.owners), None))
        case Overloaded():
            reasons = (Reason(code=error.label, source=f"opa.{error.fault}"),)
            return _Said(denials.later(error.retry_after_s), reasons, owner)
        case DecisionUnavailable():
            return _Said(error.public, (Reason(code=error.label, source=f"opa.{error.fault}"),), owner)
        case _:
            return _Said(error.public, own, owner)


def _decided(
    turn: Turn,
    error: PolicyDenied | InsufficientScope | ObligationNotSupported,
    decision: Decision,
    command: Command,
) -> _Said:
    """Say what policy decided, in terms of what the caller named."""
    named: tuple[Access, ...] = turn.named.accesses if turn.named is not None else ()
    owners = _owners(decision)
    own = Reason(code=error.label, source=OWN_SOURCE)
    if isinstance(error, ObligationNotSupported):
        against: Sequence[Reason] = [replace(own, access=error.access)]
    else:
        against = _own_bounds(decision.reasons, turn.named)
    reasons = folded(against, named, command.accesses, owners)
    owner = owner_to_ask(replace(decision, reasons=reasons, accesses=decision.accesses[: len(named)]))
    match error:
        case ObligationNotSupported():
            text = denials.explain(reasons, named, owners[: len(named)], error.conditions, because=error.because)
            return _Said(text, (own,), owner)
        case InsufficientScope():
            closed = [replace(one, code=error.label) for one in reasons if one.code == _SCOPE_MISSING]
            return _Said(denials.explain(closed or [own], named, (), scopes=error.missing), reasons, owner)
        case _:
            return _Said(denials.explain(reasons, named, owners[: len(named)]), reasons, owner)


def _owners(decision: Decision) -> tuple[str, ...]:
    return tuple(verdict.owner for verdict in decision.accesses)


def _reason(reason: Reason) -> JsonObject:
    said: JsonObject = {"code": reason.code, "source": reason.source, "access": reason.access}
    if reason.bound is not None:
        said["bound"] = {"construct": reason.bound.construct, "most": reason.bound.most}
    return said


def _own_bounds(reasons: Sequence[Reason], named: Command | None) -> tuple[Reason, ...]:
    """Leave out the bounds of what the caller did not write: a view's own definition is not the caller's to know."""
    own = {amplifier.construct for amplifier in named.amplifiers} if named is not None else set()
    return tuple(
        reason if reason.bound is None or reason.bound.construct in own else replace(reason, bound=None)
        for reason in reasons
    )


def owner_to_ask(decision: Decision) -> str | None:
    """The team to ask: the owner of the first access that the decisive reason names, else the first owner."""
    code = denials.decisive(decision.reasons)
    for reason in decision.reasons:
        if reason.code == code and reason.access is not None and reason.access < len(decision.accesses):
            return decision.accesses[reason.access].owner or None
    return next(iter(decision.owners), None)
