"""What is recorded of a message: audit records, counters, and the attributes of its span.

Three things that are kept apart on purpose: the audit record is evidence and its failure can stop a call; metrics are
counts with bounded labels; the span is what people look at in their tracing backend. None of them ever holds a token,
a filter's values or a document.
"""

import asyncio
from dataclasses import replace
from typing import Final

from sidecar.audit import record
from sidecar.commands import CATALOG
from sidecar.enforcement.budget import CallerBudget, RefusalBudgets
from sidecar.enforcement.confirmation import ConfirmationMissing
from sidecar.enforcement.refusals import OWN_SOURCE, owner_to_ask, reached
from sidecar.enforcement.turn import CancelledByClient, EnforcementRules, OutcomeNotRecorded, Ports, Turn
from sidecar.errors import (
    AuditUnavailable,
    CallerSuspended,
    CallRefused,
    DecisionUnavailable,
    DependencyError,
    InsufficientScope,
    NotConfirmed,
    ObligationNotSupported,
    PolicyDenied,
    SidecarError,
    TokenRejected,
    ToolGroupOff,
    UpstreamError,
    UpstreamRefused,
    ViewsUnavailable,
)
from sidecar.identity import (
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    ApprovalsUnavailable,
    TooManyApprovals,
)
from sidecar.mcp import StateRejected, denials
from sidecar.model import Access, Command, Decision, Identity, JsonObject, Reason, ToolCall, UpstreamResult
from sidecar.ports import AttributeValue, Span
from sidecar.usage import LimitReached, LimitsUnavailable

TOOL_ERROR: Final = "tool_error"


