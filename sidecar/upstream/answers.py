"""The body of an HTTP answer, read to the message that answers one request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import aiohttp

from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused, UpstreamUnreachable
from sidecar.mcp import EventDecoder, Treatment, from_upstream
from sidecar.model import Tell
from sidecar.questions import ClientLacks
from sidecar.upstream import stateless
from sidecar.upstream.asking import Asking
from sidecar.upstream.connections import ServerAnswer
from sidecar.upstream.messages import (
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    Refusal,
    ServerNotification,
    ServerRequest,
    ServerResult,
    UpstreamMessage,
    decode_message,
    encode_reply,
)
from sidecar.upstream.redaction import Redactor
from sidecar.upstream.relayed import of_call
from sidecar.upstream.server_session import ServerSession

_STREAM_END_S: Final = 0.25
_RETRY_MS: Final = 1000
"""How long to wait before a stream is gone on with, where its server did not say."""
_SHORTEST_RETRY_MS: Final = 100
"""A server that says less is asked no more often than that."""
_REFUSED: Final = frozenset({400, 404})
_MAX_REFUSAL_BYTES: Final = 65_536


_Take = Callable[[UpstreamMessage], Awaitable[ServerResult | Refusal | None]]
_Paused = Callable[[int], None]


def outcome_of(message: UpstreamMessage, request_id: int) -> ServerResult | Refusal:
    """Return the message if it answers this request.

    Raises:
        UpstreamProtocolViolation: it does not.
    """
    match message:
        case ServerResult(id=answered) | Refusal(id=answered) if answered == request_id:
            return message
        case MalformedMessage(reason=reason):
            raise UpstreamProtocolViolation(reason)
        case _:
            raise UpstreamProtocolViolation("the message is not the answer to this request")


def check_identity(response: ServerAnswer) -> None:
    """Return where a body is as it was written.

    Raises:
        UpstreamProtocolViolation: it is not.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UpstreamProtocolViolation("the answer is compressed, although the request forbade it")


