"""A bound on the evidence that refusals can cause which cost a caller nothing: they are recorded up to a budget.

Without one, anyone who can reach the port fills the disk, and a full disk denies everyone (law 4 stops every call); and
what is refused because there is too much to do must not cost as much as doing it. What is over the bound is still
counted by metrics, and the next record of the same address or caller says how many it stands for.
"""

from dataclasses import dataclass
from typing import Final

from sidecar.bounded import BoundedMemory
from sidecar.errors import CallerSuspended, SidecarError, TokenRejected
from sidecar.saturation import ByteBudgetSpent, Overloaded

WINDOW_S: Final = 60.0
PER_ADDRESS: Final = 30
"""Records of one address, or of one caller, in a window."""

IN_ALL: Final = 600
"""Records of all of them in a window: about 0.5 MB."""

MAX_ADDRESSES: Final = 4096
"""Of which it is remembered how many records they had; the same of callers."""

PER_CALLER: Final = 60
"""Log lines of one known caller in a window; of one cause ``PER_ADDRESS``, of all callers ``IN_ALL``."""


@dataclass(slots=True)
class _Share:
    window: int
    recorded: int = 0
    suppressed: int = 0


class Budget:
    """Counts records by who or what causes them, such as an address or a caller; bounded in memory.

    Args:
        each: records of one cause in a window.
        in_all: of all causes; None where something else bounds that.
    """

    def __init__(self, *, each: int = PER_ADDRESS, in_all: int | None = IN_ALL) -> None:
        self._each = each
        self._in_all = in_all
        self._shares: BoundedMemory[str, _Share] = BoundedMemory(MAX_ADDRESSES)
        self._window = -1
        self._recorded = 0

    def admit(self, cause: str, now: float) -> int | None:
        """Return how many unrecorded refusals this record stands for besides itself, or None if it is not recorded.

        Args:
            cause: who or what causes it.
            now: monotonic seconds.
        """
        window = int(now // WINDOW_S)
        if window != self._window:
            self._window, self._recorded = window, 0
        share = self._share(cause, window)
        if share.recorded >= self._each or (self._in_all is not None and self._recorded >= self._in_all):
            share.suppressed += 1
            return None
        self._recorded += 1
        share.recorded += 1
        suppressed, share.suppressed = share.suppressed, 0
        return suppressed

    def withdraw(self, cause: str, suppressed: int) -> None:
        """Count a record that was admitted, and what it stood for, as not recorded after all."""
        share = self._shares.get(cause)
        if share is not None:
            share.suppressed += suppressed + 1

    def _share(self, cause: str, window: int) -> _Share:
        share = self._shares.get(cause) or _Share(window=window)
        if share.window != window:
            share.window, share.recorded = window, 0
        self._shares.put(cause, share)
        return share


class RefusalBudgets:
    """Says which refusals have a record of their own."""

    def __init__(self) -> None:
        self._strangers = Budget()
        self._suspended = Budget()
        self._crowded = Budget()

    def admit(self, error: SidecarError, caller: str | None, address: str, now: float) -> int | None:
        """Return how many unrecorded refusals a record stands for besides itself, or None if there is none.

        Args:
            error: the refusal.
            caller: whose it is; None where that is not known.
            address: of the client.
            now: monotonic seconds.
        """
        match error:
            case _ if caller is None:
                return self._strangers.admit(address, now)
            case CallerSuspended() | TokenRejected():
                return self._suspended.admit(caller, now)
            case Overloaded() | ByteBudgetSpent():
                return self._crowded.admit(f"{error.label}\0{caller}", now)
            case _:
                return 0


class CallerBudget:
    """Counts the log lines of known callers by caller and cause.

    A caller can make many causes, so those of one caller have a bound of their own: nobody uses up what is for all.
    """

    def __init__(self) -> None:
        self._causes = Budget(in_all=None)
        self._callers = Budget(each=PER_CALLER)

    def admit(self, caller: str, cause: str, now: float) -> int | None:
        """Return how many others of the cause this line stands for, or None if it is not written; see ``Budget``."""
        key = f"{cause}\0{caller}"
        others = self._causes.admit(key, now)
        if others is None:
            return None
        if self._callers.admit(caller, now) is None:
            self._causes.withdraw(key, others)
            return None
        return others
