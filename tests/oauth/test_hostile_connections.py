"""The ledger goes on: certificates, nonces, headers of proxies; each refused for its own reason, nothing of it kept.

Real TLS, the real endpoint; answer, audit record, span, log and metrics are searched for what was presented.
"""

import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sidecar.edge import CertificateHeader, CertificateReader
from sidecar.edge.tls import ClientCertificates, ListenerTls, TlsFiles
from sidecar.errors import ProxyCertificate
from sidecar.faults import TokenFault
from sidecar.oauth import PROOF_ALGORITHMS, Binding, Nonces
from sidecar.oauth.nonces import STRETCH_S
from sidecar.system import SystemClock, thumbprint_of
from sidecar.telemetry import OtelMetrics, OtelTracer
from tests.edge.endpoint import INITIALIZE, RESOURCE, Answer, Endpoint, encoded, running, token
from tests.edge.test_certificate_bound_tokens import BOTH, LOOPBACK, Files, der_of, written
from tests.edge.test_tls import issue, trusting
from tests.oauth.proofs import CLIENT, proof, thumbprint
from tests.oauth.test_hostile_ledger import parts_of

KEY = bytes(range(32))
NAMES = ("server", "ann", "bob", "proxy")


@dataclass
class Stage:
    """Everybody's certificates, and the endpoint."""

    files: dict[str, Files]
    endpoint: Endpoint
    gathered: Callable[[], str]
    error_types: Callable[[], set[Any]]

    def bound(self, name: str, **more: Any) -> str:
        return token(cnf={"x5t#S256": thumbprint_of(der_of(self.files[name])), **more})

    async def ask(self, by: str | None, **headers: Any) -> Answer:
        shown = None if by is None else self.files[by]
        through = replace(self.endpoint, tls=trusting(self.files["server"][0], shown=shown))
        return await through.ask(body=encoded(INITIALIZE), **headers)


@dataclass(frozen=True)
class Row:
    """One request that is refused."""

    reason: str
    headers: Callable[[Stage], dict[str, Any]]
    by: str | None = None
    header: CertificateHeader = CertificateHeader.NONE
    nonces: bool = False
    status: int = 401
    more: dict[str, Any] = field(default_factory=dict)


def bearer(make: Callable[[Stage], str], **headers: Callable[[Stage], str]) -> Callable[[Stage], dict[str, Any]]:
    def made(stage: Stage) -> dict[str, Any]:
        return {"Authorization": f"Bearer {make(stage)}"} | {name: value(stage) for name, value in headers.items()}

    return made


def confirmed(**cnf: Any) -> Callable[[Stage], dict[str, Any]]:
    """A token with this confirmation; ``ann`` stands for the thumbprint of her certificate."""

    def made(stage: Stage) -> dict[str, Any]:
        own = thumbprint_of(der_of(stage.files["ann"]))
        filled = {
            name.replace("x5t", "x5t#S256"): value(own) if callable(value) else value for name, value in cnf.items()
        }
        return {"Authorization": f"Bearer {token(cnf=filled)}"}

    return made


def anns(stage: Stage) -> str:
    return stage.bound("ann")


def named(form: CertificateHeader, who: str) -> Callable[[Stage], str]:
    return lambda stage: written(form, stage.files[who])


def hexadecimal(own: str) -> str:
    return base64.urlsafe_b64decode(f"{own}=").hex()


RFC, NGINX = CertificateHeader.CLIENT_CERT, CertificateHeader.SSL_CLIENT_CERT
HEADERS = {RFC: "Client_Cert", NGINX: "ssl_client_cert"}
FORMS = [(form, HEADERS[form]) for form in BOTH]

