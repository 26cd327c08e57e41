"""Keys of an issuer outside are fetched through the proxy of the environment, those of this machine never."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from sidecar import settings
from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.oauth.fetch import FetchLimits, fetch_object

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
LIMITS = FetchLimits(proxy_for=settings.proxy_for, timeout_s=5)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that notes the first line that it is sent and answers 403."""
    lines: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], lines


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_an_issuer_outside_is_asked_through_the_proxy(environment: pytest.MonkeyPatch, scheme: str) -> None:
    async with listening() as (port, lines), aiohttp.ClientSession() as session:
        environment.setenv("HTTPS_PROXY", f"{scheme}127.0.0.1:{port}")
        environment.setenv("NO_PROXY", "other.example")
        with pytest.raises(KeysUnavailable):
            await fetch_object(session, "https://idp.corp.example/jwks", LIMITS)
    assert lines == [b"CONNECT idp.corp.example:443 HTTP/1.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_never_asked_through_the_proxy(environment: pytest.MonkeyPatch, host: str) -> None:
    async with listening() as (proxy, asked), listening() as (port, lines), aiohttp.ClientSession() as session:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            environment.setenv(name, f"http://127.0.0.1:{proxy}")
        with pytest.raises(KeysUnavailable):
            await fetch_object(session, f"http://{host}:{port}/jwks", LIMITS)
    assert (asked, lines) == ([], [b"GET /jwks HTTP/1.1"])


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://idp.corp.example/jwks", False),
        ("https://a.idp.corp.example/jwks", False),
        ("https://notcorp.example/jwks", True),
        ("https://one.example:8443/jwks", False),
        ("https://one.example/jwks", True),
    ],
)
def test_no_proxy_names_what_is_asked_directly(environment: pytest.MonkeyPatch, url: str, proxied: bool) -> None:
    assert settings.proxy_for(url) is None
    environment.setenv("https_proxy", "http://proxy.example:3128")
    environment.setenv("no_proxy", "corp.example,one.example:8443")
    assert settings.proxy_for(url) == ("http://proxy.example:3128" if proxied else None)


def test_all_proxy_is_for_every_scheme(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", "http://proxy.example:3128")
    assert settings.proxy_for("https://idp.corp.example/jwks") == "http://proxy.example:3128"


@pytest.mark.parametrize(
    "proxy",
    ["socks5://proxy.example:1080", "http://[::1", "http://", "proxy.example:99999", "proxy.example:0", "x://y"],
)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_is_not_spoken_to_with_http_is_refused_without_its_password(
    environment: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    """Taken for an HTTP proxy, a SOCKS proxy would make every key set unavailable, and nothing would say why."""
    environment.setenv(name, proxy.replace("//", "//user:secret@"))
    with pytest.raises(ConfigurationError) as refused:
        settings.proxy_for("https://idp.corp.example/jwks")
    assert "HTTPS_PROXY" in refused.value.detail
    assert "secret" not in refused.value.detail
    environment.setenv("NO_PROXY", "corp.example")
    assert settings.proxy_for("https://idp.corp.example/jwks") is None


async def test_a_proxy_is_told_the_name_and_password_that_its_address_has(environment: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, aiohttp.ClientSession() as session:
        port = server.sockets[0].getsockname()[1]
        environment.setenv("HTTPS_PROXY", f"http://us%40er:p%3Ass@127.0.0.1:{port}")
        with pytest.raises(KeysUnavailable):
            await fetch_object(session, "https://idp.corp.example/jwks", LIMITS)
    [head] = heads
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"us@er:p:ss") in head
