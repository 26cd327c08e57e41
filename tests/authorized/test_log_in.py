"""Official clients of both languages get their tokens themselves, at the real authorization server, and call tools.

Each is a process of its own that is told no more than the address of the sidecar. What it needs besides, it finds by
the challenge and the metadata. A registered client, or one that registers itself, sends its person to log in
(authorization code with PKCE); a service gets a token for itself (client credentials).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest

from sidecar.demo import log_in
from tests import parts, programs
from tests.authorization_server import (
    CALLBACK,
    DESKTOP,
    SECRET,
    SERVICE,
    AuthorizationServer,
    authorized,
    register_agent,
)
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed
from tests.oauth.proofs import ABSENT, THIEF, proof
from tests.patience import HANG_S

HERE = parts.ROOT / "tests/clients"
PARTS = parts.ROOT / ".parts"
COUNT: dict[str, Any] = {
    "name": "count",
    "arguments": {"connectionId": "preconfigured", "database": "sales", "collection": "orders"},
}
TYPING = [sys.executable, str(HERE / "typing_person.py")]
STAGING = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
LOOK = {"name": "count", "arguments": STAGING}
LOAD = {"name": "insert-many", "arguments": {**STAGING, "documents": [{"total": 1}]}}
LOADER = "nightly-loader"
SALARIES = {"name": "count", "arguments": {**COUNT["arguments"], "database": "hr", "collection": "salaries"}}
CHROMIUM = "chromium|google-chrome"

PYTHON = str(HERE / "log_in_python.py")
TYPESCRIPT = ["node", str(HERE / "log_in_typescript.mjs"), str(PARTS / "clients")]
PYTHONS = {
    "Python 1.26.0": [str(PARTS / "mcp-1.26/bin/python"), PYTHON],
    "Python 1.30.0": [str(PARTS / "mcp-1.30/bin/python"), PYTHON],
    "Python 2.3.0": [sys.executable, PYTHON],
}
CLIENTS = {
    **PYTHONS,
    "TypeScript 1.32.2": [*TYPESCRIPT, "@modelcontextprotocol/sdk"],
    "TypeScript 2.4.0": [*TYPESCRIPT, "@modelcontextprotocol/client"],
}
NEWEST = ("Python 2.3.0", "TypeScript 2.4.0")
OLDER = tuple(client for client in CLIENTS if client not in NEWEST)

late = partial(pytest.param, marks=pytest.mark.nightly)
"""A second way of a client that goes the first one in every run."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[tuple[AuthorizationServer, Deployment]]:
    folder = tmp_path_factory.mktemp("log_in")
    port = parts.free_port()
    policies = policies_on(folder)
    register_agent(policies, SERVICE)
    with authorized(folder, resource=f"http://127.0.0.1:{port}/mcp") as server:
        issuers = f'[[issuers]]\nissuer = "{server.issuer}"\nservices = ["{SERVICE}"]\ndpop = "allowed"\n'
        with deployed(folder, database, port=port, issuers=issuers, policies=policies) as deployment:
            yield server, deployment


def typing(server: AuthorizationServer, user: str) -> list[str]:
    """A browser for a client: a person who fills in the pages over HTTP."""
    return [*TYPING, user, server.password(user)]


