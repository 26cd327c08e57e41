"""The listener: aiohttp's server with limits, without a banner, and only on its C parser."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final

from aiohttp import ClientConnectionResetError, http_parser, web
from aiohttp.http_exceptions import LineTooLong
from typing_extensions import override

from sidecar.edge.connections import ConnectionLimits, Connections, Ending, address_of
from sidecar.enforcement import Budget
from sidecar.errors import ConfigurationError

_RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)

UNREAD_MS: Final = 30_000
"""How long sent data may stay unacknowledged before the connection is cut (tcp(7), TCP_USER_TIMEOUT)."""

COMMON_HEADERS: Final = {
    "Server": "mcp-sidecar",  # aiohttp would name itself, Python and both versions
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one connection may cost; seconds and bytes."""

    idle_s: float = 75.0
    """From the last answer to the complete head of the next request."""
    lingering_s: float = 2.0
    """How long the rest of a refused body is read and dropped before the connection closes."""
    shutdown_s: float = 20.0
    """How long calls in flight may finish on shutdown."""
    max_line_bytes: int = 4096
    max_header_bytes: int = 32_768
    """One header; the longest is the one with the token."""
    max_headers: int = 64
    backlog: int = 128
    """Connections that may be accepted in one go before any of them can be ended again: part of the reserve of file
    descriptors (``sidecar.lifecycle``)."""
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


