"""The client's address behind proxies: what a header claims counts only as far as trusted proxies said it.

Each proxy adds the address it was called from at the end of the list. Read from the end, every entry that is itself a
trusted proxy says who called it; the first that is not is the client, and what stands before it could have been
written by that client. One header is read, the one that the operator's proxies write: a client can send the other.

Sources: RFC 7239 section 4, 5.2 and 7.4; RFC 9110 section 5.3 (several lines of one header are one list).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from multidict import MultiMapping

Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Entries of a list that are looked at; more is no chain of proxies."""

_FOR: Final = re.compile(r'(?:^|;)\s*for=("[^"\\]*"|[^;"\s]*)\s*(?=;|$)', re.IGNORECASE)
_WITH_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):[0-9]{1,5}")


class ForwardedHeader(StrEnum):
    """Which header the proxies write."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedProxies:
    """The proxies whose word about the client counts; none by default."""

    networks: tuple[Network, ...] = ()
    header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR
    local: bool = False
    """Whether a peer on a Unix socket is a trusted proxy."""

    def client(self, peer: str, headers: MultiMapping[str]) -> str:
        """Return the address of the client.

        Args:
            peer: the address of the connection; empty on a Unix socket.
            headers: of the request.

        Returns:
            The peer itself where it is no trusted proxy, and the last trusted one where what it says is no address.
        """
        if not self.trusts(peer):
            return peer
        claimed = self._claimed(headers)
        found = peer
        for text in reversed(claimed[-MAX_HOPS:]):
            address = _address(text)
            if address is None:
                return found
            found = str(address)
            if not self._among(address):
                return found
        return found

    def trusts(self, peer: str) -> bool:
        """Whether the other end of a connection is one of the proxies."""
        if not peer:
            return self.local
        if not self.networks:
            return False
        address = _address(peer)
        return address is not None and self._among(address)

    def _among(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)

    def _claimed(self, headers: MultiMapping[str]) -> Sequence[str]:
        entries = [entry.strip() for entry in ",".join(headers.getall(self.header.value, [])).split(",")]
        match self.header:
            case ForwardedHeader.X_FORWARDED_FOR:
                return entries
            case ForwardedHeader.FORWARDED:
                return [said[1].strip('"') if (said := _FOR.search(entry)) else "" for entry in entries]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, with or without a port; an IPv4 address in IPv6 form is the IPv4 address."""
    match = _WITH_PORT.fullmatch(text)
    bare = (match[1] or match[2]) if match else text.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