def run(client: str, told: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a client; what it is told is in its script."""
    return subprocess.run(
        CLIENTS[client],
        input=json.dumps({"calls": [COUNT, COUNT], "callback": CALLBACK, **told}),
        env={**os.environ, "PYTHONPATH": str(parts.ROOT)},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def outcome(client: str, told: dict[str, Any]) -> dict[str, Any]:
    """What came of a client that is expected to get through."""
    done = run(client, told)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)  # noqa: TID251 - the script's own answer
    return found


def counted(found: dict[str, Any]) -> list[Any]:
    return [one["structuredContent"] for one in found["outcomes"]]


def actor(deployment: Deployment) -> tuple[str, str]:
    """User and agent of the last call that was let through."""
    record = next(r for r in reversed(deployment.records()) if r["event"] == "intent")
    return record["subject"]["id"], record["actor"]["id"]


@pytest.mark.parametrize(
    ("client", "registered"),
    [
        *(pytest.param(client, True, id=f"{client}-registered") for client in CLIENTS),
        *(pytest.param(client, False, id=f"{client}-registers itself") for client in NEWEST),
        *(late(client, False, id=f"{client}-registers itself") for client in OLDER),
    ],
)
def test_a_client_logs_its_person_in_and_calls(
    server: AuthorizationServer, deployment: Deployment, client: str, registered: bool
) -> None:
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "alice")}
    found = outcome(client, {**told, **({"client_id": DESKTOP} if registered else {})})
    assert counted(found) == [{"count": 12}, {"count": 12}]
    (asked,) = found["asked"]
    assert (asked["resource"], asked["code_challenge_method"]) == (deployment.url, "S256")
    assert asked["scope"].removesuffix(" offline_access") == "mongodb:read", "no more than basic use needs"
    assert actor(deployment) == ("alice", found["client_id"])
    assert (found["client_id"] == DESKTOP) is registered


@pytest.mark.parametrize("client", [*NEWEST, late("Python 1.26.0"), late("Python 1.30.0")])
def test_a_client_whose_token_lacks_a_scope_asks_for_it_and_goes_on(
    server: AuthorizationServer, deployment: Deployment, client: str
) -> None:
    """It begins with what basic use needs; the call that needs more has it ask its person again, once, and succeeds."""
    before = len(deployment.records())
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "larry"), "client_id": LOADER}
    found = outcome(client, {**told, "calls": [LOOK, LOAD, LOAD, LOOK]})
    assert [bool(one.get("isError")) for one in found["outcomes"]] == [False] * 4
    assert [{*asked["scope"].split()} - {"offline_access"} for asked in found["asked"]] == [
        {"mongodb:read"},
        {"mongodb:read", "mongodb:write"},
    ]
    records = [record for record in deployment.records()[before:] if record["tool"] == "insert-many"]
    assert [record["event"] for record in records] == ["refusal", "intent", "outcome", "intent", "outcome"]
    assert (records[0]["outcome"]["error"], records[0]["decision"]["missing_scopes"]) == (
        "insufficient_scope",
        ["mongodb:write"],
    )
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 2


@pytest.mark.parametrize("client", PYTHONS)
def test_a_service_gets_a_token_for_itself(server: AuthorizationServer, deployment: Deployment, client: str) -> None:
    service = {"client_id": SERVICE, "client_secret": SECRET, "scope": "mongodb:read"}
    found = outcome(client, {"url": deployment.url, "issuer": server.issuer, "browser": [], **service})
    assert (counted(found), found["asked"]) == ([{"count": 12}, {"count": 12}], [])
    assert actor(deployment) == (SERVICE, SERVICE)


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "registers itself"])
def test_a_client_with_a_key_of_its_own_has_tokens_that_are_bound_to_it(
    server: AuthorizationServer, deployment: Deployment, registered: bool
) -> None:
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "alice"), "bound": True}
    found = outcome("TypeScript 2.4.0", {**told, **({"client_id": "bound-agent"} if registered else {})})
    assert (counted(found), found["token_type"]) == ([{"count": 12}, {"count": 12}], "DPoP")


async def test_a_bound_token_is_good_with_its_own_key_only(server: AuthorizationServer, deployment: Deployment) -> None:
    now: dict[str, Any] = {"jti": "log-in", "htu": f"{server.issuer}/token", "iat": int(time.time()), "ath": ABSENT}
    client = log_in.Registered(client_id="bound-agent", redirect_uri=CALLBACK)
    answer = await log_in.tokens_of(
        server.issuer,
        client,
        ("alice", server.password("alice")),
        resource=deployment.url,
        scopes=("mongodb:read",),
        proof=proof("", **now),
    )
    token = answer["access_token"]
    assert answer["token_type"] == "DPoP"  # a kind of token
    at_sidecar: dict[str, Any] = {"htu": deployment.url, "iat": int(time.time())}
    shown = {
        "as a bearer token": {"Authorization": f"Bearer {token}"},
        "without a proof": {"Authorization": f"DPoP {token}"},
        "with a thief's proof": {"DPoP": proof(token, key=THIEF, jti="2", **at_sidecar)},
        "with its own proof": {"DPoP": proof(token, jti="3", **at_sidecar)},
        "with its own proof again": {"DPoP": proof(token, jti="3", **at_sidecar)},
    }
    found = {name: await opened(deployment, {"Authorization": f"DPoP {token}", **more}) for name, more in shown.items()}
    assert found == {**dict.fromkeys(shown, 401), "with its own proof": 200}


async def opened(deployment: Deployment, headers: dict[str, str]) -> int:
    """The status of a session's first request."""
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    accept = {"Accept": "application/json, text/event-stream", **headers}
    async with aiohttp.ClientSession() as http, http.post(deployment.url, json=message, headers=accept) as response:
        return response.status


@pytest.mark.parametrize("client", [*NEWEST, *map(late, OLDER)])
def test_a_slash_at_the_end_of_the_address_makes_no_difference(
    server: AuthorizationServer, deployment: Deployment, client: str
) -> None:
    told = {"url": f"{deployment.url}/", "issuer": server.issuer, "browser": typing(server, "alice")}
    found = outcome(client, {**told, "client_id": DESKTOP})
    assert counted(found) == [{"count": 12}, {"count": 12}]
    assert found["asked"][0]["resource"] == deployment.url


@pytest.mark.parametrize("client", NEWEST)
def test_who_cannot_log_in_gets_nowhere(server: AuthorizationServer, deployment: Deployment, client: str) -> None:
    before = len(deployment.all_reached())
    wrong = [*typing(server, "alice")[:-1], server.password("larry")]
    done = run(client, {"url": deployment.url, "issuer": server.issuer, "browser": wrong, "client_id": DESKTOP})
    assert done.returncode != 0
    assert "do not belong together" in done.stderr or "CalledProcessError" in done.stderr
    assert len(deployment.all_reached()) == before


def scopes_asked(found: dict[str, Any]) -> list[set[str]]:
    return [{*asked["scope"].split()} - {"offline_access"} for asked in found["asked"]]


STEPPED_UP = [{"mongodb:read"}, {"mongodb:read", "mongodb:write"}]


def test_the_older_typescript_client_asks_again_too_while_it_has_no_refresh_token(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "larry"), "client_id": LOADER}
    found = outcome("TypeScript 1.32.2", {**told, "calls": [LOOK, LOAD], "forgets": True})
    assert scopes_asked(found) == STEPPED_UP
    assert not found["outcomes"][1].get("isError")
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 1


