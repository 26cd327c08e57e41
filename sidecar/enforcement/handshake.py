"""The revisions that open with a handshake: sessions, from ``initialize`` to DELETE, and the batches of one of them."""

import math
from functools import partial
from typing import Final

from sidecar.enforcement.shared_sessions import SharedSessions
from sidecar.enforcement.turn import Caller, Exchange, Ports
from sidecar.errors import InvalidRequest
from sidecar.identity import names_of
from sidecar.mcp import (
    Batch,
    Conversation,
    Request,
    Session,
    Sessions,
    handle_digest,
    methods,
    questions,
    revision,
    tools,
)

INSTRUCTIONS: Final = (
    "MongoDB behind a policy. A refused call says which access was refused and which team owns the policy; change the "
    'call or ask that team, do not retry it unchanged. Use connectionId "preconfigured".'
)


class Handshake:
    """Opens, finds and ends sessions, each bound to the identity that opened it."""

    def __init__(self, sessions: Sessions, ports: Ports) -> None:
        self._sessions = sessions
        self._clock = ports.clock
        self._identifiers = ports.identifiers
        self._metrics = ports.metrics
        self._shared = ports.shared_sessions
        sessions.on_evicted(partial(ports.metrics.evicted, "session"))
        if self._shared is not None:
            self._shared.on_ended_elsewhere(self._ended_elsewhere)

    def initialize(self, message: Request, caller: Caller) -> Session:
        """Open a session that belongs to this caller only.

        Raises:
            InvalidParams: not the parameters of ``initialize``.
            TooManySessions: a bound is reached, and every session that could end for it has a call under way.
        """
        requested, client_name = tools.parse_initialize(message.params)
        agreed = revision.negotiate(requested)
        session_id, ends = self._identifiers.session_id(), math.inf
        if self._shared is not None:
            session_id, ends = self._shared.seal(caller.identity, agreed, client_name, session_id)
        session = self._sessions.open(
            session_id,
            caller.identity.key,
            agreed,
            client_name,
            self._clock.monotonic(),
            names=names_of(caller.identity),
            ends=ends,
            answers=questions.answerable(message.params.get("capabilities")),
        )
        self._metrics.sessions(len(self._sessions))
        return session

    def session(self, exchange: Exchange, caller: Caller) -> Session:
        """Return the caller's own session that a request names, and note its use.

        Raises:
            SessionRequired: no session was named.
            SessionNotFound: it is not there, or not the caller's.
            McpRevisionError: the protocol header is not the session's.
            TooManySessions: another replica opened it, and there is no room for it here.
        """
        if self._shared is not None and exchange.session_id:
            self._go_on(self._shared, exchange.session_id, caller)
        session = self._sessions.find(exchange.session_id, caller.identity.key, self._clock.monotonic())
        revision.check_header(exchange.protocol, session.revision)
        return session

    def _go_on(self, shared: SharedSessions, session_id: str, caller: Caller) -> None:
        """Register a session of this caller that another replica opened, or that this one had no more room for."""
        now = self._clock.monotonic()
        if self._sessions.lasts(session_id, now):
            return
        self._sessions.forget_idle(session_id, now)
        found = shared.read(session_id, caller.identity)
        if found is None:
            return
        sealed, ends = found
        self._sessions.open(
            session_id,
            caller.identity.key,
            sealed.revision,
            sealed.client_name,
            now,
            names=names_of(caller.identity),
            ends=ends,
            initialized=True,
        )
        self._metrics.sessions(len(self._sessions))

    def _ended_elsewhere(self, digests: frozenset[bytes]) -> None:
        """End here what was ended at another replica, with its streams."""
        self._sessions.drop(lambda session_id: handle_digest(session_id) in digests)
        self._metrics.sessions(len(self._sessions))

    def conversation(self, exchange: Exchange, caller: Caller) -> Conversation:
        """Return the conversation that a request belongs to; raises as ``session`` does."""
        return Conversation.within(self.session(exchange, caller))

    def initialized(self, conversation: Conversation) -> None:
        """Note that the client finished the handshake."""
        self._sessions.initialized(conversation.session_id, conversation.key, self._clock.monotonic())

    def end(self, exchange: Exchange, caller: Caller) -> None:
        """End the caller's session and its stream (HTTP DELETE); raises as ``session`` does."""
        session = self.session(exchange, caller)
        self._sessions.close(session.id, session.key, self._clock.monotonic())
        self._metrics.sessions(len(self._sessions))

    @staticmethod
    def admit_batch(batch: Batch, session: Session) -> None:
        """Return if the batch is one of 2025-03-26, whose members are then treated as if each had come alone.

        Raises:
            InvalidRequest: it is not.
        """
        if not revision.allows_batch(session.revision):
            msg = "batch outside 2025-03-26"
            raise InvalidRequest(msg)
        if any(isinstance(member, Request) and not methods.batchable(member.method) for member in batch.members):
            msg = "a method in a batch that has to come alone"
            raise InvalidRequest(msg)
