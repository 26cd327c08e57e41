"""Who listens without a session: each ``subscriptions/listen`` is one stream, for as long as its token lasts."""

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sidecar.enforcement.event_stream import EventStream, StreamEvent, StreamOwner, new_stream
from sidecar.enforcement.list_news import ListNews
from sidecar.enforcement.notices import Notices
from sidecar.enforcement.turn import EnforcementRules, Ports, Turn
from sidecar.enforcement.watches import Subscriber
from sidecar.enforcement.watching import Watching
from sidecar.identity import names_of
from sidecar.mcp import IdentityKey, Subscription


class Subscriptions:
    """The open ones; their streams are in the registry of ``notices``, which ends those of a suspended caller."""

    def __init__(self, notices: Notices, ports: Ports, rules: EnforcementRules) -> None:
        self._notices = notices
        self._identifiers = ports.identifiers
        self._metrics = ports.metrics
        self._server_version = rules.server_version
        self._most = rules.bounds.listeners_per_identity
        self._open: dict[str, tuple[EventStream, Subscription]] = {}
        self._of: dict[IdentityKey, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def listen(
        self, subscription: Subscription, turn: Turn, watching: Watching, lists: ListNews
    ) -> AsyncGenerator[StreamEvent]:
        """Yield what is honoured, then the notices, and the answer where the client is still there to read it.

        Nothing is kept for a client that left, and nothing can be resumed (MCP 2026-07-28, basic, patterns,
        subscriptions): it asks for the list once it listens again.
        """
        conversation, caller = turn.known_conversation, turn.known_caller
        if not self._notices.may_begin(caller):
            return
        owner = StreamOwner(session_id="", key=conversation.key, names=names_of(caller.identity))
        stream = new_stream(self._identifiers.request_id(), owner, conversation.revision)
        self._enter(stream, subscription)
        try:
            subscriber = Subscriber(
                id=stream.name,
                lasts=lambda: not (stream.closed or stream.complete),
                tell=lambda uri: stream.put_news(subscription.resource_updated(uri)),
            )
            if subscription.tools_list_changed:
                await lists.listens(stream.name, turn, lambda: stream.put_news(subscription.tools_changed()))
            uris = await watching.honoured(subscription.id, subscriber, subscription.resources, turn)
            stream.put(subscription.acknowledged(uris))
            async with aclosing(self._notices.read(stream, caller)) as events:
                async for event in events:
                    yield event
            if not stream.closed and not stream.complete:  # the token's time is up
                yield StreamEvent(subscription.ended(self._server_version))
        finally:
            watching.watches.end(stream.name)
            lists.end(stream.name)
            self._leave(stream)
            self._notices.drop(stream)  # the client may have left before it was read for the first time

    def tools_changed(self) -> None:
        """Tell those who asked for it that their list of tools may have changed."""
        for stream, subscription in self._open.values():
            if subscription.tools_list_changed:
                stream.put_news(subscription.tools_changed())

    def prompts_changed(self) -> None:
        """Tell those who asked for it that their list of prompts may have changed."""
        for stream, subscription in self._open.values():
            if subscription.prompts_list_changed:
                stream.put_news(subscription.prompts_changed())

    def close(self) -> None:
        """Answer all of them: the listener is shutting down."""
        for stream, subscription in [*self._open.values()]:
            self._end(stream, subscription)

    def _enter(self, stream: EventStream, subscription: Subscription) -> None:
        own = self._of.setdefault(stream.owner.key, OrderedDict())
        if len(own) >= self._most:
            self._metrics.evicted("listener")
            self._end(*self._open[next(iter(own))])
        self._notices.add(stream)
        self._open[stream.name] = (stream, subscription)
        self._of.setdefault(stream.owner.key, own)[stream.name] = None

    def _end(self, stream: EventStream, subscription: Subscription) -> None:
        self._notices.finish(stream, subscription.ended(self._server_version))
        self._leave(stream)

    def _leave(self, stream: EventStream) -> None:
        if self._open.pop(stream.name, None) is None:
            return
        own = self._of[stream.owner.key]
        del own[stream.name]
        if not own:
            del self._of[stream.owner.key]