class _HttpProtocol(web.RequestHandler):
    """Answers malformed HTTP with a constant text; aiohttp's own answer quotes the request and names its versions.

    A connection that is not answering a request has a deadline: for the first byte, then for the complete head.
    """

    __slots__ = (
        "_busy",
        "_connections",
        "_deadline",
        "_departed",
        "_head_began",
        "_long_heads",
        "_longest_header",
        "address",
    )

    def __init__(self, server: "_AioServer", **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._connections = server.guarded
        self._long_heads = server.long_heads
        self._longest_header = parameters["max_field_size"]
        self._deadline: asyncio.TimerHandle | None = None
        self._head_began = False
        self._busy = False
        self._departed: asyncio.Future[None] | None = None
        self.address = ""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.address = address_of(transport.get_extra_info("peername"))
        self._expect(self._connections.limits.first_byte_s, Ending.FIRST_BYTE)
        self._connections.opened(self)
        wire = transport.get_extra_info("socket")
        if wire is not None and wire.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A client that stops reading its answer must not keep it in memory; it counts progress, not size.
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._expect(None)
        self._connections.closed(self)
        if self._departed is not None and not self._departed.done():
            self._departed.set_result(None)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._head_began and not self._busy:
            self._head_began = True
            self._expect(self._connections.limits.head_s, Ending.HEAD)
        super().data_received(data)

    @override
    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp asks for it at the end of each body
            super().resume_reading(resume_parser)

    def end(self, reason: Ending) -> None:
        """Close this connection without a word: there is no request to answer."""
        self._connections.count(reason)
        self._expect(None)
        if self.transport is not None:
            self.transport.abort()

    def departed(self) -> asyncio.Future[None]:
        """Return what is done once the client has left."""
        if self._departed is None:
            self._departed = self._loop.create_future()
            if self.transport is None or self.transport.is_closing():
                self._departed.set_result(None)
        return self._departed

    def began(self) -> None:
        """The head of a request is complete."""
        self._busy = True
        self._expect(None)
        self._connections.busy(self)

    def ended(self, *, served: bool) -> None:
        """The request is answered, but for what is still being sent."""
        self._busy = self._head_began = False
        self._connections.idle(self, served=served)

    def _expect(self, seconds: float | None, reason: Ending = Ending.HEAD) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self.end, reason)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ClientConnectionResetError) and (self.transport is None or self.transport.is_closing()):
            # The client left before its answer began. That is no error of this side, and there is no client to answer:
            # to aiohttp, a ConnectionError from here says so.
            _log.debug("%s left before it was answered", request.remote)
            raise ConnectionError("the client has left")
        text = "Bad request\n"
        if status >= web.HTTPInternalServerError.status_code:
            text = "Internal error\n"
            _log.error("unhandled error while answering", exc_info=exc)
        elif isinstance(exc, LineTooLong):
            # RFC 6585 section 5, RFC 9110 section 15.5.15. The exception holds a part of the line, maybe of a token:
            # only its limit is told
            status = 431 if exc.args[1] == self._longest_header else 414
            text = f"A line of the request's head is longer than {exc.args[1]} bytes\n"
            self._connections.count(Ending.LONG_HEAD)
            self._tell_long_head(request.remote or "", exc.args[1])
        else:
            _log.debug("malformed HTTP from %s: %s", request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already begun")
        response = web.Response(status=status, text=text)
        response.headers.update(COMMON_HEADERS)
        response.force_close()
        return response

    def _tell_long_head(self, address: str, limit: object) -> None:
        others = self._long_heads.admit(address, asyncio.get_running_loop().time())
        if others is not None:
            _log.warning("refused a head with a line of more than %s bytes from %s (%d more)", limit, address, others)


class _AioServer(web.Server):
    def __init__(self, connections: Connections, handler: _RequestHandler, **parameters: Any) -> None:
        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            protocol = request.protocol
            if not isinstance(protocol, _HttpProtocol):
                raise TypeError("a connection without limits")
            protocol.began()
            served = False
            try:
                response = await handler(request)
                served = response.status < web.HTTPBadRequest.status_code
                return response
            finally:
                protocol.ended(served=served)

        super().__init__(guarded, **parameters)
        self.guarded = connections
        self.long_heads = Budget()

    @override
    def __call__(self) -> web.RequestHandler:
        # aiohttp's own falls back to a handler without our limits when they do not fit its signature: fail instead
        return _HttpProtocol(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    """Runs the application on ``_AioServer``; aiohttp has no public way to choose the protocol class."""

    __slots__ = ("_connections", "_parameters")

    def __init__(
        self, application: web.Application, connections: Connections, parameters: Mapping[str, Any], shutdown_s: float
    ) -> None:
        super().__init__(application, shutdown_timeout=shutdown_s)
        self._connections = connections
        self._parameters = parameters

    @override
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _AioServer(
            self._connections,
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **self._parameters,
        )


def departed(request: web.BaseRequest) -> asyncio.Future[None]:
    """Return what is done once the client of a request has left its connection."""
    protocol = request.protocol
    if not isinstance(protocol, _HttpProtocol):
        raise TypeError("a connection without limits")
    return protocol.departed()


def give_up(request: web.BaseRequest) -> None:
    """End the connection of a client that does not read what it asked for."""
    if isinstance(request.protocol, _HttpProtocol):
        request.protocol.end(Ending.UNREAD)


def require_c_parser() -> None:
    """Refuse to serve with aiohttp's pure-Python HTTP parser.

    Its request smuggling (CVE-2025-69224, CVE-2026-111750) is why; the C extension is llhttp.

    Raises:
        ConfigurationError: the extension is missing or switched off.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigurationError("aiohttp runs without its C extension; its Python HTTP parser is not safe to expose")


async def serve(
    application: web.Application,
    address: tuple[str, int] | Path,
    *,
    limits: ServerLimits | None = None,
    connections: Connections | None = None,
    ssl_context: SSLContext | None = None,
) -> web.AppRunner:
    """Listen and serve until the returned runner is cleaned up (``await runner.cleanup()``).

    Cleaning up stops listening, ends open streams, lets calls in flight finish for ``shutdown_s``, then cancels them.
    The bound addresses are ``runner.addresses`` (port 0 binds a free one).

    Args:
        application: what is served.
        address: host and port, or the path of a Unix socket.
        limits: what one connection may cost.
        connections: counts them, where several listeners share the counting.
        ssl_context: makes the listener speak TLS.

    Raises:
        ConfigurationError: the HTTP parser is not the C one, or the address cannot be bound.
    """
    require_c_parser()
    limits = limits or ServerLimits()
    parameters: dict[str, Any] = {
        "keepalive_timeout": limits.idle_s,
        "lingering_time": limits.lingering_s,
        "max_line_size": limits.max_line_bytes,
        "max_field_size": limits.max_header_bytes,
        "max_headers": limits.max_headers,
        "auto_decompress": False,
        "access_log": None,  # spans and audit records are the log of requests; aiohttp's would repeat targets
    }
    if connections is None:
        connections = Connections(limits.connections, asyncio.get_running_loop().time)
    runner = _Runner(application, connections, parameters, limits.shutdown_s)
    await runner.setup()
    try:
        if isinstance(address, Path):
            await _listen_at(runner, address, ssl_context, limits.backlog)
        else:
            host, port = address
            await web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=limits.backlog).start()
    except OSError as error:
        await runner.cleanup()
        where = address if isinstance(address, Path) else f"{address[0]}:{address[1]}"
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from error
    return runner


def _make_way(path: Path) -> None:
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, "another process listens there")
        path.unlink()
    elif path.exists():
        raise OSError(errno.EEXIST, "there is a file that is no socket")


async def _listen_at(runner: web.AppRunner, path: Path, ssl_context: SSLContext | None, backlog: int) -> None:
    """Listen on a Unix socket that this user and its group may open, in the place of one that no process listens on.

    Raises:
        OSError: something else is there, or another process listens on it.
    """
    _make_way(path)
    before = os.umask(0o117)
    try:
        await web.UnixSite(runner, path, ssl_context=ssl_context, backlog=backlog).start()
    finally:
        os.umask(before)
