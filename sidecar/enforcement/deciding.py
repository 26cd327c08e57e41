"""What policy says of a command: the question, a candidate's opinion beside it, and what an allow comes to."""

import asyncio
from collections.abc import Callable
from functools import partial

from sidecar.commands import databases
from sidecar.enforcement.evidence import Evidence, without_tool
from sidecar.enforcement.livetools import LiveTools
from sidecar.enforcement.shadow import Shadow, read_answer
from sidecar.enforcement.turn import CancelledByClient, EnforcementRules, Flight, Ports, Turn
from sidecar.enforcement.views import require_open, through_views
from sidecar.errors import CallerSuspended, CommandNotDerivable, DecisionUnavailable, PolicyDenied, ToolGroupOff
from sidecar.mcp import methods
from sidecar.model import AccessRequest, Command, Decision, JsonObject
from sidecar.policy import document
from sidecar.ports import PdpAnswer, Question


class PolicyDecisions:
    """Has commands decided, and notes the answers in their turn."""

    def __init__(self, ports: Ports, rules: EnforcementRules, evidence: Evidence, live: LiveTools) -> None:
        self._ports = ports
        self._rules = rules
        self._evidence = evidence
        self._live = live

    async def command(self, named: Command, turn: Turn) -> Decision:
        """Have the command decided, with what it reads through views.

        The views of a database that nothing is known of are looked up only for a caller who may do what the call names:
        else anybody could have any name looked up. To read more than that takes more rights, never fewer, so a refusal
        by name alone is final.
        """
        catalog = self._ports.views
        if catalog is None:
            return await self.allowed(named, turn)
        decision = None if catalog.knows(databases(named)) else await self.allowed(named, turn)
        with self._ports.tracer.step("derive"):
            command = turn.command = await through_views(named, catalog, turn.identity.key)
        if decision is not None and command is named:
            return decision
        return await self.allowed(command, turn)

    async def allowed(self, command: Command, turn: Turn) -> Decision:
        """Return the decision on exactly this command, if it is an allow.

        Raises:
            PolicyDenied: it is not.
            CommandNotDerivable: the server that it is allowed at has no such tool.
            DecisionUnavailable: it cannot be told.
        """
        require_open(command, self._rules.own_database)
        request = AccessRequest(
            identity=turn.identity,
            method=methods.decided_as(turn.method),
            command=command,
            context=turn.context(self._rules.environment),
        )
        question = turn.question = document.decision_document(request, step_ns=self._rules.time_step_ns)
        read = partial(read_answer, accesses=len(command.accesses), servers=self._ports.upstreams.keys())
        decision = await self._decide(question, read, turn)
        off = decision.allow and not self._live.is_on(decision.server, command.tool)
        decision = turn.decision = without_tool(decision) if off else decision
        if not turn.supposed:
            self._evidence.decided(turn)
        if off:
            raise CommandNotDerivable(ToolGroupOff.label, "The server that serves this call has no such tool.")
        if not decision.allow:
            raise PolicyDenied
        turn.server = decision.server
        return decision

    async def _decide(self, question: JsonObject, read: Callable[[PdpAnswer], Decision], turn: Turn) -> Decision:
        """Ask the serving policy set, and the candidate beside it where there is one."""
        candidate = None if turn.supposed else self._ports.candidate
        shadow = Shadow(candidate, question, read) if candidate is not None else None
        try:
            decision = read(await self._asked(question, turn.flight))
            if shadow is not None:
                turn.opinion = await shadow.compare(decision)
        finally:
            if shadow is not None:
                await shadow.dismiss()
        return decision

    async def _asked(self, question: JsonObject, flight: Flight | None) -> PdpAnswer:
        """Ask about a call, which its end ends: who has left, or was suspended, waits for no turn at OPA."""
        if flight is None or flight.asking is not None:
            return await self.ask(Question.DECISION, question)
        flight.asking = asyncio.current_task()
        try:
            return await self.ask(Question.DECISION, question)
        except asyncio.CancelledError:
            if flight.was_withdrawn():
                raise CallerSuspended if flight.suspended else CancelledByClient from None
            raise
        finally:
            flight.asking = None

    async def ask(self, question: Question, content: JsonObject) -> PdpAnswer:
        """Put a question to OPA; raises DecisionUnavailable where there is no answer."""
        with self._ports.tracer.step("authorize", client=True) as span:
            began = self._ports.clock.monotonic()
            try:
                return await self._ports.decisions.ask(question, content)
            except DecisionUnavailable as error:
                span.fail(error.label, error.detail)
                raise
            finally:
                self._ports.metrics.asked(self._ports.clock.monotonic() - began)
