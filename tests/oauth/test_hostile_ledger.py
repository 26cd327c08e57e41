"""Every hostile token, proof and request against the real endpoint: refused for its own reason, and nothing of it kept.

Answer, audit record, span, metrics and log are searched for each part of what was presented.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sidecar.faults import TokenFault
from sidecar.identity import ResourceUri
from sidecar.oauth import PROOF_ALGORITHMS, Binding
from sidecar.telemetry import OtelMetrics, OtelTracer
from tests.edge.endpoint import INITIALIZE, Answer, encoded, running
from tests.oauth.hostile import REASONS, REQUESTS, TOKENS
from tests.oauth.proofs import CLIENT, LIES, thumbprint
from tests.oauth.test_jwt_verification import REFUSED, RESOURCE, token, verifier

BOUND = token({"cnf": {"jkt": thumbprint(CLIENT)}})
EXPECTED = {title: fault for fault, titles in REASONS.items() for title in titles}
BEARERS = {title: text for title, text in {**REFUSED, **TOKENS}.items() if title in EXPECTED}
"""Those that a header can carry as a token; the others are malformed by RFC 6750, or longer than any header."""
PROOFS = {lie.title: lie for lie in LIES if (shown := lie.make(BOUND)) is None or shown.isascii()}


class Evidence:
    """What one refusal left behind."""

    def __init__(self, answer: Answer, records: list[Any], spans: str, error_types: set[Any], log: str) -> None:
        self.answer = answer
        self.record = records[-1]
        self.reason = self.record["outcome"]["error"]
        self.error_types = error_types
        self.log = log
        self.everything = "\n".join([str(answer), json.dumps(records), spans, log])


OPENINGS: dict[str, tuple[object, dict[str, str | None]]] = {
    "handshake": (INITIALIZE, {}),
    "stateless": (
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "find",
                "arguments": {},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        },
        {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "tools/call", "Mcp_Name": "find"},
    ),
}
"""With what a client of each era comes first: there is no session yet, and no identity but the token's."""


@pytest.fixture(params=OPENINGS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def refused(
    folder: Path, caplog: pytest.LogCaptureFixture, era: str, target: str = "/mcp", **headers: str | None
) -> Evidence:
    """Send one request to an endpoint of its own, and gather all that it wrote."""
    caplog.set_level(logging.DEBUG)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = OtelMetrics(methods=(), tools=(), servers=(), endpoint_configured=False, protocol="", version="0")
    async with running(
        folder,
        verifier=verifier(dpop=Binding.ALLOWED),
        tracer=OtelTracer(provider, version="0"),
        metrics=metrics,
        resource_uri=ResourceUri.parse(RESOURCE),
        proof_algorithms=PROOF_ALGORITHMS,
    ) as endpoint:
        message, mirrored = OPENINGS[era]
        answer = await endpoint.ask("POST", target, encoded(message), **(mirrored | headers))
        spans = exporter.get_finished_spans()
        counted = metrics.render()[0].decode()
        metrics.shutdown(0)
        assert "mcp_sidecar_refusals_total" in counted
        return Evidence(
            answer,
            [*endpoint.ledger.records],
            "\n".join([*(span.to_json() for span in spans), counted]),
            {(span.attributes or {}).get("error.type") for span in spans},
            caplog.text,
        )


def parts_of(*texts: str | None) -> set[str]:
    """The parts by which a token would be known again: payloads and signatures, not headers that many have."""
    found = {part for text in texts if text for part in text.split(".")[1:]}
    return {part for part in found if len(part) > 8}


async def test_the_ledger_has_as_many_rows_as_it_should() -> None:
    assert len(BEARERS) + len(PROOFS) + len(REQUESTS) >= 240
    assert {*REFUSED, *TOKENS} - BEARERS.keys() == {"empty", "a line break", "too long"}
    assert EXPECTED.keys() <= {*REFUSED, *TOKENS}


@pytest.mark.parametrize("title", BEARERS)
async def test_a_hostile_token_leaves_its_reason_and_nothing_of_itself(
    title: str, era: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = BEARERS[title]
    left = await refused(tmp_path, caplog, era, Authorization=f"Bearer {text}")
    assert left.answer.status == 401
    assert left.reason == EXPECTED[title]
    assert left.reason in left.error_types
    assert f"token refused: {left.reason}" in left.log
    assert [part for part in parts_of(text) if part in left.everything] == []


@pytest.mark.parametrize("title", PROOFS)
async def test_a_hostile_proof_leaves_its_reason_and_nothing_of_itself(
    title: str, era: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lie = PROOFS[title]
    shown = lie.make(BOUND)
    left = await refused(tmp_path, caplog, era, Authorization=f"DPoP {BOUND}", DPoP=shown)
    assert left.answer.status == 401
    assert left.reason == lie.fault
    assert left.reason in left.error_types
    assert f"token refused: {left.reason}" in left.log
    assert left.answer.headers["www-authenticate"].startswith("DPoP ")
    assert [part for part in parts_of(BOUND, shown) if part in left.everything] == []


@pytest.mark.parametrize("title", REQUESTS)
async def test_a_token_that_is_sent_wrongly_leaves_its_reason_and_nothing_of_itself(
    title: str, era: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target, headers, reason = REQUESTS[title]
    left = await refused(tmp_path, caplog, era, target, **headers)
    assert left.answer.status in {400, 401}
    assert left.reason == reason
    sent = [value for value in (target, *headers.values()) if value]
    assert [part for part in parts_of(*sent) if part in left.everything] == []


def test_each_family_of_reasons_is_in_the_ledger() -> None:
    proofs = {fault for fault in TokenFault if fault.startswith("proof_")}
    nonces = {TokenFault.PROOF_NONCE, TokenFault.PROOF_NONCE_MISSING}  # in test_hostile_connections
    elsewhere = {TokenFault.PROOF_REPLAYED, TokenFault.PROOF_TOO_MANY} | nonces
    assert {lie.fault for lie in LIES} == proofs - elsewhere
