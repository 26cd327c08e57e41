"""Sessions of the handshake revisions: who opened which, and when it was last used.

A session id is a name, never a credential: every use is checked against the identity that opened it, and a session of
somebody else is answered exactly as one that never existed (MCP 2025-11-25, security best practices, session hijacking;
CVE-2026-52869). The number of sessions is bounded in total and per identity (CVE-2026-59951).

Time and ids are arguments (law 5). Nothing here awaits, so check and act cannot be interleaved.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, replace
from typing import TypeAlias

from sidecar.errors import SessionNotFound, SessionRequired, TooManySessions
from sidecar.mcp.revision import Revision

IdentityKey: TypeAlias = tuple[str, str, str]
"""(issuer, subject, agent); ``Identity.key``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One handshake, bound to the identity that made it."""

    id: str
    key: IdentityKey
    revision: Revision
    client_name: str
    """Self-reported; for people who read logs, never for a decision."""
    initialized: bool
    """The client has sent ``notifications/initialized``."""
    last_used: float
    """Seconds on a monotonic clock."""


class Sessions:
    """The registry of open sessions.

    Args:
        max_total: open sessions in the process.
        max_per_identity: open sessions of one identity.
        idle_s: seconds after which an unused session has ended.
    """

    def __init__(self, max_total: int, max_per_identity: int, idle_s: float) -> None:
        if max_total < 1 or max_per_identity < 1 or not idle_s > 0:
            raise ValueError("bounds of sessions are positive")
        self._max_total = max_total
        self._max_per_identity = max_per_identity
        self._idle_s = idle_s
        self._open: OrderedDict[str, Session] = OrderedDict()  # least recently used first
        self._count: Counter[IdentityKey] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, session_id: str, key: IdentityKey, revision: Revision, client_name: str, now: float) -> Session:
        """Register a new session of a client that calls itself ``client_name``.

        Raises:
            TooManySessions: a bound is reached, idle sessions aside.
            ValueError: the id is taken, or has characters outside visible ASCII (MCP 2025-11-25, session management).
        """
        if not session_id or session_id in self._open or not all("!" <= char <= "~" for char in session_id):
            raise ValueError("a session id is new and of visible ASCII")
        self.evict(now)
        if len(self._open) >= self._max_total or self._count[key] >= self._max_per_identity:
            raise TooManySessions("in total" if len(self._open) >= self._max_total else "for one identity")
        session = Session(
            id=session_id,
            key=key,
            revision=revision,
            client_name=client_name,
            initialized=False,
            last_used=now,
        )
        self._open[session_id] = session
        self._count[key] += 1
        return session

    def find(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """Return the caller's own open session and note its use.

        Raises:
            SessionRequired: no id.
            SessionNotFound: unknown, ended, idle for too long, or another identity's; not to be told apart.
        """
        return self._store(replace(self._own(session_id, key, now), last_used=now))

    def lasts(self, session_id: str, now: float) -> bool:
        """Whether the session is still open; asking is no use of it."""
        session = self._open.get(session_id)
        return session is not None and not self._idle(session, now)

    def initialized(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """Note that the client finished the handshake; raises as ``find`` does."""
        return self._store(replace(self._own(session_id, key, now), last_used=now, initialized=True))

    def close(self, session_id: str | None, key: IdentityKey, now: float) -> Session:
        """End the caller's own session and return it; raises as ``find`` does."""
        session = self._own(session_id, key, now)
        self._forget(session)
        return session

    def evict(self, now: float) -> None:
        """End all sessions that have been idle for too long; amortised constant time for each session opened."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if not self._idle(oldest, now):
                return
            self._forget(oldest)

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
        return now - session.last_used >= self._idle_s

    def _store(self, session: Session) -> Session:
        self._open[session.id] = session
        self._open.move_to_end(session.id)
        return session

    def _forget(self, session: Session) -> None:
        del self._open[session.id]
        self._count[session.key] -= 1
        if not self._count[session.key]:
            del self._count[session.key]
