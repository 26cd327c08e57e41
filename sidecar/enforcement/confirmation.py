"""A server's question about a call, asked through the client that made the call (MCP 2025-11-25, elicitation).

It guards against accidents and not against the agent: the client answers, and nothing proves that a person was asked.
So a confirmation never stands in for a decision; a confirmed call is decided once more, for its user took their time.

Where there is no session, nothing waits: the call ends with the question, and its client calls again with the answer
and with what the question was given with (``request_states``). The second call is decided like the first.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from sidecar.enforcement.channel import CallChannel
from sidecar.enforcement.open_questions import OpenQuestions
from sidecar.enforcement.request_states import RequestStates, UsedInMemory, call_digest, form_of, question_digest
from sidecar.enforcement.turn import EnforcementRules, Ports, Turn
from sidecar.errors import NotConfirmed
from sidecar.mcp import Conversation, Era, HandleKeys, InputRequired, jsonrpc, questions
from sidecar.model import Command, Decision, JsonObject, ToolCall
from sidecar.obligations import Plan
from sidecar.ports import Clock
from sidecar.questions import QuestionKind

_METHOD: Final = questions.METHOD_OF[QuestionKind.ELICITATION]

CONFIRMATION: Final = "confirmation"
YES: Final = "Yes"
"""The field of policy's own question, and the answer that confirms."""

Confirm = Callable[[JsonObject], Awaitable[JsonObject]]
Permissible = Callable[[ToolCall, Command, Turn], Awaitable[tuple[Decision, Plan]]]


class ConfirmationMissing(NotConfirmed):
    """Policy asks that the user confirms, and the user did not, or could not be asked."""

    label = "confirmation_missing"
    public = (
        "Policy asks that the user confirms this call through the client (elicitation). There was no confirmation, so "
        "nothing was done; a client that cannot ask its user, or a batch, cannot make this call."
    )


