"""Who allowed what, in one browser that stays logged in: more for the same agent, less, and somebody else's turn."""

import re
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import jwt
import pytest

from tests.attacks.test_authorization_server import HERE, link, of_code
from tests.authorization_server import AuthorizationServer, authorized

FORM = re.compile(r'<form( [^>]*)? action="([^"]*)"')
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')
"""What oidc-provider has a browser send by itself, where another user's session ends."""
READ, MORE = "mongodb:read", "mongodb:read mongodb:write"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServer]:
    with authorized(tmp_path_factory.mktemp("consent"), resource=HERE) as running:
        yield running


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def allowed(
    server: AuthorizationServer, browser: aiohttp.ClientSession, who: str, scope: str, *, other: bool = False
) -> tuple[list[list[str]], str]:
    """What each page asked for until the client had its code, and the code; ``other`` begins as another user."""
    pages: list[list[str]] = []
    address = link(server, scope=scope, prompt="consent")
    typed: dict[str, str] | None = None
    while address.startswith(server.issuer):
        method, headers = ("GET", {}) if typed is None else ("POST", {"Origin": server.issuer})
        async with browser.request(method, address, data=typed, headers=headers, allow_redirects=False) as response:
            text = await response.text()
        typed = None
        if (onward := response.headers.get("Location")) is not None:
            address = urljoin(address, onward)
            continue
        form = FORM.search(text)
        assert form is not None, text
        if other and form[2].endswith("/consent"):
            address, other = f"{address}?as=other", False
            continue
        if form[2].endswith("/consent"):
            pages.append(re.findall(r"<li>([^<]*)</li>", text))
        address = urljoin(address, form[2])
        typed = dict(HIDDEN.findall(text))
        if address.endswith("/login"):
            typed = {"user": who, "password": server.password(who)}
    return pages, parse_qs(urlsplit(address).query)["code"][0]


async def token(server: AuthorizationServer, code: str) -> tuple[str, str]:
    """Whose token a code brings, and its scopes."""
    status, answer = await server.post("/token", of_code(code))
    assert status == 200, answer
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    return claims["sub"], claims["scope"]


async def test_who_allowed_something_before_is_asked_for_the_rest_on_one_page(
    server: AuthorizationServer, browser: aiohttp.ClientSession
) -> None:
    pages, code = await allowed(server, browser, "larry", READ)
    assert (pages, await token(server, code)) == ([["mongodb:read"]], ("larry", READ))
    pages, code = await allowed(server, browser, "larry", MORE)
    assert (pages, await token(server, code)) == ([["mongodb:write"]], ("larry", MORE))


async def test_a_client_that_asks_for_less_later_gets_less(
    server: AuthorizationServer, browser: aiohttp.ClientSession
) -> None:
    _, code = await allowed(server, browser, "larry", MORE)
    await token(server, code)
    pages, code = await allowed(server, browser, "larry", READ)
    assert (pages, await token(server, code)) == ([["what it had before"]], ("larry", READ))


async def test_what_one_user_allowed_is_asked_of_the_next_in_the_same_browser(
    server: AuthorizationServer, browser: aiohttp.ClientSession
) -> None:
    _, code = await allowed(server, browser, "larry", MORE)
    await token(server, code)
    pages, code = await allowed(server, browser, "alice", MORE, other=True)
    assert (pages, await token(server, code)) == ([["mongodb:read", "mongodb:write"]], ("alice", MORE))
