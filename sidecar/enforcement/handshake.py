"""The revisions that open with a handshake: sessions, from ``initialize`` to DELETE, and the batches of one of them."""

from typing import Final

from sidecar.enforcement.notices import Notices
from sidecar.enforcement.turn import Caller, Exchange
from sidecar.errors import InvalidRequest
from sidecar.identity import names_of
from sidecar.mcp import Batch, Conversation, Request, Session, Sessions, methods, revision, tools
from sidecar.ports import Clock, Identifiers, Metrics

INSTRUCTIONS: Final = (
    "MongoDB behind a policy. A refused call says which access was refused and which team owns the policy; change the "
    'call or ask that team, do not retry it unchanged. Use connectionId "preconfigured".'
)


class Handshake:
    """Opens, finds and ends sessions, each bound to the identity that opened it."""

    def __init__(
        self, sessions: Sessions, notices: Notices, clock: Clock, identifiers: Identifiers, metrics: Metrics
    ) -> None:
        self._sessions = sessions
        self._notices = notices
        self._clock = clock
        self._identifiers = identifiers
        self._metrics = metrics

    def initialize(self, message: Request, caller: Caller) -> Session:
        """Open a session that belongs to this caller only.

        Raises:
            InvalidParams: not the parameters of ``initialize``.
            TooManySessions: a bound is reached, and every session that could end for it has a call under way.
        """
        requested, client_name = tools.parse_initialize(message.params)
        session = self._sessions.open(
            self._identifiers.session_id(),
            caller.identity.key,
            revision.negotiate(requested),
            client_name,
            self._clock.monotonic(),
            names=names_of(caller.identity),
        )
        self._metrics.sessions(len(self._sessions))
        return session

    def session(self, exchange: Exchange, caller: Caller) -> Session:
        """Return the caller's own session that a request names, and note its use.

        Raises:
            SessionRequired: no session was named.
            SessionNotFound: it is not there, or not the caller's.
            McpRevisionError: the protocol header is not the session's.
        """
        session = self._sessions.find(exchange.session_id, caller.identity.key, self._clock.monotonic())
        revision.check_header(exchange.protocol, session.revision)
        return session

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
            msg = "initialize in a batch"
            raise InvalidRequest(msg)
