"""The connections to a server behind HTTP: one host, one request at a time on each, kept for a moment for the next.

aiohttp's parser and protocol read the answers; its ``ClientSession`` is left out. What that is for (other hosts,
redirects, cookies, proxies, retries, compression) is not done here at all, and it took a quarter of the CPU time of a
call (``bench/calls.py``). One exchange has a connection at a time. A connection that was not read to the end of its
answer, or that has said anything unasked, is closed and never used again.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeAlias

import aiohappyeyeballs
import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from typing_extensions import override
from yarl import URL

KEEP_ALIVE_S: Final = 3.0
"""Below the server's own 5 s, so that a request never meets a connection that is just being closed: a POST that was
lost that way must not be sent twice."""

_NEXT_ADDRESS_S: Final = 0.25
"""How long an address may be silent before the next one of the same name is tried beside it (RFC 8305 section 5)."""

Leaving: TypeAlias = Callable[[], None] | None
"""Called right before a request is written; what it raises keeps it from being sent."""

_ENDS_A_HEADER: Final = re.compile(r"[\r\n\0]")
_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAnswer:
    """The head of an answer, and its body as it comes."""

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader

    @property
    def content_type(self) -> str:
        """The media type, without parameters; empty where there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip(" \t").lower()


class _ServerConnection(ResponseHandler):
    """One connection; what comes while nothing is asked ends it."""

    idle = False

    @override
    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp asks for it at the end of each body
            super().resume_reading(resume_parser)

    @property
    def said_more(self) -> bool:
        """Whether a further answer has begun; to be asked where the last one was read, and nothing is parsed after."""
        try:
            return self._parser is None or self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - the beginning of one that is refused for any reason
            return True

    @override
    def data_received(self, data: bytes) -> None:
        if self.idle:
            self.force_close()
            self.abort()
            return
        super().data_received(data)
        failed, body = self._exception, self._payload
        if failed is not None and body is not None and not body.is_eof() and body.exception() is None:
            # What broke the parser is told to who waits for an answer, and not to who reads the body of one.
            body.set_exception(aiohttp.ClientPayloadError(f"not HTTP: {type(failed).__name__}"))


