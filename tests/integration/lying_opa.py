"""Stands before a real OPA and answers what the real one answers, until it is told to falsify the answers on calls.

Everything that is not the question about a call passes unchanged, so that self-test, health and whatever else a sidecar
asks stay real. A thread and sockets of its own, because it writes answers that no HTTP library would.
"""

import http.client
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from tests.patience import HANG_S

ABOUT_CALLS = "/v1/data/mcp/main/decision?"
PASSED_ON = ("Authorization", "Content-Type", "Accept", "Accept-Encoding")
JSON = "application/json"


class Exchange(BaseHTTPRequestHandler):
    """One connection; ``server`` is the ``LyingOpa``."""

    protocol_version = "HTTP/1.1"
    server: "LyingOpa"  # type: ignore[mutable-override]  # whose handler this is

    def pass_on(self) -> None:
        """Ask the real OPA; answer its answer, or the lie about it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        status, media_type, answer = self.server.honestly(self.command, self.path, body, self.headers)
        lie = self.server.lie if self.path.startswith(ABOUT_CALLS) else None
        if lie is None:
            self.say(answer, status=status, media_type=media_type)
        else:
            with suppress(ConnectionError):
                lie(self, answer)

    do_GET = do_POST = pass_on  # noqa: N815 - names of the library

    def say(self, body: bytes, *, status: int = 200, media_type: str = JSON, **headers: str) -> None:
        """Answer properly framed bytes; headers are keywords with underscores."""
        head = {"Content-Type": media_type, "Content-Length": str(len(body)), **headers}
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection now; ``reset`` without a proper end (RST)."""
        self.close_connection = True
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The socket itself, not the two files over it that would keep it open.
            self.rfile.close()
            self.wfile.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    @override
    def log_message(self, *_args: object) -> None:
        pass


Lie = Callable[[Exchange, bytes], None]


class LyingOpa(ThreadingHTTPServer):
    """A real OPA behind a mouth of its own; ``lie`` None is honest."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, opa: str) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self._opa = urlsplit(opa).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = ""
        """URL of another server, for redirects."""
        self.lie: Lie | None = None
        self.asked: list[str] = []
        self.over = threading.Event()
        """The lie is over: whoever holds an answer back lets go."""

    def honestly(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, str, bytes]:
        """Return status, media type and body of the real OPA's answer."""
        real = http.client.HTTPConnection(self._opa, timeout=HANG_S)
        try:
            given = {name: headers[name] for name in PASSED_ON if headers.get(name) is not None}
            real.request(method, path, body or None, given)
            answer = real.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            real.close()

    @contextmanager
    def telling(self, lie: Lie | None) -> Iterator[None]:
        """Falsify every answer on a call for as long as the block lasts."""
        self.over.clear()
        self.lie = lie
        try:
            yield
        finally:
            self.lie = None
            self.over.set()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | ValueError):
            super().handle_error(request, client_address)


@contextmanager
def lying_opa(opa: str) -> Iterator[LyingOpa]:
    """Stand before the OPA at this URL."""
    with LyingOpa(opa) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def edited(change: Callable[[dict[str, Any]], object]) -> Lie:
    """The honest answer with its result changed in place."""

    def tell(exchange: Exchange, honest: bytes) -> None:
        envelope = json.loads(honest)  # noqa: TID251 - a fault that is staged, not the product
        change(envelope["result"])
        exchange.say(json.dumps(envelope).encode())

    return tell


def rewritten(change: Callable[[bytes], bytes]) -> Lie:
    """The honest answer with its bytes changed."""

    def tell(exchange: Exchange, honest: bytes) -> None:
        body = change(honest)
        assert body != honest
        exchange.say(body)

    return tell


def answered(*, status: int = 200, body: bytes | None = None, media_type: str = JSON, **headers: str) -> Lie:
    """Something else around the honest answer, or instead of it."""

    def tell(exchange: Exchange, honest: bytes) -> None:
        exchange.say(honest if body is None else body, status=status, media_type=media_type, **headers)

    return tell


def redirected(status: int) -> Lie:
    """To a server elsewhere."""

    def tell(exchange: Exchange, _honest: bytes) -> None:
        exchange.say(b"", status=status, Location=exchange.server.elsewhere + exchange.path)

    return tell


def chunked(exchange: Exchange, honest: bytes) -> None:
    """The honest answer in chunks."""
    exchange.wfile.write(begun(honest) + b"0\r\n\r\n")


def cut_off(exchange: Exchange, honest: bytes) -> None:
    """The whole answer under a length that promises more."""
    exchange.wfile.write(head(f"Content-Length: {len(honest) + 10}") + honest)
    exchange.hang_up()


def cut_off_within(exchange: Exchange, honest: bytes) -> None:
    """Half of the answer under its own length."""
    exchange.wfile.write(head(f"Content-Length: {len(honest)}") + honest[: len(honest) // 2])
    exchange.hang_up()


def cut_off_between_chunks(exchange: Exchange, honest: bytes) -> None:
    """The whole answer in chunks, without the last, empty one."""
    exchange.wfile.write(begun(honest))
    exchange.hang_up()


def resetting(exchange: Exchange, _honest: bytes) -> None:
    """No answer at all."""
    exchange.hang_up(reset=True)


def not_http(exchange: Exchange, _honest: bytes) -> None:
    """A server of another protocol."""
    exchange.wfile.write(b"220 mail.example ESMTP\r\n\r\n")
    exchange.hang_up()


def silent(exchange: Exchange, _honest: bytes) -> None:
    """No answer until it no longer matters."""
    exchange.server.over.wait(HANG_S)
    exchange.hang_up()


def dripping(exchange: Exchange, honest: bytes) -> None:
    """An answer that has begun and never ends: each byte is in time, the whole is not."""
    exchange.wfile.write(begun(honest))
    with suppress(ConnectionError):
        while not exchange.server.over.wait(0.02):
            exchange.wfile.write(b"1\r\n \r\n")
    exchange.hang_up()


def endless(exchange: Exchange, honest: bytes) -> None:
    """The whole answer, and blanks behind it without end."""
    exchange.wfile.write(begun(honest))
    with suppress(ConnectionError):
        while not exchange.server.over.is_set():
            exchange.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    exchange.hang_up()


def begun(honest: bytes) -> bytes:
    """The honest answer in one chunk, and none behind it."""
    return head("Transfer-Encoding: chunked") + f"{len(honest):x}\r\n".encode() + honest + b"\r\n"


def head(*headers: str) -> bytes:
    """A status line and headers."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {JSON}", *headers, "", ""]
    return "\r\n".join(lines).encode()
