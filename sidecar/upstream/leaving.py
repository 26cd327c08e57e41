"""A request body that asks, at the moment when it would leave, whether it still may.

A request may wait for a connection after it was handed to aiohttp. Its head alone is no call: a server acts on a body.
"""

from collections.abc import Callable

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload
from typing_extensions import override


class CheckedPayload(BytesPayload):
    """Bytes that are written only if ``leaving`` does not raise."""

    def __init__(self, body: bytes, leaving: Callable[[], None]) -> None:
        super().__init__(body)
        self._leaving = leaving

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        self._leaving()
        await super().write(writer)

    @override
    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._leaving()
        await super().write_with_length(writer, content_length)