async def whole(content: aiohttp.StreamReader) -> bytes:
    """Return a body.

    Raises:
        UpstreamProtocolViolation: it is longer than any answer.
    """
    if content.is_eof() and content.total_bytes <= MAX_MESSAGE_BYTES and content.exception() is None:
        return content.read_nowait()  # it came with its head
    parts: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > MAX_MESSAGE_BYTES:
            raise UpstreamProtocolViolation(f"the answer has more than {MAX_MESSAGE_BYTES} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def finished(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the stream's end: only a connection that was read to the end can be used again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STREAM_END_S):
            while not content.at_eof():
                await content.readany()


async def refusal_in(response: ServerAnswer) -> Refusal | None:
    """Return the JSON-RPC error in the body of a refused request (MCP 2026-07-28, error codes and statuses), if any."""
    if response.status not in _REFUSED or response.content_type != "application/json":
        return None
    match decode_message(await response.content.read(_MAX_REFUSAL_BYTES)):
        case Refusal() as refusal:
            return refusal
        case _:
            return None


async def _read_to_answer(
    content: aiohttp.StreamReader, decoder: EventDecoder, take: _Take
) -> ServerResult | Refusal | None:
    """Return the answer; None where the stream ends before it."""
    async for chunk in content.iter_any():
        for data in decoder.feed(chunk):
            outcome = await take(decode_message(data))
            if outcome is not None:
                await finished(content)
                return outcome
    return None


class AnswerReader:
    """Reads what a server sends over HTTP: the answer to one request, and what comes with it.

    Args:
        redactor: what no error may show.
        heard: takes what is told that belongs to no call.
        reply: sends the server a response.
        go_on: opens a stream again, after an event of that id.
    """

    def __init__(
        self,
        redactor: Redactor,
        heard: Callable[[ServerNotification], None],
        reply: Callable[[bytes, ServerSession], Awaitable[None]],
        go_on: Callable[[ServerSession, str], AbstractAsyncContextManager[ServerAnswer]],
    ) -> None:
        self._redactor = redactor
        self._heard = heard
        self._reply = reply
        self._go_on = go_on

    async def read(
        self,
        response: ServerAnswer,
        request_id: int,
        session: ServerSession | None,
        tell: Tell | None = None,
        asking: Asking | None = None,
        paused: Callable[[int], None] | None = None,
    ) -> bytes:
        """Read the answer to one request from its response, JSON or stream.

        The request is being carried out by then. So nothing raised here says that it may be sent again.

        Raises:
            ClientLacks: the client of the call can answer too little.
            UpstreamRefused: it is an error.
            UpstreamProtocolViolation: it is no answer.
            UpstreamUnreachable: the stream ended before it, or the server does not take what answers its own requests.
        """
        check_identity(response)
        match response.content_type:
            case "application/json":
                outcome = outcome_of(decode_message(await whole(response.content)), request_id)
            case "text/event-stream":
                take = partial(self._taken, request_id, session, tell, asking)
                try:
                    outcome = await self._from_stream(response.content, session, take, paused)
                except (UpstreamRefused, UpstreamUnreachable) as error:
                    raise UpstreamUnreachable(error.detail) from error
                finally:
                    if asking is not None:
                        await asking.close()
            case _:
                raise UpstreamProtocolViolation("the answer is neither JSON nor an event stream")
        match outcome:
            case ServerResult(result=result):
                return result
            case Refusal(code=code, lacks=lacks) if lacks:
                raise ClientLacks(f"error {code}: the client lacks {sorted(lacks)}", lacks)
            case Refusal(code=code, message=message):
                text = self._redactor.clean(message.encode("utf-8", "replace"))
                raise UpstreamRefused(f"error {code}: {text}")

    async def outside(self, data: bytes, session: ServerSession) -> frozenset[str] | None:
        """Act on one message that came on a stream of no call; return the resources that it says it will tell of.

        A server may ask whether its client is there; it has no call to ask anything else about.
        """
        match decode_message(data):
            case ServerNotification(method=stateless.ACKNOWLEDGED, params=params) if session.stateless:
                return stateless.honoured(params)
            case ServerNotification() as told if from_upstream(told.method, notification=True) is Treatment.LOCAL:
                self._heard(told)
            case ServerRequest() as request if not session.stateless:
                await self._reply(encode_reply(request), session)
            case _:
                pass
        return None

    async def _from_stream(
        self, content: aiohttp.StreamReader, session: ServerSession | None, take: _Take, paused: _Paused | None
    ) -> ServerResult | Refusal:
        """Read a stream to the answer, also where its server ends it and goes on with it when it is asked again.

        A server may do so once it has sent an event with an id (MCP 2025-11-25, transports, sending messages).
        """
        decoder = EventDecoder(MAX_MESSAGE_BYTES)
        outcome = await _read_to_answer(content, decoder, take)
        while outcome is None:
            async with self._rest(decoder, session, paused) as more:
                decoder = EventDecoder(MAX_MESSAGE_BYTES, decoder.last_id)
                outcome = await _read_to_answer(more, decoder, take)
        return outcome

    @contextlib.asynccontextmanager
    async def _rest(
        self, ended: EventDecoder, session: ServerSession | None, paused: _Paused | None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        if session is None or session.id is None or not ended.last_id:
            raise UpstreamUnreachable("the stream ended before the answer")
        pause_ms = max(_SHORTEST_RETRY_MS, _RETRY_MS if ended.retry_ms is None else ended.retry_ms)
        if paused is not None:
            paused(pause_ms)
        await asyncio.sleep(pause_ms / 1000)
        async with self._go_on(session, ended.last_id) as response:
            check_identity(response)
            if response.content_type != "text/event-stream":
                raise UpstreamUnreachable("the stream ended before the answer, and the server does not go on with it")
            yield response.content

    async def _taken(
        self,
        request_id: int,
        session: ServerSession | None,
        tell: Tell | None,
        asking: Asking | None,
        message: UpstreamMessage,
    ) -> ServerResult | Refusal | None:
        """Act on one message of a call's stream; return it if it is the answer."""
        match message:
            case ServerRequest() as request:
                if session is None or session.stateless or asking is None:
                    raise UpstreamProtocolViolation("the server sends its client a request here")
                await asking.take(request, partial(self._replied, session))
            case ServerNotification() as told:
                self._hear(told, request_id, tell)
            case _:
                return outcome_of(message, request_id)
        return None

    async def _replied(self, session: ServerSession, body: bytes) -> None:
        await self._reply(body, session)

    def _hear(self, told: ServerNotification, request_id: int, tell: Tell | None) -> None:
        """Act on a notification, or take it to the call on whose stream it came (MCP 2025-11-25, transports)."""
        match from_upstream(told.method, notification=True):
            case Treatment.LOCAL:
                self._heard(told)
            case Treatment.RELAY if tell is not None and (said := of_call(told.method, told.params, request_id)):
                tell(told.method, said)
            case _:
                pass
