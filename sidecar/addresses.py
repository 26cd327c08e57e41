"""What an address says by its literal form; no name is resolved."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host, with or without the brackets of a URL, is this machine: ``localhost``, 127.0.0.0/8 or ``::1``."""
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return ip_address(literal).is_loopback
    except ValueError:
        return host == "localhost"
