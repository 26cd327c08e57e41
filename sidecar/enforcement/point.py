"""Messages: from one message of a client to its reply.

This module and ``calls`` own the order of the steps (docs/architecture.md, "The steps of a call") and no mechanism:
what a step does lives in its room. They do no I/O of their own; the outside world comes in as ``Ports``.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Never

from sidecar.audit import record
from sidecar.enforcement import offloading, refusals, stateless
from sidecar.enforcement.answering import Answering
from sidecar.enforcement.approval_desk import approval_desk
from sidecar.enforcement.calls import ToolCalls
from sidecar.enforcement.channel import CallChannel, Departure, Told
from sidecar.enforcement.evidence import Evidence, stage_of
from sidecar.enforcement.exports import exports_of
from sidecar.enforcement.handshake import INSTRUCTIONS, Handshake
from sidecar.enforcement.incoming import Incoming, RefusedBody, trace_context
from sidecar.enforcement.list_news import ListNews
from sidecar.enforcement.notices import Notices
from sidecar.enforcement.offers import Offers
from sidecar.enforcement.reply import Accepted, Answer, Refused, Reply, Stream, joined
from sidecar.enforcement.subscriptions import Subscriptions
from sidecar.enforcement.suspensions import EndedBySuspension, Suspensions
from sidecar.enforcement.turn import Caller, EnforcementRules, Exchange, Ports, Turn
from sidecar.enforcement.watching import SUBSCRIBE, Watching
from sidecar.errors import (
    AuthenticationError,
    CallerSuspended,
    InsufficientScope,
    InvalidRequest,
    KeysUnavailable,
    MessageError,
    MethodRefused,
    SidecarError,
    SuspensionsUnavailable,
    TokenMissing,
    TokenRejected,
)
from sidecar.identity import CallerName, Suspendable, SuspensionTarget, names_of
from sidecar.mcp import (
    Batch,
    Conversation,
    Ends,
    Era,
    InvalidMessage,
    Notification,
    Request,
    Response,
    Sessions,
    jsonrpc,
    methods,
    parse_listen,
    read_envelope,
    revision,
    stateless_results,
    tools,
)
from sidecar.model import Credential
from sidecar.ports import Span

DROPPED: Final = "dropped"
"""How the metric of operations counts a notification that is ignored."""


class EnforcementPoint:
    """Decides what clients ask for, and has it carried out.

    One instance serves every client and every transport; its state is the table of sessions, who listens, and the calls
    in flight. A transport asks ``authenticate`` who is calling, then hands each body to ``enforce`` and renders the
    reply; what it refuses itself, before there is a body, it has ``refuse`` record.
    """

    def __init__(self, ports: Ports, rules: EnforcementRules, sessions: Sessions) -> None:
        self._ports = ports
        self._rules = rules
        self._sessions = sessions
        self._evidence = Evidence(ports, rules)
        self._suspensions = ports.suspensions or Suspensions(ports.clock)
        self._calls = ToolCalls(ports, rules, self._evidence, self._suspensions, exports_of(ports, sessions))
        self._offers = Offers(ports, rules, self._calls)
        self._notices = Notices(sessions, self._suspensions, ports, rules.streams_per_identity)
        self._subscriptions = Subscriptions(self._notices, ports, rules)
        self._answering = Answering(self._notices, rules.stall_s)
        self._news = ListNews(self._notices, self._calls.shown, sessions, ports.clock, rules.environment)
        sessions.on_end(self._session_ended)
        self._handshake = Handshake(sessions, ports)
        self._watching = Watching(
            ports, self._offers, self._calls, self._evidence, self._notices, sessions, self._turn, rules.bounds
        )
        self.resource_updated = self._watching.updated
        self.approvals = approval_desk(ports, rules, self._evidence, self._suspensions, self._turn)

    async def authenticate(self, credential: Credential | None, exchange: Exchange) -> Caller | Refused:
        """Return who is calling, or the refusal of a caller who is not known or not wanted."""
        began = self._ports.clock.time_ns()
        try:
            if credential is None:
                raise TokenMissing
            identity = await self._ports.verifier.verify(credential)
        except (AuthenticationError, KeysUnavailable) as error:
            return await self.refuse(error, exchange)
        caller = Caller(identity=identity, began_ns=began, ended_ns=self._ports.clock.time_ns())
        try:
            self._suspensions.require(identity, exchange.session_id or "")
        except (CallerSuspended, TokenRejected, SuspensionsUnavailable) as error:
            return await self.refuse(error, exchange, caller)
        return caller

    async def refuse(self, error: SidecarError, exchange: Exchange, caller: Caller | None = None) -> Refused:
        """Refuse what is no message, or not yet: the refusal is recorded, and then returned."""
        with self._ports.tracer.server("refused", traceparent=exchange.traceparent, link=None) as span:
            turn = self._turn(span, exchange, caller, self._ports.identifiers.request_id())
            await self._evidence.refusal(turn, error, stage="admit")
            self._evidence.describe(turn)
        request_id = error.request_id if isinstance(error, InvalidMessage) else None
        return Refused.of(error, request_id, era=exchange.era)

    async def enforce(
        self, body: bytes, exchange: Exchange, caller: Caller, gone: Departure = None, sent: Told = None
    ) -> Reply:
        """Answer the one message, or the 2025-03-26 batch, that ``body`` holds.

        Args:
            body: as it came.
            exchange: how it came.
            caller: who sent it.
            gone: done when the client has left, which cancels a request where there are no sessions (MCP 2026-07-28,
                transports, cancellation), and only there.
            sent: called when a call leaves for its server.
        """
        try:
            decoded = await offloading.decoded(body, self._rules.bounds)
        except MessageError as error:
            return await self.refuse_body(error, body, exchange, caller)
        if isinstance(decoded, Batch):
            return await self._batch(decoded, exchange, caller)
        if isinstance(decoded, Request) and methods.classify(decoded, exchange.era) is methods.Treatment.ENFORCE:
            channel = CallChannel(self._ports.identifiers.request_id(), tools.progress_token(decoded.params), sent)
            work = self._message(decoded, exchange, caller, channel=channel)
            return await self._answering.answer(work, channel, caller, gone)
        return await self._message(decoded, exchange, caller)

    async def refuse_body(self, error: MessageError, body: bytes | Ends, exchange: Exchange, caller: Caller) -> Reply:
        """Answer a body that is refused as a whole; for the request that it is, where that is certain.

        A client that is answered with an HTTP error may give up its session (measured: both official Python 1.x
        clients do), and one that is answered without its id waits until its time is up.
        """
        readable = not isinstance(error, jsonrpc.MessageTooComplex | jsonrpc.NotANumberRefused)
        envelope = read_envelope(body, readable=readable)
        if envelope is None:
            return await self.refuse(error, exchange, caller)
        return await self._message(RefusedBody(envelope, error), exchange, caller)

    async def end_session(self, exchange: Exchange, caller: Caller) -> Accepted | Refused:
        """End the caller's session (HTTP DELETE)."""
        try:
            self._handshake.end(exchange, caller)
        except SidecarError as error:
            return await self.refuse(error, exchange, caller)
        return Accepted()

    async def listen(self, exchange: Exchange, caller: Caller) -> Stream | Refused:
        """Return the notifications for the caller's session (HTTP GET)."""
        try:
            session = self._handshake.session(exchange, caller)
            self._suspensions.require(caller.identity, session.id)
            self._notices.require_open()
            self._notices.require_room(session)
        except SidecarError as error:
            return await self.refuse(error, exchange, caller)
        events = self._notices.listen(session, caller, exchange.last_event_id, self._watching.watches.listening)
        return Stream(events=events)

    def policies_changed(self) -> None:
        """Tell those whose list of tools another policy set changes; end subscriptions to what is refused now."""
        self._news.policies_changed()
        self._watching.watches.policies_changed()

    def close_streams(self) -> None:
        """End every stream that belongs to no call, and open no more: the listener shuts down."""
        self._notices.close()
        self._subscriptions.close()

    async def stop(self) -> None:
        """End the calls that go on although no connection waits for them."""
        await self._news.stop()
        await self._watching.watches.stop()
        await self._answering.stop()
        await self._calls.approvals.stop()

    def tools_changed(self) -> None:
        """Tell every client that listens that its list of tools may have changed."""
        self._notices.tools_changed()
        self._subscriptions.tools_changed()

    def prompts_changed(self) -> None:
        """Tell every client that listens that its list of prompts may have changed, where prompts are offered."""
        if "prompts" in self._rules.capabilities:
            self._notices.prompts_changed()
            self._subscriptions.prompts_changed()

    def take_away(self, target: SuspensionTarget) -> EndedBySuspension:
        """End what is under way of a target that is suspended from now on; nothing here waits."""

        def ends(names: tuple[CallerName, ...], session_id: str) -> bool:
            if target.kind is Suspendable.SESSION:
                return record.session_digest(session_id) == target.digest
            return target.name in names

        read = self._notices.reading
        sessions = self._sessions.close_all(lambda session: ends(session.names, session.id))
        self._notices.take_away(ends)
        self._ports.metrics.sessions(len(self._sessions))
        ended, sent = self._calls.suspend(ends)
        self._calls.forget()
        self._calls.approvals.void(target.name)
        return EndedBySuspension(sessions=len(sessions), streams=read - self._notices.reading, calls=ended, writes=sent)

    def has_session(self, digest: str) -> bool:
        """Whether a session of this digest is open."""
        return self._sessions.any(lambda session: record.session_digest(session.id) == digest)

    async def unreviewed_tools(self) -> dict[str, dict[str, str]]:
        """Return, by server that can be asked, the live tools that are refused because they were not reviewed."""
        return await self._calls.unreviewed()

    async def _batch(self, batch: Batch, exchange: Exchange, caller: Caller) -> Reply:
        """Treat every member of a batch as if it had come alone (split, authorise each, join)."""
        try:
            if exchange.era is Era.STATELESS:
                raise InvalidRequest("a batch without a session")
            session = self._handshake.session(exchange, caller)
            self._handshake.admit_batch(batch, session)
        except SidecarError as error:
            return await self.refuse(error, exchange, caller)
        replies = [await self._message(member, exchange, caller, batched=True) for member in batch.members]
        try:
            self._suspensions.require(caller.identity, session.id)
        except SidecarError as error:  # each member was recorded as what it was; the answers are withheld
            return Refused.of(error)
        return joined(replies)

    async def _message(
        self,
        message: Incoming,
        exchange: Exchange,
        caller: Caller,
        *,
        batched: bool = False,
        channel: CallChannel | None = None,
    ) -> Reply:
        """Open the span of one message, and see that every way out of it is counted."""
        ports, key, began = self._ports, self._ports.identifiers.request_id(), caller.began_ns
        parent, link = trace_context(message, exchange)
        with ports.tracer.server("message", traceparent=parent, link=link, start_ns=began, request_id=key) as span:
            ports.tracer.past("authenticate", start_ns=began, end_ns=caller.ended_ns)
            turn = self._turn(span, exchange, caller, key)
            turn.batched, turn.channel = batched, channel
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

    def _refusal(self, message: Incoming, error: SidecarError, turn: Turn) -> Reply:
        """Answer a refused message in the form that its sender reads, or not at all where it expects nothing."""
        if turn.rpc_id is None:
            # JSON-RPC 2.0 section 4.1: a notification has no answer, so its sender learns nothing of its content.
            # What concerns the session has an HTTP status, and so has a request that hides as a notification.
            silent = isinstance(error, MessageError) and not isinstance(message, Response)
            return Accepted() if silent else Refused.of(error, era=turn.era)
        if isinstance(message, RefusedBody) and error is message.error and turn.method == "tools/call":
            denial = refusals.denial(turn, error, self._rules.server_version)
            return Answer(body=jsonrpc.encode_result(turn.rpc_id, denial))
        if isinstance(error, InsufficientScope):
            return Refused.explained(turn.era, error, refusals.challenge(turn, error))
        return Refused.of(error, turn.rpc_id, era=turn.era)

    async def _dispatch(self, message: Incoming, turn: Turn) -> Reply:
        """Classify one message by the closed method table, and treat it accordingly."""
        self._suspensions.require(turn.identity)  # the body may have come long after the headers
        match message:
            case Response():
                if turn.era is Era.STATELESS:  # nothing is asked of clients there (transports, sending messages)
                    raise InvalidRequest("a response where there are no requests of servers")
                return self._respond(message, turn)
            case RefusedBody():
                return self._dispatch_refused(message, turn)
            case Request() | Notification():
                turn.rpc_id = message.id if isinstance(message, Request) else None
                came = turn.exchange
                turn.era = revision.era_of(came.protocol, message.method, message.params, over_http=came.over_http)
                return await self._dispatch_by_table(message, turn)

    async def _dispatch_by_table(self, message: Request | Notification, turn: Turn) -> Reply:
        turn.method = message.method if message.method in methods.KNOWN else ""
        if turn.era is Era.STATELESS and isinstance(message, Request):
            turn.conversation = stateless.conversation(message, turn.exchange, turn.known_caller)
        treatment = methods.classify(message, turn.era)
        if treatment is methods.Treatment.REFUSE:
            raise MethodRefused
        if turn.era is Era.HANDSHAKE:
            if isinstance(message, Request) and message.method == "initialize":
                return self._initialize(message, turn)
            turn.conversation = self._handshake.conversation(turn.exchange, turn.known_caller)
        if turn.channel is not None and turn.conversation is not None:
            level = turn.conversation.log_level or self._notices.level(turn.session_id)
            turn.channel.within(turn.conversation, names_of(turn.identity), level)
        match treatment:
            case methods.Treatment.DROP:
                turn.error = DROPPED
                return Accepted()
            case methods.Treatment.ENFORCE if isinstance(message, Request):
                with self._in_use(turn):
                    return await self._used(message, turn)
            case methods.Treatment.FILTER if isinstance(message, Request):
                list_of = self._calls.list_tools if message.method == "tools/list" else self._offers.listed
                body = await list_of(message, turn)
                self._news.sent(turn.session_id, turn.shown)
                return Answer(body=body)
            case methods.Treatment.LOCAL:
                return self._local(message, turn)
            case _:
                raise MethodRefused("the method is of another kind")

    def _dispatch_refused(self, message: "RefusedBody", turn: Turn) -> Never:
        """Say of a refused body whose it is, as of every message; its own error comes after that of its session."""
        method = message.envelope.method
        turn.rpc_id = message.envelope.request_id
        turn.method = method if method in methods.KNOWN else ""
        if turn.era is Era.STATELESS:
            turn.conversation = stateless.unread(turn.exchange, turn.known_caller)
        elif method != "initialize":
            turn.conversation = self._handshake.conversation(turn.exchange, turn.known_caller)
        raise message.error

    async def _used(self, message: Request, turn: Turn) -> Reply:
        if message.method == "tools/call":
            return await self._calls.call_tool(message, turn)
        session = turn.known_conversation.session
        if message.method == SUBSCRIBE and session is not None:
            return await self._watching.subscribe(message, turn, session)
        return await self._offers.used(message, turn)

    def _in_use(self, turn: Turn) -> AbstractContextManager[None]:
        """Keep a session in use while a call of it is under way, where there is one."""
        session = turn.conversation.session if turn.conversation is not None else None
        return nullcontext() if session is None else self._sessions.calling(session, self._ports.clock.monotonic)

    def _session_ended(self, session_id: str) -> None:
        self._notices.end(session_id)
        self._calls.session_ended(session_id)
        self._news.end(session_id)
        self._watching.watches.end(session_id)

    def _respond(self, message: Response, turn: Turn) -> Reply:
        """Take a client's answer to a question; one that nobody waits for is dropped."""
        conversation = turn.conversation = self._handshake.conversation(turn.exchange, turn.known_caller)
        if not self._calls.asked.take(conversation, message):
            turn.error = DROPPED
        return Accepted()

    def _initialize(self, message: Request, turn: Turn) -> Reply:
        session = self._handshake.initialize(message, turn.known_caller)
        turn.conversation = Conversation.within(session)
        result = tools.initialize_result(
            session.revision, self._rules.server_version, INSTRUCTIONS, self._rules.capabilities
        )
        return Answer(body=jsonrpc.encode_result(message.id, jsonrpc.encode(result)), session_id=session.id)

    def _local(self, message: Request | Notification, turn: Turn) -> Reply:
        """Answer what concerns the protocol only."""
        if isinstance(message, Request):
            result = b"{}"
            if message.method == "logging/setLevel":
                self._notices.set_level(turn.session_id, tools.parse_level(message.params))
            if message.method == "subscriptions/listen" and turn.conversation is not None:
                wanted = parse_listen(message.id, message.params, prompts="prompts" in self._rules.capabilities)
                self._notices.require_open()
                return Stream(events=self._subscriptions.listen(wanted, turn, self._watching, self._news))
            if message.method == "resources/unsubscribe" and turn.known_conversation.session is not None:
                self._watching.unsubscribe(message, turn.known_conversation.session)
            if message.method == "server/discover":
                result = stateless_results.discovered(
                    self._rules.server_version, INSTRUCTIONS, self._rules.capabilities
                )
            return Answer(body=jsonrpc.encode_result(message.id, result))
        if turn.conversation is not None and message.method == "notifications/initialized":
            self._handshake.initialized(turn.conversation)
        if message.method == "notifications/cancelled":
            self._calls.cancel(turn.session_id, message.params.get("requestId"))
        return Accepted()

    def _turn(self, span: Span, exchange: Exchange, caller: Caller | None, request_id: str) -> Turn:
        clock = self._ports.clock
        return Turn(
            request_id=request_id,
            exchange=exchange,
            era=exchange.era,
            caller=caller,
            span=span,
            time_ns=clock.time_ns(),
            started=clock.monotonic(),
        )
