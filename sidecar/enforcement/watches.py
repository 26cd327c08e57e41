"""Who is told that a resource changed: those who asked for it, each only while they may read it.

A watch belongs to one subscriber (a session, or one request to listen of 2026-07-28) and goes with it. What a server
tells is taken to nobody at once: each watch of the resource is looked at first, as of that moment and with the token
that its subscriber came with last. Of one who cannot be reached, or whose token is over, it is remembered until they
listen again. A change of policies has every watch looked at, and ends those that are refused.

What a server tells again and again costs one look at each watch in each round.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from sidecar.enforcement.bounds import Bounds
from sidecar.enforcement.turn import Caller, Exchange
from sidecar.errors import DependencyError, SessionNotFound, SidecarError, UpstreamError
from sidecar.mcp import Conversation, ResourceNotFound
from sidecar.ports import Clock

ROUND_S: Final = 0.05
"""Pause between two rounds of looking."""

AGAIN_S: Final = 1.0
"""The same after a round in which it could not be told who may read."""

WatchKey: TypeAlias = tuple[str, str]
"""The subscriber's id, and the URI as it wrote it."""


class TooManyWatches(SidecarError):
    """This session, or this request to listen, watches as many resources as it may."""

    label = "too_many_watches"
    public = "Too many subscriptions to resources; end one and try again."
    code = 1429


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """Who is told."""

    id: str
    """The session's, or the name of the stream of a request to listen."""
    lasts: Callable[[], bool]
    """Whether it is there still."""
    tell: Callable[[str], bool]
    """Takes the URI that changed; returns whether it is told."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """One resource that one subscriber watches."""

    subscriber: Subscriber
    uri: str
    """As its client wrote it."""
    server: str
    sent: str
    """The URI as its server has it."""
    caller: Caller
    """Who is asked about when something is to be told: as they came last."""
    exchange: Exchange
    conversation: Conversation
    due: bool = False
    """It changed, and its subscriber was not told."""

    @property
    def key(self) -> WatchKey:
        """What it is known by."""
        return self.subscriber.id, self.uri

    @property
    def resource(self) -> tuple[str, str]:
        """The server, and the URI as that has it."""
        return self.server, self.sent

    @property
    def user(self) -> tuple[str, str]:
        """Issuer and subject."""
        return self.conversation.key[:2]


class Watches:
    """The table of watches.

    Args:
        clock: whether a token is over.
        look: returns where the subscriber of a watch may read its resource; raises as ``ToolCalls.admissible`` does.
        forget: told of a resource that nobody watches any more.
        bounds: how many there may be.
        evicted: told of each that makes room for another.
    """

    def __init__(
        self,
        clock: Clock,
        look: Callable[[Watch], Awaitable[None]],
        forget: Callable[[str, str], None],
        bounds: Bounds,
        evicted: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._look = look
        self._forget = forget
        self._bounds = bounds
        self._evicted = evicted
        self._all: OrderedDict[WatchKey, Watch] = OrderedDict()
        self._of: dict[str, dict[str, Watch]] = {}
        self._at: dict[tuple[str, str], dict[WatchKey, Watch]] = {}
        self._held: Counter[tuple[str, str]] = Counter()
        self._marked: dict[WatchKey, _Mark] = {}
        """What is to be looked at in the next round."""
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._all)

    def require_room(self, subscriber_id: str, uri: str) -> None:
        """Return if a subscriber may watch a resource more.

        Raises:
            TooManyWatches: it has as many as it may.
        """
        own = self._of.get(subscriber_id, {})
        if uri not in own and len(own) >= self._bounds.watches_per_subscriber:
            raise TooManyWatches

    def add(self, watch: Watch) -> None:
        """Enter a watch, in place of an earlier one of the same key, before its server is asked to tell.

        Raises:
            SessionNotFound: its subscriber is gone; nothing would ever end the watch.
            TooManyWatches: as ``require_room``.
        """
        if not watch.subscriber.lasts():
            raise SessionNotFound
        self.require_room(*watch.key)
        self.remove(watch.key, besides=watch)
        if len(self._all) >= self._bounds.watches:
            self._evicted()
            [(most, _)] = self._held.most_common(1)
            self.remove(next(key for key, one in self._all.items() if one.user == most))
        self._all[watch.key] = watch
        self._of.setdefault(watch.subscriber.id, {})[watch.uri] = watch
        self._at.setdefault(watch.resource, {})[watch.key] = watch
        self._held[watch.user] += 1

    def has(self, watch: Watch) -> bool:
        """Whether this very watch stands."""
        return self._all.get(watch.key) is watch

    def remove(self, key: WatchKey, *, besides: Watch | None = None) -> None:
        """End a watch; one that is not there is nothing. The resource of ``besides`` is watched on."""
        watch = self._all.pop(key, None)
        if watch is None:
            return
        self._marked.pop(key, None)
        own, there = self._of[watch.subscriber.id], self._at[watch.resource]
        del own[watch.uri], there[key]
        self._held[watch.user] -= 1
        if not self._held[watch.user]:
            del self._held[watch.user]
        if not own:
            del self._of[watch.subscriber.id]
        if not there:
            del self._at[watch.resource]
            if besides is None or besides.resource != watch.resource:
                self._forget(*watch.resource)

    def end(self, subscriber_id: str) -> None:
        """End all that a subscriber watches: it is over."""
        for uri in [*self._of.get(subscriber_id, ())]:
            self.remove((subscriber_id, uri))

    def updated(self, server: str, sent: str) -> None:
        """A server says that a resource changed."""
        for key in self._at.get((server, sent), ()):
            self._mark(key, _TELL)
        self._wake()

    def listening(self, subscriber_id: str, caller: Caller) -> None:
        """A subscriber listens again, perhaps with another token; what it was not told comes now."""
        for watch in self._of.get(subscriber_id, {}).values():
            watch.caller = caller
            if watch.due:
                self._mark(watch.key, _TELL)
        self._wake()

    def policies_changed(self) -> None:
        """Look at every watch, and end those that are refused from now on."""
        for key in self._all:
            self._mark(key, _END)
        self._wake()

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _mark(self, key: WatchKey, mark: "_Mark") -> None:
        self._marked[key] = mark.besides(self._marked.get(key))

    def _wake(self) -> None:
        if self._marked and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._rounds(), name="watched resources")

    async def _rounds(self) -> None:
        while self._marked:
            marked, self._marked = self._marked, {}
            pause = ROUND_S
            for key, mark in marked.items():
                watch = self._all.get(key)
                if watch is not None and not await self._looked_at(watch, mark):
                    self._mark(key, mark)
                    pause = AGAIN_S
            await asyncio.sleep(pause)

    async def _looked_at(self, watch: Watch, mark: "_Mark") -> bool:
        """Look at one watch, and do what it is marked for; return whether it could be told who may read."""
        over = watch.caller.identity.expires_at <= self._clock.time_ns() / 1e9
        if mark.tell and over:
            watch.due = True
        if over and not mark.end:
            return True
        try:
            await self._look(watch)
        except (DependencyError, UpstreamError):
            return not self.has(watch)
        except ResourceNotFound:
            self._drop(watch)
        except SidecarError:
            if mark.end:
                self._drop(watch)
        else:
            if mark.tell and not over and self.has(watch):
                watch.due = not watch.subscriber.tell(watch.uri)
        return True

    def _drop(self, watch: Watch) -> None:
        if self.has(watch):
            self.remove(watch.key)


class _Mark(NamedTuple):
    """What a watch is looked at for."""

    tell: bool = False
    """Its resource changed."""
    end: bool = False
    """Policies changed."""

    def besides(self, other: "_Mark | None") -> "_Mark":
        return self if other is None else _Mark(self.tell or other.tell, self.end or other.end)


_TELL: Final = _Mark(tell=True)
_END: Final = _Mark(end=True)
