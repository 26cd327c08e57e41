"""Where second persons see the calls that wait for them, and decide them.

What a person may approve is asked of policy for each call, with the token that they come with; every other call is
answered as one that does not exist. A decision is recorded before it counts.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from sidecar.audit import record
from sidecar.enforcement.approvals import given
from sidecar.enforcement.evidence import Evidence, stage_of
from sidecar.enforcement.limits import CallsUnderWay
from sidecar.enforcement.reply import Answer, Refused
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Caller, EnforcementRules, Exchange, Ports, Turn
from sidecar.errors import DecisionUnavailable, InvalidRequest, SidecarError
from sidecar.identity import Approval, ApprovalConflict, ApprovalNotFound, ApprovalState, ApprovalStore, Party
from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject, JsonValue
from sidecar.policy import ApproverVerdict, approver_document, read_approver
from sidecar.ports import Question, Span

LONGEST_REASON: Final = 256
AT_ONCE: Final = 2
"""Requests of one person that are under way; a list asks policy once for each call that waits."""

METHOD: Final = "approvals"
"""What records, spans and policy call a request to the desk; MCP has no method of this name."""

_Work = Callable[[Turn], Awaitable[JsonObject]]


class ApprovalDesk:
    """Shows and decides approvals.

    Args:
        ports: the store, the PDP and the evidence.
        rules: what an operator sets.
        evidence: records what is decided and what is refused.
        suspensions: who is suspended.
        store: where the approvals are.
        turn: begins to gather what is known of one request.
    """

    def __init__(  # one parameter per collaborator
        self,
        ports: Ports,
        rules: EnforcementRules,
        evidence: Evidence,
        suspensions: Suspensions,
        store: ApprovalStore,
        turn: Callable[[Span, Exchange, Caller, str], Turn],
    ) -> None:
        self._ports = ports
        self._rules = rules
        self._evidence = evidence
        self._suspensions = suspensions
        self._store = store
        self._turn = turn
        self._under_way = CallsUnderWay(AT_ONCE)

    async def listed(self, exchange: Exchange, caller: Caller) -> Answer | Refused:
        """Answer with the calls that wait and that this person may approve, without their arguments."""

        async def work(turn: Turn) -> JsonObject:
            found: list[JsonValue] = []
            incomplete = False
            for approval in await self._store.waiting():
                try:
                    if (await self._verdict(approval, turn)).may:
                        found.append(_summary(approval))
                except ApprovalNotFound:
                    continue
                except DecisionUnavailable:  # a team whose policy fails must not hide the calls of the others
                    incomplete = True
            return {"approvals": found, "incomplete": incomplete}

        return await self._answer(work, exchange, caller)

    async def shown(self, approval_id: str, exchange: Exchange, caller: Caller) -> Answer | Refused:
        """Answer with one call and its arguments: who approves it has to know what it does. That is recorded."""

        async def work(turn: Turn) -> JsonObject:
            approval, _ = await self._theirs(approval_id, turn)
            await self._evidence.approval(turn, {"action": "shown", "reason": "", **_summary(approval)})
            return {**_summary(approval), "arguments": approval.arguments, **given(approval)}

        return await self._answer(work, exchange, caller)

    async def decided(
        self, approval_id: str, asked: JsonObject, exchange: Exchange, caller: Caller
    ) -> Answer | Refused:
        """Approve or deny one call.

        Args:
            approval_id: which.
            asked: ``decision``, which is ``approve`` or ``deny``, and a ``reason`` for the evidence where there is one.
            exchange: how the request came.
            caller: who decides.
        """

        async def work(turn: Turn) -> JsonObject:
            approve, reason = _read(asked)
            approval, verdict = await self._theirs(approval_id, turn)
            if approval.state is not ApprovalState.WAITING:
                raise ApprovalConflict("it was decided before")
            if approve and verdict.revision != approval.revision:
                await self._store.remove(approval)
                self._ports.metrics.approval("voided")
                raise ApprovalConflict("the policy set is another one by now")
            state = ApprovalState.APPROVED if approve else ApprovalState.DENIED
            now = int(self._ports.clock.time_ns() / 1e9)
            expires = now + self._rules.approval_s if approve else approval.expires
            decided = approval.decided_by(Party.of(turn.identity), state, now, expires)
            about = _about(decided, reason)
            await self._evidence.approval(turn, about)
            try:
                self._suspensions.require(turn.identity)  # the evidence was waited for
                if not await self._store.decide(decided):
                    raise ApprovalConflict("another person decided it at the same moment")
            except SidecarError as error:
                await self._evidence.approval(turn, about, error)
                raise
            self._ports.metrics.approval(state.value)
            return {**_summary(decided), **given(decided)}

        return await self._answer(work, exchange, caller)

    async def _answer(self, work: _Work, exchange: Exchange, caller: Caller) -> Answer | Refused:
        """Open the span of one request, and see that every way out of it is counted."""
        ports = self._ports
        number = ports.identifiers.request_id()
        opened = ports.tracer.server(
            METHOD, traceparent=exchange.traceparent, link=None, start_ns=caller.began_ns, request_id=number
        )
        with opened as span:
            turn = self._turn(span, exchange, caller, number)
            turn.method = METHOD
            error: SidecarError | None = None
            try:
                with self._under_way.one(turn.identity.key):
                    found = await work(turn)
                    self._suspensions.require(turn.identity)
                return Answer(body=jsonrpc.encode(found))
            except SidecarError as caught:
                error = caught
                await self._evidence.refusal(turn, error, stage=stage_of(error))
                return Refused.of(error, era=exchange.era)
            finally:
                self._evidence.describe(turn)
                seconds = ports.clock.monotonic() - turn.started
                ports.metrics.operation(METHOD, "", error.label if error else "", seconds)

    async def _theirs(self, approval_id: str, turn: Turn) -> tuple[Approval, ApproverVerdict]:
        """Return one that this person may approve.

        Raises:
            ApprovalNotFound: there is none, or it is not theirs to give; both are answered alike.
        """
        approval = await self._store.get(approval_id)
        if approval is None:
            raise ApprovalNotFound
        verdict = await self._verdict(approval, turn)
        if not verdict.may:
            raise ApprovalNotFound
        turn.approval = {"action": "shown", "id": approval.id}
        return approval, verdict

    async def _verdict(self, approval: Approval, turn: Turn) -> ApproverVerdict:
        """Ask policy whether this person may approve.

        Raises:
            ApprovalNotFound: it is their own, has expired, or is of a suspended caller.
            DecisionUnavailable: it cannot be told.
        """
        requester = approval.requester
        ended = approval.over(self._ports.clock.time_ns() / 1e9)
        if ended or requester.is_person(turn.identity) or any(map(self._suspensions.in_force, requester.names)):
            raise ApprovalNotFound
        document = approver_document(
            turn.identity,
            turn.context(self._rules.environment),
            server=approval.server,
            requester=(requester.issuer, requester.subject, requester.agent),
            accesses=approval.waiting_accesses,
            step_ns=self._rules.time_step_ns,
        )
        with self._ports.tracer.step("authorize", client=True):
            began = self._ports.clock.monotonic()
            try:
                answer = await self._ports.decisions.ask(Question.APPROVER, document)
            finally:
                self._ports.metrics.asked(self._ports.clock.monotonic() - began)
        return read_approver(answer.result, revision=answer.revision)


def approval_desk(
    ports: Ports,
    rules: EnforcementRules,
    evidence: Evidence,
    suspensions: Suspensions,
    turn: Callable[[Span, Exchange, Caller, str], Turn],
) -> ApprovalDesk | None:
    """Return the desk; None where no approvals are kept."""
    store = ports.approvals
    return None if store is None else ApprovalDesk(ports, rules, evidence, suspensions, store, turn)


def _read(asked: JsonObject) -> tuple[bool, str]:
    """Read what is to be done; raises InvalidRequest where it is not of the form."""
    decision, reason = asked.get("decision"), asked.get("reason", "")
    known = asked.keys() <= {"decision", "reason"} and decision in {"approve", "deny"}
    if not known or not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise InvalidRequest(f"a decision is approve or deny, with a reason of at most {LONGEST_REASON} characters")
    return decision == "approve", reason


def _summary(approval: Approval) -> JsonObject:
    requester = approval.requester
    return {
        "id": approval.id,
        "state": approval.state.value,
        "requested": record.rfc3339(approval.requested * 10**9),
        "expires": record.rfc3339(approval.expires * 10**9),
        "requester": {"issuer": requester.issuer, "id": requester.subject, "agent": requester.agent},
        "server": approval.server,
        "method": approval.method,
        "tool": approval.tool,
        "accesses": [*approval.accesses],
        "arguments_sha256": approval.arguments_sha256,
        "revision": approval.revision,
        "request_id": approval.request_id,
        "trace_id": approval.trace_id,
    }


def _about(decided: Approval, reason: str) -> JsonObject:
    """Return what a record says of a decision; the call's own arguments are in the store only, until it expires."""
    return {"action": decided.state.value, "reason": reason, **_summary(decided)}
