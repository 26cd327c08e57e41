"""Notices: the one registry of what clients read beside plain answers, and of who may read it.

A session has at most one *general* stream (HTTP GET): news that belong to no call. A call under way has a stream of its
own once its answer has become one (``answering``). What goes to one stream goes to no other (MCP 2025-11-25,
transports, multiple connections). A stream that nobody reads is kept for a while, so that its owner can resume it; the
bounds below say how much and how long. Nothing here polls: a reader is woken by what is put in, by the end of its
stream, and by the end of its token.
"""

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from sidecar.enforcement.event_stream import EventStream, StreamEvent, StreamOwner, event_number, new_stream
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Caller, Ports
from sidecar.errors import SidecarError, StreamConflict
from sidecar.identity import CallerName, names_of
from sidecar.mcp import IdentityKey, Session, Sessions, jsonrpc

KEEP_S: Final = 60.0
"""How long a stream is kept that nobody reads and to which nothing more comes."""

MAX_OF_SESSION: Final = 40
"""Streams of one session that are kept, read or not: what one caller may have under way, and some that are over."""

MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024
"""What all streams together hold that nobody reads."""

PROMPTS_CHANGED: Final = jsonrpc.encode_notification("notifications/prompts/list_changed", {})
TOOLS_CHANGED: Final = jsonrpc.encode_notification("notifications/tools/list_changed", {})


class TooManyStreams(SidecarError):
    """This identity reads as many streams as it may."""

    label = "too_many_streams"
    public = "Too many open streams; close one and try again."
    code = 1429


