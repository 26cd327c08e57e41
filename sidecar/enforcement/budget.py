"""A bound on the evidence that unknown callers can cause: their refusals are recorded up to a budget.

Without one, anyone who can reach the port fills the disk, and a full disk denies everyone (law 4 stops every call).
What is over the bound is still counted by metrics, and the next record of the same address says how many it stands for.
"""

from dataclasses import dataclass
from typing import Final

from sidecar.bounded import BoundedMemory

WINDOW_S: Final = 60.0
PER_ADDRESS: Final = 30
"""Records of one address in a window."""

IN_ALL: Final = 600
"""Records of all addresses in a window: about 0.5 MB."""

MAX_ADDRESSES: Final = 4096


@dataclass(slots=True)
class _Share:
    window: int
    recorded: int = 0
    suppressed: int = 0


class Budget:
    """Counts the records of unknown callers by address; bounded in memory."""

    def __init__(self) -> None:
        self._shares: BoundedMemory[str, _Share] = BoundedMemory(MAX_ADDRESSES)
        self._window = -1
        self._recorded = 0

    def admit(self, address: str, now: float) -> int | None:
        """Return how many unrecorded refusals this record stands for besides itself, or None if it is not recorded.

        Args:
            address: of the caller.
            now: monotonic seconds.
        """
        window = int(now // WINDOW_S)
        if window != self._window:
            self._window, self._recorded = window, 0
        share = self._share(address, window)
        if share.recorded >= PER_ADDRESS or self._recorded >= IN_ALL:
            share.suppressed += 1
            return None
        self._recorded += 1
        share.recorded += 1
        suppressed, share.suppressed = share.suppressed, 0
        return suppressed

    def _share(self, address: str, window: int) -> _Share:
        share = self._shares.get(address) or _Share(window=window)
        if share.window != window:
            share.window, share.recorded = window, 0
        self._shares.put(address, share)
        return share
