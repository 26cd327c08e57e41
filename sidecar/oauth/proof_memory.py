"""The proofs that were presented to this process, for as long as each could be presented again."""

from collections import Counter, OrderedDict
from typing import Final

from sidecar.errors import ProofRejected
from sidecar.faults import TokenFault
from sidecar.ports import Clock

MAX_PROOFS: Final = 200_000
"""About 40 MB. In the two minutes that a proof lives at most, that is 1,600 calls a second."""

SHARE: Final = 8
"""The proofs of one key are at most this part of all, so that one client cannot use up the room of the others."""


class ProofsInMemory:
    """Implements ``ports.ProofMemory`` for one process. What is full refuses: to forget would be to allow a replay.

    Args:
        clock: the only source of time.
        most: proofs that are remembered.
    """

    def __init__(self, clock: Clock, most: int = MAX_PROOFS) -> None:
        self._clock = clock
        self._most = most
        self._until: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._of_key: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._until)

    async def is_first(self, proof: bytes, key: str, until: float) -> bool:
        """See ``ports.ProofMemory``."""
        if proof in self._until:
            return False
        if len(self._until) >= self._most or self._of_key[key] >= max(1, self._most // SHARE):
            self._forget(self._clock.time_ns() / 1e9)
        else:
            self._forget(self._clock.time_ns() / 1e9, most=2)
        if len(self._until) >= self._most or self._of_key[key] >= max(1, self._most // SHARE):
            raise ProofRejected("too many proofs at once", fault=TokenFault.PROOF_TOO_MANY)
        self._until[proof] = (until, key)
        self._of_key[key] += 1
        return True

    def _forget(self, now: float, most: int | None = None) -> None:
        """Drop proofs that could not be presented any more, the oldest first; a few at a time keep it small."""
        while self._until and (most is None or most > 0):
            proof, (until, key) = next(iter(self._until.items()))
            if until >= now:
                return
            del self._until[proof]
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
            most = None if most is None else most - 1
