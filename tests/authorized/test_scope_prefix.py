"""Issuers that are asked for a scope by a longer name than policies have (Entra ID): metadata, challenges, tokens.

The authorization server here knows the long names only. That issuers without a prefix are asked for the names as they
are is in ``test_step_up.py``.
"""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests import parts
from tests.authorization_server import SCOPES, AuthorizationServer, authorized
from tests.authorized.test_log_in import LOAD, LOADER, LOOK, NEWEST, outcome, scopes_asked, typing
from tests.integration.deployment import Deployment, deployed
from tests.integration.test_step_up import INSERT, READER, STEP_UP, Raw, challenge

API = "api://7d1f0c3e/"
LONG = [f"{API}mongodb:read", f"{API}mongodb:write"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[tuple[AuthorizationServer, Deployment]]:
    folder = tmp_path_factory.mktemp("scope_prefix")
    port = parts.free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    resources = {url: {"scopes": [API + scope for scope in SCOPES], "ttl_s": 600}}
    with authorized(folder, resource=url, resources=resources) as server:
        issuers = f'[[issuers]]\nissuer = "{server.issuer}"\nscope_prefix = "{API}"\n'
        with deployed(folder, database, port=port, issuers=issuers) as deployment:
            yield server, deployment


@pytest.mark.parametrize("client", NEWEST)
def test_a_client_asks_for_the_long_names_and_its_tokens_count_by_the_short_ones(
    server: AuthorizationServer, deployment: Deployment, client: str
) -> None:
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "larry"), "client_id": LOADER}
    found = outcome(client, {**told, "calls": [LOOK, LOAD]})
    assert [bool(one.get("isError")) for one in found["outcomes"]] == [False, False]
    assert scopes_asked(found) == [{*LONG[:1]}, {*LONG}]
    tried = [record for record in deployment.records() if record["tool"] == "insert-many"]
    assert tried[-3]["decision"]["missing_scopes"] == ["mongodb:write"], "evidence has the names of the policies"
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 1


async def told_a_reader(server: AuthorizationServer, deployment: Deployment, scope: str) -> httpx2.Response:
    """The answer to a write with a token of the authorization server that only reads."""
    token = await server.token("larry", client=LOADER, scopes=(scope,))
    async with Raw(deployment, READER, token) as client:
        await client.open()
        return await client.call(INSERT)


async def test_a_challenge_and_its_data_have_the_names_that_the_callers_issuer_is_asked_for(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    answer = await told_a_reader(server, deployment, LONG[0])
    assert answer.headers["WWW-Authenticate"] == challenge(deployment, " ".join(LONG))
    said: dict[str, Any] = answer.json()["error"]
    assert said["data"][STEP_UP] == {"error": "insufficient_scope", "scope": " ".join(LONG), "missing": LONG[1:]}
    assert "also has the scope mongodb:write;" in said["message"]


async def test_metadata_and_the_first_challenge_name_what_the_issuer_is_asked_for(deployment: Deployment) -> None:
    async with httpx2.AsyncClient() as http:
        metadata = (
            await http.get(f"http://127.0.0.1:{deployment.port}/.well-known/oauth-protected-resource/mcp")
        ).json()
        first = (await http.post(deployment.url, json={})).headers["WWW-Authenticate"]
    assert metadata["scopes_supported"] == LONG[:1]
    assert f'scope="{LONG[0]}"' in first