CERTIFICATES: dict[str, Row] = {
    "no certificate": Row("token_certificate_missing", bearer(anns)),
    "another's certificate": Row("token_certificate_other", bearer(anns), "bob"),
    "a proxy's certificate, without a header": Row("token_certificate_other", bearer(anns), "proxy"),
    "bound to a key too": Row(
        "token_bound_twice", lambda s: {"Authorization": f"Bearer {s.bound('ann', jkt='A' * 43)}"}, "ann"
    ),
    "bound by another name too": Row(
        "token_bound", lambda s: {"Authorization": f"Bearer {s.bound('ann', kid='1')}"}, "ann"
    ),
    "a thumbprint in hexadecimal": Row("token_bound", confirmed(x5t=hexadecimal), "ann"),
    "a thumbprint with padding": Row("token_bound", confirmed(x5t=lambda own: f"{own}="), "ann"),
    "a thumbprint cut short": Row("token_bound", confirmed(x5t=lambda own: own[:-1]), "ann"),
    "a thumbprint in a list": Row("token_bound", confirmed(x5t=lambda own: [own]), "ann"),
    "a thumbprint that is null": Row("token_bound", confirmed(x5t=None), "ann"),
    "a thumbprint of SHA-1": Row(
        "token_bound", lambda s: {"Authorization": f"Bearer {token(cnf={'x5t': 'A' * 27})}"}, "ann"
    ),
    "a thumbprint in another case": Row("token_certificate_other", confirmed(x5t=lambda own: own.swapcase()), "ann"),
    "an empty confirmation": Row("token_bound", confirmed(), "ann"),
    "presented with DPoP": Row("token_unbound", lambda s: {"Authorization": f"DPoP {anns(s)}", "DPoP": "a.b.c"}, "ann"),
    **{
        f"{name} by a client {'with another certificate' if by else 'without one'}": Row(
            "token_certificate_other" if by else "token_certificate_missing",
            bearer(anns, **{name: named(form, "ann")}),
            by,
            header,
        )
        for form, name in FORMS
        for by in (None, "bob")
        for header in (CertificateHeader.NONE, form)
        if header or by is None
    },
    "the header of Envoy": Row(
        "token_certificate_missing",
        bearer(anns, X_Forwarded_Client_Cert=lambda s: f'Hash=x;Cert="{quote(s.files["ann"][0].read_text())}"'),
        None,
        RFC,
    ),
    "the header of load balancers": Row(
        "token_certificate_missing", bearer(anns, X_Amzn_Mtls_Clientcert=named(NGINX, "ann")), None, NGINX
    ),
    "a word that somebody verified it": Row(
        "token_certificate_missing", bearer(anns, ssl_client_verify=lambda _: "SUCCESS"), None, NGINX
    ),
    "a proxy names nobody": Row("token_certificate_missing", bearer(anns), "proxy", RFC),
    "a proxy names another": Row("token_certificate_other", bearer(anns, Client_Cert=named(RFC, "bob")), "proxy", RFC),
    "a proxy names itself": Row("token_certificate_other", bearer(anns, Client_Cert=named(RFC, "proxy")), "proxy", RFC),
    "a proxy's own token": Row(
        "token_certificate_missing", lambda s: {"Authorization": f"Bearer {s.bound('proxy')}"}, "proxy", RFC
    ),
    "a proxy writes the other header": Row(
        "token_certificate_missing", bearer(anns, ssl_client_cert=named(NGINX, "ann")), "proxy", RFC
    ),
    "a proxy's header without colons": Row(
        "proxy_certificate",
        bearer(anns, Client_Cert=lambda s: named(RFC, "ann")(s).strip(":")),
        "proxy",
        RFC,
        status=400,
    ),
    "a proxy's header with two certificates": Row(
        "proxy_certificate",
        bearer(anns, Client_Cert=lambda s: f"{named(RFC, 'ann')(s)}, {named(RFC, 'bob')(s)}"),
        "proxy",
        RFC,
        status=400,
    ),
    "a proxy's header twice": Row(
        "proxy_certificate",
        bearer(anns, Client_Cert=lambda s: f"{named(RFC, 'bob')(s)}\r\nClient-Cert: {named(RFC, 'ann')(s)}"),
        "proxy",
        RFC,
        status=400,
    ),
    "a proxy's header that is empty": Row(
        "proxy_certificate", bearer(anns, Client_Cert=lambda _: ""), "proxy", RFC, status=400
    ),
    "a proxy's PEM with a chain": Row(
        "proxy_certificate",
        bearer(anns, ssl_client_cert=lambda s: quote(s.files["ann"][0].read_text() + s.files["bob"][0].read_text())),
        "proxy",
        NGINX,
        status=400,
    ),
    "a proxy's PEM that is a key": Row(
        "proxy_certificate",
        bearer(anns, ssl_client_cert=lambda s: quote(s.files["bob"][1].read_text())),
        "proxy",
        NGINX,
        status=400,
    ),
    "a proxy's PEM encoded twice": Row(
        "proxy_certificate",
        bearer(anns, ssl_client_cert=lambda s: quote(named(NGINX, "ann")(s))),
        "proxy",
        NGINX,
        status=400,
    ),
}


