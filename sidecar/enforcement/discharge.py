"""Obligations on the way of a call: what is sent for an allow to stand, and what of the answer goes back."""

from sidecar.commands import GenericTools, derive
from sidecar.enforcement.names import ReachableNames, cut_down
from sidecar.enforcement.turn import Turn
from sidecar.errors import CallRefused, ObligationNotSupported
from sidecar.model import Access, Decision, Namespace, RequestContext, Target, ToolCall, UpstreamResult
from sidecar.obligations import Plan, plan
from sidecar.sites import Derivation


def planned(decision: Decision, call: ToolCall, turn: Turn, generic: GenericTools) -> Plan:
    """Return what is done for an allow of a tool call to stand.

    Raises:
        ObligationNotSupported: an obligation cannot be discharged on this call.
    """
    todo = plan(decision, call.name)
    if todo.call is not None:
        if turn.derived is None:
            raise ObligationNotSupported("a call that was not derived")
        hold_to(turn.derived, todo.call, generic)
    return todo


def hold_to(decided: Derivation, rewritten: ToolCall, generic: GenericTools) -> None:
    """Return if a rewritten call touches nothing but what was decided, as the walker that derived the call reads it.

    Raises:
        ObligationNotSupported: it would, or cannot be derived.
    """
    try:
        found = derive(rewritten, generic).command
    except CallRefused as error:
        raise ObligationNotSupported(f"the rewritten call cannot be derived: {error.reason}") from error
    before = decided.command
    if {*map(_touched, found.accesses)} != {*map(_touched, before.accesses)} or found.traits - before.traits:
        raise ObligationNotSupported("the rewritten call would touch something else")


def _touched(access: Access) -> tuple[str, Namespace, Target | None]:
    return access.kind, access.namespace, access.target


async def discharged(
    answer: UpstreamResult, todo: Plan, turn: Turn, names: ReachableNames, context: RequestContext
) -> UpstreamResult:
    """Return what of an answer goes back; raises as ``cut_down`` does."""
    return await cut_down(answer, turn, names, context) if todo.names else answer
