"""Pages that are clients of the demo's authorization server, such as the MCP Inspector's, and pages that are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.attacks.test_authorization_server import HERE, of_code, registered, said
from tests.authorization_server import CALLBACK, AuthorizationServer, authorized

PAGE = "http://localhost:6274"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServer]:
    with authorized(tmp_path_factory.mktemp("pages"), resource=HERE, origins=[PAGE]) as running:
        yield running


CALLED = ("/reg", "/token", "/token/revocation", "/token/introspection", "/me")
OTHER_PAGES = (
    "https://evil.test",
    "null",
    "http://localhost:6275",
    "https://localhost:6274",
    "http://127.0.0.1:6274",
    "http://localhost:6274.evil.test",
    "http://localhost:6274/",
    "http://LOCALHOST:6274",
    f"{PAGE}, {PAGE}",
    "*",
)


async def asked(server: AuthorizationServer, method: str, path: str, origin: str, **more: Any) -> tuple[int, set[str]]:
    """The status of a page's request, and what the answer's headers say of pages."""
    more.setdefault("headers", {})["Origin"] = origin
    async with aiohttp.ClientSession() as http, http.request(method, f"{server.issuer}{path}", **more) as response:
        told = {f"{name}: {value}".lower() for name, value in response.headers.items() if "Access-Control" in name}
        return response.status, told


def preflight() -> dict[str, str]:
    return {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.mark.parametrize("path", ["/reg", "/token"])
async def test_a_page_of_the_list_registers_and_gets_tokens(server: AuthorizationServer, path: str) -> None:
    status, told = await asked(server, "OPTIONS", path, PAGE, headers=preflight())
    assert (status, f"access-control-allow-origin: {PAGE}" in told) == (204, True)
    assert "access-control-allow-methods: post" in told
    assert not [line for line in told if "credentials" in line], "no page acts with the cookies of who is logged in"
    body: dict[str, Any] = {"json": {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}}
    if path == "/token":
        body = {"data": of_code(await a_code(server))}
    status, told = await asked(server, "POST", path, PAGE, **body)
    assert (status, f"access-control-allow-origin: {PAGE}" in told) == (201 if path == "/reg" else 200, True)


async def a_code(server: AuthorizationServer) -> str:
    return (await said(server))["code"]


@pytest.mark.parametrize("origin", OTHER_PAGES)
async def test_a_page_of_another_origin_is_refused_and_reads_nothing(server: AuthorizationServer, origin: str) -> None:
    for path in (*CALLED, "/REG", "/reg/x", "/token/", "//token", "/nowhere"):
        assert await asked(server, "OPTIONS", path, origin, headers=preflight()) == (403, set()), path
        assert await asked(server, "POST", path, origin, json={"redirect_uris": [CALLBACK]}) == (403, set()), path
    assert await asked(server, "POST", "/token", origin, data=of_code(await a_code(server))) == (403, set())


async def test_what_everybody_may_know_is_read_by_any_page(server: AuthorizationServer) -> None:
    for path in ("/.well-known/oauth-authorization-server", "/jwks"):
        status, told = await asked(server, "GET", path, "https://evil.test")
        assert (status, "access-control-allow-origin: https://evil.test" in told) == (200, True)


async def test_a_program_that_is_no_page_is_asked_for_no_origin(server: AuthorizationServer) -> None:
    assert (await registered(server))["client_id"]


@pytest.mark.parametrize(
    "origin", ["*", "null", "http://*:6274", f"{PAGE}/", "http://LOCALHOST:6274", "file://", "localhost:6274", ""]
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(tmp_path: Path, origin: str) -> None:
    with pytest.raises(RuntimeError, match="origins: "), authorized(tmp_path, resource=HERE, origins=[origin]):
        pass


async def test_without_a_list_no_page_is_a_client(tmp_path: Path) -> None:
    with authorized(tmp_path, resource=HERE) as other:
        assert await asked(other, "OPTIONS", "/reg", PAGE, headers=preflight()) == (403, set())
        assert await asked(other, "OPTIONS", "/token", PAGE, headers=preflight()) == (403, set())
