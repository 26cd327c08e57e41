"""Stands between a client and the sidecar, and cuts the connection of one call when its first progress has passed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.clients.legs.staging_pipe import CUT

ASKED = f'"limit":{CUT}'.encode()


class CuttingProxy:
    """Passes bytes on, both ways; ``behind`` is the port of the sidecar."""

    def __init__(self, port: int) -> None:
        self.behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._due = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.behind))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink, source is server), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
                if not down and ASKED in chunk.replace(b" ", b""):
                    self._due.set()
                if down and b"notifications/progress" in chunk and self._due.is_set():
                    self._due.clear()
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def cutting(port: int) -> Iterator[CuttingProxy]:
    """The proxy, for as long as the block lasts."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
