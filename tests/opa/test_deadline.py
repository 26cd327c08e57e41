"""A deadline is against OPA, and not against our own loop."""

import asyncio
import time

import pytest

from sidecar.opa.deadline import GRACE_S, answered_within


async def test_what_does_not_come_is_late() -> None:
    with pytest.raises(TimeoutError):
        async with answered_within(0.01):
            await asyncio.Event().wait()


async def test_what_comes_in_time_is_not() -> None:
    async with answered_within(60):
        await asyncio.sleep(0)


async def test_an_answer_that_arrived_while_the_loop_was_busy_is_read() -> None:
    """The answer is in the socket before the deadline; the loop looks only after it."""
    reader, writer, server = await connected()
    try:
        writer.write(b"question")
        async with answered_within(0.05):
            await server.answered.wait()
            time.sleep(0.3)  # noqa: ASYNC251 - the fault that is staged: our own loop is held
            assert await asyncio.create_task(several_turns(reader)) == b"answer"
    finally:
        writer.close()
        await writer.wait_closed()
        await server.close()


async def test_a_loop_that_is_always_late_still_ends() -> None:
    async def hold() -> None:
        while True:
            time.sleep(GRACE_S + 0.03)  # noqa: ASYNC251 - as above
            await asyncio.sleep(0)

    holding = asyncio.create_task(hold())
    try:
        with pytest.raises(TimeoutError):
            async with answered_within(0.01):
                await asyncio.Event().wait()
    finally:
        holding.cancel()


async def test_a_cancellation_from_outside_is_no_time_out() -> None:
    async def wait() -> None:
        async with answered_within(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Answering:
    """A server on loopback that answers at once: the answer waits in the socket's buffer to be read."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"answer")
        self.answered.set()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        self.ended.set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        await self.ended.wait()
        self._server.close()
        await self._server.wait_closed()


async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Answering]:
    server = Answering()
    reader, writer = await asyncio.open_connection("127.0.0.1", await server.start())
    return reader, writer, server


async def several_turns(reader: asyncio.StreamReader) -> bytes:
    """Read as a client library does: a task of its own, woken some turns of the loop after the bytes."""
    read = await reader.read(6)
    for _ in range(3):
        await asyncio.sleep(0)
    return read
