"""A relay to the database that says of search what MongoDB without search says.

The stand-in answers ``$listSearchIndexes`` with error 115 (CommandNotSupported). The MongoDB MCP server takes 31082
(SearchNotEnabled) for a database without search, any other error for none at all, and then its ``collection-indexes``
fails. Everything else passes as it is.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.parts import outside_database

_SAID = b"\x10code\x00" + struct.pack("<i", 115)
_SAYS = b"\x10code\x00" + struct.pack("<i", 31082)


@contextmanager
def without_search(uri: str) -> Iterator[str]:
    """The connection string of a database in front of which the relay stands; of a real MongoDB it is the same."""
    if outside_database():
        yield uri
        return
    place = urlsplit(uri)
    relay = _Relay(place.hostname or "", place.port or 27017)
    try:
        yield place._replace(netloc=f"127.0.0.1:{relay.port}").geturl()
    finally:
        relay.close()


class _Relay:
    def __init__(self, host: str, port: int) -> None:
        self._database = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                database = socket.create_connection(self._database)
                self._open |= {client, database}
                for work in (self._asks, self._answers):
                    threading.Thread(target=work, args=(client, database), daemon=True).start()

    def _asks(self, client: socket.socket, database: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                database.sendall(data)
        self._end(client, database)

    def _answers(self, client: socket.socket, database: socket.socket) -> None:
        with suppress(OSError), database.makefile("rb") as answers:
            while length := answers.read(4):
                client.sendall(length + answers.read(struct.unpack("<i", length)[0] - 4).replace(_SAID, _SAYS))
        self._end(client, database)

    def _end(self, *ends: socket.socket) -> None:
        for one in ends:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)
