"""Handles that are not to be read any more: of sessions that ended before they expired, here or at another replica.

Bounded: beyond, the oldest are forgotten, and their handles are good again until they expire, for the identity that has
them and with its token only. A suspended session does not depend on this: suspensions name it themselves.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.bounded import BoundedMemory

MOST_ENDED: Final = 100_000
"""About 20 MB."""
_MOST_UNTOLD: Final = 10_000
MOST_TOLD: Final = 256
"""Of one identity in one span of time: what is told is kept in a store, which no caller may fill. Further handles of it
are good elsewhere until they expire, for itself only."""
_MOST_OWNERS: Final = 16_384


class EndedSessions:
    """The digests of ended handles, and which of them other replicas have not been told of.

    Args:
        most: digests that are kept.
    """

    def __init__(self, most: int = MOST_ENDED) -> None:
        self._known: BoundedMemory[bytes, None] = BoundedMemory(most)
        self._untold: deque[bytes] = deque(maxlen=_MOST_UNTOLD)
        self._told: BoundedMemory[bytes, tuple[int, int]] = BoundedMemory(_MOST_OWNERS)
        """By identity: the span of time, and how many were told in it."""
        self._on_learned: Callable[[frozenset[bytes]], None] = lambda _digests: None

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def __len__(self) -> int:
        return len(self._known)

    def end(self, digest: bytes, owner: bytes, span: int) -> None:
        """Note that a session ended here.

        Args:
            digest: names its handle.
            owner: names its identity.
            span: the number of the present span of time.
        """
        self._known.put(digest, None)
        last, told = self._told.use(owner) or (span, 0)
        told = told + 1 if last == span else 1
        self._told.put(owner, (span, told))
        if told <= MOST_TOLD:
            self._untold.append(digest)

    def learn(self, digests: Iterable[bytes]) -> None:
        """Note sessions that ended at other replicas."""
        new = frozenset(digest for digest in digests if digest not in self._known)
        for digest in new:
            self._known.put(digest, None)
        if new:
            self._on_learned(new)

    def on_learned(self, callback: Callable[[frozenset[bytes]], None]) -> None:
        """Have what is learned ended here too."""
        self._on_learned = callback

    def take_untold(self) -> tuple[bytes, ...]:
        """Return what others are to be told, once."""
        untold = tuple(self._untold)
        self._untold.clear()
        return untold

    def put_back(self, digests: Iterable[bytes]) -> None:
        """Note again what could not be told."""
        self._untold.extendleft(digests)
