"""What is answered without a good token: every method at the endpoint, at its metadata, and at everything else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge.endpoint import Endpoint, running

METADATA = "/.well-known/oauth-protected-resource"
WHERE = 'resource_metadata="http://mcp.corp.example/.well-known/oauth-protected-resource/mcp"'


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with running(tmp_path) as made:
        yield made


METHODS = ("POST", "GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE")
NO_TOKENS: dict[str, tuple[str | None, str]] = {
    "none": (None, ""),
    "not valid": ("Bearer abc", ', error="invalid_token"'),
    "of another scheme": ("Basic YTpi", ', error="invalid_request"'),
}
Leg = tuple[int, str | None, str | None, bool]
"""Status, challenge, ``Allow``, and whether there is a body."""


def at_the_endpoint(method: str, error: str) -> Leg:
    if method not in {"POST", "GET", "DELETE"}:
        return (405, None, "POST, GET, DELETE", False)
    return (400 if "request" in error else 401, f'Bearer {WHERE}, scope="mongodb:read"{error}', None, True)


def at_a_query(method: str, error: str) -> Leg:
    found = at_the_endpoint(method, error)
    return found if found[0] == 405 else (400, None, None, True)


def at_the_metadata(method: str, _error: str) -> Leg:
    found: dict[str, Leg] = {
        "GET": (200, None, None, True),
        "HEAD": (200, None, None, False),
        "OPTIONS": (204, None, None, False),
    }
    return found.get(method, (405, None, "GET, HEAD, OPTIONS", False))


def at_nothing(_method: str, _error: str) -> Leg:
    return (404, None, None, False)


TARGETS = {
    "/mcp": at_the_endpoint,
    "/mcp/": at_the_endpoint,
    "/mcp?x=1": at_a_query,
    METADATA: at_the_metadata,
    METADATA + "/": at_the_metadata,
    METADATA + "/mcp": at_the_metadata,
    METADATA + "/mcp/": at_the_metadata,
    METADATA + "/other": at_nothing,
    METADATA + "/mcp/other": at_nothing,
    METADATA + "//": at_nothing,
    METADATA.removesuffix("-resource"): at_nothing,
    "/.well-known/oauth-authorization-server": at_nothing,
    "/": at_nothing,
    "/mcp/other": at_nothing,
    "/MCP": at_nothing,
    "/other": at_nothing,
}


@pytest.mark.parametrize("given", NO_TOKENS)
@pytest.mark.parametrize("target", TARGETS)
async def test_every_leg_has_its_answer_without_a_good_token(endpoint: Endpoint, target: str, given: str) -> None:
    token, error = NO_TOKENS[given]
    found: dict[str, Leg] = {}
    for method in METHODS:
        answer = await endpoint.ask(method, target, Authorization=token)
        headers = answer.headers
        found[method] = (answer.status, headers.get("www-authenticate"), headers.get("allow"), bool(answer.body))
    assert found == {method: TARGETS[target](method, error) for method in METHODS}
    assert await endpoint.open_session(), "the near miss"


@pytest.mark.parametrize("path", [METADATA, METADATA + "/", METADATA + "/mcp", METADATA + "/mcp/"])
async def test_head_says_of_the_metadata_what_get_says(endpoint: Endpoint, path: str) -> None:
    got, looked = [await endpoint.ask(method, path, Authorization=None) for method in ("GET", "HEAD")]
    assert looked.headers["content-length"] == str(len(got.body))
    assert {**looked.headers, "date": ""} == {**got.headers, "date": ""}
