"""What a client of 2026-07-28 is given with a question, and what it has to come back with: good once, for that call."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final, TypeVar

from sidecar.audit import record
from sidecar.errors import NotConfirmed
from sidecar.mcp import (
    CarriedQuestions,
    GivenInput,
    HandleKeys,
    SealedQuestion,
    StateFault,
    StateRejected,
    identity_digest,
    jsonrpc,
)
from sidecar.model import Identity, JsonObject, ToolCall
from sidecar.ports import Clock, Identifiers, UsedStates
from sidecar.questions import ServerQuestion

_Sealed = TypeVar("_Sealed", SealedQuestion, CarriedQuestions)

MAX_USED: Final = 20_000
"""About 4 MB. In the two minutes that a state lives, that is 160 confirmed calls a second."""

SHARE: Final = 8
"""The states of one identity are at most this part of all."""


class UsedInMemory:
    """Implements ``ports.UsedStates`` for one process. What is full refuses: to forget would be to allow a second use.

    Args:
        clock: the only source of time.
        most: states that are remembered.
    """

    def __init__(self, clock: Clock, most: int = MAX_USED) -> None:
        self._clock = clock
        self._most = most
        self._until: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._of: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._until)

    async def is_first(self, state: bytes, identity: bytes, until: float) -> bool:
        """See ``ports.UsedStates``."""
        self._forget(self._clock.time_ns() / 1e9, most=len(self._until) if self._full(identity) else 2)
        if state in self._until:
            return False
        if self._full(identity):
            raise NotConfirmed("too many confirmations at once")
        self._until[state] = (until, identity)
        self._of[identity] += 1
        return True

    def _full(self, identity: bytes) -> bool:
        return len(self._until) >= self._most or self._of[identity] >= max(1, self._most // SHARE)

    def _forget(self, now: float, most: int) -> None:
        """Drop states that have expired, the oldest first; a few at a time keep it small."""
        for _ in range(min(most, len(self._until))):
            state, (until, identity) = next(iter(self._until.items()))
            if until >= now:
                return
            del self._until[state]
            self._of[identity] -= 1
            if not self._of[identity]:
                del self._of[identity]


class RequestStates:
    """Gives out request states, and takes each back once.

    Args:
        keys: the keys as they are now.
        used: which states were used.
        clock: the only source of time.
        identifiers: never the same twice.
        lifetime_s: how long a user may take to answer.
    """

    def __init__(
        self,
        keys: Callable[[], HandleKeys],
        used: UsedStates,
        clock: Clock,
        identifiers: Identifiers,
        *,
        lifetime_s: float,
    ) -> None:
        self._keys = keys
        self._used = used
        self._clock = clock
        self._identifiers = identifiers
        self.lifetime_s = lifetime_s

    def give(
        self, identity: Identity, server: str, call: ToolCall, question: JsonObject, *, confirmed: bool = False
    ) -> str:
        """Return the state of a question about a call.

        Args:
            identity: who is asked.
            server: who serves the call.
            call: about which call.
            question: what is asked.
            confirmed: its user has confirmed it to policy already, and now the server asks.

        Raises:
            NotConfirmed: its form is larger than a state can say.
        """
        asked = SealedQuestion(
            identity=identity_digest(identity.key),
            call=call_digest(server, call, confirmed=confirmed),
            question=question_digest(question),
            fields=_fields(question),
            expires=int(self._clock.time_ns() / 1e9 + self.lifetime_s),
        )
        try:
            return self._keys().seal_question(asked, self._identifiers.session_id())
        except ValueError as error:
            raise NotConfirmed("the form of the question is too large") from error

    def read(self, given: GivenInput, identity: Identity, server: str, call: ToolCall) -> SealedQuestion:
        """Return what was asked about this call of this identity.

        Raises:
            StateRejected: the state is of something else, expired, or no state.
        """
        return self._good(self._keys().read_question(given.state), identity, server, call)

    def _good(self, asked: _Sealed | None, identity: Identity, server: str, call: ToolCall) -> _Sealed:
        if asked is None:
            raise StateRejected(StateFault.UNREADABLE)
        if asked.identity != identity_digest(identity.key) or asked.call not in {
            call_digest(server, call),
            call_digest(server, call, confirmed=True),
        }:
            raise StateRejected(StateFault.FOREIGN)
        left = asked.expires - self._clock.time_ns() / 1e9
        if not 0 < left <= self.lifetime_s:  # a lifetime that was made shorter counts for the states that are there
            raise StateRejected(StateFault.EXPIRED)
        return asked

    def give_carried(
        self,
        identity: Identity,
        server: str,
        call: ToolCall,
        asked: Mapping[str, ServerQuestion],
        state: str | None,
        rounds: int,
    ) -> str:
        """Return the state of questions that are taken to a client.

        Args:
            identity: who is asked.
            server: who asks.
            call: about which call.
            asked: the questions, by name.
            state: the server's own.
            rounds: how many results of this call have asked for something, this one included.

        Raises:
            NotConfirmed: there is more than a state can say.
        """
        carried = CarriedQuestions(
            identity=identity_digest(identity.key),
            call=call_digest(server, call),
            expires=int(self._clock.time_ns() / 1e9 + self.lifetime_s),
            asked={name: (one.kind, _fields(one.params)) for name, one in asked.items()},
            state=state,
            rounds=rounds,
        )
        try:
            return self._keys().seal_carried(carried, self._identifiers.session_id())
        except ValueError as error:
            raise NotConfirmed("the questions are too large") from error

    def read_carried(self, given: GivenInput, identity: Identity, server: str, call: ToolCall) -> CarriedQuestions:
        """Return what was asked about this call of this identity; raises as ``read`` does."""
        return self._good(self._keys().read_carried(given.state), identity, server, call)

    async def use(self, given: GivenInput, asked: SealedQuestion | CarriedQuestions) -> None:
        """Return if a state is used for the first time.

        Raises:
            StateRejected: it was used before.
            NotConfirmed: more at once than can be remembered.
            StatesUnavailable: whether another sidecar has seen it cannot be told.
        """
        mark = sha256(b"request state " + given.state.encode()).digest()
        if not await self._used.is_first(mark, asked.identity, asked.expires):
            raise StateRejected(StateFault.USED)


def call_digest(server: str, call: ToolCall, *, confirmed: bool = False) -> bytes:
    """Return 32 bytes that stand for a call at a server; equal arguments, however they are spelled, are equal here.

    Other 32 bytes stand for the same call once its user has ``confirmed`` it to policy.
    """
    parts: JsonObject = {"server": server, "tool": call.name, "arguments": record.arguments_digest(call.arguments)}
    if confirmed:
        parts["confirmed"] = True
    return sha256(record.arguments_digest(parts).encode()).digest()


def question_digest(question: JsonObject) -> bytes:
    """Return 32 bytes that stand for a question."""
    return sha256(jsonrpc.encode(question)).digest()


def form_of(fields: Iterable[str]) -> JsonObject:
    """Return as much of a question as its state says: which fields its form has."""
    return {"requestedSchema": {"properties": dict.fromkeys(fields)}}


def _fields(question: JsonObject) -> tuple[str, ...]:
    schema = question.get("requestedSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return tuple(properties) if isinstance(properties, dict) else ()