class Notices:
    """Every stream that is read or can be resumed."""

    def __init__(self, sessions: Sessions, suspensions: Suspensions, ports: Ports, most: int = 64) -> None:
        self._sessions = sessions
        self._suspensions = suspensions
        self._clock = ports.clock
        self._identifiers = ports.identifiers
        self._streams: dict[str, EventStream] = {}
        self._of_session: dict[str, OrderedDict[str, None]] = {}
        self._general: dict[str, EventStream] = {}
        self._unread: OrderedDict[str, float] = OrderedDict()  # by name: since when, the longest first
        self._levels: dict[str, str] = {}
        self._closing = False
        self._most = most
        self._general_of: dict[IdentityKey, set[str]] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def require_open(self) -> None:
        """Return if streams can be opened.

        Raises:
            StreamConflict: the listener is shutting down.
        """
        if self._closing:
            raise StreamConflict("shutting down")

    def may_begin(self, caller: Caller, session_id: str = "") -> bool:
        """Whether what was asked to listen may still do so when its stream begins.

        A transport begins to read a little after the request was admitted. What ends its session or suspends its caller
        in between finds no stream to end yet.
        """
        try:
            self._suspensions.require(caller.identity, session_id)
        except SidecarError:
            return False
        return not self._closing and (not session_id or self._sessions.lasts(session_id, self._clock.monotonic()))

    def require_room(self, session: Session) -> None:
        """Return if a session may read a stream of news; an earlier one of its own makes room.

        Raises:
            TooManyStreams: its caller reads as many in other sessions as one may.
        """
        others = self._general_of.get(session.key, set()) - {session.id}
        if len(others) >= self._most and sum(self._general[one].is_read for one in others) >= self._most:
            raise TooManyStreams

    async def listen(
        self,
        session: Session,
        caller: Caller,
        last_event_id: str | None = None,
        begun: Callable[[str, Caller], None] = lambda _session_id, _caller: None,
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the events of a GET stream, until the session or the token ends or a newer stream takes its place.

        An event id of this session's resumes the stream that it is of, also the answer to a call. Any other one, also
        that of another session or caller, counts as none: what follows is a new general stream. The newest stream wins:
        a proxy may hold a dead one open for minutes, and only the client knows which it reads. ``begun`` is told of a
        general stream and who reads it.
        """
        if not self.may_begin(caller, session.id):
            return
        stream, after = self._resumed(session, caller, last_event_id)
        if stream is None:
            stream = self._new_general(session, caller)
        if stream is self._general.get(session.id):
            begun(session.id, caller)
        with self._sessions.streaming(session, self._clock.monotonic):
            async with aclosing(self.read(stream, caller, after)) as events:
                async for event in events:
                    yield event

    async def read(self, stream: EventStream, caller: Caller, after: int | None = None) -> AsyncGenerator[StreamEvent]:
        """Yield the events of a stream that is in the registry, for no longer than the caller's token lasts."""
        self._unread.pop(stream.name, None)

        def left_s() -> float:
            return caller.identity.expires_at - self._clock.time_ns() / 1e9

        try:
            async with aclosing(stream.read(after, left_s)) as events:
                async for event in events:
                    yield event
        finally:
            self._left(stream)

    def add(self, stream: EventStream) -> None:
        """Take in a stream; it makes room among those of its session that nobody reads.

        Until its reader begins it counts as one that nobody reads: a client that has left by now never does.
        """
        self._expire()
        own = self._of_session.setdefault(stream.owner.session_id, OrderedDict())
        if stream.owner.session_id and len(own) >= MAX_OF_SESSION:
            oldest = next((name for name in own if name in self._unread), None)
            if oldest is not None:
                self._forget(self._streams[oldest])
        self._streams[stream.name] = stream
        self._of_session.setdefault(stream.owner.session_id, own)[stream.name] = None
        self._note_unread(stream)

    def finish(self, stream: EventStream, message: bytes) -> None:
        """Give a call's stream its last message."""
        stream.finish(message)
        if stream.is_left:
            self._left(stream)
        elif not stream.is_read and stream.name in self._streams:  # its reader has yet to begin, or never does
            self._note_unread(stream)
            self._expire()

    def drop(self, stream: EventStream) -> None:
        """End a stream that will have no last message."""
        stream.close()
        self._forget(stream)

    def end(self, session_id: str) -> None:
        """End all that a session has: it is over."""
        self._levels.pop(session_id, None)
        for name in [*self._of_session.get(session_id, ())]:
            self.drop(self._streams[name])

    @property
    def reading(self) -> int:
        """How many streams are read at this moment."""
        return sum(stream.is_read for stream in self._streams.values())

    def take_away(self, ends: Callable[[tuple[CallerName, ...], str], bool]) -> None:
        """End the streams of whom ``ends`` is true."""
        for stream in [*self._streams.values()]:
            if ends(stream.owner.names, stream.owner.session_id):
                self.drop(stream)

    def tools_changed(self) -> None:
        """Tell everybody who listens that their list of tools may have changed."""
        for session_id in self._general:
            self.tools_changed_for(session_id)

    def prompts_changed(self) -> None:
        """Tell everybody who listens that their list of prompts may have changed."""
        for session_id in self._general:
            self.tell(session_id, PROMPTS_CHANGED)

    def tools_changed_for(self, session_id: str) -> None:
        """Tell one session, where it listens, that its list of tools may have changed."""
        self.tell(session_id, TOOLS_CHANGED)

    def tell(self, session_id: str, message: bytes) -> bool:
        """Put a message on the general stream of a session; return whether it has one with room."""
        stream = self._general.get(session_id)
        return stream is not None and stream.put_news(message)

    def listeners(self) -> tuple[str, ...]:
        """Return the sessions that have a general stream."""
        return tuple(self._general)

    def close(self) -> None:
        """End every general stream and accept no more; streams of calls end with their calls."""
        self._closing = True
        for stream in [*self._general.values()]:
            self.drop(stream)

    def set_level(self, session_id: str, level: str) -> None:
        """Note from which level on a session wants log messages."""
        self._levels[session_id] = level

    def level(self, session_id: str) -> str | None:
        """Return that level; None for a session that wants none."""
        return self._levels.get(session_id)

    def _resumed(
        self, session: Session, caller: Caller, last_event_id: str | None
    ) -> tuple[EventStream | None, int | None]:
        self._expire()
        named = event_number(last_event_id) if last_event_id is not None else None
        if named is None:
            return None, None
        stream = self._streams.get(named[0])
        if stream is None or stream.owner.session_id != session.id or stream.owner.key != session.key:
            return None, None
        if not stream.had(named[1]):
            return None, None
        known = stream.owner.names
        stream.owner = replace(
            stream.owner, names=(*known, *(one for one in names_of(caller.identity) if one not in known))
        )
        return stream, named[1]

    def _new_general(self, session: Session, caller: Caller) -> EventStream:
        earlier = self._general.get(session.id)
        if earlier is not None:
            self.drop(earlier)
        owner = StreamOwner(session_id=session.id, key=session.key, names=names_of(caller.identity))
        stream = new_stream(self._identifiers.request_id(), owner, session.revision)
        self.add(stream)
        self._general[session.id] = stream
        self._general_of.setdefault(session.key, set()).add(session.id)
        return stream

    def _left(self, stream: EventStream) -> None:
        """Nobody reads a stream any more: keep it as long as it can be resumed."""
        if stream.is_read or stream.name not in self._streams:
            return
        if not stream.resumable:
            self._forget(stream)
            return
        self._note_unread(stream)
        self._expire()

    def _note_unread(self, stream: EventStream) -> None:
        self._unread[stream.name] = self._clock.monotonic()
        self._unread.move_to_end(stream.name)

    def _expire(self) -> None:
        """Forget what nobody has read for too long, and what can be done without while all of it is too much."""
        now = self._clock.monotonic()
        for name, since in [*self._unread.items()]:
            if now - since < KEEP_S:
                break
            stream = self._streams[name]
            if stream.complete or stream is self._general.get(stream.owner.session_id):
                self._forget(stream)
        while sum(self._streams[name].size for name in self._unread) > MAX_UNREAD_BYTES:
            self.drop(self._dispensable())

    def _dispensable(self) -> EventStream:
        """Return the oldest of what nobody reads, of the user who holds most of it: no user takes another's place."""
        unread = [self._streams[name] for name in self._unread]
        held: Counter[tuple[str, str]] = Counter()
        for stream in unread:
            held[stream.owner.key[:2]] += stream.size
        most, _ = held.most_common(1)[0]
        return next(stream for stream in unread if stream.owner.key[:2] == most)

    def _forget(self, stream: EventStream) -> None:
        self._streams.pop(stream.name, None)
        self._unread.pop(stream.name, None)
        if self._general.get(stream.owner.session_id) is stream:
            del self._general[stream.owner.session_id]
            of_caller = self._general_of[stream.owner.key]
            of_caller.discard(stream.owner.session_id)
            if not of_caller:
                del self._general_of[stream.owner.key]
        own = self._of_session.get(stream.owner.session_id)
        if own is not None:
            own.pop(stream.name, None)
            if not own:
                del self._of_session[stream.owner.session_id]
