"""The stdio transport: one client that launched this process, one JSON-RPC message a line (MCP, transports, stdio).

Everything is decided as over HTTP. What HTTP says in headers is known here by other means: who calls, from a token that
is looked at again for every message; which session, because the process has one at a time. A refusal that HTTP would
give a status is a JSON-RPC error, and a challenge has nowhere to go.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from sidecar.enforcement import Accepted, Answer, Caller, EnforcementPoint, Exchange, Refused, Reply, Stream
from sidecar.errors import MessageError, MessageTooLarge, SidecarError
from sidecar.mcp import Ends, RequestId, jsonrpc, read_envelope
from sidecar.model import Credential
from sidecar.system import ClientGone

_LOG = logging.getLogger(__name__)

LOCAL: Final = "127.0.0.1"
"""The address of a client that is a process of this machine; a policy that reads addresses can read this one."""

MOST_AT_ONCE: Final = 128
"""Messages that are being answered; while there are as many, nothing more is read."""

FINISH_S: Final = 1.0
"""What calls under way have to finish when the process is told to end. Official clients wait two seconds before they
kill it (measured: Python 1.26 to 2.3, TypeScript 1.32 and 2.4)."""


class StdioFront:
    """Serves the one client of this process.

    Args:
        pep: decides.
        credential: what proves who is calling now; None where there is nothing.
        write: sends one line.
        most_bytes: of a line.
    """

    def __init__(
        self,
        pep: EnforcementPoint,
        credential: Callable[[], Credential | None],
        write: Callable[[bytes], Awaitable[None]],
        *,
        most_bytes: int,
    ) -> None:
        self._pep = pep
        self._credential = credential
        self._write = write
        self._most_bytes = most_bytes
        self._session_id: str | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._open_requests: dict[RequestId, asyncio.Future[None]] = {}

    async def serve(self, chunks: AsyncIterator[bytes]) -> None:
        """Answer until the client closes its end, and finish what is under way then.

        Where it is cancelled, what does not finish soon is answered with an error.
        """
        reading = asyncio.create_task(self._read(chunks))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            reading.cancel()
            if self._answering:
                await asyncio.wait(self._answering, timeout=FINISH_S)
            raise
        finally:
            ending = [reading, gone, *self._answering, *([self._listening] if self._listening is not None else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._pep.close_streams()
            await self._pep.stop()

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        async for line in lines(chunks, self._most_bytes):
            await self._take(line)
        while self._answering:
            await asyncio.wait(self._answering)

    async def _take(self, line: bytes | Ends) -> None:
        """Begin to answer a line. What opens a session is answered before the next line is looked at."""
        while len(self._answering) >= MOST_AT_ONCE:
            await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._answer(line))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        if self._session_id is None and _opens(line):
            await asyncio.wait({task})

    async def _answer(self, line: bytes | Ends) -> None:
        """Answer one line; every way out of it is an answer, where the line asks for one."""
        with suppress(ClientGone):
            try:
                await self._decide(line)
            except asyncio.CancelledError:
                await self._refuse(EndingProcess(), line)
                raise
            except ClientGone:
                raise
            except Exception:  # noqa: BLE001 - a defect ends one message, as HTTP answers it with 500
                _LOG.exception("a message could not be answered")
                await self._refuse(SidecarError(), line)

    async def _decide(self, line: bytes | Ends) -> None:
        exchange = Exchange(transport="stdio", client_ip=LOCAL, session_id=self._session_id)
        caller = await self._pep.authenticate(self._credential(), exchange)
        if isinstance(caller, Refused):
            await self._refuse(caller.error, line)
        elif isinstance(line, Ends):
            error = MessageTooLarge("a line over the limit")
            await self._render(await self._pep.refuse_body(error, line, exchange, caller), exchange, caller)
        elif self._session_id is not None or not self._withdraws(line):
            with self._withdrawable(line) as gone:
                await self._render(await self._pep.enforce(line, exchange, caller, gone), exchange, caller)

    def _withdraws(self, line: bytes) -> bool:
        """Withdraw the request that a notification of the stateless revision names; within a session others do that.

        Without sessions an id means nothing but on the transport that it came on (MCP 2026-07-28, stdio, cancellation).
        """
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = _CANCELLED.decode(line)
            if found.method == "notifications/cancelled":
                gone = self._open_requests.get(found.params.requestId)
                if gone is not None and not gone.done():
                    gone.set_result(None)
                return True
        return False

    @contextmanager
    def _withdrawable(self, line: bytes) -> Iterator[asyncio.Future[None]]:
        """Yield what is done once the request that a line is was withdrawn."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        envelope = read_envelope(line) if self._session_id is None else None
        request_id = None if envelope is None else envelope.request_id
        if request_id is None or request_id in self._open_requests:
            yield gone
            return
        self._open_requests[request_id] = gone
        try:
            yield gone
        finally:
            del self._open_requests[request_id]

    async def _render(self, reply: Reply, exchange: Exchange, caller: Caller) -> None:
        match reply:
            case Answer():
                if reply.session_id is not None:
                    await self._open(reply.session_id, exchange, caller)
                await self._send(reply.body)
            case Stream():
                await self._relay(reply)
            case Refused():
                # Nothing answers a notification (JSON-RPC 2.0 section 4.1); what is no message is answered without id.
                if reply.addressed or isinstance(reply.error, MessageError):
                    await self._send(reply.body)
            case Accepted():
                pass
        here = exchange.session_id is not None and exchange.session_id == self._session_id
        if here and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._listen(exchange, caller))

    async def _open(self, session_id: str, exchange: Exchange, caller: Caller) -> None:
        """Use a new session; the process has one at a time."""
        earlier, self._session_id = self._session_id, session_id
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        if earlier is not None:
            await self._pep.end_session(exchange, caller)

    async def _listen(self, exchange: Exchange, caller: Caller) -> None:
        """Send the notifications of the session, until it or the token ends; a later message begins again."""
        stream = await self._pep.listen(exchange, caller)
        if isinstance(stream, Stream):
            with suppress(ClientGone):
                await self._relay(stream)

    async def _relay(self, stream: Stream) -> None:
        """Send what a stream carries; an event without a message only has an id, which means nothing here."""
        async for event in stream.events:
            if event.message:
                await self._send(event.message)

    async def _refuse(self, error: SidecarError, line: bytes | Ends) -> None:
        """Answer the request that a line is, where it is one, in the words of the error's class."""
        envelope = read_envelope(line)
        if envelope is not None and envelope.request_id is not None:
            await self._send(jsonrpc.encode_error(envelope.request_id, error.code, error.public))

    async def _send(self, message: bytes) -> None:
        """Send one message as one line; a line break in JSON can only stand between its parts.

        Raises:
            ClientGone: nobody reads; nothing more is answered then.
        """
        try:
            await self._write(message.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n")
        except ClientGone:
            self._gone.set()
            raise


class EndingProcess(SidecarError):
    """The process was told to end while the request was being answered."""

    label = "ending"
    public = "The sidecar is ending; had the request been forwarded by then, a write may have taken effect."
    code = 1499


class _Withdrawn(msgspec.Struct):
    requestId: str | int = ""  # noqa: N815 - the protocol's word


class _Cancelled(msgspec.Struct):
    method: str
    params: _Withdrawn = msgspec.field(default_factory=_Withdrawn)


_CANCELLED: Final = msgspec.json.Decoder(_Cancelled)


def _opens(line: bytes | Ends) -> bool:
    envelope = read_envelope(line)
    return envelope is not None and envelope.method == "initialize"


async def lines(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes | Ends]:
    """Yield each line that says anything; of one that is too long, only its ends are kept.

    A last line without a line break counts: the client has closed its end, so nothing more comes of it.
    """
    held, ends, size = bytearray(), Ends(b"", b""), 0
    async for chunk in chunks:
        start = 0
        while start < len(chunk):
            found = chunk.find(b"\n", start)
            piece = chunk[start : found if found >= 0 else len(chunk)]
            start += len(piece) + 1
            size += len(piece)
            if size <= most_bytes:
                held += piece
            else:
                ends = (Ends.of(held) if held else ends).followed_by(piece)
                held.clear()
            if found < 0:
                continue
            if size > most_bytes:
                yield ends
            elif held.strip():
                yield bytes(held)
            held, ends, size = bytearray(), Ends(b"", b""), 0
    if size > most_bytes:
        yield ends
    elif held.strip():
        yield bytes(held)