def nonce_row(reason: str, make: Callable[[Nonces], Any]) -> Row:
    def made(_stage: Stage) -> dict[str, Any]:
        bound = token(cnf={"jkt": thumbprint(CLIENT)})
        said = make(Nonces(SystemClock(), KEY))
        more = {} if said is None else {"nonce": said}
        shown = proof(bound, htu=RESOURCE, iat=int(time.time()), **more)
        return {"Authorization": f"DPoP {bound}", "DPoP": shown}

    return Row(reason, made, nonces=True)


class Then:
    """A clock that stands at another time."""

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def time_ns(self) -> int:
        return time.time_ns() + self.shift * 1_000_000_000

    def monotonic(self) -> float:
        return 0.0


NONCES: dict[str, Row] = {
    "no nonce": nonce_row("proof_nonce_missing", lambda _: None),
    "an empty nonce": nonce_row("proof_nonce", lambda _: ""),
    "a nonce of one's own": nonce_row("proof_nonce", lambda _: "A" * 43),
    "a nonce of another key": nonce_row("proof_nonce", lambda _: Nonces(SystemClock(), KEY[::-1]).current()),
    "a nonce of long ago": nonce_row("proof_nonce", lambda _: Nonces(Then(-3 * STRETCH_S), KEY).current()),
    "a nonce of the future": nonce_row("proof_nonce", lambda _: Nonces(Then(3 * STRETCH_S), KEY).current()),
    "a nonce with padding": nonce_row("proof_nonce", lambda nonces: f"{nonces.current()}="),
    "a nonce in a list": nonce_row("proof_nonce", lambda nonces: [nonces.current()]),
    "a nonce that is a number": nonce_row("proof_nonce", lambda _: 1),
}


def claimed(name: str, value: str) -> Row:
    """Nobody, with a header that speaks for somebody."""
    return Row("token_missing", lambda _: {"Authorization": None, name: value})


FORWARDED: dict[str, Row] = {
    f"nobody, with {name}": claimed(name, value)
    for name, value in {
        "X_Forwarded_For": "203.0.113.9",
        "Forwarded": 'for="[2001:db8::9]"',
        "X_Real_IP": "203.0.113.9",
        "True_Client_IP": "203.0.113.9",
        "CF_Connecting_IP": "203.0.113.9",
        "X_Forwarded_User": "alice",
        "X_Forwarded_Email": "alice@corp.example",
        "X_Remote_User": "alice",
        "X_Auth_Request_User": "alice",
        "X_Forwarded_Access_Token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
        "X_Goog_Authenticated_User_Id": "accounts.google.com:1",
        "X_Ms_Client_Principal": "eyJ1c2VySWQiOiJhbGljZSJ9",
    }.items()
}

ROWS = {**CERTIFICATES, **NONCES, **FORWARDED}


