"""Sessions that any replica can go on with: their ids are handles, sealed with keys that the replicas share."""

from collections.abc import Callable

from sidecar.mcp import EndedSessions, HandleKeys, McpRevision, SealedSession, Session, handle_digest, identity_digest
from sidecar.model import Identity
from sidecar.ports import Clock


class SharedSessions:
    """Makes handles, and says what a handle of a caller is good for.

    Args:
        keys: the keys as they are now.
        ended: handles that are not to be read any more.
        clock: the only source of time.
        lifetime_s: seconds after which a session ends, used or not.
    """

    def __init__(self, keys: Callable[[], HandleKeys], ended: EndedSessions, clock: Clock, *, lifetime_s: int) -> None:
        self.keys = keys
        self._ended = ended
        self._clock = clock
        self._lifetime_s = lifetime_s

    def seal(self, identity: Identity, revision: McpRevision, client_name: str, unique: str) -> tuple[str, float]:
        """Return the handle of a new session, and when it ends on the monotonic clock.

        Args:
            identity: who opens it.
            revision: by which revision.
            client_name: what the client calls itself.
            unique: never the same twice, and not to be guessed.
        """
        now = self._clock.time_ns() // 10**9
        session = SealedSession(
            identity=identity_digest(identity.key),
            revision=revision,
            client_name=client_name,
            created=now,
            expires=now + self._lifetime_s,
        )
        return self.keys().seal(session, unique), self._clock.monotonic() + self._lifetime_s

    def read(self, handle: str, identity: Identity) -> tuple[SealedSession, float] | None:
        """Return the session of this caller that a handle is, and when it ends on the monotonic clock.

        None for what is no handle, or is another identity's, expired or ended: these are not to be told apart.
        """
        session = self.keys().read(handle)
        if session is None or session.identity != identity_digest(identity.key):
            return None
        # A lifetime that was made shorter counts for the sessions that are there.
        left = min(session.expires, session.created + self._lifetime_s) - self._clock.time_ns() / 1e9
        if left <= 0 or handle_digest(handle) in self._ended:
            return None
        return session, self._clock.monotonic() + left

    def on_ended_elsewhere(self, callback: Callable[[frozenset[bytes]], None]) -> None:
        """Call ``callback`` with the digests of handles that ended at other replicas."""
        self._ended.on_learned(callback)

    def end(self, session: Session) -> None:
        """Note that a session ended here before its time."""
        span = int(self._clock.monotonic() // self._lifetime_s)
        self._ended.end(handle_digest(session.id), identity_digest(session.key), span)
