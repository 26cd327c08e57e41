"""Tool calls: the enforcement sequence, from a call to its result or its refusal.

What may be forwarded is decided in ``_call`` and nowhere else. ``_commit`` is the only place in the code base that
builds a ``Permit`` (tests/architecture holds that), and an upstream takes nothing else.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from sidecar.commands import generic
from sidecar.enforcement import offloading, refusals, stateless
from sidecar.enforcement.approvals import Approvals
from sidecar.enforcement.call_limits import answered_within
from sidecar.enforcement.confirmation import Confirmations, request_states
from sidecar.enforcement.deciding import PolicyDecisions
from sidecar.enforcement.discharge import commented, discharged, planned, unchanged
from sidecar.enforcement.evidence import Evidence, settled, stage_of
from sidecar.enforcement.exports import Exports
from sidecar.enforcement.limits import CallsUnderWay, CountersInMemory, Limits
from sidecar.enforcement.livetools import LiveTools
from sidecar.enforcement.names import ReachableNames
from sidecar.enforcement.open_questions import OpenQuestions
from sidecar.enforcement.probing import Probing
from sidecar.enforcement.reply import Answer, Refused, Reply
from sidecar.enforcement.server_questions import ServerQuestions
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.tool_lists import EncodedLists, ShownList
from sidecar.enforcement.turn import CancelledByClient, EnforcementRules, Flight, Ports, Turn, Use, still
from sidecar.enforcement.visibility import Visibility
from sidecar.errors import (
    CallerSuspended,
    DecisionUnavailable,
    DependencyError,
    InsufficientScope,
    InvalidRequest,
    PolicyDenied,
    SidecarError,
    UnknownTool,
    UpstreamError,
    UpstreamUnreachable,
)
from sidecar.identity import CallerName
from sidecar.mcp import Era, HeaderMismatch, InputRequired, Request, RequestId, jsonrpc, mirrored, read_call, tools
from sidecar.model import (
    AccessKind,
    Command,
    Decision,
    Identity,
    JsonValue,
    Permit,
    RequestContext,
    ToolCall,
    UpstreamResult,
    VisibleTools,
)
from sidecar.obligations import Plan
from sidecar.usage import LimitReached

KEPT: Final = (DependencyError, CancelledByClient, InsufficientScope, CallerSuspended, LimitReached)
"""What is answered as it is, also about something that the caller may not see: it says nothing of that."""

READING: Final = frozenset({AccessKind.READ, AccessKind.METADATA})
"""What has no effect, so that it can be cancelled at any time; an export leaves a file."""


class ToolCalls:
    """Decides tool calls and has them carried out; its state is the calls in flight."""

    def __init__(
        self,
        ports: Ports,
        rules: EnforcementRules,
        evidence: Evidence,
        suspensions: Suspensions,
        exports: Exports,
    ) -> None:
        self._ports = ports
        self._rules = rules
        self._evidence = evidence
        self._suspensions = suspensions
        self._in_flight: dict[tuple[str, RequestId], Flight] = {}
        self._under_way = CallsUnderWay(rules.calls_per_identity)
        self._limits = Limits(CountersInMemory() if ports.usage is None else ports.usage, ports.clock, ports.metrics)
        self._generic = generic.everywhere(rules.generic_tools.values())
        self._tools = generic.only_tools(self._generic)
        self._live = LiveTools(ports.upstreams, rules.tool_groups, rules.generic_tools)
        self._policy = PolicyDecisions(ports, rules, evidence, self._live)
        states = request_states(ports, rules)
        self.asked = OpenQuestions(ports.identifiers, rules.confirm_s)
        self.confirmations = Confirmations(ports.clock, self.asked, states)
        self.approvals = Approvals(ports, suspensions, self.confirmations, rules.approval_s)
        self._questions = ServerQuestions(rules, self.asked, states, ports.clock, self._policy.allowed)
        self._probing = Probing(ports, self._commit, self._forward, self._live.require_pinned)
        self._lists = EncodedLists(rules.server_version)
        self.exports = exports
        self.require_pinned, self.unreviewed = self._live.require_pinned, self._live.unreviewed
        self._names = ReachableNames(self._policy.ask, step_ns=rules.time_step_ns)
        self._visibility = Visibility(self._policy.ask, ports.clock, ports.upstreams, rules.time_step_ns, self._generic)

    async def list_tools(self, message: Request, turn: Turn) -> bytes:
        """Answer with the tools that this caller may see, in the server's order (MCP: deterministic order)."""
        tools.check_list_params(message.params)
        turn.shown = await self.shown(turn.identity, turn.context(self._rules.environment), turn.era)
        self._still(turn)
        return jsonrpc.encode_result(message.id, turn.shown.result)

    async def shown(self, identity: Identity, context: RequestContext, era: Era) -> ShownList:
        """Return the list of one caller; raises DecisionUnavailable or UpstreamError where it cannot be told."""
        visible = await self._visibility.of(identity, context)
        result = self._lists.of(visible, await self._live.pinned(visible.servers), era)
        return ShownList(identity=identity, context=context, era=era, result=result)

    async def call_tool(self, message: Request, turn: Turn) -> Reply:
        """Answer one tool call: its result, or a refusal that a model can act on."""
        call, turn.given = read_call(message.params, turn.era, self._tools)
        turn.call, turn.generic = call, self._generic
        with self._flying(message.id, turn):
            try:
                result = (await self._call(call, turn)).result
            except (UnknownTool, HeaderMismatch):
                raise
            except InputRequired as asked:
                return self._required(message, asked)
            except SidecarError as caught:
                lacking = await self._lacking(call, turn, caught)
                if lacking is not None and self._rules.challenges and not turn.batched:
                    raise lacking from caught
                error = lacking or caught
                if not turn.committed:
                    if await self._hidden(error, turn):
                        raise UnknownTool(f"hidden from this caller; otherwise {error.label}") from error
                    await self._evidence.refusal(turn, error, stage=stage_of(error))
                else:
                    self._evidence.tell(turn, error)
                return refusals.of_call(message.id, turn, error, self._rules.server_version)
        return Answer(body=jsonrpc.encode_result(message.id, result))

    async def carry_out(
        self, message: Request, turn: Turn, call: ToolCall, use: Use, absent: SidecarError | None = None
    ) -> tuple[Reply, UpstreamResult | None]:
        """Enforce what is no tool call; return the reply, and the server's answer where there is one.

        The arguments of ``call`` are all that is sent. ``absent`` is what a caller gets who may not see it at all.
        """
        turn.call, turn.generic = call, self._generic
        with self._flying(message.id, turn):
            try:
                decision, todo = await self.admissible(turn, use)
                await self._limits.admit(decision.limits, turn.identity, call.name, turn.time_ns)
                await self._answered(turn, decision.server)
                decision, todo = await self.approvals.cleared(call, decision, todo, turn)
                permit = await self._commit(call, decision, todo, turn)
                result = await self._forward(permit, todo, turn)
                await self._limits.charge(decision.limits, turn.identity, call.name, result)
            except InputRequired as asked:
                return self._required(message, asked), None
            except SidecarError as error:
                if not turn.committed and absent is not None and await self._unseen(error, turn):
                    raise absent from error
                if not turn.committed:
                    await self._evidence.refusal(turn, error, stage=stage_of(error))
                else:
                    self._evidence.tell(turn, error)
                return Refused.explained(turn.known_conversation.era, error, refusals.challenge(turn, error)), None
        return Answer(body=jsonrpc.encode_result(message.id, result.result)), result

    async def admissible(self, turn: Turn, use: Use) -> tuple[Decision, Plan]:
        """Return the decision on a use that is allowed as it is, and what it still waits for.

        Raises:
            PolicyDenied: it is not allowed.
            ObligationNotSupported: it is only with what cannot be done to it.
            DependencyError: it cannot be told.
            SidecarError: what ``use.require`` raises.
        """
        with self._ports.tracer.step("derive"):
            turn.named = turn.command = use.derived()
        decision = await self._policy.command(turn.named, turn)
        todo = unchanged(decision, use.rows, turn.command)
        await use.require(decision.server)
        self._still(turn)
        return decision, todo

    def cancel(self, session_id: str, request_id: JsonValue) -> None:
        """End a call that the client no longer wants (MCP 2025-11-25, cancellation); an unknown id is nothing."""
        if isinstance(request_id, str | int) and not isinstance(request_id, bool):
            flight = self._in_flight.get((session_id, request_id))
            if flight is not None:
                flight.cancel()

    def suspend(self, ends: Callable[[tuple[CallerName, ...], str], bool]) -> tuple[int, int]:
        """End the calls in flight of whom ``ends`` is true, asked with the caller's names and the session's id.

        Returns:
            How many end now, and how many writes were sent already; of these the answer is withheld.
        """
        found = [flight for (session_id, _), flight in self._in_flight.items() if ends(flight.names, session_id)]
        ended = sum(flight.suspend() for flight in found)
        return ended, len(found) - ended

    def session_ended(self, session_id: str) -> None:
        """Drop what a session had: its open questions, and its exports with their files."""
        self.asked.end(session_id)
        self.exports.end(session_id)

    def forget(self) -> None:
        """Drop the lists of tools that are kept."""
        self._lists.forget()
        self._visibility.forget()

    @contextmanager
    def _flying(self, request_id: RequestId, turn: Turn) -> Iterator[None]:
        """Know a call by its session and id while it runs, so that it can be cancelled.

        Where there are no sessions, an id is known to its own request only: several clients of one identity may use the
        same one at once.

        Raises:
            InvalidRequest: the id is in flight already (an id reused in flight loses evidence: threats 1, Aileron).
            TooManyCalls: this identity has as many calls under way as it may have.
        """
        key = (turn.session_id or turn.request_id, request_id)
        if key in self._in_flight:
            raise InvalidRequest("request id is in flight already")
        with self._under_way.one(turn.identity.key):
            self._in_flight[key] = turn.take_off()
            try:
                yield
            finally:
                del self._in_flight[key]

    async def _call(self, call: ToolCall, turn: Turn) -> UpstreamResult:
        """The enforcement sequence. A step yields its value or raises; nothing is forwarded without a permit."""
        self._live.require_somewhere(call.name)
        command = await self._derive(call, turn)
        decision, todo = await self._permissible(call, command, turn)
        if turn.exchange.mirrored is not None:
            schema = self._live.schema(decision.server, call.name)
            mirrored.check_parameters(turn.exchange.mirrored, schema, call.arguments)
        await self._limits.admit(decision.limits, turn.identity, call.name, turn.time_ns)
        await self._answered(turn, decision.server)
        # The state of a call that its server may ask about is the server's: policy's own question has no place in it.
        unasked = turn.era is Era.STATELESS and self._questions.concerns(turn)
        again = None if unasked else self._permissible
        decision, todo = await self.approvals.cleared(call, decision, todo, turn, again)
        await self._probing.require(decision, todo, turn)
        sent = todo.call or call
        sent = commented(sent, turn, self._tools) if self._rules.comments else sent
        permit = await self._commit(sent, decision, todo, turn)
        try:
            result = await self._forward(permit, todo, turn)
            await self._limits.charge(decision.limits, turn.identity, call.name, result)
        except BaseException:
            self.exports.withheld(turn.exported, decision.server)
            raise
        now = self._ports.clock.monotonic()
        self.exports.note(turn.known_conversation, turn.exported, command, decision.server, now, todo.rows)
        return result

    async def _answered(self, turn: Turn, server: str) -> None:
        """Take what a call comes again with; see ``Confirmations.answered`` and ``ServerQuestions.begin``."""
        if self._questions.concerns(turn):
            await self._questions.begin(turn, server)
        else:
            await self.confirmations.answered(turn, server)

    def _required(self, message: Request, asked: InputRequired) -> Answer:
        return Answer(body=jsonrpc.encode_result(message.id, asked.result(self._rules.server_version)))

    async def _permissible(self, call: ToolCall, command: Command, turn: Turn) -> tuple[Decision, Plan]:
        decision = await self._policy.command(command, turn)
        todo = planned(decision, call, turn, self._tools)
        for tool in dict.fromkeys((call.name, (todo.call or call).name)):
            turn.reviewed = await self._live.require_pinned(decision.server, tool)
        return decision, todo

    async def _lacking(self, call: ToolCall, turn: Turn, caught: SidecarError) -> InsufficientScope | None:
        """Return what a call lacks that policy refused, if scopes are all that it lacks.

        Policy says which, and then they are tried: the same call of a token that has them, up to the commit.
        """
        step_up = turn.decision.step_up if turn.decision is not None else None
        if step_up is None or turn.named is None or turn.committed or not isinstance(caught, PolicyDenied):
            return None
        try:
            await self._permissible(call, turn.named, turn.supposing(step_up.missing))
        except SidecarError:
            return None
        return refusals.insufficient_scope(step_up, turn.identity.principal)

    async def _derive(self, call: ToolCall, turn: Turn) -> Command:
        with self._ports.tracer.step("derive"):
            turn.derived = await offloading.derived(call, self._tools, turn)
        turn.named = turn.command = turn.derived.command
        return turn.command

    async def _commit(self, call: ToolCall, decision: Decision, todo: Plan, turn: Turn) -> Permit:
        """Store the intent; only then is there a permit (law 4), and none for what is only supposed."""
        if turn.supposed:
            raise ValueError("what is only supposed permits nothing")
        if turn.flight is not None and turn.flight.cancelled:
            raise CancelledByClient
        self._still(turn)
        audit_id = await self._evidence.intent(turn)
        turn.committed = True
        return Permit(
            server=decision.server,
            call=call,
            method=turn.method,
            request_id=turn.request_id,
            audit_id=audit_id,
            traceparent=turn.span.traceparent,
            caller=(*turn.identity.key, turn.session_id or ""),
            reviewed=turn.reviewed,
            tell=turn.teller(numbers_only=todo.cuts),
            paused=turn.pause,
            confirm=self.confirmations.asker(turn, decision.server, todo, self._permissible),
            questions=self._questions.of(turn, decision.server),
            leaving=partial(self._leave, turn),
        )

    def _still(self, turn: Turn) -> None:
        """Return if the caller was not suspended since the message came; raises as ``still`` does."""
        still(self._suspensions, turn)

    def _leave(self, turn: Turn) -> None:
        """Let the call go to its server; it may have waited for its turn there since it was permitted."""
        self._still(turn)
        if turn.flight is not None:
            turn.flight.sent = True
        if turn.channel is not None and turn.channel.sent is not None:
            turn.channel.sent()

    async def _forward(self, permit: Permit, todo: Plan, turn: Turn) -> UpstreamResult:
        """Have the call carried out, and record its outcome in every case."""
        ports = self._ports
        began = ports.clock.monotonic()
        ports.metrics.in_flight(+1)
        result: UpstreamResult | None = None
        failure: SidecarError | None = None
        try:
            answer = await self._cancellable(permit, todo, turn)
            if permit.method == "tools/call" and permit.call.name == turn.tool and turn.exports:
                turn.exported = answer.result
            answer = await discharged(answer, todo, turn, self._names, turn.context(self._rules.environment))
            self._probing.note_excess(answer, todo, turn)
            result = stateless.shaped(answer, turn.era, turn.method, self._rules.server_version)
            self._still(turn)
        except SidecarError as error:
            failure = error
            raise
        except asyncio.CancelledError:
            failure = CancelledByClient("cancelled from within")
            raise
        finally:
            ports.metrics.in_flight(-1)
            ports.metrics.forwarded(permit.server, ports.clock.monotonic() - began)
            # A client or a shutdown that cancels now must not leave an effect without its outcome.
            outcome = self._evidence.outcome(turn, result, failure)
            await (outcome if self._rules.audit_at_once else settled(asyncio.create_task(outcome)))
        self._still(turn)  # the evidence was waited for
        return result

    async def _cancellable(self, permit: Permit, todo: Plan, turn: Turn) -> UpstreamResult:
        """Forward in a task of its own, so that notifications/cancelled ends the forwarding and nothing else.

        Raises:
            CancelledByClient: the client withdrew the request.
            TimeLimitReached: it took longer than policy lets it run.
            UpstreamError: the server did not answer as it should.
        """
        upstream = self._ports.upstreams.get(permit.server)
        if upstream is None or turn.flight is None:
            raise UpstreamUnreachable
        if turn.flight.cancelled:
            raise CancelledByClient  # it came while the intent was being stored
        self._still(turn)
        turn.flight.reads_only = turn.command is not None and {one.kind for one in turn.command.accesses} <= READING
        with self._ports.tracer.step("forward", client=True) as span:
            task = turn.flight.task = asyncio.create_task(upstream.forward(permit))
            try:
                if todo.time_ms is None:
                    return await task
                return await answered_within(todo.time_ms, task)
            except UpstreamError as error:
                span.fail(error.label)
                if turn.flight.suspended:
                    raise CallerSuspended from error
                raise
            except asyncio.CancelledError:
                span.fail(CallerSuspended.label if turn.flight.suspended else CancelledByClient.label)
                if turn.flight.suspended:
                    raise CallerSuspended from None
                if turn.flight.cancelled:
                    raise CancelledByClient from None
                raise

    async def visible(self, turn: Turn) -> VisibleTools:
        """Ask what this caller may see at all; raises DecisionUnavailable where it cannot be told."""
        return await self._visibility.of(turn.identity, turn.context(self._rules.environment))

    async def _hidden(self, error: SidecarError, turn: Turn) -> bool:
        """Whether the refused tool is not on this caller's list, and so must be answered as unknown."""
        return await self._unseen(error, turn, live=True)

    async def _unseen(self, error: SidecarError, turn: Turn, *, live: bool = False) -> bool:
        if isinstance(error, KEPT):
            return False
        try:
            visible = await self.visible(turn)
            if turn.tool not in visible.tools:
                return True
            return live and not await self._live.offers(turn.tool, visible.servers)
        except (DecisionUnavailable, UpstreamError):
            return False
