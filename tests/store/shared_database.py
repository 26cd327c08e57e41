"""A database of a test's own, and a way to it that can be cut, held and made to answer something else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.uri_parser import parse_uri


@dataclass
class HandClock:
    """A clock that is set by hand."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


class Way:
    """A loopback proxy in front of the database."""

    def __init__(self, uri: str) -> None:
        [self._there] = parse_uri(uri)["nodelist"]
        self.open = asyncio.Event()
        self.open.set()
        self.garbage = False
        """Answers are replaced by bytes that are no answer."""
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    async def appear(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def vanish(self) -> None:
        """The database is gone: its connections end, and its port is closed."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self.open.set()
        await asyncio.gather(*self._served, self._server.wait_closed(), return_exceptions=True)
        self._served.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._served.add(task)
        there_reader, there_writer = await asyncio.open_connection(*self._there)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer, answers=True))
        await asyncio.gather(writer.wait_closed(), there_writer.wait_closed(), return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        try:
            while data := await source.read(65536):
                await self.open.wait()
                sink.write(b"\x10\x00\x00\x00garbage garbage" if answers and self.garbage else data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def way_to(uri: str) -> AsyncIterator[Way]:
    way = Way(uri)
    await way.appear()
    try:
        yield way
    finally:
        await way.vanish()
