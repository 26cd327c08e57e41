"""What an address says by its literal form; no name is resolved."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host, with or without the brackets of a URL, is this machine: ``localhost``, 127.0.0.0/8 or ``::1``."""
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return ip_address(literal).is_loopback
    except ValueError:
        return host == "localhost"


def query_address(url: str) -> str:
    """Return the address of a query API: HTTP or HTTPS, with a host, without a user, query or fragment.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        msg = "use http://HOST:PORT or https://HOST:PORT"
        raise ValueError(msg)
    return url
