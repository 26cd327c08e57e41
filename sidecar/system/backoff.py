"""The pauses between attempts at something that must come back."""


class BackOff:
    """Doubles the pause with each attempt, up to a longest one.

    Not ``tenacity``: what is attempted here are lives of processes, and a long one resets the pause; it repeats
    calls until they succeed.

    Args:
        first_s: seconds of the first pause.
        longest_s: seconds of the longest pause.
        at_once: whether the very first attempt comes without a pause.
    """

    __slots__ = ("_at_once", "_first_s", "_longest_s", "_next_s")

    def __init__(self, first_s: float, longest_s: float, *, at_once: bool = False) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._at_once = at_once
        self._next_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin again: what was attempted has been well for long."""
        self._next_s = 0.0 if self._at_once else self._first_s

    def pause(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        pause = self._next_s
        self._next_s = min(max(2 * pause, self._first_s), self._longest_s)
        return pause
