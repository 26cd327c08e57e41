"""Opaque tokens: a real endpoint over HTTP that answers, lies, is slow, is flooded, and asks who we are."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.errors import ConfigurationError, KeysUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity import IdentityRules
from sidecar.issuer_settings import Issuer, check_together
from sidecar.model import AuthScheme, Credential, Identity, PrincipalKind, UnverifiedToken
from sidecar.oauth import AuthMethod, Binding, ClientAuthentication, FetchLimits, Introspection, JwtVerifier
from sidecar.oauth.introspection import MAX_ASKING
from tests.oauth.proofs import CLIENT, proof, thumbprint
from tests.oauth.test_jwt_verification import ISSUER, NOW, OTHER, RESOURCE, ManualClock, issuer, token

ACTIVE: dict[str, Any] = {
    "active": True,
    "sub": "alice",
    "aud": RESOURCE,
    "client_id": "claude-desktop",
    "token_type": "Bearer",
    "scope": "mongodb:read",
    "exp": NOW + 300,
}
ABSENT = object()
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


class Endpoint:
    """A real HTTP server; what it answers can be changed, what it was asked is kept."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: dict[str, Any] | str = ACTIVE
        self.status = 200
        self.counted = asyncio.Event()
        self.wait = asyncio.Event()
        self.wait.set()
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[dict[str, str], str | None]] = []

    async def heard(self, number: int) -> None:
        """Wait until so many questions have come."""
        while len(self.asked) < number:
            self.counted.clear()
            await self.counted.wait()

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((form, request.headers.get("Authorization")))
        self.counted.set()
        await self.wait.wait()
        text = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return web.Response(status=self.status, text=text, content_type="application/json", headers=self.headers)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    application = web.Application()
    application.router.add_post("/introspect", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/introspect"
    yield made
    made.wait.set()
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


class Asker:
    """A verifier that asks the endpoint, with its clock and its secret."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession, folder: Path) -> None:
        self.endpoint = endpoint
        self.session = session
        self.clock = ManualClock()
        self.secret = folder / "secret"
        self.secret.write_text("s3cr&t +x\n")

    def verifier(
        self,
        method: AuthMethod = AuthMethod.BASIC,
        *,
        limits: FetchLimits | None = None,
        cache_s: float = 30,
        certificate: Path | None = None,
        **changes: Any,
    ) -> JwtVerifier:
        trusted = issuer(**changes)
        client = ClientAuthentication(
            method,
            "side:car",
            audience=ISSUER,
            secret_file=self.secret,
            certificate_file=certificate,
            algorithm="ES256",
            clock=self.clock,
        )
        opaque = Introspection(
            trusted,
            self.endpoint.url,
            client,
            self.session,
            self.clock,
            limits=limits or FetchLimits(timeout_s=5),
            cache_s=cache_s,
        )
        return JwtVerifier([trusted, issuer(issuer=OTHER)], self.clock, opaque=opaque)


@pytest.fixture
def asker(endpoint: Endpoint, session: aiohttp.ClientSession, tmp_path: Path) -> Asker:
    return Asker(endpoint, session, tmp_path)


async def present(checker: JwtVerifier, text: str = "opaque-1", shown: str | None = None) -> Identity:
    scheme = AuthScheme.BEARER if shown is None else AuthScheme.DPOP
    return await checker.verify(
        Credential(scheme=scheme, token=UnverifiedToken(text), proof=shown, method="POST", uri=RESOURCE)
    )


async def test_an_active_token_is_who_its_issuer_says(asker: Asker) -> None:
    found = await present(asker.verifier())
    assert (found.principal.issuer, found.principal.subject) == (ISSUER, "alice")
    assert (found.actor.id, found.principal.scopes) == ("claude-desktop", ("mongodb:read",))
    assert asker.endpoint.asked[0][0] == {"token": "opaque-1", "token_type_hint": "access_token"}


LIES: dict[str, tuple[dict[str, Any], TokenFault]] = {
    "not active": ({"active": False}, TokenFault.INACTIVE),
    "active as a text": ({"active": "true"}, TokenFault.INACTIVE),
    "active as a number": ({"active": 1}, TokenFault.INACTIVE),
    "not said": ({"active": ABSENT}, TokenFault.INACTIVE),
    "of another issuer": ({"iss": OTHER}, TokenFault.ISSUER),
    "of an issuer with a slash": ({"iss": f"{ISSUER}/"}, TokenFault.ISSUER),
    "of no issuer": ({"iss": None}, TokenFault.ISSUER),
    "a refresh token": ({"token_type": "refresh_token"}, TokenFault.TYPE),
    "of no kind": ({"token_type": ABSENT}, TokenFault.TYPE),
    "of a kind that is no text": ({"token_type": ["Bearer"]}, TokenFault.TYPE),
    "a refresh token of Keycloak": ({"typ": "Refresh"}, TokenFault.TYPE),
    "for another resource": ({"aud": "https://else.example"}, TokenFault.AUDIENCE),
    "for resources that are objects": ({"aud": [{RESOURCE: 1}]}, TokenFault.AUDIENCE),
    "for no resource": ({"aud": ABSENT}, TokenFault.AUDIENCE),
    "expired": ({"exp": NOW - 11}, TokenFault.EXPIRED),
    "for ever": ({"exp": ABSENT}, TokenFault.CLAIM),
    "until after all floats": ({"exp": 10**400}, TokenFault.CLAIM),
    "until a text": ({"exp": str(NOW + 300)}, TokenFault.CLAIM),
    "issued in the future": ({"iat": NOW + 11}, TokenFault.NOT_YET),
    "not yet good": ({"nbf": NOW + 11}, TokenFault.NOT_YET),
    "nobody's": ({"sub": ABSENT}, TokenFault.NO_PERSON),
    "nobody's, as a null": ({"sub": None}, TokenFault.NO_PERSON),
    "nobody's, through no client": ({"sub": ABSENT, "client_id": ABSENT, "azp": "claude-desktop"}, TokenFault.CLAIM),
    "nobody's, through a list": ({"sub": ABSENT, "client_id": ["claude-desktop"]}, TokenFault.CLAIM),
    "of a user that is no text": ({"sub": 7}, TokenFault.CLAIM),
    "through no agent": ({"client_id": ABSENT}, TokenFault.NO_AGENT),
    "a client's own": ({"sub": "claude-desktop"}, TokenFault.NO_PERSON),
    "bound to a key": ({"cnf": {"jkt": thumbprint(CLIENT)}}, TokenFault.BOUND),
    "bound to a certificate": ({"cnf": {"x5t#S256": "A" * 43}}, TokenFault.BOUND),
}


@pytest.mark.parametrize("case", LIES)
async def test_what_is_not_good_here_is_refused_for_its_own_reason(asker: Asker, case: str) -> None:
    changes, fault = LIES[case]
    asker.endpoint.answer = {name: value for name, value in {**ACTIVE, **changes}.items() if value is not ABSENT}
    with pytest.raises(TokenRejected) as refused:
        await present(asker.verifier())
    assert refused.value.fault == fault


@pytest.mark.parametrize(
    "claims", [{"aud": [RESOURCE, "x"]}, {"token_type": "bearer"}, {"iss": ISSUER, "iat": NOW}], ids=str
)
async def test_their_near_misses_are_accepted(asker: Asker, claims: dict[str, Any]) -> None:
    asker.endpoint.answer = {**ACTIVE, **claims}
    assert (await present(asker.verifier())).principal.subject == "alice"


@pytest.mark.parametrize("subject", [ABSENT, None, "claude-desktop"], ids=["absent", "null", "the client"])
async def test_a_registered_service_is_its_own_subject_where_the_issuer_names_none(asker: Asker, subject: Any) -> None:
    asker.endpoint.answer = {name: value for name, value in {**ACTIVE, "sub": subject}.items() if value is not ABSENT}
    found = await present(asker.verifier(rules=IdentityRules(services=frozenset({"claude-desktop"}))))
    assert (found.principal.kind, found.principal.subject) == (PrincipalKind.SERVICE, "claude-desktop")


@pytest.mark.parametrize("status", [204, 301, 302, 307, 400, 401, 403, 500, 503])
async def test_an_endpoint_that_does_not_answer_is_no_verdict(asker: Asker, status: int) -> None:
    asker.endpoint.status = status
    asker.endpoint.headers = {"Location": asker.endpoint.url} if 300 <= status < 400 else {}
    with pytest.raises(KeysUnavailable):
        await present(asker.verifier())
    assert len(asker.endpoint.asked) == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", "true", "{", '{"active":true,"active":false}', '{"active":NaN}', "x" * 300_000, '"' + "[" * 5000],
    ids=lambda text: text[:20],
)
async def test_an_answer_of_another_form_is_no_verdict(asker: Asker, text: str) -> None:
    asker.endpoint.answer = text
    with pytest.raises(KeysUnavailable):
        await present(asker.verifier())


async def test_a_slow_endpoint_is_not_waited_for_beyond_the_limit(asker: Asker) -> None:
    asker.endpoint.wait.clear()
    with pytest.raises(KeysUnavailable, match="Timeout"):
        await present(asker.verifier(limits=FetchLimits(timeout_s=0.05)))


async def test_an_answer_is_remembered_as_long_as_configured_and_a_revocation_counts_then(asker: Asker) -> None:
    checker = asker.verifier(cache_s=20)
    await present(checker)
    asker.endpoint.answer = {"active": False}
    asker.clock.now += 19
    assert (await present(checker)).principal.subject == "alice"
    assert len(asker.endpoint.asked) == 1
    asker.clock.now += 1
    with pytest.raises(TokenRejected):
        await present(checker)


async def test_and_never_beyond_the_tokens_end(asker: Asker) -> None:
    asker.endpoint.answer = {**ACTIVE, "exp": NOW + 1}
    checker = asker.verifier()
    await present(checker)
    asker.clock.now += 11
    with pytest.raises(TokenRejected) as refused:
        await present(checker)
    assert refused.value.fault == TokenFault.EXPIRED


async def test_many_who_ask_about_one_token_are_one_question(asker: Asker) -> None:
    asker.endpoint.wait.clear()
    checker = asker.verifier()
    asking = [asyncio.create_task(present(checker)) for _ in range(50)]
    await asker.endpoint.heard(1)
    asking[0].cancel()
    asker.endpoint.wait.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(one, Identity) for one in found[1:])
    assert len(asker.endpoint.asked) == 1


async def test_a_flood_of_invented_tokens_is_not_passed_on(asker: Asker) -> None:
    asker.endpoint.wait.clear()
    checker = asker.verifier()
    asking = [asyncio.create_task(present(checker, f"invented-{number}")) for number in range(MAX_ASKING)]
    await asker.endpoint.heard(MAX_ASKING)
    with pytest.raises(KeysUnavailable, match="too many"):
        await present(checker, "one-more")
    asker.endpoint.wait.set()
    await asyncio.gather(*asking)
    assert (await present(checker, "one-more")).principal.subject == "alice"


async def test_a_jwt_is_never_asked_about_and_an_opaque_token_is_nothing_where_nobody_is_asked(asker: Asker) -> None:
    assert (await present(asker.verifier(), token())).principal.subject == "alice"
    assert asker.endpoint.asked == []
    with pytest.raises(TokenRejected) as refused:
        await present(JwtVerifier([issuer()], asker.clock), "opaque-1")
    assert refused.value.fault == TokenFault.MALFORMED


async def test_what_is_too_long_is_not_asked_about(asker: Asker) -> None:
    with pytest.raises(TokenRejected) as refused:
        await present(asker.verifier(), "x" * 40_000)
    assert (refused.value.fault, asker.endpoint.asked) == (TokenFault.TOO_LONG, [])


async def test_a_bound_opaque_token_needs_its_proof(asker: Asker) -> None:
    asker.endpoint.answer = {**ACTIVE, "cnf": {"jkt": thumbprint(CLIENT)}, "token_type": "DPoP"}
    checker = asker.verifier(dpop=Binding.ALLOWED)
    assert (await present(checker, "opaque-1", proof("opaque-1"))).principal.subject == "alice"
    with pytest.raises(TokenRejected) as refused:
        await present(checker, "opaque-1")
    assert refused.value.fault == TokenFault.BOUND


# --- who asks ---------------------------------------------------------------------------------------------------------


async def test_a_secret_goes_into_the_header_as_a_form_would_write_it(asker: Asker) -> None:
    await present(asker.verifier(AuthMethod.BASIC))
    form, header = asker.endpoint.asked[0]
    assert header == "Basic " + base64.b64encode(b"side%3Acar:s3cr%26t+%2Bx").decode()
    assert "client_id" not in form


async def test_or_into_the_form(asker: Asker) -> None:
    await present(asker.verifier(AuthMethod.POST))
    form, header = asker.endpoint.asked[0]
    assert (form["client_id"], form["client_secret"], header) == ("side:car", "s3cr&t +x", None)


async def test_a_secret_that_changes_is_read_again_and_one_that_is_damaged_is_not_used(
    asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    checker = asker.verifier(AuthMethod.POST, cache_s=0)
    secrets = []
    for text in ("first", "second-secret", "", None):
        if text is not None:
            asker.secret.write_text(text)
        await present(checker)
        secrets.append(asker.endpoint.asked[-1][0]["client_secret"])
    assert secrets == ["first", "second-secret", "second-secret", "second-secret"]
    [told] = [line.getMessage() for line in caplog.records if "what changed is not used" in line.getMessage()]
    assert asker.secret.name in told, "it is told once, and by the name of the file only"
    assert "second-secret" not in told


async def test_an_assertion_is_signed_for_the_issuer_and_used_once(asker: Asker) -> None:
    asker.secret.write_text(PEM)
    checker = asker.verifier(AuthMethod.ASSERTION, cache_s=0)
    await present(checker)
    await present(checker)
    forms = [form for form, _ in asker.endpoint.asked]
    found = [
        jwt.decode(
            form["client_assertion"],
            KEY.public_key(),
            ["ES256"],
            {"verify_exp": False, "verify_iat": False},
            audience=ISSUER,
        )
        for form in forms
    ]
    assert {(one["iss"], one["sub"], one["exp"] - one["iat"]) for one in found} == {("side:car", "side:car", 60)}
    assert found[0]["jti"] != found[1]["jti"]
    assert {form["client_assertion_type"] for form in forms} == {
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    }


async def test_a_key_that_cannot_sign_is_no_verdict(asker: Asker) -> None:
    with pytest.raises(KeysUnavailable):
        await present(asker.verifier(AuthMethod.ASSERTION))


def certificate(folder: Path) -> Path:
    """A certificate for ``KEY`` that signs itself, for loopback."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return file


async def test_a_client_certificate_is_shown_to_an_endpoint_that_asks_for_one(
    asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker.secret.write_text(PEM)
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(file))
    context.load_cert_chain(file, asker.secret)
    context.verify_mode = ssl.CERT_REQUIRED
    application = web.Application()
    application.router.add_post("/introspect", asker.endpoint.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        asker.endpoint.url = f"https://localhost:{runner.addresses[0][1]}/introspect"
        assert (await present(asker.verifier(AuthMethod.CERTIFICATE, certificate=file))).principal.subject == "alice"
        assert asker.endpoint.asked[0][0]["client_id"] == "side:car"
        with pytest.raises(KeysUnavailable):
            await present(asker.verifier(AuthMethod.BASIC))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("method", "with_secret", "with_certificate"),
    [(AuthMethod.BASIC, False, False), (AuthMethod.CERTIFICATE, True, False), (AuthMethod.POST, True, True)],
)
def test_a_method_without_its_files_is_refused(
    tmp_path: Path, method: AuthMethod, *, with_secret: bool, with_certificate: bool
) -> None:
    with pytest.raises(ConfigurationError):
        ClientAuthentication(
            method,
            "c",
            audience=ISSUER,
            secret_file=tmp_path if with_secret else None,
            certificate_file=tmp_path if with_certificate else None,
            algorithm="ES256",
            clock=ManualClock(),
        )


ASKED = {"uri": "https://idp.example/introspect", "client_id": "c", "secret_file": "secret"}


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": "http://idp.example/introspect"},
        {"uri": "https://user@idp.example/introspect"},
        {"client_id": ""},
        {"secret_file": None},
        {"certificate_file": "c.pem"},
        {"method": "tls_client_auth"},
        {"method": "none"},
        {"cache_s": 3600},
    ],
    ids=str,
)
def test_settings_that_are_not_whole_are_refused(changes: dict[str, Any]) -> None:
    assert Issuer(issuer="https://idp.example", introspection=ASKED).introspection.client_id == "c"
    with pytest.raises(ValueError, match="introspection"):
        Issuer(issuer="https://idp.example", introspection={**ASKED, **changes})


def test_opaque_tokens_are_shown_to_one_issuer_only() -> None:
    first, second = (Issuer(issuer=f"https://{name}.example", introspection=ASKED) for name in "ab")
    check_together([first, Issuer(issuer="https://c.example")])
    with pytest.raises(ValueError, match="at most one"):
        check_together([first, second])
