"""What is suspended now: the one table that every message is looked up in, several times on its way.

In memory, so that a look costs well below a microsecond; what outlives the process is behind ``ports.SuspensionStore``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sidecar.audit import record
from sidecar.errors import CallerSuspended, SuspensionsUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity import CallerName, Suspendable, Suspension, names_of
from sidecar.model import Identity
from sidecar.ports import Clock

MOST_SUSPENSIONS: Final = 10_000
"""Suspensions that are kept at most; what has ended by itself makes room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedBySuspension:
    """What ended with a suspension."""

    sessions: int
    streams: int
    calls: int
    """Calls in flight that were ended."""
    writes: int
    """Writes that were sent already; their answers are withheld and their outcomes recorded."""


class Suspensions:
    """The table; its state is what is suspended, and whether that is known.

    Args:
        clock: says what has ended by itself.
        kept: what was suspended before.
        known: False where that could not be read: then everybody is refused.
    """

    def __init__(self, clock: Clock, kept: Iterable[Suspension] = (), *, known: bool = True) -> None:
        self._clock = clock
        self._known = known
        self._kept: dict[CallerName, Suspension] = {suspension.target.name: suspension for suspension in kept}

    @property
    def known(self) -> bool:
        """Whether what is suspended could be read."""
        return self._known

    def set_known(self, known: bool) -> None:  # noqa: FBT001 - given to what watches as it is
        """Refuse everybody from now on, or no longer: what is kept is not, or is again, what was saved."""
        self._known = known

    def require(self, identity: Identity, session_id: str = "") -> None:
        """Return if this caller may go on.

        Args:
            identity: who calls.
            session_id: the session, where the message has one.

        Raises:
            CallerSuspended: the user, the agent, both together or the session is suspended.
            TokenRejected: the token is; another one may do (RFC 6750 section 3.1: revoked is ``invalid_token``).
            SuspensionsUnavailable: the suspensions cannot be read.
        """
        if not self._known:
            raise SuspensionsUnavailable
        if not self._kept:
            return
        for name in names_of(identity):
            if name in self._kept and self.in_force(name):
                if name[0] == Suspendable.TOKEN:
                    raise TokenRejected("suspended by an operator", fault=TokenFault.SUSPENDED)
                raise CallerSuspended
        if session_id and self.in_force((Suspendable.SESSION.value, record.session_digest(session_id))):
            raise CallerSuspended

    def find(self, name: CallerName) -> Suspension | None:
        """Return what is in force under this name."""
        return self._kept[name] if self.in_force(name) else None

    def add(self, suspension: Suspension) -> None:
        """Put one in force, or replace the one of the same name."""
        self._kept[suspension.target.name] = suspension

    def drop(self, name: CallerName) -> None:
        """Take one out of force."""
        self._kept.pop(name, None)

    def all(self) -> tuple[Suspension, ...]:
        """Return what is in force, in the order in which it was suspended; what has ended is forgotten."""
        now = self._now()
        for name in [name for name, suspension in self._kept.items() if suspension.over(now)]:
            del self._kept[name]
        return tuple(self._kept.values())

    def in_force(self, name: CallerName) -> bool:
        """Whether something is suspended under this name."""
        suspension = self._kept.get(name)
        return suspension is not None and not suspension.over(self._now())

    def _now(self) -> float:
        return self._clock.time_ns() / 1e9
