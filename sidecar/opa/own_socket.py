"""The connections to an OPA that the sidecar started, over that OPA's Unix socket (docs/adr/0029).

One question at a time on each connection. A connection whose question was cancelled, was late or was not answered as it
should be is closed and never used again, so no answer can be taken for that to another question.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, Self, cast

from typing_extensions import override

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.http_answer import AnswerFraming, FramedAnswer

_POST: Final = (
    "POST {} HTTP/1.1\r\nHost: opa\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
    "Content-Type: application/json\r\n"
)
_GET: Final = "GET {} HTTP/1.1\r\nHost: opa\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n\r\n"


class Dropped(ConnectionError):
    """OPA ended the connection before a byte of an answer; what was asked may be asked again."""


class _OwnConnection(asyncio.Protocol):
    """One connection, with at most one question under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[FramedAnswer] | None = None
        self._framing = AnswerFraming(0)

    @property
    def usable(self) -> bool:
        """Whether another question may go out on it."""
        return self._waiter is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, longest: int) -> FramedAnswer:
        """Send and wait for the whole answer; the connection is closed on every other way out.

        Raises:
            Dropped: it ended before a byte of an answer.
            DecisionUnavailable: the answer broke off, or is none.
        """
        transport = self._transport
        if transport is None or not self.usable:
            raise Dropped
        self._framing = AnswerFraming(longest)
        waiter: asyncio.Future[FramedAnswer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        try:
            transport.write(request)
            answer = await waiter
        except BaseException:
            self.abort()
            raise
        if answer.last:
            self.abort()
        self._waiter = None
        return answer

    def abort(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it

    @override
    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()  # nothing was asked that is not answered
            return
        try:
            answer = self._framing.feed(data)
        except DecisionUnavailable as error:
            waiter.set_exception(error)
            self.abort()
            return
        if answer is not None:
            waiter.set_result(answer)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        waiter = self._waiter
        self._transport = None
        if waiter is None or waiter.done():
            return
        if self._framing.begun:
            waiter.set_exception(DecisionUnavailable("the answer broke off", fault=PdpFault.INCOMPLETE))
        else:
            waiter.set_exception(Dropped())


class OwnSocket:
    """Asks over one Unix socket; stands where ``AsyncOpaClient`` stands for every other OPA.

    Args:
        path: of the socket.
        longest: bytes that an answer may have.
    """

    def __init__(self, path: str, longest: int) -> None:
        self._path = path
        self._longest = longest
        self._heads: dict[str, bytes] = {}
        """By target; targets are constants of the port."""
        self._all: set[_OwnConnection] = set()
        self._idle: list[_OwnConnection] = []
        self.open = False

    async def __aenter__(self) -> Self:
        self.open = True
        return self

    async def close_connection(self) -> None:
        """Close all connections; questions in flight end."""
        self.open = False
        self._idle.clear()
        for connection in self._all:
            connection.abort()
        self._all.clear()

    async def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Ask once and return status, media type and body.

        Raises:
            Dropped: the connection ended before a byte of an answer.
            OSError: nobody listens.
            DecisionUnavailable: the answer is not one, or the socket is not open.
        """
        head = self._heads.get(target)
        if head is None:
            head = self._heads[target] = _POST.format(target).encode("ascii")
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (head, more, len(body), body)
        answer = await self._asked(request, self._longest)
        return answer.status, answer.media_type, answer.body

    async def get(self, target: str, longest: int) -> tuple[int, bytes]:
        """Return status and body of a GET; raises as ``post``."""
        answer = await self._asked(_GET.format(target).encode("ascii"), longest)
        return answer.status, answer.body

    async def status(self, target: str) -> int:
        """Return the status of a GET; raises as ``post``."""
        return (await self.get(target, self._longest))[0]

    async def _asked(self, request: bytes, longest: int) -> FramedAnswer:
        connection = await self._connection()
        try:
            return await connection.ask(request, longest)
        finally:
            if connection.usable and self.open:
                self._idle.append(connection)
            else:
                connection.abort()
                self._all.discard(connection)

    async def _connection(self) -> _OwnConnection:
        """Return one that no question is under way on."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._all.discard(connection)
        _, connection = await asyncio.get_running_loop().create_unix_connection(_OwnConnection, self._path)
        if not self.open:
            connection.abort()
            raise DecisionUnavailable("the client is not open", fault=PdpFault.UNREACHABLE)
        self._all.add(connection)
        return connection
