"""The listener: aiohttp's server with limits, without a banner, and only on its C parser."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final

from aiohttp import http_parser, web
from typing_extensions import override

from sidecar.errors import ConfigurationError

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
    """From connecting, or from the last answer, to the complete head of the next request: bounds idle connections and
    heads that arrive byte by byte alike."""
    lingering_s: float = 2.0
    """How long the rest of a refused body is read and dropped before the connection closes."""
    shutdown_s: float = 20.0
    """How long calls in flight may finish on shutdown."""
    max_line_bytes: int = 4096
    max_header_bytes: int = 10_240
    """One header; just above the longest token that ``sidecar.oauth`` looks at."""
    max_headers: int = 64
    backlog: int = 512


class _Protocol(web.RequestHandler):
    """Answers malformed HTTP with a constant text; aiohttp's own answer quotes the request and names its versions."""

    __slots__ = ()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        wire = transport.get_extra_info("socket")
        if wire is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A client that stops reading its answer must not keep it in memory; it counts progress, not size.
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= web.HTTPInternalServerError.status_code:
            _log.error("unhandled error while answering", exc_info=exc)
        else:
            _log.debug("malformed HTTP from %s: %s", request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already begun")
        response = web.Response(status=status, text="Bad request\n" if status < 500 else "Internal error\n")  # noqa: PLR2004 - the class of status
        response.headers.update(COMMON_HEADERS)
        response.force_close()
        return response


class _Server(web.Server):
    @override
    def __call__(self) -> web.RequestHandler:
        # aiohttp's own falls back to a handler without our limits when they do not fit its signature: fail instead
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    """Runs the application on ``_Server``; aiohttp has no public way to choose the protocol class."""

    __slots__ = ("_parameters",)

    def __init__(self, application: web.Application, parameters: Mapping[str, Any], shutdown_s: float) -> None:
        super().__init__(application, shutdown_timeout=shutdown_s)
        self._parameters = parameters

    @override
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **self._parameters,
        )


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
    host: str,
    port: int,
    *,
    limits: ServerLimits | None = None,
    ssl_context: SSLContext | None = None,
) -> web.AppRunner:
    """Listen and serve until the returned runner is cleaned up (``await runner.cleanup()``).

    Cleaning up stops listening, ends open streams, lets calls in flight finish for ``shutdown_s``, then cancels them.
    The bound addresses are ``runner.addresses`` (port 0 binds a free one).

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
    runner = _Runner(application, parameters, limits.shutdown_s)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=limits.backlog).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return runner