class ServerConnections:
    """The connections to one server.

    Args:
        url: the endpoint, ``http`` or ``https``.
        most: connections at once; further requests wait.
    """

    def __init__(self, url: URL, most: int) -> None:
        self._host = url.raw_host or ""
        """With a dot at its end, which keeps a resolver from trying it within its own domains (``resolv.conf(5)``)."""
        self._name = self._host.rstrip(".")
        """What a certificate has to name (RFC 6066 section 3: without that dot)."""
        self._port = url.port
        self._target = url.raw_path_qs
        self._authority = url.host_port_subcomponent
        self._tls = _tls() if url.scheme == "https" else None
        self._places = asyncio.Semaphore(most)
        self._all: set[_ServerConnection] = set()
        self._idle: list[tuple[float, _ServerConnection]] = []  # idle longest first
        self._sweeper: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[Sequence[AddrInfoType]] | None = None
        self._closed = False

    def exchange(
        self, leg: str, headers: Mapping[str, str], body: bytes = b"", leaving: Leaving = None
    ) -> "_ServerExchange":
        """Return what sends one request when it is entered, and gives the answer.

        Args:
            leg: the HTTP method.
            headers: all but ``Host`` and ``Content-Length``.
            body: the request's.
            leaving: called when there is a connection.

        Raises:
            aiohttp.ClientError, OSError: there is no connection, or no answer.
            ValueError: a header holds the end of a line.
        """
        return _ServerExchange(self, leg, self._head(leg, headers, len(body)), body, leaving)

    async def close(self) -> None:
        """Close every connection; requests under way fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.abort()  # its own way of closing keeps that from who reads a body
        self._all.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # the transports tell their ends in the next turn of the loop

    async def take(self, *, fresh: bool) -> _ServerConnection:
        """Return a connection for one request; ``fresh``: one that was never used.

        Raises:
            aiohttp.ClientError, OSError: there is none.
        """
        await self._places.acquire()
        try:
            kept = None if fresh else self._kept()
            return await self._opened() if kept is None else kept  # by identity: an idle one is an empty queue
        except BaseException:
            self._places.release()
            raise

    def put_back(self, connection: _ServerConnection, *, answered: bool) -> None:
        """Take a connection after its request: for the next one, if its answer was read to the end."""
        self._places.release()
        if self._closed or not answered or not _usable(connection) or connection.said_more:
            self._drop(connection)
            return
        loop = asyncio.get_running_loop()
        connection.idle = True
        self._idle.append((loop.time(), connection))
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEEP_ALIVE_S, self._sweep)

    def _head(self, leg: str, headers: Mapping[str, str], length: int) -> bytes:
        if _ENDS_A_HEADER.search("".join(headers.values())):
            raise ValueError("a header with the end of a line in it")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if leg == "POST":
            lines += f"Content-Length: {length}\r\n"
        return f"{leg} {self._target} HTTP/1.1\r\nHost: {self._authority}\r\n{lines}\r\n".encode("ascii")

    def _kept(self) -> _ServerConnection | None:
        """Return the connection that was used last, if there is one that may be used again."""
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while self._idle:
            since, connection = self._idle.pop()
            if since > oldest and _usable(connection):
                connection.idle = False
                return connection
            self._drop(connection)
        return None

    async def _opened(self) -> _ServerConnection:
        self._require_open()
        loop = asyncio.get_running_loop()
        try:
            found = await self._addresses()
            wire = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop)
            _, connection = await loop.create_connection(
                lambda: _ServerConnection(loop),
                sock=wire,
                ssl=self._tls,
                server_hostname=self._name if self._tls is not None else None,
            )
        except TimeoutError as error:  # the system's own, which is no limit of a call's
            raise aiohttp.ClientConnectionError("connecting took too long") from error
        try:
            self._require_open()
        except aiohttp.ClientConnectionError:
            connection.abort()
            raise
        self._all.add(connection)
        return connection

    async def _addresses(self) -> Sequence[AddrInfoType]:
        """Look the host up, once for all who need it at the moment.

        A lookup holds one of few threads of the process until the resolver answers, also when nobody waits for it any
        more. With one for each call, a resolver that is slow for this host would keep those of others waiting.
        """
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up())
            self._lookup.add_done_callback(self._looked_up)
        lookup, mine = self._lookup, asyncio.current_task()
        try:
            return await asyncio.shield(lookup)
        except asyncio.CancelledError:
            if lookup.cancelled() and mine is not None and not mine.cancelling():
                raise aiohttp.ClientConnectionError("closed") from None
            raise

    async def _look_up(self) -> Sequence[AddrInfoType]:
        return await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)

    def _looked_up(self, lookup: asyncio.Task[Sequence[AddrInfoType]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # nobody may be waiting for it any more

    def _require_open(self) -> None:
        if self._closed:
            raise aiohttp.ClientConnectionError("closed")

    def _drop(self, connection: _ServerConnection) -> None:
        connection.abort()
        self._all.discard(connection)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - KEEP_ALIVE_S
        while self._idle and self._idle[0][0] <= oldest:
            self._drop(self._idle.pop(0)[1])
        first = self._idle[0][0] if self._idle else None
        self._sweeper = None if first is None else loop.call_at(first + KEEP_ALIVE_S, self._sweep)


class _ServerExchange:
    """One request and its answer. A class, since a generator costs three times as much."""

    __slots__ = ("_body", "_connection", "_connections", "_head", "_leaving", "_leg")

    _connection: _ServerConnection

    def __init__(self, connections: ServerConnections, leg: str, head: bytes, body: bytes, leaving: Leaving) -> None:
        self._connections = connections
        self._leg = leg
        self._head = head
        self._body = body
        self._leaving = leaving

    async def __aenter__(self) -> ServerAnswer:
        # A connection that was idle may be just being closed. Whether a lost POST took effect cannot be told, so it is
        # an error in any case; the others, which are rare, have a connection of their own.
        self._connection = await self._connections.take(fresh=self._leg != "POST")
        try:
            return await self._asked()
        except BaseException:
            self._connections.put_back(self._connection, answered=False)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connections.put_back(self._connection, answered=True)

    async def _asked(self) -> ServerAnswer:
        connection = self._connection
        connection.set_response_params(read_until_eof=True, auto_decompress=False)
        if self._leaving is not None:
            self._leaving()
        transport = connection.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        transport.writelines((self._head, self._body) if self._body else (self._head,))
        try:
            message, content = await connection.read()
            while message.code in _INTERIM and message.code != _SWITCHING:
                message, content = await connection.read()
            if message.code == _SWITCHING:
                connection.force_close()  # also where it does not say to what: the parser has stopped
        except HttpProcessingError as error:  # without the cause: its text quotes what came
            raise aiohttp.ClientPayloadError(f"not HTTP: {type(error).__name__}") from None
        return ServerAnswer(status=message.code, headers=message.headers, content=content)


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _usable(connection: _ServerConnection) -> bool:
    """Whether nothing is left of the last answer, and the connection stands."""
    transport = connection.transport
    return (
        transport is not None
        and not transport.is_closing()
        and not connection.should_close
        and not transport.get_write_buffer_size()
    )
