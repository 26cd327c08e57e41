"""Agents that are named by the URL of their metadata (OAuth client id metadata documents): the URL is a name."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sidecar.oauth import FetchLimits, JwtVerifier, RemoteKeySet
from sidecar.oauth.key_sets import at
from tests.oauth.test_jwt_verification import RSA_KEY, ManualClock, identified, issuer, jwk, token

URL = "https://apps.example/agents/desk.json"


async def test_a_url_is_an_agent_by_exactly_its_text() -> None:
    checker = JwtVerifier([issuer()], ManualClock())
    for name in (URL, f"{URL}?", f"{URL}/", "https://APPS.example/agents/desk.json", "https://apps.example/%61"):
        assert (await identified(checker, token({"client_id": name}))).actor.id == name


@pytest.fixture
async def watched() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that writes down what it is asked; its keys are the issuer's."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"keys": [jwk(RSA_KEY, kid="rsa")], "client_id": str(request.url)})

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_no_url_of_a_token_is_ever_fetched(watched: tuple[str, list[str]]) -> None:
    url, asked = watched
    async with aiohttp.ClientSession() as session:
        keys = RemoteKeySet(at(f"{url}/jwks"), session, ManualClock(), FetchLimits())
        checker = JwtVerifier([issuer(keys=keys)], ManualClock())
        claims: dict[str, Any] = {
            "client_id": f"{url}/client.json",
            "act": {"sub": f"{url}/agent.json"},
            "sub": f"{url}/user",
            "jwks_uri": f"{url}/other-keys",
            "_claim_sources": {"src1": {"endpoint": f"{url}/groups"}},
        }
        headers = {"jku": f"{url}/jku", "x5u": f"{url}/x5u"}
        assert (await identified(checker, token(claims, headers))).actor.id == f"{url}/agent.json"
    assert asked == ["/jwks"]
