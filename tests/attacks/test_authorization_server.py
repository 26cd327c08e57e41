"""The demo's authorization server against those who hold a token, a code or a client of it, and want more.

What the sidecar makes of such tokens is in ``tests/authorized/test_real_issuer.py``; this is about what is issued.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import jwt
import pytest
from typing_extensions import override

from sidecar.demo import log_in
from tests.authorization_server import (
    ACCESS_TOKEN,
    CALLBACK,
    CLIENTS,
    DESKTOP,
    EXCHANGER,
    OTHER_RESOURCE,
    SERVICE,
    TOKEN_EXCHANGE,
    AuthorizationServer,
    authorized,
    exchanging,
)

HERE = "http://127.0.0.1:8080/mcp"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServer]:
    clients = {**CLIENTS, EXCHANGER: exchanging(HERE), "other-exchanger": {"metadata": exchanging(HERE)["metadata"]}}
    with authorized(tmp_path_factory.mktemp("attacked"), resource=HERE, clients=clients) as running:
        yield running


def link(server: AuthorizationServer, **changes: str | None) -> str:
    asked = {
        "response_type": "code",
        "client_id": DESKTOP,
        "redirect_uri": CALLBACK,
        "scope": "mongodb:read",
        "resource": HERE,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return f"{server.issuer}/auth?{urlencode({name: value for name, value in asked.items() if value is not None})}"


async def said(server: AuthorizationServer, **changes: str | None) -> dict[str, str]:
    """What the client is told when alice logs in and allows."""
    back = await log_in.fill_in(link(server, **changes), "alice", server.password("alice"))
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


def of_code(code: str, **changes: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "client_id": DESKTOP,
        "redirect_uri": CALLBACK,
        "resource": HERE,
        "code": code,
        "code_verifier": VERIFIER,
        **changes,
    }


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"resource": "http://127.0.0.1:8080/mcp/"}, "invalid_target"),
        ({"resource": "https://nobody.test/"}, "invalid_target"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
    ],
    ids=["no PKCE", "plain PKCE", "a resource with a slash", "another resource", "implicit", "hybrid"],
)
async def test_a_request_that_asks_for_what_is_not_given_gets_no_code(
    server: AuthorizationServer, changes: dict[str, str | None], error: str
) -> None:
    async with aiohttp.ClientSession() as http, http.get(link(server, **changes), allow_redirects=False) as response:
        told = urlsplit(response.headers["Location"])
    assert {"error": [error]}.items() <= parse_qs(told.query or told.fragment).items()


@pytest.mark.parametrize(
    "uri", ["https://evil.test/callback", f"{CALLBACK}/../x", "http://127.0.0.1.evil.test/callback"]
)
async def test_nobody_is_sent_to_an_address_that_the_client_did_not_register(
    server: AuthorizationServer, uri: str
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(link(server, redirect_uri=uri), allow_redirects=False) as response,
    ):
        assert (response.status, response.headers.get("Location")) == (400, None)


async def test_a_page_is_shown_in_no_frame_and_holds_no_markup_of_a_client(server: AuthorizationServer) -> None:
    name = "<script>alert(1)</script><b id='x'>"
    client = await registered(server, client_name=name)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        browser.get(link(server, client_id=client["client_id"])) as response,
    ):
        page = await response.text()
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert "script" in page
    assert "<script" not in page
    assert "id='x'" not in page


async def test_another_name_of_this_machine_is_not_served(server: AuthorizationServer) -> None:
    """A page at a name that leads here (DNS rebinding) would act with the cookies of who is logged in."""
    async with aiohttp.ClientSession() as http:
        for host, status in (("evil.test", 421), (urlsplit(server.issuer).netloc, 200)):
            async with http.get(f"{server.issuer}/jwks", headers={"Host": host}) as response:
                assert response.status == status


async def test_a_consent_cannot_be_given_without_the_browser_that_asked(server: AuthorizationServer) -> None:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        browser.get(link(server)) as response,
    ):
        (login,) = re.findall(r'action="(/interaction/[\w-]+/login)"', await response.text())
    async with aiohttp.ClientSession() as attacker:
        form = {"user": "alice", "password": server.password("alice")}
        for path in (login, login.replace("/login", "/consent"), login.replace("/login", "/deny")):
            async with attacker.post(f"{server.issuer}{path}", data=form, allow_redirects=False) as response:
                assert response.status == 400


async def test_who_says_no_gives_no_code(server: AuthorizationServer) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(link(server)) as response:
            (login,) = re.findall(r'action="(/interaction/[\w-]+/login)"', await response.text())
        form = {"user": "alice", "password": server.password("alice")}
        async with browser.post(f"{server.issuer}{login}", data=form) as response:
            (deny,) = re.findall(r'action="(/interaction/[\w-]+/deny)"', await response.text())
        async with browser.post(f"{server.issuer}{deny}", allow_redirects=False) as response:
            onward = response.headers["Location"]
        async with browser.get(onward, allow_redirects=False) as response:
            told = parse_qs(urlsplit(response.headers["Location"]).query)
    assert (told["error"], "code" in told) == (["access_denied"], False)


@pytest.mark.parametrize("typed", [("alice", "wrong"), ("alice", ""), ("nobody", ""), ("__proto__", ""), ("", "")])
async def test_nobody_logs_in_with_what_they_do_not_know(server: AuthorizationServer, typed: tuple[str, str]) -> None:
    with pytest.raises(log_in.LoginFailed):
        await log_in.fill_in(link(server), *typed)


# --- codes and refresh tokens -----------------------------------------------------------------------------------------


async def test_a_code_is_good_once_and_its_second_use_ends_what_the_first_brought(server: AuthorizationServer) -> None:
    code = (await said(server))["code"]
    status, first = await server.post("/token", of_code(code))
    assert status == 200
    assert await server.post("/token", of_code(code)) == refused("invalid_grant")
    refresh = {"grant_type": "refresh_token", "client_id": DESKTOP, "refresh_token": first["refresh_token"]}
    assert await server.post("/token", refresh) == refused("invalid_grant")


def refused(error: str) -> Any:
    """Equal to any answer of status 400 with this error."""

    class Refusal:
        @override
        def __eq__(self, other: object) -> bool:
            return isinstance(other, tuple) and other[0] == 400 and other[1].get("error") == error

        __hash__ = None  # type: ignore[assignment]

    return Refusal()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "nightly-loader"}, "invalid_grant"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": CHALLENGE}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/callback"}, "invalid_grant"),
        ({"resource": OTHER_RESOURCE}, "invalid_target"),
    ],
    ids=["another client", "another verifier", "the challenge", "another redirect", "another resource"],
)
async def test_a_code_is_good_for_its_client_its_verifier_and_its_resource(
    server: AuthorizationServer, changes: dict[str, str], error: str
) -> None:
    code = (await said(server))["code"]
    assert await server.post("/token", of_code(code, **changes)) == refused(error)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "mongodb:read mongodb:write"}, "invalid_scope"),
        ({"resource": OTHER_RESOURCE}, "invalid_target"),
        ({"client_id": "nightly-loader"}, "invalid_grant"),
    ],
    ids=["more scopes", "another resource", "another client"],
)
async def test_a_refresh_token_brings_no_more_than_was_allowed(
    server: AuthorizationServer, changes: dict[str, str], error: str
) -> None:
    answer = await server.answer("alice")
    form = {"grant_type": "refresh_token", "client_id": DESKTOP, "refresh_token": answer["refresh_token"]}
    assert await server.post("/token", {**form, **changes}) == refused(error)


async def test_and_brings_the_same_again(server: AuthorizationServer) -> None:
    answer = await server.answer("alice")
    form = {"grant_type": "refresh_token", "client_id": DESKTOP, "refresh_token": answer["refresh_token"]}
    status, fresh = await server.post("/token", form)
    assert (status, fresh["scope"]) == (200, "mongodb:read")
    assert jwt.decode(fresh["access_token"], options={"verify_signature": False})["aud"] == HERE


async def test_a_refresh_token_that_was_used_before_ends_its_whole_family(server: AuthorizationServer) -> None:
    answer = await server.answer("alice")
    form = {"grant_type": "refresh_token", "client_id": DESKTOP, "refresh_token": answer["refresh_token"]}
    status, fresh = await server.post("/token", form)
    assert status == 200
    assert await server.post("/token", form) == refused("invalid_grant")
    form["refresh_token"] = fresh["refresh_token"]
    assert await server.post("/token", form) == refused("invalid_grant")


# --- clients ----------------------------------------------------------------------------------------------------------


async def registered(server: AuthorizationServer, **metadata: Any) -> dict[str, Any]:
    asked = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none", **metadata}
    async with aiohttp.ClientSession() as http, http.post(f"{server.issuer}/reg", json=asked) as response:
        assert response.status == 201, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def test_a_client_that_registers_itself_gets_no_name_groups_or_rights_of_another(
    server: AuthorizationServer,
) -> None:
    client = await registered(
        server,
        client_id=SERVICE,
        claims={"groups": ["hr-admins"]},
        introspects=True,
        exchanges={"from": [HERE], "to": [HERE], "scopes": ["mongodb:admin"]},
        grant_types=["client_credentials", TOKEN_EXCHANGE],
        response_types=[],
        redirect_uris=[],
        token_endpoint_auth_method="client_secret_post",  # a method, no secret
    )
    assert client["client_id"] != SERVICE
    proof = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    status, answer = await server.post("/token", {"grant_type": "client_credentials", "resource": HERE, **proof})
    assert status == 200
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims.get("groups")) == (client["client_id"], None)
    theirs = await server.token("alice")
    form = {"subject_token": theirs, "subject_token_type": ACCESS_TOKEN, "resource": HERE, **proof}
    assert await server.post("/token", {"grant_type": TOKEN_EXCHANGE, **form}) == refused("unauthorized_client")


async def test_only_a_resource_server_is_told_what_a_token_is_worth(
    server: AuthorizationServer, tmp_path: Path
) -> None:
    with authorized(tmp_path, resource=HERE, opaque=True) as other:
        theirs = {"token": await other.token("alice")}
        status, answer = await other.post("/token/introspection", theirs, client="mcp-sidecar")
        assert (status, answer["active"], answer["sub"]) == (200, True, "alice")
        assert await other.post("/token/introspection", theirs, client=SERVICE) == (200, {"active": False})
        assert (await other.post("/token/introspection", theirs))[0] == 400
        unproven = {**theirs, "client_id": DESKTOP}
        assert await other.post("/token/introspection", unproven) == (200, {"active": False}), "a public client"


# --- token exchange ---------------------------------------------------------------------------------------------------


async def exchange(server: AuthorizationServer, token: str, client: str = EXCHANGER, **changes: str) -> Any:
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "resource": HERE,
        **changes,
    }
    return await server.post("/token", form, client=client)


async def test_an_exchange_takes_a_persons_token_for_that_agent_and_nothing_else(server: AuthorizationServer) -> None:
    good = await server.token("alice", resource=OTHER_RESOURCE)
    status, answer = await exchange(server, good)
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert (status, claims["sub"], claims["act"], claims["scope"]) == (200, "alice", {"sub": EXCHANGER}, "mongodb:read")
    assert claims["exp"] <= jwt.decode(good, options={"verify_signature": False})["exp"]

    here, service = await server.token("alice"), await server.service_token()
    bad = {"for somebody else": here, "a service's": service, "changed": f"{good[:-8]}AAAAAAAA", "none": "x", "": ""}
    for token in bad.values():
        assert (await exchange(server, token))[0] == 400, bad
    head, body, _ = good.split(".")
    assert await exchange(server, f"{head}.{body}.") == refused("invalid_grant")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    assert await exchange(server, f"{unsigned}.{body}.") == refused("invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client": "other-exchanger"}, "unauthorized_client"),
        ({"resource": OTHER_RESOURCE}, "invalid_target"),
        ({"resource": "https://nobody.test/"}, "invalid_target"),
        ({"scope": "mongodb:read mongodb:write"}, "invalid_scope"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
    ],
    ids=["a client that may not", "to its own", "to nobody", "more scopes", "an ID token", "another actor", "to stay"],
)
async def test_and_gives_what_is_allowed_and_nothing_else(
    server: AuthorizationServer, changes: dict[str, str], error: str
) -> None:
    good = await server.token("alice", resource=OTHER_RESOURCE)
    assert await exchange(server, good, **changes) == refused(error)


async def test_an_exchanged_token_is_for_here_and_is_not_exchanged_again(server: AuthorizationServer) -> None:
    _, answer = await exchange(server, await server.token("alice", resource=OTHER_RESOURCE))
    assert await exchange(server, answer["access_token"]) == refused("invalid_grant")
