"""How many connections there may be, and which one ends where there is no place for the next.

Each connection is a file descriptor, and descriptors are what the rest of the process lives on too: reading policies,
fetching keys, the audit file, the MCP servers. So the listener stays below the process's limit, and a crowd of idle
connections neither stops the process nor keeps a new client out.

- A connection that has done nothing yet, or was answered with an error, ends before one that was served.
- Of those, the one that has been idle longest ends first. One with a request under way never makes room.
- An address with more connections than one may have makes room among its own.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol

CROWDED_S: Final = 10.0
"""How long readiness reports that a connection had to end for another."""

CROWDED_SHARE: Final = 0.9


class Ending(StrEnum):
    """Why the listener ended a connection by itself."""

    EVICTED = "evicted"
    """It was idle, and its place was needed."""
    REFUSED = "refused"
    """It is new, and no other one was idle."""
    FIRST_BYTE = "first_byte"
    """It sent nothing in time."""
    HEAD = "head"
    """It did not complete the head of a request in time."""
    LONG_HEAD = "long_head"
    """A line of the head of its request was too long."""
    UNREAD = "unread"
    """Its client did not read the stream that it asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What connections may take; seconds."""

    total: int = 10_000
    per_address: int = 2_000
    first_byte_s: float = 10.0
    """From connecting to the first byte."""
    head_s: float = 10.0
    """From the first byte of a request to its complete head."""


class Connection(Protocol):
    """What is known of one connection."""

    address: str

    def end(self, reason: Ending) -> None:
        """Close it, for this reason."""
        ...


class Connections:
    """The open connections of one listener.

    No ``BoundedMemory``: only an idle one makes room, of one address where that has too many, and it has to be closed.

    Args:
        limits: how many there may be.
        clock: monotonic seconds.
        ended: told of each connection that the listener ended by itself.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        clock: Callable[[], float],
        ended: Callable[[Ending], None] = lambda _: None,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._ended = ended
        self._open: set[Connection] = set()
        self._of: Counter[str] = Counter()
        self._unknown: OrderedDict[Connection, None] = OrderedDict()  # idle longest first
        self._served: OrderedDict[Connection, None] = OrderedDict()
        self._pressed_at = -CROWDED_S

    def __len__(self) -> int:
        return len(self._open)

    @property
    def crowded(self) -> bool:
        """Whether there is hardly a place left, or a connection had to end for another a moment ago."""
        full = len(self._open) >= CROWDED_SHARE * self.limits.total
        return full or self._clock() - self._pressed_at < CROWDED_S

    def opened(self, connection: Connection) -> None:
        """Take a new connection in, and end another one or this one where there are too many."""
        own = self._of[connection.address] >= min(self.limits.per_address, self.limits.total)
        full = own or len(self._open) >= self.limits.total
        if full and not self._make_room(connection.address if own else None):
            connection.end(Ending.REFUSED)
            return
        self._open.add(connection)
        self._of[connection.address] += 1
        self._unknown[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection; forgetting it twice changes nothing."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._unknown.pop(connection, None)
        self._served.pop(connection, None)
        self._of[connection.address] -= 1
        if not self._of[connection.address]:
            del self._of[connection.address]

    def busy(self, connection: Connection) -> None:
        """A request of it is being answered."""
        self._unknown.pop(connection, None)
        self._served.pop(connection, None)

    def idle(self, connection: Connection, *, served: bool) -> None:
        """It waits for its next request; ``served``: the last one was not refused."""
        if connection in self._open:
            (self._served if served else self._unknown)[connection] = None

    def count(self, reason: Ending) -> None:
        """Count a connection that the listener ends."""
        self._ended(reason)

    def _make_room(self, address: str | None) -> bool:
        """End an idle connection, of one address or of any; return whether there was one."""
        self._pressed_at = self._clock()
        for candidates in (self._unknown, self._served):
            chosen = next((one for one in candidates if address is None or one.address == address), None)
            if chosen is not None:
                self.closed(chosen)
                chosen.end(Ending.EVICTED)
                return True
        return False


def address_of(peer: object) -> str:
    """Return what one client counts as: its IPv4 address, or the /64 that an IPv6 client can choose addresses from."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    text = str(peer[0])
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(IPv6Network((int(address), 64), strict=False))
    return text