class Evidence:
    """Records what happens to messages; one instance for all of them."""

    def __init__(self, ports: Ports, rules: EnforcementRules) -> None:
        self._ports = ports
        self._rules = rules
        self._budgets = RefusalBudgets()
        self._told = CallerBudget()

    async def intent(self, turn: Turn) -> str:
        """Store what is about to be forwarded, and return the record's id.

        Raises:
            AuditUnavailable: it is not stored.
        """
        if turn.decision is None:
            msg = "an intent follows a decision"
            raise ValueError(msg)
        record_id = self._ports.identifiers.request_id()
        intended = record.intent(self._facts(turn), turn.decision, record_id=record_id, time_ns=turn.time_ns)
        turn.intended = {**intended, **turn.besides}
        with self._ports.tracer.step("audit") as span:
            try:
                receipt_id = await self._append(turn.intended, span)
            except AuditUnavailable as error:
                span.fail(error.label)
                self._ports.metrics.refused("commit", error.label)
                turn.intended = None  # an outcome without its intent would break the chain's story
                raise
        turn.span.set({"mcp_sidecar.audit.id": receipt_id})
        return receipt_id

    async def outcome(self, turn: Turn, result: UpstreamResult | None, failure: SidecarError | None) -> None:
        """Store what became of a forwarded call.

        Raises:
            OutcomeNotRecorded: it is not stored.
        """
        if turn.intended is None:
            return
        outcome = record.outcome(
            turn.intended,
            record_id=self._ports.identifiers.request_id(),
            time_ns=self._ports.clock.time_ns(),
            status=_status(result, failure),  # a result with a failure is one that was withheld
            error=failure.label if failure is not None else None if result is not None else SidecarError.label,
            documents=result.documents if result is not None else None,
            size=len(result.result) if result is not None else None,
            duration_ms=self._milliseconds(turn),
            confirmation="client" if turn.confirmed and result is not None and not result.failed else None,
            questions=_questions(turn),
        )
        if result is not None and result.failed:
            turn.error = TOOL_ERROR
            turn.span.fail(TOOL_ERROR)
        with self._ports.tracer.step("audit") as span:
            try:
                await self._append(outcome, span)
            except AuditUnavailable as error:
                span.fail(error.label)
                self._ports.metrics.refused("reply", error.label)
                raise OutcomeNotRecorded(error.detail) from error

    async def refusal(self, turn: Turn, error: SidecarError, *, stage: str) -> None:
        """Store and count a refusal; a refusal stands whether or not it can be recorded."""
        turn.span.fail(_label(error), error.public)
        self._ports.metrics.refused(stage, error.label)
        if isinstance(error, DecisionUnavailable):
            self._ports.metrics.faulted(error.fault)
        if isinstance(error, LimitReached):
            self._ports.metrics.limited(error.limit.id, error.unit)
            turn.span.set({"mcp_sidecar.limit": error.limit.id, "mcp_sidecar.limit.unit": error.unit.value})
        self.tell(turn, error)
        who = None if turn.caller is None else "\0".join(turn.identity.key)
        suppressed = self._budgets.admit(error, who, turn.exchange.client_ip, self._ports.clock.monotonic())
        if suppressed is None:
            return
        refusal = record.refusal(
            self._facts(turn),
            _label(error),
            turn.decision,
            record_id=self._ports.identifiers.request_id(),
            time_ns=turn.time_ns,
            duration_ms=self._milliseconds(turn),
            suppressed=suppressed,
            limit=reached(error) if isinstance(error, LimitReached) else None,
        )
        with self._ports.tracer.step("audit") as span:
            try:
                turn.span.set({"mcp_sidecar.audit.id": await self._append(refusal, span)})
            except AuditUnavailable as unavailable:
                span.fail(unavailable.label)
                self._ports.metrics.refused("reply", unavailable.label)

    async def approval(self, turn: Turn, about: JsonObject, error: SidecarError | None = None) -> None:
        """Store what a second person decided, before it counts; with an error, that it does not count after all.

        Raises:
            AuditUnavailable: it is not stored, and there is no error.
        """
        label = error.label if error is not None else None
        record_id, time_ns = self._ports.identifiers.request_id(), self._ports.clock.time_ns()
        entry = record.approval(self._facts(turn), about, label, record_id=record_id, time_ns=time_ns)
        with self._ports.tracer.step("audit") as span:
            try:
                turn.span.set({"mcp_sidecar.audit.id": await self._append(entry, span)})
            except AuditUnavailable as unavailable:
                span.fail(unavailable.label)
                self._ports.metrics.refused("approve", unavailable.label)
                if error is None:
                    raise

    def decided(self, turn: Turn) -> None:
        """Count a decision of policy."""
        decision = turn.decision
        if decision is not None:
            reason, owner = denials.decisive(decision.reasons), owner_to_ask(decision) or ""
            self._ports.metrics.decided(allow=decision.allow, reason=reason, owner=owner, tool=turn.tool)
        if turn.opinion is not None:
            self._ports.metrics.shadowed(turn.opinion.difference, tool=turn.tool)

    def describe(self, turn: Turn) -> None:
        """Give the message's span its name and the attributes of the contract, where it is recorded."""
        if turn.span.recording:
            turn.span.rename(f"{turn.method} {turn.tool}".strip() or "refused")
            turn.span.set(_attributes(turn))

    def tell(self, turn: Turn, error: SidecarError) -> None:
        """Log the refusal of a known caller's message, as often as a log can bear; strangers are the verifier's."""
        log = self._ports.log
        if log is None or turn.caller is None or isinstance(error, CancelledByClient):
            return
        label = _label(error)
        others = self._told.admit("\0".join(turn.identity.key), label, self._ports.clock.monotonic())
        if others is None:
            return
        facts = _told(turn, error)
        if others:
            facts["more_like_it"] = others
        log.refused(label, facts, failure=isinstance(error, DependencyError | UpstreamError))

    async def _append(self, entry: JsonObject, span: Span) -> str:
        ports = self._ports
        began = ports.clock.monotonic()
        try:
            receipt = await ports.audit.append(entry)
        finally:
            ports.metrics.audited(ports.clock.monotonic() - began)
        # A head outside the file: without it nobody could tell that records were cut off the end.
        span.set({"mcp_sidecar.audit.seq": receipt.seq, "mcp_sidecar.audit.hash": receipt.hash})
        return receipt.id

    def _milliseconds(self, turn: Turn) -> int:
        return round((self._ports.clock.monotonic() - turn.started) * 1000)

    def _facts(self, turn: Turn) -> record.Facts:
        call, conversation, session_id = turn.call, turn.conversation, turn.session_id
        return record.Facts(
            request_id=turn.request_id,
            trace_id=turn.span.trace_id,
            span_id=turn.span.span_id,
            identity=turn.caller.identity if turn.caller is not None else None,
            client_ip=turn.exchange.client_ip,
            client_name=conversation.client_name if conversation is not None else None,
            protocol=str(conversation.revision) if conversation is not None else None,
            session=record.session_digest(session_id) if session_id else None,
            method=turn.method or None,
            tool=call.name if call is not None else None,
            server=turn.server or None,
            command=turn.command,
            arguments_sha256=turn.arguments_sha256,
            shadow=turn.opinion.record() if turn.opinion is not None else None,
            arguments=call.arguments if call is not None and self._keeps_arguments(call) else None,
            question=self._question(turn),
            approval=turn.approval,
        )

    def _keeps_arguments(self, call: ToolCall) -> bool:
        """Whether records hold the arguments; never those of a tool of which nothing is known."""
        return self._rules.audit_arguments and call.name in CATALOG

    def _question(self, turn: Turn) -> str | None:
        """Return the question; one that holds values of arguments is not recorded."""
        if turn.question is None or not self._rules.audit_question:
            return None
        if turn.command is not None and turn.command.arguments:
            return None
        return record.question_text(turn.question)


