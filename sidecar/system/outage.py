"""One log line when something that is needed goes, and one when it is back."""

import logging
import time
from collections.abc import Callable
from typing import Final

PACE_S: Final = 5.0
"""What comes and goes faster is told this often: a caller may be able to make it do so."""


class Outage:
    """Says once that something is away, however often it is missed, and once that it is back.

    Args:
        log: where the lines go.
        what: what can be away, as the subject of a sentence.
        lost: what it then does, such as ``does not answer``.
        found: what it does when it is back.
        level: of the line that says that it is away; the other is a warning, to be seen wherever the first was.
        now: monotonic seconds.
    """

    __slots__ = ("_began", "_found", "_level", "_log", "_lost", "_now", "_told", "_told_at", "_what")

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        *,
        lost: str,
        found: str,
        level: int = logging.WARNING,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._what = what
        self._lost = lost
        self._found = found
        self._level = level
        self._now = now
        self._began: float | None = None
        self._told = False
        self._told_at = float("-inf")

    @property
    def there(self) -> bool:
        """Whether it is not away."""
        return self._began is None

    def begins(self, why: object) -> None:
        """Note that it is away; the first time says so.

        Args:
            why: what was seen, without anything secret.
        """
        now = self._now()
        if self._began is None:
            self._began = now
        if not self._told and now - self._told_at >= PACE_S:
            self._told, self._told_at = True, now
            self._log.log(self._level, "%s %s: %s", self._what, self._lost, why)

    def ends(self) -> None:
        """Note that it is there; says so if it was reported away."""
        if self._began is None:
            return
        if self._told:
            self._log.warning("%s %s after %.1f s", self._what, self._found, self._now() - self._began)
        self._began, self._told = None, False
