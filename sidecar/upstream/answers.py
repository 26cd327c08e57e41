"""The body of an HTTP answer, read to the message that answers one request."""

import asyncio
import contextlib
from typing import Final

import aiohttp

from sidecar.errors import UpstreamProtocolViolation
from sidecar.upstream.messages import (
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    Refusal,
    ServerResult,
    UpstreamMessage,
    decode_message,
)

_STREAM_END_S: Final = 0.25
_REFUSED: Final = frozenset({400, 404})
_MAX_REFUSAL_BYTES: Final = 65_536


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


async def whole(content: aiohttp.StreamReader) -> bytes:
    """Return a body.

    Raises:
        UpstreamProtocolViolation: it is longer than any answer.
    """
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


async def refusal_in(response: aiohttp.ClientResponse) -> Refusal | None:
    """Return the JSON-RPC error in the body of a refused request (MCP 2026-07-28, error codes and statuses), if any."""
    if response.status not in _REFUSED or response.content_type != "application/json":
        return None
    match decode_message(await response.content.read(_MAX_REFUSAL_BYTES)):
        case Refusal() as refusal:
            return refusal
        case _:
            return None
