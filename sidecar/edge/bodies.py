"""Reads bodies of requests, and bounds what is held of all of them together.

A caller who is known may be slow with many bodies at once, on as many connections as one address may have. So what is
held of bodies that are still coming is counted, for each caller and in all. Of a body that is too large, or that has no
place, only the ends are kept: they say whose answer the refusal is (``sidecar.mcp.envelope``).
"""

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import ClientPayloadError, web

from sidecar.errors import MessageError, MessageIncomplete, MessageTooLarge, TooManyBytes
from sidecar.mcp import Ends

OVERSIZED_FACTOR: Final = 64
"""A body up to so many times the limit is read to its end, for the id of its request stands there in both official
SDKs, and to both Python 1.x clients an HTTP error is the end of the session (measured). Beyond the limit nothing but
the ends is kept. A larger body closes the connection."""

HELD_OF_ONE: Final = 32
"""Bodies of the largest size that are held of one caller while they come; as many as one may have calls under way."""

HELD_IN_ALL: Final = 4 * HELD_OF_ONE
"""The same of all callers together: with the default limit, 128 MB."""

FREE_BYTES: Final = 16_384
"""Of each body that count for nobody, so that those who send much never keep an ordinary call out; with the default
10,000 connections, 160 MB."""


class NotKept(Exception):
    """A body that was read to its end, of which only the ends are there.

    Args:
        error: why it is refused.
        ends: what was kept.
    """

    def __init__(self, error: MessageError, ends: Ends) -> None:
        super().__init__(error.label)
        self.error = error
        self.ends = ends


class BodyReader:
    """Reads bodies; its state is what is held of those that are still coming.

    Args:
        limit: bytes of a body that is kept.
        timeout_s: seconds for one body.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._held: Counter[Hashable] = Counter()
        self._in_all = 0

    async def read(self, request: web.Request, caller: Hashable) -> bytes:
        """Return the whole body.

        Args:
            request: whose body has not been looked at.
            caller: whose it is.

        Raises:
            NotKept: it is over the limit, or too much of this caller's or of everybody's is coming.
            MessageTooLarge: more than is even read, said beforehand or found while reading.
            MessageIncomplete: it ended early or did not come in time; nothing of it is used.
        """
        came = request.content
        if came.is_eof() and came.total_bytes <= min(self._limit, FREE_BYTES) and came.exception() is None:
            return came.read_nowait()  # all of it is there, and it counts for nobody
        return await self._received(request, caller)

    async def _received(self, request: web.Request, caller: Hashable) -> bytes:
        longest = OVERSIZED_FACTOR * self._limit
        if (request.content_length or 0) > longest:
            raise MessageTooLarge("Content-Length over the limit")
        body, ends, size = bytearray(), Ends(b"", b""), 0
        error: MessageError | None = None
        try:
            with self._holding(caller) as coming:
                async with asyncio.timeout(None if request.content.is_eof() else self._timeout_s):
                    await _promise(request)
                    async for chunk in request.content.iter_any():
                        size += len(chunk)
                        if size > self._limit:
                            error = MessageTooLarge("body over the limit")
                        elif error is None and not self._fits(coming, size):
                            error = TooManyBytes()
                        if error is None:
                            body += chunk
                            continue
                        if body:
                            ends = Ends.of(body)
                            body.clear()
                            self._let_go(coming)
                        ends = ends.followed_by(chunk)
                        if size > longest:
                            raise error
        except (TimeoutError, ConnectionError, ClientPayloadError, web.RequestPayloadError) as failure:
            raise MessageIncomplete(type(failure).__name__) from failure
        if error is not None:
            raise NotKept(error, ends)
        return bytes(body)

    @contextmanager
    def _holding(self, caller: Hashable) -> Iterator["_Coming"]:
        coming = _Coming(caller)
        try:
            yield coming
        finally:
            self._let_go(coming)

    def _fits(self, coming: "_Coming", size: int) -> bool:
        """Count a body that has grown to ``size`` bytes; return False, counting nothing, where it has no place."""
        more = max(0, size - FREE_BYTES) - coming.counted
        if more <= 0:
            return True
        if self._in_all + more > HELD_IN_ALL * self._limit:
            return False
        if self._held[coming.caller] + more > HELD_OF_ONE * self._limit:
            return False
        coming.counted += more
        self._in_all += more
        self._held[coming.caller] += more
        return True

    def _let_go(self, coming: "_Coming") -> None:
        self._in_all -= coming.counted
        self._held[coming.caller] -= coming.counted
        coming.counted = 0
        if not self._held[coming.caller]:
            del self._held[coming.caller]


@dataclass(slots=True)
class _Coming:
    """What is counted of one body."""

    caller: Hashable
    counted: int = 0


async def _promise(request: web.Request) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does: the answer itself has not begun
