"""Every hostile token, proof and request against a whole deployment: no output of the process holds a part of one.

Standard error at its most talkative, the audit file, the metrics, and every span that leaves for a collector.
"""

import asyncio
import json
import time

import jwt
import pytest

from sidecar.demo.identities import ANALYST
from tests.edge.endpoint import INITIALIZE, answers, encoded, request
from tests.integration.deployment import deployed, wait_until
from tests.oauth.hostile import REQUESTS
from tests.oauth.proofs import CLIENT, LIES, proof, thumbprint
from tests.oauth.test_hostile_ledger import BEARERS, parts_of
from tests.observability.test_one_trace import Collector, collector  # noqa: F401 - a fixture
from tests.patience import HANG_S


@pytest.fixture
def talkative(tmp_path, database, collector):  # noqa: F811
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with deployed(
        tmp_path,
        database,
        extra='log_level = "DEBUG"\n',
        of_issuer='dpop = "allowed"',
        environment=environment,
        spans=collector.everything(),
    ) as deployment:
        yield deployment


async def sent(deployment, target="/mcp", **headers):
    """Send one request, and return its status."""
    host = f"127.0.0.1:{deployment.port}"
    reader, writer = await asyncio.open_connection("127.0.0.1", deployment.port)
    try:
        writer.write(request("POST", target, encoded(INITIALIZE), Host=host, **headers))
        await writer.drain()
        return next(answers(await asyncio.wait_for(reader.read(), HANG_S))).status
    finally:
        writer.close()


def signed(deployment, **more):
    """A token that the deployment's issuer signed."""
    claims = jwt.decode(deployment.token(ANALYST), options={"verify_signature": False}) | more
    head = jwt.get_unverified_header(deployment.token(ANALYST))
    return jwt.encode(
        claims, deployment.issuer._key, algorithm="ES256", headers={"typ": head["typ"], "kid": head["kid"]}
    )


async def test_no_output_of_a_deployment_holds_a_part_of_what_was_presented(talkative, collector):  # noqa: F811
    shown = set()
    for text in BEARERS.values():
        assert await sent(talkative, Authorization=f"Bearer {text}") == 401
        shown |= parts_of(text)
    bound = signed(talkative, cnf={"jkt": thumbprint(CLIENT)})
    lies = [made for lie in LIES if (made := lie.make(bound)) is not None and made.isascii()]
    for made in lies:
        assert await sent(talkative, Authorization=f"DPoP {bound}", DPoP=made) == 401
    good = proof(bound, htu=talkative.url, iat=int(time.time()), jti="good")
    assert await sent(talkative, Authorization=f"DPoP {bound}", DPoP=good) == 200
    for target, headers, _ in REQUESTS.values():
        assert await sent(talkative, target, **headers) in {400, 401}
        shown |= parts_of(target, *headers.values())
    plain = signed(talkative)
    assert await sent(talkative, Authorization=f"Bearer {plain}") == 200
    shown |= parts_of(bound, plain, good, *lies)
    assert len(BEARERS) + len(lies) + len(REQUESTS) >= 240
    wait_until(lambda: len(collector.spans()) >= 240, "the spans to arrive")
    metrics = talkative.admin("/metrics")[1]
    talkative.stop()
    outputs = {
        "audit": talkative.audit_file.read_text(),
        "standard error": talkative.log_file.read_text(),
        "metrics": metrics,
        "spans": b"".join(collector.raw).decode("latin-1"),
    }
    assert "token_issuer" in outputs["audit"]
    assert "token refused" in outputs["standard error"]
    assert "mcp_sidecar_refusals_total" in outputs["metrics"]
    assert "token_issuer" in outputs["spans"]
    found = {name: [part for part in shown if part in text] for name, text in outputs.items()}
    assert found == {name: [] for name in outputs}
    assert json.loads(outputs["audit"].splitlines()[-1])["event"]  # noqa: TID251 - our own file
