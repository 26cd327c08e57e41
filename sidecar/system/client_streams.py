"""Standard input and output of a process that speaks a protocol over them, without blocking its event loop.

The descriptors are taken away from everybody else: what any library or child writes to standard output goes to standard
error instead, because a client reads everything on it as a message (MCP 2025-11-25, transports, stdio). Threads do the
reading and writing, so that pipes, sockets, terminals and files all work, and no flag is set on a description that
other processes share. They are daemons: one that waits in ``read`` does not keep the process alive.
"""

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator
from typing import Final, Self, TypeAlias

CHUNK_BYTES: Final = 65_536
AHEAD: Final = 4
"""Chunks that are read before they are used."""

WRITE_S: Final = 30.0
"""A client that does not read for so long has left."""

_Writing: TypeAlias = "tuple[bytes, asyncio.Future[None]] | None"


class ClientGone(Exception):
    """Nobody reads standard output any more."""


class ClientStreams:
    """What a client and this process say to each other.

    Args:
        incoming: descriptor that is read.
        outgoing: descriptor that is written.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing: queue.SimpleQueue[_Writing] = queue.SimpleQueue()
        threading.Thread(target=self._write_all, name="stdout", daemon=True).start()

    @classmethod
    def take(cls) -> Self:
        """Take descriptors 0 and 1 of this process; from now on 0 is empty, and 1 is standard error."""
        streams = cls(os.dup(0), os.dup(1))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return streams

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what comes, until the client closes its end."""
        loop = asyncio.get_running_loop()
        ahead: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

        def read_all() -> None:
            data = b"-"
            while data:
                try:
                    data = os.read(self._incoming, CHUNK_BYTES)
                except OSError:
                    data = b""
                try:
                    asyncio.run_coroutine_threadsafe(ahead.put(data), loop).result()
                except (RuntimeError, asyncio.CancelledError):  # the loop has ended
                    return

        threading.Thread(target=read_all, name="stdin", daemon=True).start()
        while data := await ahead.get():
            yield data

    async def write(self, data: bytes) -> None:
        """Return when the operating system has taken ``data``; what is written first goes out first.

        Raises:
            ClientGone: nobody reads.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._writing.put((data, written))
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(written)
        except (TimeoutError, OSError) as error:
            raise ClientGone(type(error).__name__) from error

    def close(self) -> None:
        """Let the writing end."""
        self._writing.put(None)

    def _write_all(self) -> None:
        while (entry := self._writing.get()) is not None:
            data, written = entry
            loop, failure = written.get_loop(), None
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._outgoing, view) :]
            except OSError as error:
                failure = error
            try:
                loop.call_soon_threadsafe(_settle, written, failure)
            except RuntimeError:  # the loop has ended
                return


def _settle(written: "asyncio.Future[None]", failure: OSError | None) -> None:
    if written.done():
        return
    if failure is None:
        written.set_result(None)
    else:
        written.set_exception(failure)
        written.exception()  # seen, so that asyncio does not report it where nobody waits any more
