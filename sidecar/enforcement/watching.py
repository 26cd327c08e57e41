"""Subscriptions to resources: ``resources/subscribe`` within a session, ``subscriptions/listen`` without one.

What may be read may be watched, and that is decided, recorded and permitted as a read is; for what a caller may not
read, the answer is that of a read. Whether it is told of a change is decided when the change is there (``watches``).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sidecar.enforcement.bounds import Bounds
from sidecar.enforcement.calls import ToolCalls
from sidecar.enforcement.evidence import Evidence, stage_of
from sidecar.enforcement.notices import Notices
from sidecar.enforcement.offers import Offers, Readable
from sidecar.enforcement.reply import Reply
from sidecar.enforcement.turn import Caller, Exchange, Ports, Turn, Use
from sidecar.enforcement.watches import Subscriber, Watch, Watches
from sidecar.errors import NotConfirmed, SidecarError
from sidecar.mcp import Request, RequestId, Session, Sessions, resources
from sidecar.model import UpstreamResult
from sidecar.ports import Span

SUBSCRIBE = "resources/subscribe"
"""How a watch is recorded and sent, in both eras."""


class Watching:
    """Takes subscriptions, and what servers tell of their resources.

    Args:
        ports: the upstreams, the clock and the tracer.
        offers: what there is to read.
        calls: has a use decided and carried out.
        evidence: records what is refused of a request to listen.
        notices: the streams of sessions.
        sessions: which sessions there are.
        turn: begins a turn of a caller.
        bounds: how many subscriptions there may be.
    """

    def __init__(
        self,
        ports: Ports,
        offers: Offers,
        calls: ToolCalls,
        evidence: Evidence,
        notices: Notices,
        sessions: Sessions,
        turn: Callable[[Span, Exchange, Caller, str], Turn],
        bounds: Bounds,
    ) -> None:
        self._ports = ports
        self._offers = offers
        self._calls = calls
        self._evidence = evidence
        self._notices = notices
        self._sessions = sessions
        self._turn = turn
        evicted = partial(ports.metrics.evicted, "watch")
        self.watches = Watches(ports.clock, self._look, self._forget, bounds, evicted)

    async def subscribe(self, message: Request, turn: Turn, session: Session) -> Reply:
        """Answer ``resources/subscribe``.

        Raises:
            MethodRefused: there are no resources.
            InvalidParams: not the parameters of the method.
            TooManyWatches: the session watches as many as it may.
            ResourceNotFound: there is none, or not for this caller.
            SessionNotFound: the session ended meanwhile.
        """
        self._offers.require(message.method)
        uri = resources.parse_read(message.params)
        reply, _ = await self._watched(message, turn, self._within(session), uri)
        return reply

    def unsubscribe(self, message: Request, session: Session) -> None:
        """Take a subscription back; one that is not there is nothing, so that nothing can be learnt of it.

        Raises:
            MethodRefused: there are no resources.
            InvalidParams: not the parameters of the method.
        """
        self._offers.require(message.method)
        self.watches.remove((session.id, resources.parse_read(message.params)))

    async def honoured(
        self, request_id: RequestId, subscriber: Subscriber, uris: Sequence[str], turn: Turn
    ) -> tuple[str, ...]:
        """Return what of the resources that a request to listen names is watched from now on; each has its record."""
        found = []
        for uri in uris:
            message = Request(id=request_id, method=SUBSCRIBE, params={"uri": uri})
            number = self._ports.identifiers.request_id()
            own = self._turn(turn.span, turn.exchange, turn.known_caller, number)
            own.method, own.rpc_id, own.era, own.conversation = SUBSCRIBE, request_id, turn.era, turn.conversation
            try:
                self._offers.require(SUBSCRIBE)
                _, result = await self._watched(message, own, subscriber, uri)
            except SidecarError as error:
                await self._evidence.refusal(own, error, stage=stage_of(error))
                continue
            if result is not None and not result.failed:
                found.append(uri)
        return tuple(found)

    def updated(self, server: str, uri: str) -> None:
        """A server says that one of its resources changed."""
        self.watches.updated(server, uri)

    def _within(self, session: Session) -> Subscriber:
        return Subscriber(
            id=session.id,
            lasts=lambda: self._sessions.lasts(session.id, self._ports.clock.monotonic()),
            tell=lambda uri: self._notices.tell(session.id, resources.updated(uri)),
        )

    async def _watched(
        self, message: Request, turn: Turn, subscriber: Subscriber, uri: str
    ) -> tuple[Reply, UpstreamResult | None]:
        """Enforce one watch. It stands before the server is asked: what that tells at once is not lost."""
        self.watches.require_room(subscriber.id, uri)
        readable = self._offers.readable(turn, uri)
        watch: Watch | None = None

        async def entered(server: str) -> None:
            nonlocal watch
            await readable.use.require(server)
            watch = self._watch(turn, subscriber, uri, server, readable)
            self.watches.add(watch)

        stands = False
        try:
            use = replace(readable.use, require=entered)
            reply, result = await self._calls.carry_out(message, turn, readable.call, use, readable.absent)
            stands = result is not None and not result.failed
        finally:
            if watch is not None:
                if not stands and self.watches.has(watch):
                    self.watches.remove(watch.key)
                elif stands and not self.watches.has(watch):  # its subscriber ended while the server was asked
                    self._forget(*watch.resource)
        return reply, result

    @staticmethod
    def _watch(turn: Turn, subscriber: Subscriber, uri: str, server: str, readable: Readable) -> Watch:
        return Watch(
            subscriber=subscriber,
            uri=uri,
            server=server,
            sent=readable.uri,
            caller=turn.known_caller,
            exchange=turn.exchange,
            conversation=turn.known_conversation,
        )

    async def _look(self, watch: Watch) -> None:
        """Return where a watch's subscriber may read its resource at this moment, unconditionally."""
        number = self._ports.identifiers.request_id()
        with self._ports.tracer.server("resource updated", traceparent=None, link=None, request_id=number) as span:
            turn = self._turn(span, watch.exchange, watch.caller, number)
            turn.method, turn.era, turn.conversation = SUBSCRIBE, watch.conversation.era, watch.conversation
            turn.supposed = True  # no use of it
            readable = self._offers.readable(turn, watch.uri)
            turn.call = readable.call
            require = partial(self._at_home, watch, readable.use)
            _, todo = await self._calls.admissible(turn, replace(readable.use, require=require))
            if todo.waits:
                raise NotConfirmed("each read waits for an approval")

    @staticmethod
    async def _at_home(watch: Watch, use: Use, server: str) -> None:
        """Return where policy still routes to the server that told."""
        if server != watch.server:
            raise NotConfirmed("the caller reads it at another server by now")
        await use.require(server)

    def _forget(self, server: str, uri: str) -> None:
        upstream = self._ports.upstreams.get(server)
        if upstream is not None:
            upstream.unwatch(uri)
