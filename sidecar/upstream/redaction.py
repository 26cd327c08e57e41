"""The child's standard error on its way to the log: without secrets and control characters, and bounded."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from sidecar.bounded import BoundedMemory

_URI = re.compile(r"mongodb(?:\+srv)?(?::|%3a)(?://|%2f%2f|\\/\\/)[^\s\"'<>]*", re.IGNORECASE)
_USERINFO = re.compile(r"\A[a-z][a-z0-9+.-]{0,31}://(?P<userinfo>[^/?]*)@")
_HIDDEN = "<redacted>"
_FAILED_TOOL = re.compile(r"(\[[A-Z]+\] \d+ - tool: [^:]*: \w*).*", re.DOTALL)
"""The server logs a failed call with MongoDB's words, which quote values of documents (reference, section 10.6). The
tool and the class of the error are kept."""


class Redactor:
    """Removes known secrets and everything that looks like a MongoDB URI from a line.

    Args:
        secrets: what must not be seen. Of a connection string its password is also taken alone, as written and decoded.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._before: frozenset[str] = frozenset()
        self._secrets: re.Pattern[str] | None = None
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Remove these from now on, and still those that they take the place of."""
        forms = frozenset(form for secret in secrets for form in _forms(secret))
        longest_first = sorted(forms | self._before, key=len, reverse=True)
        self._before = forms
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def clean(self, line: bytes) -> str:
        """Return the line as printable text."""
        text = line.decode("utf-8", "replace")
        if self._secrets is not None:
            text = self._secrets.sub(_HIDDEN, text)
        text = _FAILED_TOOL.sub(rf"\1: {_HIDDEN}", _URI.sub(_HIDDEN, text))
        # Escape sequences and bidirectional marks would let the server draw in the terminal of a person who reads the
        # log.
        return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


class LogBudget:
    """Lets at most ``lines`` lines per ``seconds`` through and counts the rest.

    Args:
        lines: how many lines one window admits.
        seconds: the length of the window.
    """

    def __init__(self, *, lines: int, seconds: float) -> None:
        self._lines = lines
        self._seconds = seconds
        self._opened = float("-inf")
        self._used = 0
        self._dropped = 0

    def admit(self, now: float) -> bool:
        """Whether a line that came at ``now`` (seconds, monotonic) may be logged."""
        if now - self._opened >= self._seconds:
            self._opened = now
            self._used = 0
        if self._used < self._lines:
            self._used += 1
            return True
        self._dropped += 1
        return False

    def count_dropped(self) -> None:
        """Count a line that was dropped for another reason."""
        self._dropped += 1

    def take_dropped(self) -> int:
        """Return how many lines were dropped since the last time this was asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped


@dataclass(slots=True)
class _Line:
    logged_at: float
    repeated: int = 0


class Repeats:
    """Lets a line through once in ``REPEATED_S`` and counts the others like it.

    Where a database is away, the server says so of every call, each time in the same words.
    """

    def __init__(self) -> None:
        self._lines: BoundedMemory[str, _Line] = BoundedMemory(_REMEMBERED_LINES)

    def admit(self, line: str, now: float) -> int | None:
        """Return how many like it were not logged since the last one, or None if this one is not logged either."""
        known = self._lines.get(line)
        if known is not None and now - known.logged_at < REPEATED_S:
            known.repeated += 1
            return None
        self._lines.put(line, _Line(now))
        return known.repeated if known is not None else 0


REPEATED_S: Final = 3600.0
"""Seconds in which the same line of a server is logged once."""

_REMEMBERED_LINES: Final = 256


def _forms(secret: str) -> Iterable[str]:
    """The ways in which a secret can turn up in a log."""
    parts = [secret]
    if userinfo := _USERINFO.match(secret):
        password = userinfo["userinfo"].partition(":")[2]
        parts += [password, unquote(password)]
    for part in parts:
        if part:
            yield part
            yield part.replace("\\", "\\\\").replace('"', '\\"')
