"""DPoP over real sockets: what a client is told, and what is recorded."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.oauth import PROOF_ALGORITHMS, Binding, Nonces
from sidecar.system import SystemClock
from tests.edge.endpoint import INITIALIZE, PING, RESOURCE, Endpoint, encoded, running, token
from tests.oauth.proofs import CLIENT, proof, thumbprint

WHERE = 'resource_metadata="http://mcp.corp.example/.well-known/oauth-protected-resource/mcp"'
ALGS = f'algs="{" ".join(PROOF_ALGORITHMS)}"'


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with running(tmp_path, dpop=Binding.ALLOWED, proof_algorithms=PROOF_ALGORITHMS) as made:
        yield made


def shown(bound: str, number: int, **changes: Any) -> str:
    return proof(bound, **{"htu": RESOURCE, "iat": int(time.time()), "jti": str(number), **changes})


async def test_every_request_of_a_session_needs_its_own_proof(endpoint: Endpoint) -> None:
    bound = token(cnf={"jkt": thumbprint(CLIENT)})
    first = shown(bound, 1)
    opened = await endpoint.ask(body=encoded(INITIALIZE), Authorization=f"DPoP {bound}", DPoP=first)
    session = opened.headers["mcp-session-id"]
    told: dict[str, Any] = {"Authorization": f"DPoP {bound}", "Mcp_Session_Id": session}
    again = await endpoint.ask(body=encoded(PING), DPoP=first, **told)
    assert again.status == 401
    assert again.headers["www-authenticate"] == f'DPoP {WHERE}, error="invalid_dpop_proof", {ALGS}'
    assert endpoint.ledger.records[-1]["outcome"]["error"] == "proof_replayed"  # type: ignore[index,call-overload]
    assert (await endpoint.ask(body=encoded(PING), DPoP=shown(bound, 2), **told)).status == 200
    assert (await endpoint.ask("DELETE", DPoP=shown(bound, 3), **told)).status == 401
    assert (await endpoint.ask("DELETE", DPoP=shown(bound, 4, htm="DELETE"), **told)).status == 204


async def test_a_bound_token_as_bearer_is_refused_and_both_ways_are_told(endpoint: Endpoint) -> None:
    bound = token(cnf={"jkt": thumbprint(CLIENT)})
    refused = await endpoint.ask(body=encoded(INITIALIZE), Authorization=f"Bearer {bound}", DPoP=shown(bound, 1))
    expected = f'Bearer {WHERE}, scope="mongodb:read", error="invalid_token", DPoP {ALGS}'
    assert (refused.status, refused.headers["www-authenticate"]) == (401, expected)
    missing = await endpoint.ask(body=encoded(INITIALIZE), Authorization=None)
    assert missing.headers["www-authenticate"] == f'Bearer {WHERE}, scope="mongodb:read", DPoP {ALGS}'


async def test_two_proofs_are_refused_before_either_is_read(endpoint: Endpoint) -> None:
    bound = token(cnf={"jkt": thumbprint(CLIENT)})
    doubled = f"{shown(bound, 1)}\r\nDPoP: {shown(bound, 2)}"
    answer = await endpoint.ask(body=encoded(INITIALIZE), Authorization=f"DPoP {bound}", DPoP=doubled)
    assert answer.status == 400


async def test_the_metadata_say_what_a_proof_may_be_signed_with(endpoint: Endpoint) -> None:
    said = await endpoint.ask("GET", "/.well-known/oauth-protected-resource/mcp", Authorization=None)
    assert said.json["dpop_signing_alg_values_supported"] == [*PROOF_ALGORITHMS]


async def test_without_dpop_nothing_of_it_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as endpoint:
        missing = await endpoint.ask(body=encoded(INITIALIZE), Authorization=None)
        said = await endpoint.ask("GET", "/.well-known/oauth-protected-resource/mcp", Authorization=None)
    assert "DPoP" not in missing.headers["www-authenticate"]
    assert "dpop_signing_alg_values_supported" not in said.json


async def test_a_client_that_is_asked_for_a_nonce_gets_one_and_goes_on_with_it(tmp_path: Path) -> None:
    nonces = Nonces(SystemClock(), b"k" * 32)
    bound = token(cnf={"jkt": thumbprint(CLIENT)})
    dpop = {"Authorization": f"DPoP {bound}"}
    async with running(tmp_path, dpop=Binding.ALLOWED, proof_algorithms=PROOF_ALGORITHMS, nonces=nonces) as endpoint:
        asked = await endpoint.ask(body=encoded(INITIALIZE), DPoP=shown(bound, 1), **dpop)
        assert asked.status == 401
        assert asked.headers["www-authenticate"] == f'DPoP {WHERE}, error="use_dpop_nonce", {ALGS}'
        assert endpoint.refusals[-1]["error"] == "proof_nonce_missing"
        nonce = asked.headers["dpop-nonce"]
        opened = await endpoint.ask(body=encoded(INITIALIZE), DPoP=shown(bound, 2, nonce=nonce), **dpop)
        assert opened.status == 200
        assert nonces.good(opened.headers["dpop-nonce"]), "the next one comes before the old one is refused"
        wrong = await endpoint.ask(body=encoded(INITIALIZE), DPoP=shown(bound, 3, nonce=f"{nonce}x"), **dpop)
        assert endpoint.refusals[-1]["error"] == "proof_nonce"
        assert "use_dpop_nonce" in wrong.headers["www-authenticate"]
        assert "dpop-nonce" not in (await endpoint.ask(body=encoded(INITIALIZE))).headers, "a bearer token needs none"


async def test_without_nonces_none_is_told(endpoint: Endpoint) -> None:
    bound = token(cnf={"jkt": thumbprint(CLIENT)})
    opened = await endpoint.ask(body=encoded(INITIALIZE), Authorization=f"DPoP {bound}", DPoP=shown(bound, 1))
    assert opened.status == 200
    assert "dpop-nonce" not in opened.headers
