"""Messages: from one message of a client to its reply.

This module and ``calls`` own the order of the steps (docs/architecture.md, "The steps of a call") and no mechanism:
what a step does lives in its room. They do no I/O of their own; the outside world comes in as ``Ports``.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Never

from sidecar.audit import record
from sidecar.enforcement import replies
from sidecar.enforcement.calls import ToolCalls
from sidecar.enforcement.evidence import Evidence, stage_of
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Caller, EndedBySuspension, EnforcementRules, Exchange, Ports, Reply, Turn
from sidecar.errors import (
    AuthenticationError,
    CallerSuspended,
    InsufficientScope,
    InvalidRequest,
    KeysUnavailable,
    MessageError,
    MethodRefused,
    SessionRequired,
    SidecarError,
    SuspensionsUnavailable,
    TokenMissing,
    TokenRejected,
)
from sidecar.identity import CallerName, Suspendable, SuspensionTarget, names_of
from sidecar.mcp import (
    Batch,
    ClientMessage,
    Ends,
    Envelope,
    InvalidMessage,
    Notification,
    Request,
    RequestId,
    Response,
    Session,
    Sessions,
    jsonrpc,
    methods,
    read_envelope,
    revision,
    tools,
)
from sidecar.model import Credential
from sidecar.ports import Span

LISTEN_POLL_S: Final = 5.0
"""How long a listening stream may outlive its session."""

DROPPED: Final = "dropped"
"""How the metric of operations counts a notification that is ignored."""

INSTRUCTIONS: Final = (
    "MongoDB behind a policy. A refused call says which access was refused and which team owns the policy; change the "
    'call or ask that team, do not retry it unchanged. Use connectionId "preconfigured".'
)


class EnforcementPoint:
    """Decides what clients ask for, and has it carried out.

    One instance serves every client; its state is the table of sessions and the calls in flight.
    """

    def __init__(self, ports: Ports, rules: EnforcementRules, sessions: Sessions) -> None:
        self._ports = ports
        self._rules = rules
        self._sessions = sessions
        self._evidence = Evidence(ports, rules)
        self._suspensions = ports.suspensions or Suspensions(ports.clock)
        self._calls = ToolCalls(ports, rules, self._evidence, self._suspensions)
        self._listeners: dict[str, _Listener] = {}

    async def authenticate(self, credential: Credential | None, exchange: Exchange) -> Caller:
        """Return who is calling.

        Raises:
            AuthenticationError: the caller is not known, or the token was suspended.
            KeysUnavailable: it cannot be told at the moment.
            CallerSuspended: the caller is known, and is suspended.
            SuspensionsUnavailable: the suspensions cannot be read.
        """
        began = self._ports.clock.time_ns()
        try:
            if credential is None:
                raise TokenMissing
            identity = await self._ports.verifier.verify(credential)
        except (AuthenticationError, KeysUnavailable) as error:
            await self.refuse(error, exchange)
            raise
        caller = Caller(identity=identity, began_ns=began, ended_ns=self._ports.clock.time_ns())
        try:
            self._suspensions.require(identity, exchange.session_id or "")
        except (CallerSuspended, TokenRejected, SuspensionsUnavailable) as error:
            await self.refuse(error, exchange, caller)
            raise
        return caller

    async def refuse(self, error: SidecarError, exchange: Exchange, caller: Caller | None = None) -> None:
        """Record a refusal that was made before there was a message."""
        with self._ports.tracer.server("refused", traceparent=exchange.traceparent, link=None) as span:
            turn = self._turn(span, exchange, caller)
            await self._evidence.refusal(turn, error, stage="admit")
            self._evidence.describe(turn)

    async def enforce(self, body: bytes, exchange: Exchange, caller: Caller) -> Reply:
        """Answer the one message, or the 2025-03-26 batch, that ``body`` holds."""
        try:
            decoded = jsonrpc.decode(body)
        except MessageError as error:
            return await self.refuse_body(error, body, exchange, caller)
        if isinstance(decoded, Batch):
            return await self._batch(decoded, exchange, caller)
        return await self._message(decoded, exchange, caller)

    async def refuse_body(self, error: MessageError, body: bytes | Ends, exchange: Exchange, caller: Caller) -> Reply:
        """Answer a body that is refused as a whole; for the request that it is, where that is certain.

        A client that is answered with an HTTP error may give up its session (measured: both official Python 1.x
        clients do), and one that is answered without its id waits until its time is up.
        """
        readable = not isinstance(error, jsonrpc.MessageTooComplex | jsonrpc.NotANumberRefused)
        envelope = read_envelope(body, readable=readable)
        if envelope is None:
            await self.refuse(error, exchange, caller)
            return _protocol_error(error.request_id if isinstance(error, InvalidMessage) else None, error)
        return await self._message(_Refused(envelope, error), exchange, caller)

    async def end_session(self, exchange: Exchange, caller: Caller) -> None:
        """End the caller's session (HTTP DELETE).

        Raises:
            SessionRequired: no session was named.
            SessionNotFound: it is not there, or not the caller's.
            McpRevisionError: the protocol header is not the session's.
        """
        session = self._session(exchange, caller)
        self._sessions.close(session.id, session.key, self._ports.clock.monotonic())
        self._end_listener(session.id)
        self._ports.metrics.sessions(len(self._sessions))

    async def listen(self, exchange: Exchange, caller: Caller) -> AsyncIterator[bytes]:
        """Yield notifications for the caller's session until the session or the token ends, or it opens another stream.

        The newest stream wins: a proxy may hold a dead one open for minutes, and only the client knows which it reads.

        Raises:
            SessionRequired: no session was named.
            SessionNotFound: it is not there, or not the caller's.
            McpRevisionError: the protocol header is not the session's.
        """
        clock = self._ports.clock
        session = self._session(exchange, caller)
        self._suspensions.require(caller.identity, session.id)
        listener = _Listener(names=names_of(caller.identity))
        self._end_listener(session.id)
        self._listeners[session.id] = listener
        try:
            with self._sessions.streaming(session, clock.monotonic):
                while self._listeners.get(session.id) is listener and self._sessions.lasts(
                    session.id, clock.monotonic()
                ):
                    left = caller.identity.expires_at - clock.time_ns() / 1e9
                    if left <= 0:
                        return
                    with suppress(TimeoutError):
                        message = await asyncio.wait_for(listener.queue.get(), min(left, LISTEN_POLL_S))
                        if message is not None:
                            yield message
        finally:
            if self._listeners.get(session.id) is listener:
                del self._listeners[session.id]

    def _end_listener(self, session_id: str) -> None:
        """End the stream that a session has: it was ended, or has opened another one."""
        listener = self._listeners.pop(session_id, None)
        if listener is not None:
            with suppress(asyncio.QueueFull):
                listener.queue.put_nowait(None)

    def tools_changed(self) -> None:
        """Tell every listening session that its list of tools may have changed."""
        message = jsonrpc.encode_notification("notifications/tools/list_changed", {})
        for listener in self._listeners.values():
            with suppress(asyncio.QueueFull):
                listener.queue.put_nowait(message)

    def take_away(self, target: SuspensionTarget) -> EndedBySuspension:
        """End what is under way of a target that is suspended from now on; nothing here waits."""

        def ends(names: tuple[CallerName, ...], session_id: str) -> bool:
            if target.kind is Suspendable.SESSION:
                return record.session_digest(session_id) == target.digest
            return target.name in names

        sessions = self._sessions.close_all(lambda session: ends(session.names, session.id))
        listening = [session_id for session_id, one in self._listeners.items() if ends(one.names, session_id)]
        streams = {*listening, *(session.id for session in sessions if session.id in self._listeners)}
        for session_id in streams:
            self._end_listener(session_id)
        self._ports.metrics.sessions(len(self._sessions))
        ended, sent = self._calls.suspend(ends)
        self._calls.forget()
        return EndedBySuspension(sessions=len(sessions), streams=len(streams), calls=ended, writes=sent)

    def has_session(self, digest: str) -> bool:
        """Whether a session of this digest is open."""
        return self._sessions.any(lambda session: record.session_digest(session.id) == digest)

    async def unreviewed_tools(self) -> dict[str, dict[str, str]]:
        """Return, by server that can be asked, the live tools that are refused because they were not reviewed."""
        return await self._calls.unreviewed()

    async def _batch(self, batch: Batch, exchange: Exchange, caller: Caller) -> Reply:
        """Treat every member of a batch as if it had come alone (mcp-spec L-03: split, authorise each, join)."""
        try:
            session = self._session(exchange, caller)
            self._admit_batch(batch, session)
        except SidecarError as error:
            await self.refuse(error, exchange, caller)
            return _protocol_error(None, error)
        replies = [await self._message(member, exchange, caller, batched=True) for member in batch.members]
        try:
            self._suspensions.require(caller.identity, session.id)
        except SidecarError as error:  # each member was recorded as what it was; the answers are withheld
            return _protocol_error(None, error)
        bodies = [reply.body for reply in replies if reply.body is not None]
        return Reply(body=jsonrpc.encode_batch(bodies) if bodies else None)

    @staticmethod
    def _admit_batch(batch: Batch, session: Session) -> None:
        if not revision.allows_batch(session.revision):
            msg = "batch outside 2025-03-26"
            raise InvalidRequest(msg)
        if any(isinstance(member, Request) and not methods.batchable(member.method) for member in batch.members):
            msg = "initialize in a batch"
            raise InvalidRequest(msg)

    async def _message(
        self, message: "ClientMessage | _Refused", exchange: Exchange, caller: Caller, *, batched: bool = False
    ) -> Reply:
        """Open the span of one message, and see that every way out of it is counted."""
        ports = self._ports
        parent, link = _trace_context(message, exchange)
        with ports.tracer.server("message", traceparent=parent, link=link, start_ns=caller.began_ns) as span:
            ports.tracer.past("authenticate", start_ns=caller.began_ns, end_ns=caller.ended_ns)
            turn = self._turn(span, exchange, caller)
            turn.batched = batched
            error: SidecarError | None = None
            try:
                return await self._dispatch(message, turn)
            except SidecarError as caught:
                error = caught
                await self._evidence.refusal(turn, error, stage=stage_of(error))
                return self._refusal(message, error, turn)
            except Exception as caught:
                # A defect of the sidecar; the edge logs it and answers 500. Nothing was forwarded, and that is evidence
                # too.
                error = SidecarError(type(caught).__name__)
                if not turn.committed:
                    await self._evidence.refusal(turn, error, stage="internal")
                raise
            finally:
                self._evidence.describe(turn)
                seconds = ports.clock.monotonic() - turn.started
                ports.metrics.operation(turn.method, turn.tool, error.label if error else turn.error, seconds)

    def _refusal(self, message: "ClientMessage | _Refused", error: SidecarError, turn: Turn) -> Reply:
        """Answer a refused message in the form that its sender reads, or not at all where it expects nothing."""
        if turn.rpc_id is None:
            # JSON-RPC 2.0 section 4.1: a notification has no answer, so its sender learns nothing of its content.
            # What concerns the session has an HTTP status, and so has a request that hides as a notification.
            return Reply(body=None, error=None if isinstance(error, MessageError) else error)
        if isinstance(message, _Refused) and error is message.error and turn.method == "tools/call":
            return Reply(body=jsonrpc.encode_result(turn.rpc_id, replies.denial(turn, error)))
        if isinstance(error, InsufficientScope):
            return Reply(body=replies.challenge(turn, error), error=error)
        return _protocol_error(turn.rpc_id, error)

    async def _dispatch(self, message: "ClientMessage | _Refused", turn: Turn) -> Reply:
        """Classify one message by the closed method table, and treat it accordingly."""
        self._suspensions.require(turn.identity)  # the body may have come long after the headers
        match message:
            case Response():
                return Reply(body=None)
            case _Refused():
                return self._dispatch_refused(message, turn)
            case Request(method="initialize"):
                # No revision without a handshake has this method: what the body asks for is negotiated, and the
                # header, which the client cannot know yet, does not count.
                turn.method, turn.rpc_id = message.method, message.id
                return self._initialize(message, turn)
            case Request() | Notification():
                return await self._dispatch_by_table(message, turn)

    async def _dispatch_by_table(self, message: Request | Notification, turn: Turn) -> Reply:
        turn.rpc_id = message.id if isinstance(message, Request) else None
        revision.check_era(turn.exchange.protocol, message.params)
        treatment = methods.classify(message)
        turn.method = message.method if message.method in methods.KNOWN else ""
        if treatment is methods.Treatment.REFUSE:
            raise MethodRefused
        turn.session = self._session(turn.exchange, turn.caller)
        match treatment:
            case methods.Treatment.DROP:
                turn.error = DROPPED
                return Reply(body=None)
            case methods.Treatment.ENFORCE if isinstance(message, Request):
                with self._sessions.calling(turn.session, self._ports.clock.monotonic):
                    return Reply(body=await self._calls.call_tool(message, turn))
            case methods.Treatment.FILTER if isinstance(message, Request):
                return Reply(body=await self._calls.list_tools(message, turn))
            case methods.Treatment.LOCAL:
                return self._local(message, turn)
            case _:
                raise MethodRefused("the method is of another kind")

    def _dispatch_refused(self, message: "_Refused", turn: Turn) -> Never:
        """Say of a refused body whose it is, as of every message; its own error comes after that of its session."""
        method = message.envelope.method
        turn.rpc_id = message.envelope.request_id
        turn.method = method if method in methods.KNOWN else ""
        if method != "initialize":
            turn.session = self._session(turn.exchange, turn.caller)
        raise message.error

    def _initialize(self, message: Request, turn: Turn) -> Reply:
        """Open a session that belongs to this caller only."""
        ports = self._ports
        requested, client_name = tools.parse_initialize(message.params)
        session = self._sessions.open(
            ports.identifiers.session_id(),
            turn.identity.key,
            revision.negotiate(requested),
            client_name,
            ports.clock.monotonic(),
            names=names_of(turn.identity),
        )
        turn.session = session
        ports.metrics.sessions(len(self._sessions))
        result = tools.initialize_result(session.revision, self._rules.server_version, INSTRUCTIONS)
        return Reply(body=jsonrpc.encode_result(message.id, jsonrpc.encode(result)), session_id=session.id)

    def _local(self, message: Request | Notification, turn: Turn) -> Reply:
        """Answer what concerns the protocol only."""
        if isinstance(message, Request):
            return Reply(body=jsonrpc.encode_result(message.id, b"{}"))
        if turn.session is None:
            raise SessionRequired
        if message.method == "notifications/initialized":
            self._sessions.initialized(turn.session.id, turn.session.key, self._ports.clock.monotonic())
        if message.method == "notifications/cancelled":
            self._calls.cancel(turn.session, message.params.get("requestId"))
        return Reply(body=None)

    def _session(self, exchange: Exchange, caller: Caller | None) -> Session:
        if caller is None:
            raise TokenMissing
        session = self._sessions.find(exchange.session_id, caller.identity.key, self._ports.clock.monotonic())
        revision.check_header(exchange.protocol, session.revision)
        return session

    def _turn(self, span: Span, exchange: Exchange, caller: Caller | None) -> Turn:
        clock = self._ports.clock
        return Turn(
            request_id=self._ports.identifiers.request_id(),
            exchange=exchange,
            caller=caller,
            span=span,
            time_ns=clock.time_ns(),
            started=clock.monotonic(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """One open stream: what is to be sent on it, and who listens."""

    names: tuple[CallerName, ...]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(maxsize=16))


@dataclass(frozen=True, slots=True)
class _Refused:
    """A body that is refused as a whole, but whose id is certain."""

    envelope: Envelope
    error: MessageError


def _trace_context(message: ClientMessage | _Refused, exchange: Exchange) -> tuple[str | None, str | None]:
    """Return parent and link: if ``params._meta`` has the parent, the HTTP context becomes a link (SEP-414)."""
    inner = None if isinstance(message, Response | _Refused) else tools.traceparent(message.params)
    if inner is None:
        return exchange.traceparent, None
    return inner, exchange.traceparent


def _protocol_error(request_id: RequestId | None, error: SidecarError) -> Reply:
    """A JSON-RPC error; its text is the class's constant, so nothing of the request or a dependency leaks."""
    data = error.data if isinstance(error, revision.UnsupportedMcpRevision) else None
    body = jsonrpc.encode_error(request_id, error.code, error.public, data)
    return Reply(body=body, error=error, addressed=request_id is not None)
