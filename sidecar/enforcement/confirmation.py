"""A server's question about a call, asked through the client that made the call (MCP 2025-11-25, elicitation).

It guards against accidents and not against the agent: the client answers, and nothing proves that a person was asked.
So a confirmation never stands in for a decision; a confirmed call is decided once more, for its user took their time.

Where there is no session, nothing waits: the call ends with the question, and its client calls again with the answer
and with what the question was given with (``request_states``). The second call is decided like the first.

An answer has no method, only the id of a question. It counts if that question was asked in the same session of the same
identity and is still open, and then once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sidecar.enforcement.channel import CallChannel
from sidecar.enforcement.request_states import RequestStates, UsedInMemory, form_of, question_digest
from sidecar.enforcement.turn import EnforcementRules, Ports, Turn
from sidecar.errors import NotConfirmed
from sidecar.mcp import Conversation, Era, HandleKeys, IdentityKey, InputRequired, Response, jsonrpc
from sidecar.model import Command, Decision, JsonObject, JsonValue, ToolCall
from sidecar.obligations import Plan
from sidecar.ports import Clock, Identifiers

MAX_ANSWER_BYTES: Final = 16 * 1024
"""What a user can fill into a form."""

Confirm = Callable[[JsonObject], Awaitable[JsonObject]]
Permissible = Callable[[ToolCall, Command, Turn], Awaitable[tuple[Decision, Plan]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenQuestion:
    key: IdentityKey
    answer: asyncio.Future[JsonObject | None]


class Confirmations:
    """The questions that clients have been asked and not answered yet: at most one of each call under way.

    Args:
        identifiers: for the ids of questions.
        clock: as of when a confirmed call is decided once more.
        wait_s: how long a client may take to answer.
        states: what goes with a question where there is no session.
    """

    def __init__(self, identifiers: Identifiers, clock: Clock, wait_s: float, states: RequestStates) -> None:
        self._identifiers = identifiers
        self._clock = clock
        self._wait_s = wait_s
        self._states = states
        self._open: dict[tuple[str, str], _OpenQuestion] = {}

    def __len__(self) -> int:
        return len(self._open)

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
            answer = await self._ask(channel, conversation, question)
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
        confirming(turn.given.answer, form_of(asked))
        turn.asked = asked

    def _asker_once(self, turn: Turn, server: str) -> Confirm | None:
        """Return what ends a call with its question, or answers the question that it ended with before."""
        conversation, call, given, asked = turn.conversation, turn.call, turn.given, turn.asked
        if conversation is None or call is None or turn.method != "tools/call":
            return None
        if given is None and not conversation.elicits:
            return None

        async def confirm(question: JsonObject) -> JsonObject:
            if turn.flight is not None:
                turn.flight.sent = False  # the server asked before it did anything, and was told to wait
            if given is None:
                raise InputRequired(question, self._states.give(turn.identity, server, call, question))
            if asked is None or question_digest(question) != asked.question:
                raise NotConfirmed("the server asks something else by now")
            answer = confirming(given.answer, question)
            turn.confirmed = True
            return answer

        return confirm

    def take(self, conversation: Conversation, response: Response) -> bool:
        """Take an answer to the question that it is of; return whether there is one."""
        if not isinstance(response.id, str):
            return False
        asked = self._open.get((conversation.session_id, response.id))
        if asked is None or asked.key != conversation.key or asked.answer.done():
            return False
        asked.answer.set_result(response.result)
        return True

    def end(self, session_id: str) -> None:
        """A session is over: its questions are not answered any more."""
        for (asked_in, _), asked in self._open.items():
            if asked_in == session_id and not asked.answer.done():
                asked.answer.set_result(None)

    async def _ask(self, channel: CallChannel, conversation: Conversation, question: JsonObject) -> JsonObject:
        number = f"ask-{self._identifiers.request_id()}"
        place = (conversation.session_id, number)
        answer: asyncio.Future[JsonObject | None] = asyncio.get_running_loop().create_future()
        self._open[place] = _OpenQuestion(key=conversation.key, answer=answer)
        try:
            if not channel.put(jsonrpc.encode_request(number, "elicitation/create", question)):
                raise NotConfirmed("there is no room for the question on the stream of the call")
            async with asyncio.timeout(self._wait_s):
                return confirming(await answer, question)
        except TimeoutError:
            channel.put(jsonrpc.encode_notification("notifications/cancelled", {"requestId": number}))
            raise NotConfirmed(f"no answer within {self._wait_s} s") from None
        finally:
            del self._open[place]


def confirmations(ports: Ports, rules: EnforcementRules) -> Confirmations:
    """Return the questions of one process.

    What it gives out is good elsewhere only where keys are shared and it is known elsewhere what was used: with the
    keys alone, each sidecar would take an answer once, and so would this one after a restart.
    """
    own = HandleKeys([sha256(ports.identifiers.session_id().encode()).digest()], "")
    used = UsedInMemory(ports.clock) if ports.used_states is None else ports.used_states
    shared = ports.shared_sessions if ports.used_states is not None else None
    keys = shared.keys if shared is not None else lambda: own
    states = RequestStates(keys, used, ports.clock, ports.identifiers, lifetime_s=rules.confirm_s)
    return Confirmations(ports.identifiers, ports.clock, rules.confirm_s, states)


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
    if not all(map(_is_plain, content.values())) or len(jsonrpc.encode(content)) > MAX_ANSWER_BYTES:
        raise NotConfirmed("the answer has values that no form has")
    return {"action": "accept", "content": content}


def _is_plain(value: JsonValue) -> bool:
    """Whether a form can have this value (MCP 2025-11-25, elicitation: primitives, and lists of choices)."""
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str | int | float | bool)