def _told(turn: Turn, error: SidecarError) -> JsonObject:
    """Return what a log line says of a refused call."""
    facts: JsonObject = {"request_id": turn.request_id}
    if turn.tool:
        facts["tool"] = turn.tool
    if turn.server:
        facts["server"] = turn.server
    if isinstance(error, PolicyDenied) and turn.decision is not None:
        facts["reasons"] = [*dict.fromkeys(reason.code for reason in turn.decision.reasons)]
        facts["owner"] = owner_to_ask(turn.decision)
    if isinstance(error, LimitReached):
        facts["limit"], facts["unit"] = error.limit.id, error.unit.value
    if isinstance(error, InsufficientScope):
        facts["missing_scopes"] = [*error.missing]
    failure = isinstance(error, DependencyError | UpstreamError)
    if failure and not isinstance(error, UpstreamRefused):  # the server's own words can quote documents
        facts["why"] = error.detail
    if isinstance(error, DecisionUnavailable):
        facts["fault"] = error.fault.value
    return facts


async def settled(work: asyncio.Task[None]) -> None:
    """Wait for ``work`` to end even if the waiting is cancelled meanwhile, then let the cancellation go on."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    work.result()


def _status(result: UpstreamResult | None, failure: SidecarError | None) -> record.Status:
    if result is not None:
        return record.Status.TOOL_ERROR if result.failed else record.Status.OK
    withdrawn = isinstance(failure, CancelledByClient | CallerSuspended | NotConfirmed)
    return record.Status.CANCELLED if withdrawn else record.Status.ERROR


def _label(error: SidecarError) -> str:
    match error:
        case CallRefused():
            return error.reason
        case TokenRejected():
            return error.fault
        case StateRejected():
            return error.fault
        case _:
            return error.label


def without_tool(decision: Decision) -> Decision:
    """Return what an allow comes to whose server has the tool's group off: settings deny it, against any policy."""
    return replace(decision, allow=False, reasons=(Reason(code=ToolGroupOff.label, source=OWN_SOURCE),))


