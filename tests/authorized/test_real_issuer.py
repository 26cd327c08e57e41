"""Tokens of a real authorization server: whom they name, what is recorded of it, and that they go nowhere upstream."""

from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx2
import jwt
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from sidecar.demo.client import DemoClient, HttpAnswer
from tests import parts
from tests.authorization_server import (
    ACCESS_TOKEN,
    CLIENTS,
    DESKTOP,
    EXCHANGER,
    OTHER_RESOURCE,
    SERVICE,
    TOKEN_EXCHANGE,
    AuthorizationServer,
    authorized,
    exchanging,
    register_agent,
)
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
STAGING = {**ORDERS, "database": "staging"}


@pytest.fixture(scope="module", params=["jwt", "opaque"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, database: str
) -> Iterator[tuple[AuthorizationServer, Deployment]]:
    """An authorization server and a sidecar that trusts it, once for each form of token."""
    folder = tmp_path_factory.mktemp("issuer")
    port = parts.free_port()
    opaque = request.param == "opaque"
    with authorized(
        folder,
        resource=f"http://127.0.0.1:{port}/mcp",
        opaque=opaque,
        clients={**CLIENTS, EXCHANGER: exchanging(f"http://127.0.0.1:{port}/mcp"), "unknown-report": CLIENTS[SERVICE]},
    ) as server:
        issuers = f'[[issuers]]\nissuer = "{server.issuer}"\nservices = ["{SERVICE}"]\n'
        issuers += server.introspection if opaque else ""
        policies = policies_on(folder)
        register_agent(policies, SERVICE)
        with deployed(folder, database, port=port, issuers=issuers, policies=policies) as deployment:
            yield server, deployment


async def count(deployment: Deployment, token: str, collection: str = "orders") -> HttpAnswer:
    async with DemoClient(deployment.url, token, "test") as client:
        if (opened := await client.initialize()).status != 200:
            return opened
        return await client.call("count", {**ORDERS, "collection": collection})


async def test_a_person_who_logged_in_calls_through_their_agent(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    answer = await count(deployment, await server.token("alice"))
    assert answer.result["structuredContent"] == {"count": 12}
    record = next(r for r in reversed(deployment.records()) if r["event"] == "intent")
    assert record["subject"] == {"issuer": server.issuer, "id": "alice", "type": "user", "groups": ["analysts"]}
    assert record["actor"]["id"] == DESKTOP


async def test_a_person_without_a_group_sees_no_tool(server: AuthorizationServer, deployment: Deployment) -> None:
    answer = await count(deployment, await server.token("mallory"))
    assert answer.body["error"]["message"] == "Unknown tool."


async def test_a_registered_service_speaks_for_itself_and_another_does_not(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    answer = await count(deployment, await server.service_token())
    assert answer.result["structuredContent"] == {"count": 12}
    record = next(r for r in reversed(deployment.records()) if r["event"] == "intent")
    assert (record["subject"]["id"], record["actor"]["id"]) == (SERVICE, SERVICE)
    assert (await count(deployment, await server.service_token("unknown-report"))).status == 401
    assert deployment.records()[-1]["outcome"]["error"] == "token_no_person"


async def exchanged(server: AuthorizationServer, token: str, **changes: str) -> tuple[int, dict[str, Any]]:
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "resource": server.resource,
        **changes,
    }
    return await server.post("/token", form, client=EXCHANGER)


async def test_an_agent_that_exchanged_a_persons_token_is_the_actor(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    theirs = await server.token("alice", resource=OTHER_RESOURCE)
    assert (await count(deployment, theirs)).status == 401, "what it holds is for somebody else"
    status, answer = await exchanged(server, theirs)
    assert (status, answer["issued_token_type"]) == (200, ACCESS_TOKEN)
    assert (await count(deployment, answer["access_token"])).result["structuredContent"] == {"count": 12}
    record = next(r for r in reversed(deployment.records()) if r["event"] == "intent")
    assert (record["subject"]["id"], record["actor"]["id"]) == ("alice", EXCHANGER)


async def test_other_things_that_the_issuer_gives_out_are_no_access_tokens_here(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    before = len(deployment.all_reached())
    answer = await server.answer("alice", scopes=("openid", "mongodb:read"))
    assert {"id_token", "refresh_token"} <= answer.keys()
    for kind in ("id_token", "refresh_token"):
        assert (await count(deployment, answer[kind])).status == 401, kind
    assert len(deployment.all_reached()) == before
    assert (await count(deployment, answer["access_token"])).status == 200


async def test_a_client_that_registered_itself_is_no_service(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    """Anybody can register, with the grant of services, and gets a token for this resource."""
    asked = {"grant_types": ["client_credentials"], "response_types": [], "redirect_uris": [], "client_name": SERVICE}
    async with aiohttp.ClientSession() as http, http.post(f"{server.issuer}/reg", json=asked) as response:
        client = await response.json()
    form = {"grant_type": "client_credentials", "scope": "mongodb:read", "resource": server.resource}
    proof = aiohttp.encode_basic_auth(client["client_id"], client["client_secret"])
    async with (
        aiohttp.ClientSession(headers={"Authorization": proof}) as http,
        http.post(f"{server.issuer}/token", data=form) as response,
    ):
        token = (await response.json())["access_token"]
    assert (await count(deployment, token)).status == 401
    assert deployment.records()[-1]["outcome"]["error"] == "token_no_person"


async def test_a_token_of_few_scopes_does_what_they_are_for_and_no_more(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    insert = {**STAGING, "documents": [{"by": "few-scopes"}]}
    for scopes, inserted in ((("mongodb:read",), 0), (("mongodb:read", "mongodb:write"), 1)):
        token = await server.token("larry", client="nightly-loader", scopes=scopes)
        async with DemoClient(deployment.url, token, "test") as client:
            await client.initialize()
            await client.call("insert-many", insert)
        with deployment.database() as database:
            assert database.staging.orders.count_documents({"by": "few-scopes"}) == inserted


async def test_no_part_of_a_token_reaches_the_mcp_server_or_any_record(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    token = await server.token("alice")
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=HANG_S) as http,
        Client(streamable_http_client(deployment.url, http_client=http)) as client,
    ):
        assert not (await client.call_tool("count", ORDERS)).is_error
    written = [*deployment.folder.glob("*.stdin"), deployment.audit_file, deployment.log_file]
    everything = "".join(file.read_text() for file in written)
    assert '"name":"count"' in everything.replace(" ", ""), "these are what the call has left"
    assert [part for part in token.split(".") if part in everything] == []
    assert "uthorization" not in "".join(file.read_text() for file in deployment.folder.glob("*.stdin"))


@pytest.mark.parametrize("both", ["jwt"], indirect=True)
async def test_no_call_fails_while_the_issuer_rotates_its_keys(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    first = await server.token("alice")
    assert (await count(deployment, first)).status == 200
    server.publish("second")
    assert (await count(deployment, await server.token("alice"))).status == 200
    server.sign_with("second")
    second = await server.token("alice")
    assert (await count(deployment, second)).status == 200
    assert (await count(deployment, first)).status == 200
    server.retire("first")
    assert (await count(deployment, second)).status == 200
    assert (await count(deployment, await server.token("alice"))).status == 200


@pytest.mark.parametrize("both", ["jwt"], indirect=True)
async def test_a_key_that_nobody_could_have_fetched_before_is_found_at_once_time_and_again(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    kid = server.rotate()
    for _ in range(3):
        token = await server.token("alice")
        assert jwt.get_unverified_header(token)["kid"] == kid
        assert (await count(deployment, token)).result["structuredContent"] == {"count": 12}
        kid = server.rotate()