def test_with_a_refresh_token_the_older_typescript_client_gives_up_and_keeps_its_session(
    server: AuthorizationServer, deployment: Deployment
) -> None:
    """Its ``auth`` refreshes whenever it can, and does not look at the scope that it was asked for (sdk 1.32.2,
    client/auth.js). A refreshed token has no more scopes (RFC 6749 section 6), so the same challenge comes again, and
    that it takes for the end (client/streamableHttp.js). No answer of a resource server would help it."""
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "larry"), "client_id": LOADER}
    before = len(deployment.records())
    found = outcome("TypeScript 1.32.2", {**told, "calls": [LOOK, LOAD, LOOK, LOAD, LOOK], "goes_on": True})
    looks, loads = found["outcomes"][::2], found["outcomes"][1::2]
    assert [one.get("isError", False) for one in looks] == [False] * 3
    assert loads == [{"raised": "Streamable HTTP error: Server returned 403 after trying upscoping"}] * 2
    assert scopes_asked(found) == STEPPED_UP[:1]
    tried = [record for record in deployment.records()[before:] if record["tool"] == "insert-many"]
    assert [record["decision"]["missing_scopes"] for record in tried] == [["mongodb:write"]] * 4, "with each token"
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 0


@pytest.mark.parametrize("client", NEWEST)
def test_what_no_scope_would_allow_is_no_reason_to_ask(
    server: AuthorizationServer, deployment: Deployment, client: str
) -> None:
    told = {"url": deployment.url, "issuer": server.issuer, "browser": typing(server, "alice"), "client_id": DESKTOP}
    found = outcome(client, {**told, "calls": [COUNT, SALARIES, COUNT]})
    assert [bool(one.get("isError")) for one in found["outcomes"]] == [False, True, False]
    assert len(found["asked"]) == 1


@pytest.mark.needs(CHROMIUM)
@pytest.mark.parametrize("client", NEWEST)
def test_a_person_logs_in_with_a_browser_allows_the_agent_and_later_allows_more(
    server: AuthorizationServer, deployment: Deployment, client: str
) -> None:
    chromium = programs.path_of(CHROMIUM) or ""
    browser = ["node", str(HERE / "browser.mjs"), str(PARTS / "clients"), chromium, "larry", server.password("larry")]
    told = {"url": deployment.url, "issuer": server.issuer, "browser": browser, "client_id": LOADER}
    found = outcome(client, {**told, "calls": [LOOK, LOAD]})
    assert scopes_asked(found) == STEPPED_UP
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 1
    assert actor(deployment) == ("larry", LOADER)
