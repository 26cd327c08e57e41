"""Names in ``Host`` and ``Origin``: how they are spelt, and which are this listener's (DNS rebinding, browsers).

An origin is compared as browsers write it (RFC 6454 section 6.2): lower case, without the scheme's own port, without a
path. What an operator writes is brought into that form where it has one, and refused where no browser could ever send
it, so that no setting silently allows nothing.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from sidecar.addresses import is_loopback
from sidecar.identity import ResourceUri

HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[0-9]{1,5})?", re.ASCII)
"""RFC 9110 section 7.2, narrowed to IPv6 literals, IPv4 literals and names; no user, no trailing dot."""

ANY_PORT: Final = ":*"
"""Ends an origin of this machine, whose tools listen where there is a place."""

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}", re.ASCII)
_OWN_PORT: Final = {"http": 80, "https": 443}
MAX_PORT: Final = 65535
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


def origin(text: str) -> tuple[str, str]:
    """Return an origin as it is compared, and the same for any port.

    Raises:
        ValueError: no browser sends this; ``null`` counts as none, because every sandboxed page has it.
    """
    scheme, separator, authority = text.lower().partition("://")
    match = HOST.fullmatch(authority)
    if not separator or not _SCHEME.fullmatch(scheme) or match is None:
        raise ValueError("an origin is scheme://host or scheme://host:port")
    port = int(match[3][1:]) if match[3] else _OWN_PORT.get(scheme)
    if port is not None and port > MAX_PORT:
        raise ValueError("a port is at most 65535")
    host = f"{scheme}://{match[1]}"
    return (host if port == _OWN_PORT.get(scheme) else f"{host}:{port}"), host + ANY_PORT


def allowed_origin(text: str) -> str:
    """Return an origin of the settings in the one spelling that browsers send.

    Raises:
        ValueError: it could never match.
    """
    return origin(text.removesuffix("/"))[0]


def allowed_host(text: str) -> str:
    """Return a host of the settings as it is compared: a lower-case name, with or without a port.

    Raises:
        ValueError: it could never match.
    """
    match = HOST.fullmatch(text.lower())
    if match is None:
        raise ValueError("a host is a name or an address, with or without a port")
    return match[0]


def default_hosts(resource: ResourceUri, listen_host: str) -> frozenset[str]:
    """Return the Host values of this endpoint: the resource's authority and, on a loopback listener, its own names."""
    own = frozenset({resource.authority})
    return own | _LOOPBACK if is_loopback(listen_host) else own


def default_origins(resource: ResourceUri, listen_host: str) -> frozenset[str]:
    """Return the Origin values that are let in: the resource's own and, on a loopback listener, this machine's."""
    return frozenset({allowed_origin(resource.origin)}) | machine_origins(listen_host)


def machine_origins(listen_host: str) -> frozenset[str]:
    """Return this machine's own origins where the listener is on loopback, so that only this machine reaches it."""
    return frozenset(f"http://{host}{ANY_PORT}" for host in _LOOPBACK if is_loopback(listen_host))


def admin_hosts(listen_host: str, more: Collection[str]) -> frozenset[str]:
    """Return the Host names of the admin listener: its own, on loopback this machine's, and what the settings add."""
    own = _LOOPBACK if is_loopback(listen_host) else frozenset({listen_host.lower()})
    return own | frozenset(more)


def is_address(host: str) -> bool:
    """Whether a Host value is an address: a page that was rebound to one carries a name (DNS rebinding)."""
    match = HOST.fullmatch(host.lower())
    try:
        return match is not None and bool(ip_address(match[1].strip("[]")))
    except ValueError:
        return False
