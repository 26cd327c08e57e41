"""Obligations on the way of a call: what is sent for an allow to stand, and what of the answer goes back."""

from dataclasses import replace

from sidecar.commands import GenericTools, derive
from sidecar.enforcement.call_limits import AnswerTooLarge
from sidecar.enforcement.names import ReachableNames, cut_down
from sidecar.enforcement.turn import Turn
from sidecar.errors import CallRefused, ObligationNotSupported, UpstreamProtocolViolation
from sidecar.model import Access, Command, Decision, Namespace, RequestContext, Target, ToolCall, Trait, UpstreamResult
from sidecar.obligations import (
    GIVING_DOCUMENTS,
    Plan,
    as_find,
    most_bytes,
    plan,
    possible,
    rows_of,
    time_ms,
    with_comment,
    withheld,
    without_rows,
)
from sidecar.sites import Derivation


def planned(decision: Decision, call: ToolCall, turn: Turn, generic: GenericTools) -> Plan:
    """Return what is done for an allow of a tool call to stand.

    Raises:
        ObligationNotSupported: an obligation cannot be discharged on this call.
    """
    derived, command = turn.derived, turn.command
    if derived is None or command is None:
        raise ObligationNotSupported("a call that was not derived")
    todo = plan(decision, call, derived.through(command))
    if todo.call is not None:
        hold_to(derived, todo.call, generic)
    return todo


def unchanged(decision: Decision, rows: tuple[str, ...], command: Command) -> Plan:
    """Return the plan for what is no tool call.

    Args:
        decision: an allow of the use.
        rows: what the documents of the thing that is used were held to when it was made. As long as the caller is held
            to the same, nothing is left to be applied to them.
        command: all that the use touches.

    Raises:
        ObligationNotSupported: something else is to be done.
    """
    waits = possible(without_rows(decision) if rows == rows_of(decision) else decision, "")
    return Plan(waits=waits, time_ms=time_ms(decision, command), most_bytes=most_bytes(decision, command))


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
    more = found.traits - before.traits - {Trait.AMPLIFYING}  # a filter makes a pipeline of every $lookup
    if {*map(_touched, found.accesses)} != {*map(_touched, before.accesses)} or more:
        raise ObligationNotSupported("the rewritten call would touch something else")


def commented(call: ToolCall, turn: Turn, generic: GenericTools) -> ToolCall:
    """Return the call with its trace in a ``$comment``, where it has a place for one; else as it is.

    The comment is a label: a call that cannot be derived with it, or would touch anything else, is sent without.
    """
    if turn.derived is None:
        return call
    noted = with_comment(call, turn.derived.sites, f"mcp-sidecar trace {turn.span.trace_id}")
    if noted is None:
        return call
    try:
        hold_to(turn.derived, noted, generic)
    except ObligationNotSupported:
        return call
    return noted


def _touched(access: Access) -> tuple[str, Namespace, Target | None]:
    return access.kind, access.namespace, access.target


async def discharged(
    answer: UpstreamResult, todo: Plan, turn: Turn, names: ReachableNames, context: RequestContext
) -> UpstreamResult:
    """Return what of an answer goes back.

    Raises:
        UpstreamProtocolViolation: the server gave more documents than it was asked for.
        AnswerTooLarge: it is larger than it may be.
        SidecarError: as ``cut_down`` does.
    """
    if (
        todo.most_documents is not None
        and (answer.documents or 0) > todo.most_documents
        and turn.tool in GIVING_DOCUMENTS
    ):
        raise UpstreamProtocolViolation("more documents than were asked for")
    if todo.find_of and not answer.failed:
        answer = replace(answer, result=as_find(answer.result, todo.find_of))
    if todo.indexes is not None and not answer.failed:
        answer = replace(answer, result=todo.indexes.shown(answer.result))
    if todo.names:
        answer = await cut_down(answer, turn, names, context)
    elif todo.withholds and answer.failed:
        answer = replace(answer, result=withheld())
    if todo.most_bytes is not None and len(answer.result) > todo.most_bytes and not answer.failed:
        raise AnswerTooLarge
    return answer
