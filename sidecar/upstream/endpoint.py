"""What settings say of a server behind HTTP: its address and the headers that go with every request."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping

from yarl import URL

from sidecar.errors import ConfigurationError
from sidecar.upstream.redaction import Redactor

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


class ServerHeaders:
    """The headers that go with every request to a server, read again where it refuses them.

    Args:
        server: its name.
        headers: those in use first.
        renewed: reads them again; None where they come from no file.
        redactor: what keeps their values out of logs.
        log: the server's.

    Raises:
        ConfigurationError: as ``checked_headers``.
    """

    def __init__(
        self,
        server: str,
        headers: Mapping[str, str],
        renewed: Callable[[], Mapping[str, str]] | None,
        redactor: Redactor,
        log: logging.Logger,
    ) -> None:
        self._server = server
        self.present: Mapping[str, str] = checked_headers(headers)
        """Those to send."""
        self._renewed = renewed
        self._redactor = redactor
        self._log = log
        self._obstacle = ""
        """Why they could not be read again, as last reported."""

    async def newer_than(self, used: Mapping[str, str]) -> bool:
        """Whether others are to be sent than those that were refused; the first caller reads them."""
        if self.present is used and self._renewed is not None:
            try:
                headers = checked_headers(await asyncio.to_thread(self._renewed))
            except ConfigurationError as error:
                if error.detail != self._obstacle:
                    self._obstacle = error.detail
                    self._log.error("the server %s refuses the headers; others cannot be had: %s", self._server, error)
                return False
            self._obstacle = ""
            if headers != self.present:
                self._redactor.hide(headers.values())
                self.present = headers
                self._log.info("the server %s is sent the headers that headers_file has now", self._server)
        return self.present is not used
