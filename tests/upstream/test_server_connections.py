"""Which connection a request goes out on, and that no answer is ever taken for that to another request."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from sidecar.upstream import connections
from sidecar.upstream.connections import ServerAnswer, ServerConnections
from sidecar.upstream.http import HttpUpstream
from tests.edge.test_tls import issue
from tests.patience import HANG_S

Say = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]

FINE = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON ; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"


class RawServer:
    """Answers each request with what its test wants, byte for byte."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, bytes]] = []
        """Each with the number of its connection."""
        self.opened = 0
        self.ended: set[int] = set()
        self.answers: list[bytes | Say] = []
        """What the next requests are answered with; ``FINE`` after that."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        number = self.opened
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                self.requests.append((number, head + await reader.readexactly(int(length or 0))))
                answer = self.answers.pop(0) if self.answers else FINE
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer, head)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.add(number)
            writer.close()

    def lines(self) -> list[int]:
        """On which connection each request came."""
        return [number for number, _ in self.requests]


@asynccontextmanager
async def connected(most: int = 8) -> AsyncIterator[tuple[RawServer, ServerConnections]]:
    server = RawServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    mine = ServerConnections(URL(f"http://127.0.0.1:{port}/mcp"), most)
    try:
        yield server, mine
    finally:
        await mine.close()
        listening.close()


async def ask(mine: ServerConnections, body: bytes = b"{}", leg: str = "POST") -> tuple[ServerAnswer, bytes]:
    async with mine.exchange(leg, {"Accept": "*/*"}, body) as answer:
        return answer, await answer.content.read()


async def test_a_connection_whose_answer_was_read_is_used_again():
    async with connected() as (server, mine):
        for _ in range(3):
            answer, body = await ask(mine)
            assert (answer.status, answer.content_type, body) == (200, "application/json", b"{}")
        assert server.lines() == [1, 1, 1]
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{mine._port}\r\nAccept: */*\r\nContent-Length: 2\r\n\r\n"
        assert server.requests[0][1] == head.encode() + b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(FINE + FINE, id="two answers to one request"),
        pytest.param(FINE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="the server closes"),
        pytest.param(FINE.replace(b"HTTP/1.1", b"HTTP/1.0"), id="a version that does not keep it"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{}", id="upgraded"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + FINE, id="upgraded to nothing"),
        pytest.param(FINE + b"H", id="an answer and a byte of another one"),
        pytest.param(FINE + FINE[:-4], id="an answer and most of the head of another one"),
    ],
)
async def test_a_connection_with_more_to_it_than_the_answer_is_not_used_again(answer):
    async with connected() as (server, mine):
        server.answers = [answer]
        async with mine.exchange("POST", {}, b"{}") as first:
            assert first.status in {200, 101}
            if first.status == 200:
                assert await first.content.read() == b"{}"
        _, body = await ask(mine)
        assert body == b"{}"
        assert server.lines() == [1, 2]


@pytest.mark.parametrize("unasked", [FINE.replace(b"{}", b"[]"), b"HTT"])
async def test_what_an_idle_connection_says_unasked_answers_nothing_and_ends_it(until, unasked, monkeypatch):
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 3600.0)

    async def late(writer: asyncio.StreamWriter, _head: bytes) -> None:
        writer.write(FINE)
        await writer.drain()
        asyncio.get_running_loop().call_later(0.05, writer.write, unasked)

    async with connected() as (server, mine):
        server.answers = [late]
        await ask(mine)
        [(_, idle)] = mine._idle
        await until(lambda: 1 in server.ended)
        assert not idle._buffer
        _, body = await ask(mine)
        assert body == b"{}"
        assert server.lines() == [1, 2]


async def never(_writer: asyncio.StreamWriter, _head: bytes) -> None:
    """Answer nothing."""


async def test_a_request_that_is_given_up_closes_its_connection(until):
    async with connected() as (server, mine):
        server.answers = [never]
        asked = asyncio.create_task(ask(mine))
        await until(lambda: server.requests)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await until(lambda: 1 in server.ended)
        await ask(mine)
        assert server.lines() == [1, 2]


async def test_an_answer_that_was_not_read_to_its_end_closes_its_connection(until):
    async with connected() as (server, mine):
        server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
        async with mine.exchange("POST", {}, b"{}") as answer:
            assert await answer.content.readany() == b"half"
        await until(lambda: 1 in server.ended)
        await ask(mine)
        assert server.lines() == [1, 2]


async def test_an_interim_answer_is_not_the_answer():
    async with connected() as (server, mine):
        server.answers = [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + FINE]
        answer, body = await ask(mine)
        assert (answer.status, body) == (200, b"{}")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", id="a length that is none"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="more fields than any answer has"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", id="a field longer than any"),
    ],
)
async def test_what_is_no_answer_is_an_error_without_the_bytes_that_came(answer):
    async with connected() as (server, mine):
        server.answers = [answer]
        with pytest.raises(aiohttp.ClientError) as caught:
            await ask(mine)
        assert "y" * 20 not in str(caught.value)
        assert "SSH" not in str(caught.value)
        assert caught.value.__cause__ is None
        await ask(mine)
        assert server.lines() == [1, 2]


async def test_a_body_that_breaks_off_is_an_error():
    async def half(writer: asyncio.StreamWriter, _head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        writer.close()

    async with connected() as (server, mine):
        server.answers = [half]
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(mine)


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"2\r\n{}zz\r\n", b"0\r\nX\0: y\r\n\r\n"], ids=["length", "end", "trailer"]
)
async def test_a_body_that_stops_being_http_is_an_error_at_once(broken):
    async def late(writer: asyncio.StreamWriter, _head: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        asyncio.get_running_loop().call_later(0.05, writer.write, broken)

    async with connected() as (server, mine):
        server.answers = [late]
        async with asyncio.timeout(HANG_S):
            with pytest.raises(aiohttp.ClientPayloadError) as caught:
                await ask(mine)
        assert "zz" not in str(caught.value)
        await ask(mine)
        assert server.lines() == [1, 2]


async def test_a_request_whose_leaving_is_refused_is_not_sent():
    def refused() -> None:
        raise PermissionError

    async with connected() as (server, mine):
        with pytest.raises(PermissionError):
            async with mine.exchange("POST", {}, b"{}", refused):
                pass
        await ask(mine)
        assert len(server.requests) == 1


@pytest.mark.parametrize("value", ["a\r\nInjected: 1", "a\nInjected: 1", "a\rb", "a\0b"])
async def test_a_header_that_would_end_its_line_is_not_sent(value):
    async with connected() as (server, mine):
        with pytest.raises(ValueError, match="end of a line"):
            mine.exchange("POST", {"Mcp-Name": value}, b"{}")
        assert not server.opened


async def test_a_stream_does_not_begin_on_a_connection_that_its_server_may_be_closing():
    async with connected() as (server, mine):
        await ask(mine)
        await ask(mine, b"", "GET")
        assert server.lines() == [1, 2]


async def test_further_requests_wait_for_a_connection(until):
    go_on = asyncio.Event()

    async def held(writer: asyncio.StreamWriter, _head: bytes) -> None:
        await go_on.wait()
        writer.write(FINE)

    async with connected(most=2) as (server, mine):
        server.answers = [held, held]
        asked = [asyncio.create_task(ask(mine)) for _ in range(5)]
        await until(lambda: len(server.requests) == 2)
        await asyncio.sleep(0.02)
        assert len(server.requests) == 2
        go_on.set()
        assert [body for _, body in await asyncio.gather(*asked)] == [b"{}"] * 5
        assert server.opened == 2


async def test_an_idle_connection_is_closed_after_a_while(until, monkeypatch):
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 0.05)
    async with connected() as (server, mine):
        await ask(mine)
        await until(lambda: 1 in server.ended)
        assert not mine._all
        await ask(mine)
        assert server.lines() == [1, 2]


async def test_a_request_under_way_fails_when_all_is_closed(until):
    async with connected() as (server, mine):
        server.answers = [never]
        asked = asyncio.create_task(ask(mine))
        await until(lambda: server.requests)
        await mine.close()
        with pytest.raises(aiohttp.ClientError):
            await asked
        with pytest.raises(aiohttp.ClientError):
            await ask(mine)
        assert not mine._all


async def test_a_name_that_ends_with_a_dot_is_looked_up_as_it_is_and_proven_without(tmp_path, monkeypatch):
    certificate, key = issue(tmp_path, "server")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate, key)
    loop, asked = asyncio.get_running_loop(), []

    async def looked_up(host: str, port: int, **_: object) -> object:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", looked_up)
    server = RawServer()
    listening = await asyncio.start_server(server.serve, sock=socket.create_server(("127.0.0.1", 0)), ssl=shown)
    mine = ServerConnections(URL(f"https://localhost.:{listening.sockets[0].getsockname()[1]}/mcp"), 2)
    try:
        assert (await ask(mine))[1] == b"{}"
        assert {host for host in asked if host != "127.0.0.1"} == {"localhost."}
    finally:
        await mine.close()
        listening.close()


async def test_a_host_is_looked_up_once_for_all_who_wait_for_it(until, monkeypatch):
    answers: list[asyncio.Future[object]] = []

    async def looked_up(host: str, port: int, **_: object) -> object:
        if host == "127.0.0.1":  # the connection itself
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    async with connected() as (server, local):
        found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", local._port))]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up)
        mine = ServerConnections(URL(f"http://server.example:{local._port}/mcp"), 8)
        asked = [asyncio.create_task(ask(mine)) for _ in range(5)]
        await until(lambda: answers)
        asked.pop(0).cancel()
        asked.append(asyncio.create_task(ask(mine)))
        await asyncio.sleep(0.02)
        answers[0].set_result(found)
        assert [body for _, body in await asyncio.gather(*asked)] == [b"{}"] * 5
        assert (len(answers), server.opened) == (1, 5)
        for faulty in (True, False):
            known = len(answers)
            fresh = asyncio.create_task(ask(mine, b"", "GET"))
            await until(lambda known=known: len(answers) > known)
            if faulty:
                answers[-1].set_exception(socket.gaierror(socket.EAI_AGAIN, "later"))
                with pytest.raises(OSError, match="later"):
                    await fresh
            else:
                answers[-1].set_result(found)
                assert (await fresh)[1] == b"{}"
        waiting = asyncio.create_task(ask(mine, b"", "GET"))
        await until(lambda: len(answers) == 4)
        await mine.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await waiting


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_who_reads_an_answer_is_told_when_all_is_closed(framing):
    async with connected() as (server, mine):
        server.answers = [b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n"]
        async with mine.exchange("POST", {}, b"{}") as answer:
            await answer.content.readany()
            reading = asyncio.create_task(answer.content.readany())
            await asyncio.sleep(0)
            await mine.close()
            with pytest.raises(aiohttp.ClientError):
                await asyncio.wait_for(reading, HANG_S)
        assert not mine._all


@pytest.mark.parametrize(
    ("host", "trusted", "served"),
    [("localhost", True, True), ("127.0.0.1", True, False), ("localhost", False, False)],
    ids=["trusted, of its name", "of another name", "not trusted"],
)
async def test_a_server_behind_https_proves_its_name(host, trusted, served, tmp_path, monkeypatch):
    certificate, key = issue(tmp_path, "server")
    other, _ = issue(tmp_path, "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate if trusted else other))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate, key)
    server = RawServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=shown)
    mine = ServerConnections(URL(f"https://{host}:{listening.sockets[0].getsockname()[1]}/mcp"), 2)
    try:
        if served:
            assert [(await ask(mine, b"x" * 300_000))[1] for _ in range(2)] == [b"{}", b"{}"]
            assert server.lines() == [1, 1]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(mine)
            assert not server.requests
    finally:
        await mine.close()
        listening.close()


async def test_an_end_that_is_cancelled_closes_the_connections_all_the_same(monkeypatch):
    upstream = HttpUpstream("double", "http://127.0.0.1:1/mcp", {}, timeout_s=HANG_S)
    stopping = asyncio.Event()

    async def never_ends() -> None:
        stopping.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(upstream._stream, "stop", never_ends)
    async with connected() as (_, mine):
        await ask(mine)
        upstream._http = mine
        ending = asyncio.create_task(upstream.stop())
        await stopping.wait()
        ending.cancel()
        await asyncio.wait({ending})
        assert ending.cancelled()
        assert not mine._all
        with pytest.raises(aiohttp.ClientError):
            await ask(mine)