def _attributes(turn: Turn) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "mcp.method.name": turn.method or "_OTHER",
        "network.transport": "tcp" if turn.exchange.transport == "http" else "pipe",
        "client.address": turn.exchange.client_ip,
    }
    if turn.rpc_id is not None:
        attributes["jsonrpc.request.id"] = str(turn.rpc_id)
    if turn.conversation is not None:
        attributes["mcp.protocol.version"] = str(turn.conversation.revision)
    if turn.session_id:
        attributes["mcp.session.id"] = record.session_digest(turn.session_id)
    if turn.caller is not None:
        attributes |= _who(turn.caller.identity)
    if turn.tool:
        attributes |= {"gen_ai.tool.name": turn.tool, "gen_ai.operation.name": "execute_tool"}
    if turn.command is not None:
        attributes |= _what(turn.command)
    if turn.decision is not None:
        attributes |= _decision(turn.decision) | _refused(turn.decision, turn.command)
    elif turn.call is not None:
        attributes["mcp_sidecar.decision"] = "deny"
    attributes |= _approval(turn.approval)
    if turn.opinion is not None:
        attributes["mcp_sidecar.shadow"] = turn.opinion.difference.value
    return attributes


def _who(identity: Identity) -> dict[str, AttributeValue]:
    user = identity.principal
    return {"user.id": user.subject, "user.type": user.kind.value, "gen_ai.agent.id": identity.actor.id}


def _what(command: Command) -> dict[str, AttributeValue]:
    first = command.accesses[0].namespace
    attributes: dict[str, AttributeValue] = {
        "mcp_sidecar.accesses": tuple(_spell(access) for access in command.accesses)
    }
    if command.tool not in CATALOG:
        return attributes
    attributes |= {"db.system.name": "mongodb", "db.operation.name": command.tool}
    if first.database:
        attributes["db.namespace"] = first.database
    if first.collection:
        attributes["db.collection.name"] = first.collection
    return attributes


def _spell(access: Access) -> str:
    if access.target is not None:
        return f"{access.kind}:{access.target.kind}/{access.target.id}"
    return f"{access.kind}:{access.namespace.database}.{access.namespace.collection}"


def _decision(decision: Decision) -> dict[str, AttributeValue]:
    missing = decision.step_up.missing if decision.step_up is not None else ()
    return {
        **({"mcp_sidecar.missing_scopes": missing} if missing else {}),
        "mcp_sidecar.decision": "allow" if decision.allow else "deny",
        "mcp_sidecar.reasons": tuple(reason.code for reason in decision.reasons),
        "mcp_sidecar.grants": decision.grants,
        "mcp_sidecar.server": decision.server,
        "mcp_sidecar.policy.revision": decision.revision,
        "mcp_sidecar.opa.decision_id": decision.decision_id,
    }


def _approval(approval: JsonObject | None) -> dict[str, AttributeValue]:
    if approval is None:
        return {}
    return {"mcp_sidecar.approval.id": str(approval["id"]), "mcp_sidecar.approval.state": str(approval["action"])}


def _refused(decision: Decision, command: Command | None) -> dict[str, AttributeValue]:
    """Say what a deny is about: each refused access, and the team to ask."""
    if decision.allow or command is None:
        return {}
    named = dict.fromkeys(reason.access for reason in decision.reasons if reason.access is not None)
    refused = tuple(_spell(command.accesses[index]) for index in named if index < len(command.accesses))
    attributes: dict[str, AttributeValue] = {"mcp_sidecar.refused.owner": owner_to_ask(decision) or ""}
    return attributes | ({"mcp_sidecar.refused.accesses": refused} if refused else {})


def _questions(turn: Turn) -> JsonObject:
    """What was asked and answered during a call, by kind; empty where nothing was."""
    counts = {"asked": turn.carried, "answered": turn.answered}
    return {what: {kind.value: count[kind] for kind in sorted(count)} for what, count in counts.items() if count}


def stage_of(error: SidecarError) -> str:
    """The step that refused, as metrics and audit name it."""
    match error:
        case CallRefused() | ViewsUnavailable():
            return "derive"
        case PolicyDenied() | InsufficientScope() | DecisionUnavailable():
            return "authorize"
        case ObligationNotSupported():
            return "plan"
        case LimitReached() | LimitsUnavailable():
            return "limit"
        case (
            ConfirmationMissing()
            | ApprovalRequired()
            | TooManyApprovals()
            | ApprovalsUnavailable()
            | ApprovalNotFound()
            | ApprovalConflict()
        ):
            return "approve"
        case AuditUnavailable():
            return "commit"
        case UpstreamError():
            return "forward"
        case _:
            return "classify"
