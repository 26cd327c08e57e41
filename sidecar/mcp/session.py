"""Sessions of the handshake revisions: who opened which, and when it was last used.

A session id is a name, never a credential: every use is checked against the identity that opened it, and another
caller's session is answered exactly as one that never existed (MCP 2025-11-25, security best practices, session
hijacking; CVE-2026-52869). The number of sessions is bounded in total and per identity (CVE-2026-59951). At a bound
the least recently used one ends, for many clients never end theirs: of the same identity first, else of the user who
has most.

Time and ids are arguments (law 5). Nothing here awaits, so check and act cannot be interleaved.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from sidecar.errors import SessionNotFound, SessionRequired, TooManySessions
from sidecar.mcp.revision import McpRevision
from sidecar.questions import QuestionKind

IdentityKey: TypeAlias = tuple[str, str, str]
"""(issuer, subject, agent); ``Identity.key``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One handshake, bound to the identity that made it."""

    id: str
    key: IdentityKey
    revision: McpRevision
    client_name: str
    """Self-reported; for people who read logs, never for a decision."""
    initialized: bool
    """The client has sent ``notifications/initialized``."""
    names: tuple[tuple[str, ...], ...] = ()
    """What an operator can name the caller by who opened it, the chain of agents and the token included."""
    ends: float = math.inf
    """Seconds on the same clock; used or not, it ends then."""
    answers: frozenset[QuestionKind] = frozenset()
    """What the client says that it can be asked."""


class Sessions:
    """The registry of open sessions.

    No ``BoundedMemory``: which one makes room is a choice (not one with a call under way, rather one without a
    stream), and many can be of one identity.

    Args:
        max_total: open sessions in the process.
        max_per_identity: open sessions of one identity.
        idle_s: seconds after which an unused session has ended.
        ended: told of sessions that end before their time, except idle ones, which other replicas may have in use.
    """

    def __init__(
        self, max_total: int, max_per_identity: int, idle_s: float, *, ended: Callable[[Session], None] | None = None
    ) -> None:
        if max_total < 1 or max_per_identity < 1 or not idle_s > 0:
            raise ValueError("bounds of sessions are positive")
        self._max_total = max_total
        self._max_per_identity = max_per_identity
        self._idle_s = idle_s
        self._tell_others = ended or (lambda _session: None)
        self._open: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._used: dict[str, float] = {}
        """When each was used last, seconds on a monotonic clock."""
        self._of: dict[IdentityKey, OrderedDict[str, None]] = {}  # the same order
        self._calls: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self._ended: Callable[[str], None] | None = None
        self._evicted: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._open)

    def on_end(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the id of every session that ends, however it does."""
        self._ended = callback

    def on_evicted(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a session makes room for another."""
        self._evicted = callback

    def open(  # one parameter per fact
        self,
        session_id: str,
        key: IdentityKey,
        revision: McpRevision,
        client_name: str,
        now: float,
        *,
        names: tuple[tuple[str, ...], ...] = (),
        ends: float = math.inf,
        initialized: bool = False,
        answers: frozenset[QuestionKind] = frozenset(),
    ) -> Session:
        """Register a new session of a client that calls itself ``client_name``, or one that another replica opened.

        Raises:
            TooManySessions: a bound is reached, and every session that could end for it has a call under way.
            ValueError: the id is taken, or has characters outside visible ASCII (MCP 2025-11-25, session management).
        """
        if not session_id or session_id in self._open or not all("!" <= char <= "~" for char in session_id):
            raise ValueError("a session id is new and of visible ASCII")
        self.evict(now)
        if len(self._of.get(key, ())) >= self._max_per_identity:
            self._make_room(list(self._of[key]), "for one identity")
        elif len(self._open) >= self._max_total:
            most, _ = Counter(session.key[:2] for session in self._open.values()).most_common(1)[0]
            self._make_room([name for name, session in self._open.items() if session.key[:2] == most], "in total")
        session = Session(
            id=session_id,
            key=key,
            revision=revision,
            client_name=client_name,
            initialized=initialized,
            names=names,
            ends=ends,
            answers=answers,
        )
        return self._store(session, now)

    def find(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """Return the caller's own open session and note its use.

        Raises:
            SessionRequired: no id.
            SessionNotFound: unknown, ended, idle for too long, or another identity's; not to be told apart.
        """
        return self._store(self._own(session_id, key, now), now)

    def initialized(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """Note that the client finished the handshake; raises as ``find`` does."""
        return self._store(replace(self._own(session_id, key, now), initialized=True), now)

    def close(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """End the caller's own session and return it; raises as ``find`` does."""
        session = self._own(session_id, key, now)
        self._end(session)
        return session

    def close_all(self, ends: Callable[[Session], bool]) -> list[Session]:
        """End every session of which ``ends`` is true, also while calls are under way in it, and return them."""
        ended = [session for session in self._open.values() if ends(session)]
        for session in ended:
            self._end(session)
        return ended

    def drop(self, ends: Callable[[str], bool]) -> None:
        """End the sessions of which ``ends`` is true of the id; other replicas know already."""
        for session in [session for session in self._open.values() if ends(session.id)]:
            self._forget(session)

    def lasts(self, session_id: str, now: float) -> bool:
        """Whether the session is open; asking is no use of it."""
        session = self._open.get(session_id)
        return session is not None and not self._idle(session, now)

    def forget_idle(self, session_id: str, now: float) -> None:
        """Forget one session if it has been idle for too long, or is over."""
        session = self._open.get(session_id)
        if session is not None and self._idle(session, now):
            self._forget(session)

    def any(self, is_it: Callable[[Session], bool]) -> bool:
        """Whether some open session is one of which ``is_it`` is true."""
        return any(is_it(session) for session in self._open.values())

    def calling(self, session: Session, clock: Callable[[], float]) -> AbstractContextManager[None]:
        """Keep a session in use while a call of it is under way: it neither idles nor makes room for another."""
        return self._in_use(self._calls, session, clock)

    def streaming(self, session: Session, clock: Callable[[], float]) -> AbstractContextManager[None]:
        """Keep a session in use while its stream is open: it does not idle, but may make room for another."""
        return self._in_use(self._streams, session, clock)

    def evict(self, now: float) -> None:
        """End all sessions that have been idle for too long; amortised constant time for each session opened."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if now - self._used[oldest.id] < self._idle_s:
                return
            if self._idle(oldest, now):
                self._forget(oldest)
            else:
                self._store(oldest, now)

    @contextmanager
    def _in_use(self, uses: Counter[str], session: Session, clock: Callable[[], float]) -> Iterator[None]:
        uses[session.id] += 1
        try:
            yield
        finally:
            uses[session.id] -= 1
            if not uses[session.id]:
                del uses[session.id]
            if (known := self._open.get(session.id)) is not None:
                self._store(known, clock())

    def _make_room(self, candidates: Sequence[str], bound: str) -> None:
        """End the least recently used session that may end: one without a stream, else one without a call."""
        idle = [session_id for session_id in candidates if session_id not in self._calls]
        if not idle:
            raise TooManySessions(bound)
        chosen = next((session_id for session_id in idle if session_id not in self._streams), idle[0])
        self._end(self._open[chosen])
        self._evicted()

    def _own(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        if not session_id:
            raise SessionRequired
        session = self._open.get(session_id)
        if session is None or session.key != key:
            raise SessionNotFound
        if self._idle(session, now):
            self._forget(session)
            raise SessionNotFound
        return session

    def _idle(self, session: Session, now: float) -> bool:
        used = session.id in self._calls or session.id in self._streams
        return now >= session.ends or (not used and now - self._used[session.id] >= self._idle_s)

    def _store(self, session: Session, now: float) -> Session:
        """Keep a session that is used now."""
        self._open[session.id] = session
        self._used[session.id] = now
        self._open.move_to_end(session.id)
        own = self._of.setdefault(session.key, OrderedDict())
        own[session.id] = None
        own.move_to_end(session.id)
        return session

    def _end(self, session: Session) -> None:
        self._forget(session)
        self._tell_others(session)

    def _forget(self, session: Session) -> None:
        del self._open[session.id], self._used[session.id]
        own = self._of[session.key]
        del own[session.id]
        if not own:
            del self._of[session.key]
        if self._ended is not None:
            self._ended(session.id)