class Confirmations:
    """Has calls confirmed: at most one question of each call under way.

    Args:
        clock: as of when a confirmed call is decided once more.
        asked: the questions that are open in sessions.
        states: what goes with a question where there is no session.
    """

    def __init__(self, clock: Clock, asked: OpenQuestions, states: RequestStates) -> None:
        self._clock = clock
        self._asked = asked
        self._states = states

    def asker(self, turn: Turn, server: str, todo: Plan, permissible: Permissible) -> Confirm | None:
        """Return what takes a server's question about a call to its client; None where that cannot be asked.

        Args:
            turn: the call's.
            server: which server it was allowed at.
            todo: what is done for that allow to stand.
            permissible: decides the call; raises where it is refused.
        """
        if turn.era is Era.STATELESS:
            return self._asker_once(turn, server)
        channel, conversation, call, command = turn.channel, turn.conversation, turn.call, turn.named
        if channel is None or conversation is None or call is None or command is None or not conversation.elicits:
            return None

        async def confirm(question: JsonObject) -> JsonObject:
            if turn.flight is not None:
                turn.flight.sent = False  # the server asked before it did anything, and was told to wait
            answer = confirming(await self._asked.ask(channel, conversation, _METHOD, question), question)
            turn.time_ns = self._clock.time_ns()  # hours, a grant or the token may have ended while the user thought
            if turn.identity.expires_at <= turn.time_ns / 1e9:
                raise NotConfirmed("the token that the call came with has expired")
            decision, now = await permissible(call, command, turn)
            if decision.server != server:
                raise NotConfirmed("another server serves the call by now")
            if now != todo:
                raise NotConfirmed("the call is allowed under other conditions by now")
            turn.confirmed = True
            return answer

        return confirm

    async def answered(self, turn: Turn, server: str) -> None:
        """Return if a call comes with no answer, or with one that confirms; the state of it is used up by then.

        Raises:
            StateRejected: its state is not good for this call, or no longer.
            NotConfirmed: the answer does not confirm, or more come at once than can be remembered.
            StatesUnavailable: whether the state was used elsewhere cannot be told.
        """
        if turn.given is None or turn.call is None:
            return
        asked = self._states.read(turn.given, turn.identity, server, turn.call)
        await self._states.use(turn.given, asked)
        confirming(turn.given.answer, form_of(asked.fields))
        turn.asked = asked

    async def own(self, turn: Turn, server: str, question: JsonObject) -> None:
        """Return once the user has confirmed, through the client, what policy wants confirmed.

        Where there is no session, the call ends with the question, and is called again with the answer; where the
        server then asks something too, the state of that question says that policy's was answered.

        Raises:
            InputRequired: its client is to ask, and to call again.
            NotConfirmed: there was no confirmation, or the client cannot ask.
        """
        conversation, call = turn.conversation, turn.call
        if conversation is None or call is None or turn.method != "tools/call":
            raise ConfirmationMissing("it is no tool call")
        if turn.era is Era.STATELESS:
            if turn.asked is not None and turn.asked.call == call_digest(server, call, confirmed=True):
                turn.confirmed = True
                return
            answer = self._own_answer(turn, server, question)
        elif turn.channel is None or not conversation.elicits:
            raise ConfirmationMissing("the client offers no elicitation, or the call is one of a batch")
        else:
            answer = await self._told(turn.channel, conversation, question)
        content = answer["content"]
        if not isinstance(content, dict) or content.get(CONFIRMATION) != YES:
            raise ConfirmationMissing("the user said no")
        turn.confirmed = True
        turn.time_ns = self._clock.time_ns()  # hours, a grant or the token may have ended while the user thought
        if turn.identity.expires_at <= turn.time_ns / 1e9:
            raise ConfirmationMissing("the token that the call came with has expired")

    async def _told(self, channel: CallChannel, conversation: Conversation, question: JsonObject) -> JsonObject:
        try:
            return confirming(await self._asked.ask(channel, conversation, _METHOD, question), question)
        except NotConfirmed as error:
            raise ConfirmationMissing(error.detail) from error

    def _own_answer(self, turn: Turn, server: str, question: JsonObject) -> JsonObject:
        """Return the answer to policy's question that a call came with, and take it out of the turn."""
        if turn.call is None or turn.conversation is None:
            raise ConfirmationMissing("it is no tool call")
        if turn.given is None:
            if not turn.conversation.elicits:
                raise ConfirmationMissing("the client offers no elicitation")
            state = self._states.give(turn.identity, server, turn.call, question)
            raise InputRequired.confirmation(question, state)
        if turn.asked is None or question_digest(question) != turn.asked.question:
            raise ConfirmationMissing("something else was asked")
        answer = confirming(turn.given.answer, question)
        turn.given = turn.asked = None  # a question of the server's is another one
        return answer

    def _asker_once(self, turn: Turn, server: str) -> Confirm | None:
        """Return what ends a call with its question, or answers the question that it ended with before."""
        conversation, call, given, asked = turn.conversation, turn.call, turn.given, turn.asked
        if conversation is None or call is None or turn.method != "tools/call":
            return None
        if given is None and not conversation.elicits:
            return None
        own = turn.confirmed

        async def confirm(question: JsonObject) -> JsonObject:
            if turn.flight is not None:
                turn.flight.sent = False  # the server asked before it did anything, and was told to wait
            if given is None:
                state = self._states.give(turn.identity, server, call, question, confirmed=own)
                raise InputRequired.confirmation(question, state)
            if asked is None or question_digest(question) != asked.question:
                raise NotConfirmed("the server asks something else by now")
            answer = confirming(given.answer, question)
            turn.confirmed = True
            return answer

        return confirm


def request_states(ports: Ports, rules: EnforcementRules) -> RequestStates:
    """Return the request states of one process.

    What it gives out is good elsewhere only where keys are shared and it is known elsewhere what was used: with the
    keys alone, each sidecar would take an answer once, and so would this one after a restart.
    """
    own = HandleKeys([sha256(ports.identifiers.session_id().encode()).digest()], "")
    used = UsedInMemory(ports.clock) if ports.used_states is None else ports.used_states
    shared = ports.shared_sessions if ports.used_states is not None else None
    keys = shared.keys if shared is not None else lambda: own
    return RequestStates(keys, used, ports.clock, ports.identifiers, lifetime_s=rules.confirm_s)


def confirming(answer: JsonObject | None, question: JsonObject) -> JsonObject:
    """Return an answer that confirms, reduced to what was asked for.

    Raises:
        NotConfirmed: it does not, or is not of the form.
    """
    if answer is None or answer.get("action") != "accept":
        raise NotConfirmed("the client answered with something else than accept")
    content = answer.get("content")
    schema = question.get("requestedSchema")
    asked = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(content, dict) or not isinstance(asked, dict) or not content.keys() <= asked.keys():
        raise NotConfirmed("the answer is not of the form that was asked for")
    if not all(map(questions.is_plain, content.values())) or len(jsonrpc.encode(content)) > questions.MAX_FORM_BYTES:
        raise NotConfirmed("the answer has values that no form has")
    return {"action": "accept", "content": content}