@asynccontextmanager
async def staged(folder: Path, row: Row, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Stage]:
    caplog.set_level(logging.DEBUG)
    files = {name: issue(folder, name) for name in NAMES}
    authorities = folder / "authorities.pem"
    authorities.write_bytes(b"".join(files[name][0].read_bytes() for name in NAMES[1:]))
    tls = ListenerTls(
        TlsFiles(
            certificate=files["server"][0],
            key=files["server"][1],
            client_authorities=authorities,
            client_certificates=ClientCertificates.OPTIONAL,
        )
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = OtelMetrics(methods=(), tools=(), servers=(), endpoint_configured=False, protocol="", version="0")
    try:
        async with running(
            folder,
            mtls=Binding.ALLOWED,
            dpop=Binding.ALLOWED,
            nonces=Nonces(SystemClock(), KEY) if row.nonces else None,
            proof_algorithms=PROOF_ALGORITHMS,
            tls=tls.context,
            tracer=OtelTracer(provider, version="0"),
            metrics=metrics,
            certificates=CertificateReader(
                proxies=LOOPBACK, header=row.header, subjects=frozenset({"commonName=proxy"})
            ),
        ) as endpoint:

            def gathered() -> str:
                spans = "\n".join(span.to_json() for span in exporter.get_finished_spans())
                return "\n".join(
                    [json.dumps(endpoint.ledger.records), spans, caplog.text, metrics.render()[0].decode()]
                )

            def error_types() -> set[Any]:
                return {(span.attributes or {}).get("error.type") for span in exporter.get_finished_spans()}

            yield Stage(files, endpoint, gathered, error_types)
    finally:
        metrics.shutdown(0)


def kept(stage: Stage, *sent: Any) -> set[str]:
    """The parts of tokens, proofs and certificates by which these would be known again."""
    found = parts_of(*(value for value in sent if isinstance(value, str)))
    for files in stage.files.values():
        found |= {line for line in files[0].read_text().splitlines() if "-----" not in line}
        found.add(thumbprint_of(der_of(files)))
    return found


@pytest.mark.parametrize("title", ROWS)
async def test_a_hostile_request_leaves_its_reason_and_nothing_of_itself(
    title: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = ROWS[title]
    async with staged(tmp_path, row, caplog) as stage:
        headers = row.headers(stage)
        answer = await stage.ask(row.by, **headers)
        record: Any = stage.endpoint.ledger.records[-1]
        assert (answer.status, record["outcome"]["error"]) == (row.status, row.reason)
        assert row.reason in stage.error_types()
        assert record["subject"] is None
        assert record["client"]["ip"] == "127.0.0.1", "what a client says of its address means nothing"
        if row.reason.startswith(("token_", "proof_")) and row.reason != "token_missing":
            assert f"token refused: {row.reason}" in caplog.text
        everything = f"{answer}\n{stage.gathered()}"
        assert "mcp_sidecar_refusals_total" in everything, "the metrics are searched too"
        assert [part for part in kept(stage, *headers.values()) if part in everything] == []


async def test_the_near_misses_are_let_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for row, by, headers in (
        (CERTIFICATES["no certificate"], "ann", bearer(anns)),
        (CERTIFICATES["a proxy names nobody"], "proxy", bearer(anns, Client_Cert=named(RFC, "ann"))),
        (CERTIFICATES["a proxy's PEM with a chain"], "proxy", bearer(anns, ssl_client_cert=named(NGINX, "ann"))),
        (NONCES["no nonce"], None, nonce_row("", lambda nonces: nonces.current()).headers),
    ):
        async with staged(tmp_path, row, caplog) as stage:
            assert (await stage.ask(by, **headers(stage))).status == 200


def test_the_ledger_goes_on() -> None:
    assert len(ROWS) >= 50
    assert {row.reason for row in ROWS.values()} >= {
        TokenFault.BOUND,
        TokenFault.BOUND_TWICE,
        TokenFault.CERTIFICATE_MISSING,
        TokenFault.CERTIFICATE_OTHER,
        TokenFault.PROOF_NONCE,
        TokenFault.PROOF_NONCE_MISSING,
        TokenFault.UNBOUND,
        ProxyCertificate.label,
    }
