"""The sidecar's own TLS in a whole deployment: bound tokens of the official client, and certificates that change."""

import contextlib
import json

import httpx2
import jwt
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from sidecar.demo.identities import ANALYST
from sidecar.system import thumbprint_of
from tests.edge.test_certificate_bound_tokens import der_of
from tests.edge.test_tls import issue, trusting
from tests.integration.deployment import deployed, wait_until
from tests.patience import HANG_S
from tests.signer import KEY_ID, TOKEN_TYPE

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.fixture(scope="module")
def people(folder):
    return {name: issue(folder, name) for name in ("server", "ann", "bob")}


@pytest.fixture(scope="module")
def secured(folder, database, people):
    authorities = folder / "authorities.pem"
    authorities.write_bytes(people["ann"][0].read_bytes() + people["bob"][0].read_bytes())
    extra = f"""
[tls]
certificate_file = "{people["server"][0]}"
key_file = "{people["server"][1]}"
client_certificates = "required"
client_ca_file = "{authorities}"
"""
    with deployed(folder, database, extra=extra, of_issuer='mtls = "required"') as running:
        yield running


def bound(deployment, files):
    claims = jwt.decode(deployment.token(ANALYST), options={"verify_signature": False})
    claims["cnf"] = {"x5t#S256": thumbprint_of(der_of(files))}
    headers = {"typ": TOKEN_TYPE, "kid": KEY_ID}
    return jwt.encode(claims, deployment.issuer._key, algorithm="ES256", headers=headers)


@contextlib.asynccontextmanager
async def client(deployment, server, shown, token):
    """The official Python client, over a connection with this certificate."""
    url = f"https://localhost:{deployment.port}/mcp"
    headers = {"Authorization": f"Bearer {token}", "Host": f"127.0.0.1:{deployment.port}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=HANG_S, verify=trusting(server[0], shown=shown)) as http,
        Client(streamable_http_client(url, http_client=http)) as connected,
    ):
        yield connected


async def test_a_bound_token_of_the_official_client_is_good_with_its_certificate_only(secured, people):
    token = bound(secured, people["ann"])
    async with client(secured, people["server"], people["ann"], token) as ann:
        answer = await ann.call_tool("find", {**ORDERS, "limit": 1})
        assert not answer.is_error
    before = len(secured.all_reached())
    stolen = httpx2.AsyncClient(verify=trusting(people["server"][0], shown=people["bob"]))
    async with stolen as http:
        refused = await http.post(
            f"https://localhost:{secured.port}/mcp",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"},
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find", "arguments": ORDERS}},
        )
    assert refused.status_code == 401
    assert secured.records()[-1]["outcome"]["error"] == "token_certificate_other"
    assert len(secured.all_reached()) == before


def degraded(deployment):
    return json.loads(deployment.admin("/readyz")[1]).get("degraded", [])  # noqa: TID251 - our own answer


async def test_a_certificate_that_does_not_load_is_told_and_the_last_good_one_serves_on(secured, people):
    certificate = people["server"][0]
    good = certificate.read_bytes()
    try:
        certificate.write_text("no certificate")
        wait_until(lambda: "tls" in degraded(secured), "readiness to name tls")
        assert secured.ready()
        assert "tls: what changed is not used" in secured.log_file.read_text()
        (secured.folder / "trusted.pem").write_bytes(good)
        token = bound(secured, people["ann"])
        async with client(secured, (secured.folder / "trusted.pem",), people["ann"], token) as ann:
            assert not (await ann.call_tool("find", {**ORDERS, "limit": 1})).is_error
    finally:
        certificate.write_bytes(good)
    wait_until(lambda: "tls" not in degraded(secured), "readiness to name tls no more")
    assert "tls: what changed is used from now on" in secured.log_file.read_text()
