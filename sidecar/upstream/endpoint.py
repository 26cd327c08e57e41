"""What settings say of a server behind HTTP: its address and the headers that go with every request."""

import re
from collections.abc import Mapping

import aiohttp
from yarl import URL

from sidecar.errors import ConfigurationError

_KEEP_ALIVE_S = 3.0
"""Below the server's own 5 s, so that a request never meets a connection that is just being closed: a POST that was
lost that way must not be sent twice."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_OWN_HEADERS = frozenset({
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie", "host",
    "mcp-protocol-version", "mcp-session-id", "transfer-encoding", "user-agent",
})  # fmt: skip


def checked_url(url: str) -> URL:
    """Return the endpoint of a server.

    Raises:
        ConfigurationError: not an address, or one that holds more than an address.
    """
    try:
        parsed = URL(url)
    except ValueError as error:
        raise ConfigurationError("url is not a URL") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError("url must be http://host… or https://host…")
    if parsed.user is not None or parsed.password is not None or parsed.query_string or parsed.fragment:
        raise ConfigurationError("url must not have credentials, a query or a fragment: put secrets into headers_file")
    return parsed


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that go with every request to it.

    Raises:
        ConfigurationError: one that the sidecar sets itself, or that is no header.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.match(name) or name.lower() in _OWN_HEADERS:
            raise ConfigurationError(
                f"headers_file: the sidecar sets the header {name!r} itself, or it is not a header name"
            )
        if not value or not value.isascii() or not value.isprintable():
            raise ConfigurationError(f"headers_file: the value of {name!r} must be printable ASCII, and not empty")
    return dict(headers)


def client_session(connections: int) -> aiohttp.ClientSession:
    """Return what sends exactly what it is given: no cookies, no proxies of the environment, nothing decompressed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    )
