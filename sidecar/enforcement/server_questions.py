"""What a server asks during a call besides a confirmation goes to the client of that call, where all of these allow it.

1. Settings: ``server_questions`` of the server names the kind.
2. The client: it declares that it can answer that kind, and the server is told of no other.
3. Policy: a question is an access of its own (``execute`` on the target ``question/KIND``), decided together with those
   of the call before the call is sent, and once more when the answer is there.

A question reaches no other client than that of its call, and an answer no other call than the one that asked. Where
there are sessions, the call waits for the answer; in 2026-07-28 it ends with the questions, and its client calls again
with the answers and the state that they were given with, which is good once and for that call of that identity.

Source: docs/adr/0022.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn

from sidecar.enforcement.discharge import unchanged
from sidecar.enforcement.open_questions import OpenQuestions
from sidecar.enforcement.request_states import RequestStates, form_of
from sidecar.enforcement.turn import EnforcementRules, Turn
from sidecar.errors import NotConfirmed, ObligationNotSupported, PolicyDenied
from sidecar.mcp import Era, InputRequired, questions
from sidecar.model import Access, AccessKind, Command, Decision, JsonObject, Namespace, Target, TargetKind
from sidecar.ports import Clock
from sidecar.questions import CallQuestions, QuestionKind, QuestionUnanswered, ServerQuestion

MAX_ROUNDS: Final = 8
"""Results of one call that ask for something, one after the other."""

_ASKABLE: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Only these may ask (MCP 2026-07-28, mrtr)."""

Decide = Callable[[Command, Turn], Awaitable[Decision]]


class ServerQuestions:
    """Says what may be asked during a call, and takes questions and answers; it keeps nothing.

    Args:
        rules: which kinds settings name, by server.
        asked: the questions that are open in sessions.
        states: what goes with questions where there is no session.
        clock: as of when an answered call is decided once more.
        decide: has a command decided; raises where it is refused.
    """

    def __init__(
        self, rules: EnforcementRules, asked: OpenQuestions, states: RequestStates, clock: Clock, decide: Decide
    ) -> None:
        self._rules = rules
        self._asked = asked
        self._states = states
        self._clock = clock
        self._decide = decide

    async def begin(self, turn: Turn, server: str) -> None:
        """Note what may be asked during a call that is allowed, and take the answers that it comes again with.

        Raises:
            StateRejected: its state is not good for this call, or no longer.
            NotConfirmed: more states come at once than can be remembered.
            StatesUnavailable: whether the state was used elsewhere cannot be told.
            QuestionUnanswered: what was asked may not be asked any more.
            DecisionUnavailable: it cannot be told what may be asked.
        """
        conversation, call = turn.conversation, turn.call
        if conversation is None or call is None or not self.concerns(turn):
            return
        possible = self._rules.server_questions.get(server, frozenset()) & conversation.answers
        if turn.era is Era.HANDSHAKE and turn.channel is None:
            possible = frozenset()
        turn.askable = frozenset([kind for kind in possible if await self._granted(kind, turn, server)])
        if turn.given is None:
            return
        carried = self._states.read_carried(turn.given, turn.identity, server, call)
        if not {kind for kind, _ in carried.asked.values()} <= turn.askable:
            raise QuestionUnanswered("what was asked may not be asked any more")
        await self._states.use(turn.given, carried)
        answers: JsonObject = {}
        for name, (kind, fields) in carried.asked.items():
            question = ServerQuestion(kind=kind, params=form_of(fields) if kind is QuestionKind.ELICITATION else {})
            answer = questions.read_answer(question, turn.given.responses.get(name))
            if answer is not None:
                answers[name] = answer
                turn.answered[kind] += 1
        turn.rounds = carried.rounds
        turn.inputs = {
            questions.RESPONSES: answers,
            **({} if carried.state is None else {questions.STATE: carried.state}),
        }

    @staticmethod
    def concerns(turn: Turn) -> bool:
        """Whether the call is one that a server may ask about: what it does is not known from the catalog."""
        return turn.method in _ASKABLE and turn.call is not None and turn.call.name in turn.generic

    def of(self, turn: Turn, server: str) -> CallQuestions | None:
        """Return what the server may ask during a call; None where that is nothing."""
        if not turn.askable:
            return None
        return CallQuestions(
            kinds=turn.askable,
            stateless=turn.era is Era.STATELESS,
            ask=partial(self._ask, turn, server),
            end=partial(self._end, turn, server),
            inputs=turn.inputs,
        )

    async def _granted(self, kind: QuestionKind, turn: Turn, server: str) -> bool:
        """Whether policy lets the server that serves the call ask this during it."""
        if turn.named is None:
            return False
        target = Target(kind=TargetKind.QUESTION, id=kind.value)
        question = Access(kind=AccessKind.EXECUTE, namespace=Namespace(), via="/name", target=target)
        command = replace(turn.named, accesses=(*turn.named.accesses, question))
        try:
            decision = await self._decide(command, turn.supposing(()))
            unchanged(decision, (), command)
        except (PolicyDenied, ObligationNotSupported):
            return False
        return decision.server == server

    async def _ask(self, turn: Turn, server: str, question: ServerQuestion) -> JsonObject:
        """Return a client's answer, where it is of the form and the call is still allowed.

        Raises:
            QuestionUnanswered: there is none.
            DecisionUnavailable: it cannot be told whether the call is still allowed.
        """
        channel, conversation = turn.channel, turn.conversation
        if channel is None or conversation is None or question.kind not in turn.askable:
            raise QuestionUnanswered("it may not be asked")
        turn.carried[question.kind] += 1
        try:
            given = await self._asked.ask(channel, conversation, questions.METHOD_OF[question.kind], question.params)
        except NotConfirmed as error:
            raise QuestionUnanswered(error.detail) from error
        turn.time_ns = self._clock.time_ns()  # hours, a grant or the token may have ended while the user thought
        answer = questions.read_answer(question, given)
        if answer is None:
            raise QuestionUnanswered("the client answered with an error, or with something else")
        if turn.identity.expires_at <= turn.time_ns / 1e9 or not await self._granted(question.kind, turn, server):
            raise QuestionUnanswered("the call is not allowed any more")
        turn.answered[question.kind] += 1
        return answer

    def _end(self, turn: Turn, server: str, asked: Mapping[str, ServerQuestion], state: str | None) -> NoReturn:
        """End the call with questions.

        Raises:
            InputRequired: always, but
            QuestionUnanswered: the call has asked too often, or asks more than a state can say.
        """
        if turn.call is None or turn.rounds >= MAX_ROUNDS:
            raise QuestionUnanswered("the call asks again and again")
        try:
            sealed = self._states.give_carried(turn.identity, server, turn.call, asked, state, turn.rounds + 1)
        except NotConfirmed as error:
            raise QuestionUnanswered(error.detail) from error
        turn.carried.update(one.kind for one in asked.values())
        raise InputRequired(asked, sealed)
