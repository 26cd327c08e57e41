"""Real keys, hostile tokens: each refused token stands beside the near miss that is accepted."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError, KeysUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import AuthScheme, Credential, Identity, UnverifiedToken
from sidecar.oauth.jwk import VerificationKey, parse_key_set
from sidecar.oauth.jwt_tokens import TrustedIssuer
from sidecar.oauth.unverified import peek, strict_object
from sidecar.oauth.verifier import DEFAULT_LONGEST, JwtVerifier
from tests.examples import examples

ISSUER = "https://idp.corp.example"
OTHER = "https://other.example"
RESOURCE = "https://mcp.corp.example/mcp"
NOW = 1_800_000_000

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    algorithm: Any = {
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
    }
    public = key.public_key()
    [converter] = [made for kind, made in algorithm.items() if isinstance(public, kind)]
    return {**converter.to_jwk(public, as_dict=True), **members}


class ManualClock:
    def __init__(self) -> None:
        self.now: float = NOW

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


class Keys:
    """A key set in memory, by the rules of the real ones, that counts how often it was asked."""

    def __init__(self, *members: dict[str, Any]) -> None:
        self.members = list(members)
        self.asked = 0

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        self.asked += 1
        keys = parse_key_set({"keys": [*self.members]})
        if key_id is None:
            return tuple(key for key in keys if len(keys) == 1 and algorithm in key.algorithms)
        return tuple(key for key in keys if key.id == key_id and algorithm in key.algorithms)


KEYS = Keys(jwk(RSA_KEY, kid="rsa", use="sig"), jwk(EC_KEY, kid="ec"), jwk(ED_KEY, kid="ed"))
OTHER_KEYS = Keys(jwk(FOREIGN_KEY, kid="rsa"))


def issuer(**changes: Any) -> TrustedIssuer:
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": frozenset({RESOURCE}),
        "keys": KEYS,
        "algorithms": frozenset({"RS256", "ES256", "EdDSA"}),
        "leeway_s": 10.0,
    }
    return TrustedIssuer(**(fields | changes))


def verifier(clock: ManualClock | None = None, **changes: Any) -> JwtVerifier:
    other = issuer(issuer=OTHER, keys=OTHER_KEYS)
    return JwtVerifier([issuer(**changes), other], clock or ManualClock())


async def identified(verifier: JwtVerifier, token: UnverifiedToken) -> Identity:
    """Verify a token as a plain bearer presents it."""
    return await verifier.verify(Credential(scheme=AuthScheme.BEARER, token=token, method="POST", uri=RESOURCE))


GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": RESOURCE,
    "exp": NOW + 300,
    "iat": NOW - 5,
    "jti": "1",
    "client_id": "claude-desktop",
}
HEADER: dict[str, Any] = {"typ": "at+jwt", "kid": "rsa", "alg": "RS256"}
ABSENT = object()


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**base, **changes}.items() if value is not ABSENT}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: bytes, payload: bytes, key: rsa.RSAPrivateKey = RSA_KEY) -> UnverifiedToken:
    """Sign exactly these bytes, which PyJWT would not let us write."""
    signing_input = f"{b64(header)}.{b64(payload)}".encode()
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(signing_input, key)
    return UnverifiedToken(f"{signing_input.decode()}.{b64(signature)}")


def token(claims: Mapping[str, Any] = {}, header: Mapping[str, Any] = {}, key: Any = RSA_KEY) -> UnverifiedToken:
    head = merged(HEADER, header)
    if head.get("alg") == "RS256":
        return sign(json.dumps(head).encode(), json.dumps(merged(GOOD, claims)).encode(), key)
    return UnverifiedToken(jwt.encode(merged(GOOD, claims), key, algorithm=str(head["alg"]), headers=head))


ACCEPTED: dict[str, UnverifiedToken] = {
    "an access token of RFC 9068": token(),
    "the long form of its type": token(header={"typ": "application/at+jwt"}),
    "its type in capitals": token(header={"typ": "AT+JWT"}),
    "an elliptic curve": token(header={"alg": "ES256", "kid": "ec"}, key=EC_KEY),
    "an Edwards curve": token(header={"alg": "EdDSA", "kid": "ed"}, key=ED_KEY),
    "two audiences, one of them this resource": token({"aud": ["https://else.example", RESOURCE]}),
    "the agent as an actor": token({"act": {"sub": "copilot"}, "client_id": ABSENT}),
    "an actor beside a client": token({"act": {"sub": "copilot", "act": {"sub": "gateway"}}}),
    "a fraction of a second": token({"exp": NOW + 0.5}),
    "expired within the leeway": token({"exp": NOW - 9}),
    "not before, within the leeway": token({"nbf": NOW + 9}),
    "issued ahead, within the leeway": token({"iat": NOW + 9}),
    "no jti": token({"jti": ABSENT}),
    "key addresses that nobody follows": token(
        header={"jku": "https://evil.example/k", "x5u": "https://evil.example/c"}
    ),
    "a nonce in a real access token": token({"nonce": "n"}),
    "the other issuer with its own key": token({"iss": OTHER}, key=FOREIGN_KEY),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_a_good_token_names_its_user_and_agent(case: str) -> None:
    identity = await identified(verifier(), ACCEPTED[case])

    assert identity.principal.subject == "alice"
    assert identity.actor.id in {"claude-desktop", "copilot"}


def none_token(signature: str) -> UnverifiedToken:
    head, payload = json.dumps({"alg": "none", "typ": "at+jwt"}), json.dumps(GOOD)
    return UnverifiedToken(f"{b64(head.encode())}.{b64(payload.encode())}.{signature}")


def confused(secret: bytes, key_id: str = "rsa") -> UnverifiedToken:
    """HS256 with what is public as the secret (RFC 8725 section 2.1)."""
    head = json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": key_id}).encode()
    signing_input = f"{b64(head)}.{b64(json.dumps(GOOD).encode())}"
    signature = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return UnverifiedToken(f"{signing_input}.{b64(signature)}")


PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)

REFUSED: dict[str, UnverifiedToken] = {
    # algorithm
    "alg none, no signature": none_token(""),
    "alg none, some signature": none_token("AAAA"),
    "HS256 with the public key as PEM": confused(PUBLIC_PEM),
    "HS256 with the public key as JSON": confused(json.dumps(KEYS.members[0]).encode()),
    "HS256 with an empty secret": confused(b""),
    "an algorithm that this issuer does not use": UnverifiedToken(
        jwt.encode(GOOD, RSA_KEY, algorithm="RS384", headers={"typ": "at+jwt", "kid": "rsa"})
    ),
    "an algorithm of another key type": token(header={"kid": "ec"}),
    "alg in another case": sign(b'{"alg":"rs256","typ":"at+jwt","kid":"rsa"}', json.dumps(GOOD).encode()),
    # signature and key
    "signed by a foreign key": token(key=FOREIGN_KEY),
    "a foreign issuer's key under our issuer": token({"iss": ISSUER}, key=FOREIGN_KEY),
    "our key under a foreign issuer": token({"iss": OTHER}),
    "signature cut": UnverifiedToken(token()[:-8]),
    "signature of another token": UnverifiedToken(
        ".".join([*token({"sub": "mallory"}).split(".")[:2], token().split(".")[2]])
    ),
    "unknown key id": token(header={"kid": "new"}),
    "key id in another case": token(header={"kid": "RSA"}),
    "key id as a path": token(header={"kid": "../../../../dev/null"}),
    "key id as a statement": token(header={"kid": "rsa' OR '1'='1"}),
    "key id with a zero byte": token(header={"kid": "rsa\x00"}),
    "key id as a number": token(header={"kid": 1}),
    "key id null": token(header={"kid": None}),
    "key id as a list": token(header={"kid": ["rsa"]}),
    "no key id where the set has several keys": token(header={"kid": ABSENT}),
    "key in the header": token(header={"kid": ABSENT, "jwk": jwk(FOREIGN_KEY)}, key=FOREIGN_KEY),
    # header
    "an ID token by its type": token(header={"typ": "JWT"}),
    "no type": token(header={"typ": ABSENT}),
    "an ID-JAG": token(header={"typ": "oauth-id-jag+jwt"}),
    "a DPoP proof": token(header={"typ": "dpop+jwt"}),
    "type as a list": token(header={"typ": ["at+jwt"]}),
    "a critical extension": token(header={"crit": ["exp"], "exp": 1}),
    "an unencoded payload": token(header={"b64": False, "crit": ["b64"]}),
    "b64 that says what is the default": token(header={"b64": True}),
    "compressed": token(header={"zip": "DEF"}),
    "duplicate header names": sign(
        b'{"alg":"none","alg":"RS256","typ":"at+jwt","kid":"rsa"}', json.dumps(GOOD).encode()
    ),
    # issuer and audience
    "an unknown issuer": token({"iss": "https://evil.example"}),
    "the issuer with a slash": token({"iss": ISSUER + "/"}),
    "the issuer in capitals": token({"iss": ISSUER.upper()}),
    "issuers in a list": token({"iss": [ISSUER]}),
    "no issuer": token({"iss": ABSENT}),
    "another audience": token({"aud": "https://else.example"}),
    "two other audiences": token({"aud": ["https://else.example", "https://third.example"]}),
    "an audience that only begins alike": token({"aud": RESOURCE + "/admin"}),
    "the resource's origin only": token({"aud": "https://mcp.corp.example"}),
    "audiences in an object": token({"aud": {RESOURCE: True}}),
    "an audience list with a number": token({"aud": [RESOURCE, 1]}),
    "an empty audience list": token({"aud": []}),
    "no audience": token({"aud": ABSENT}),
    # time
    "expired": token({"exp": NOW - 11}),
    "no expiry": token({"exp": ABSENT}),
    "expiry null": token({"exp": None}),
    "expiry as a string": token({"exp": str(NOW + 300)}),
    "expiry as a boolean": token({"exp": True}),
    "expiry beyond all dates": token({"exp": 10**30}),
    "expiry beyond all floats": token({"exp": 10**400}),
    "issued before all floats": token({"iat": -(10**400)}),
    "expiry infinite": sign(json.dumps(HEADER).encode(), json.dumps({**GOOD, "exp": float("inf")}).encode()),
    "expiry an overflowing number": sign(
        json.dumps(HEADER).encode(), json.dumps(GOOD).replace(str(NOW + 300), "1e999").encode()
    ),
    "not before the future": token({"nbf": NOW + 11}),
    "not before as a string": token({"nbf": "0"}),
    "not before null": token({"nbf": None}),
    "issued in the future": token({"iat": NOW + 11}),
    "issued at a boolean": token({"iat": True}),
    "not before a boolean": token({"nbf": False}),
    "no time of issue": token({"iat": ABSENT}),
    # who
    "no subject": token({"sub": ABSENT}),
    "an empty subject": token({"sub": ""}),
    "a subject that is a number": token({"sub": 7}),
    "no agent": token({"client_id": ABSENT}),
    "an agent that is no string": token({"client_id": ["a", "b"]}),
    "an actor without a name": token({"act": {}}),
    "an actor of another issuer": token({"act": {"sub": "copilot", "iss": OTHER}}),
    "duplicate subjects": sign(
        json.dumps(HEADER).encode(), json.dumps(GOOD).replace('"sub": "alice"', '"sub": "eve", "sub": "alice"').encode()
    ),
    "a subject that no encoding can carry": token({"sub": "a\ud800"}),
    "a token id that is a number": token({"jti": 1}),
    # binding
    "bound to a DPoP key": token({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
    "bound to a certificate": token({"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}),
    "an empty confirmation": token({"cnf": None}),
    # form
    "empty": UnverifiedToken(""),
    "not a token": UnverifiedToken("opaque"),
    "two segments": UnverifiedToken("a.b"),
    "an encrypted token": UnverifiedToken("a.b.c.d.e"),
    "padding": UnverifiedToken(token() + "="),
    "a line break": UnverifiedToken(token() + "\n"),
    "payload not an object": sign(json.dumps(HEADER).encode(), b'["iss"]'),
    "payload not JSON": sign(json.dumps(HEADER).encode(), b"iss"),
    "payload nested deeply": sign(json.dumps(HEADER).encode(), b"[" * 3000),
    "payload in another encoding": sign(json.dumps(HEADER).encode(), json.dumps(GOOD).encode("utf-16")),
    "too long": token({"padding": "x" * DEFAULT_LONGEST}),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_hostile_token_is_refused(case: str) -> None:
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(), REFUSED[case])

    assert "alice" not in str(refusal.value)


async def test_a_token_without_a_key_id_is_accepted_from_a_set_of_one_key() -> None:
    lone = Keys(jwk(RSA_KEY, kid="rsa"))

    identity = await identified(verifier(keys=lone), token(header={"kid": ABSENT}))

    assert identity.key == (ISSUER, "alice", "claude-desktop")
    with pytest.raises(TokenRejected):
        await identified(verifier(keys=lone), token(header={"kid": None}))


async def test_two_keys_with_one_key_id_are_both_tried_and_many_are_not() -> None:
    old_and_new = Keys(jwk(FOREIGN_KEY, kid="rsa"), jwk(RSA_KEY, kid="rsa"), jwk(EC_KEY, kid="rsa"))
    flood = Keys(*[jwk(FOREIGN_KEY, kid="rsa") for _ in range(4)], jwk(RSA_KEY, kid="rsa"))

    assert (await identified(verifier(keys=old_and_new), token())).principal.subject == "alice"
    with pytest.raises(TokenRejected):
        await identified(verifier(keys=flood), token())


async def test_an_old_issuers_plain_type_is_accepted_only_when_configured_and_never_for_an_id_token() -> None:
    old = frozenset({"at+jwt", "jwt"})

    identity = await identified(verifier(token_types=old), token(header={"typ": "JWT"}))
    assert identity.actor.id == "claude-desktop"
    for mark in ("nonce", "at_hash", "c_hash"):
        with pytest.raises(TokenRejected):
            await identified(verifier(token_types=old), token({mark: "n"}, {"typ": "JWT"}))


async def test_a_verified_token_is_remembered_but_not_beyond_its_expiry() -> None:
    clock, keys = ManualClock(), Keys(jwk(RSA_KEY, kid="rsa"))
    cached = JwtVerifier([issuer(keys=keys, leeway_s=0.0)], clock, cache_s=60)
    short = token({"exp": NOW + 30})

    await identified(cached, short)
    clock.now += 29.9
    await identified(cached, short)
    assert keys.asked == 1
    clock.now += 0.1
    with pytest.raises(TokenRejected):
        await identified(cached, short)


async def test_a_withdrawn_key_stops_verifying_when_the_memory_of_the_token_ends() -> None:
    clock, keys = ManualClock(), Keys(jwk(RSA_KEY, kid="rsa"))
    cached = JwtVerifier([issuer(keys=keys)], clock, cache_s=60)

    await identified(cached, token())
    keys.members[0]["kid"] = "another"
    clock.now += 59
    await identified(cached, token())
    clock.now += 1
    with pytest.raises(TokenRejected):
        await identified(cached, token())


async def test_the_memory_is_bounded_and_forgets_the_least_recently_used() -> None:
    keys = Keys(jwk(RSA_KEY, kid="rsa"))
    cached = JwtVerifier([issuer(keys=keys)], ManualClock(), cache_size=2)
    first, second, third = (token({"jti": str(n)}) for n in range(3))

    for each in (first, second, first, third, first):
        await identified(cached, each)
    assert keys.asked == 3
    await identified(cached, second)
    assert keys.asked == 4


async def test_a_refused_token_is_not_remembered_as_good() -> None:
    clock = ManualClock()
    cached = verifier(clock)
    early = token({"nbf": NOW + 100})

    with pytest.raises(TokenRejected):
        await identified(cached, early)
    clock.now += 100
    assert (await identified(cached, early)).principal.subject == "alice"


async def test_missing_keys_are_not_the_tokens_fault() -> None:
    class Down(Keys):
        async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:  # type: ignore[explicit-override]
            raise KeysUnavailable("down")

    with pytest.raises(KeysUnavailable):
        await identified(verifier(keys=Down()), token())


BAD_ISSUERS: dict[str, Callable[[], object]] = {
    "none": lambda: issuer(algorithms=frozenset({"none"})),
    "a shared secret": lambda: issuer(algorithms=frozenset({"RS256", "HS256"})),
    "no algorithm": lambda: issuer(algorithms=frozenset()),
    "no audience": lambda: issuer(audiences=frozenset()),
    "an empty audience": lambda: issuer(audiences=frozenset({""})),
    "no name": lambda: issuer(issuer=""),
    "no token type": lambda: issuer(token_types=frozenset()),
    "an empty token type": lambda: issuer(token_types=frozenset({""})),
    "a leeway of an hour": lambda: issuer(leeway_s=3600),
    "no issuer at all": lambda: JwtVerifier([], ManualClock()),
    "an issuer twice": lambda: JwtVerifier([issuer(), issuer()], ManualClock()),
}


@pytest.mark.parametrize("case", BAD_ISSUERS)
def test_a_configuration_that_would_make_a_check_vacuous_is_refused(case: str) -> None:
    with pytest.raises(ConfigurationError):
        BAD_ISSUERS[case]()


@given(
    st.text(max_size=200)
    | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{1,20}", fullmatch=True)
)
def test_any_text_is_refused_or_read_and_nothing_else(text: str) -> None:
    try:
        peek(UnverifiedToken(text), DEFAULT_LONGEST)
    except TokenRejected:
        return


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(60))
@given(name=st.sampled_from([*GOOD, "nbf", "act", "azp", "cnf", "scope", "groups"]), value=json_values)
async def test_whatever_a_signed_claim_holds_the_answer_is_an_identity_or_a_refusal(name: str, value: Any) -> None:
    try:
        signed = token({name: value})
    except UnicodeEncodeError:
        return
    try:
        identity = await identified(verifier(), signed)
    except TokenRejected:
        return
    assert identity.principal.issuer == ISSUER


@settings(max_examples=examples(60))
@given(position=st.integers(min_value=0), replacement=st.sampled_from("ABCabc019-_."))
async def test_a_changed_character_never_changes_who_is_speaking(position: int, replacement: str) -> None:
    original = ACCEPTED["an access token of RFC 9068"]
    index = position % len(original)
    changed = UnverifiedToken(original[:index] + replacement + original[index + 1 :])
    try:
        identity = await identified(verifier(), changed)
    except TokenRejected:
        return
    assert changed == original
    assert identity.principal.subject == "alice"


@given(st.binary(max_size=60))
def test_strict_objects_survive_only_as_objects(data: bytes) -> None:
    try:
        value = strict_object(data)
    except ValueError:
        return
    assert isinstance(value, dict)


# --- issuers that mark access tokens in their own way -----------------------------------------------------------------

COGNITO_TYPES: dict[str, Any] = {"token_types": frozenset({"", "jwt"}), "required": {"token_use": ("access",)}}
"""Amazon Cognito, understanding the access token: the header has ``kid`` and ``alg`` only."""


async def test_a_token_without_a_type_is_accepted_where_something_else_marks_it() -> None:
    untyped = token({"token_use": "access"}, {"typ": ABSENT})

    assert (await identified(verifier(**COGNITO_TYPES), untyped)).principal.subject == "alice"


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"token_use": "access"}, {"typ": "at+jwt"}),  # a type that this issuer does not use
        ({}, {"typ": ABSENT}),
        ({"token_use": "id"}, {"typ": ABSENT}),
        ({"token_use": ["access"]}, {"typ": ABSENT}),
        ({"token_use": "Access"}, {"typ": ABSENT}),
        ({"token_use": None}, {"typ": ABSENT}),
        ({"token_use": {"access": 1}}, {"typ": ABSENT}),
    ],
)
async def test_what_is_demanded_instead_of_a_type_is_demanded(claims: dict[str, Any], header: dict[str, Any]) -> None:
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(**COGNITO_TYPES), token(claims, header))
    assert refusal.value.fault is TokenFault.TYPE


async def test_a_token_without_a_type_is_refused_by_default() -> None:
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(), token({"token_use": "access"}, {"typ": ABSENT}))
    assert refusal.value.fault is TokenFault.TYPE


@pytest.mark.parametrize("kind", ["ID", "Refresh", "Offline", "Logout", "id"])
async def test_keycloaks_other_tokens_are_no_access_tokens(kind: str) -> None:
    plain: dict[str, Any] = {"token_types": frozenset({"jwt"})}
    marked = plain | {"required": {"typ": ("Bearer",)}}

    await identified(verifier(**plain), token({"typ": "Bearer"}, {"typ": "JWT"}))
    await identified(verifier(**marked), token({"typ": "Bearer", "nonce": "n"}, {"typ": "JWT"}))
    for changes in (plain, marked):
        with pytest.raises(TokenRejected) as refusal:
            await identified(verifier(**changes), token({"typ": kind}, {"typ": "JWT"}))
        assert refusal.value.fault is TokenFault.TYPE


CLIENTS: dict[str, Any] = {"clients": frozenset({"claude-desktop"})}


async def test_a_token_without_an_audience_is_accepted_of_a_listed_client_only() -> None:
    bare = token({"aud": ABSENT})

    assert (await identified(verifier(**CLIENTS), bare)).actor.id == "claude-desktop"
    for other in (
        token({"aud": ABSENT, "client_id": "other"}),
        token({"aud": ABSENT, "client_id": ["claude-desktop"]}),
    ):
        with pytest.raises(TokenRejected) as refusal:
            await identified(verifier(**CLIENTS), other)
        assert refusal.value.fault is TokenFault.AUDIENCE


async def test_the_client_that_is_checked_is_not_the_actor() -> None:
    acted = token({"aud": ABSENT, "client_id": "other", "act": {"sub": "claude-desktop"}})
    with pytest.raises(TokenRejected):
        await identified(verifier(**CLIENTS), acted)


@pytest.mark.parametrize("audience", ["https://else.example", [], None, "", 7, {RESOURCE: 1}, [RESOURCE, 7]])
async def test_another_audience_is_refused_also_of_a_listed_client(audience: Any) -> None:
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(**CLIENTS), token({"aud": audience}))
    assert refusal.value.fault is TokenFault.AUDIENCE
    await identified(verifier(**CLIENTS), token({"aud": [RESOURCE, "https://else.example"]}))


async def test_without_listed_clients_every_token_needs_an_audience() -> None:
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(), token({"aud": ABSENT}))
    assert refusal.value.fault is TokenFault.AUDIENCE


UNSAFE: dict[str, dict[str, Any]] = {
    "no type, and nothing instead": {"token_types": frozenset({""})},
    "ID-JAG": {"token_types": frozenset({"oauth-id-jag+jwt"})},
    "a DPoP proof": {"token_types": frozenset({"dpop+jwt"})},
    "a logout token in its long form": {"token_types": frozenset({"application/logout+jwt"})},
    "a claim that every token has": {"token_types": frozenset({""}), "required": {"iss": ()}},
    "a claim without a name": {"token_types": frozenset({""}), "required": {"": ()}},
}


@pytest.mark.parametrize("case", UNSAFE)
def test_a_setting_that_would_admit_other_kinds_of_tokens_is_refused(case: str) -> None:
    with pytest.raises(ConfigurationError):
        issuer(**UNSAFE[case])


def nested_actors(depth: int) -> dict[str, Any]:
    return {"sub": "a", "act": nested_actors(depth - 1)} if depth else {"sub": "a"}


FAULTS: dict[str, tuple[TokenFault, UnverifiedToken]] = {
    "an unknown issuer": (TokenFault.ISSUER, token({"iss": "https://evil.example"})),
    "a homograph of the issuer": (TokenFault.ISSUER, token({"iss": ISSUER.replace("o", "\u043e", 1)})),
    "the issuer with a slash": (TokenFault.ISSUER, token({"iss": ISSUER + "/"})),
    "the issuer in capitals": (TokenFault.ISSUER, token({"iss": ISSUER.upper()})),
    "the issuer with a zero width space": (TokenFault.ISSUER, token({"iss": ISSUER + "\u200b"})),
    "another audience": (TokenFault.AUDIENCE, token({"aud": "https://else.example"})),
    "expired": (TokenFault.EXPIRED, token({"exp": NOW - 60})),
    "issued in the future": (TokenFault.NOT_YET, token({"iat": NOW + 60})),
    "not yet valid": (TokenFault.NOT_YET, token({"nbf": NOW + 60})),
    "bound to a key": (TokenFault.BOUND, token({"cnf": {"jkt": "x"}})),
    "an unknown key id": (TokenFault.KEY, token(header={"kid": "other"})),
    "another's signature": (TokenFault.SIGNATURE, token(key=FOREIGN_KEY)),
    "no token": (TokenFault.MALFORMED, UnverifiedToken("opaque")),
    "too long": (TokenFault.TOO_LONG, UnverifiedToken("a" * (DEFAULT_LONGEST + 1))),
    "a type of another kind": (TokenFault.TYPE, token(header={"typ": "secevent+jwt"})),
    "an identity assertion": (TokenFault.ASSERTION, token(header={"typ": "oauth-id-jag+jwt"})),
    "an algorithm that is not used": (TokenFault.ALGORITHM, token(header={"alg": "PS256"})),
    "software": (TokenFault.NO_PERSON, token({"sub": "claude-desktop"})),
    "no agent": (TokenFault.NO_AGENT, token({"client_id": ABSENT})),
    "the agent in a list": (TokenFault.CLAIM, token({"client_id": ABSENT, "azp": ["claude-desktop"]})),
    "the agent in an object": (TokenFault.CLAIM, token({"client_id": {"id": "claude-desktop"}})),
    "an actor of another issuer": (TokenFault.CLAIM, token({"act": {"sub": "a", "iss": OTHER}})),
    "a direction mark in the subject": (TokenFault.CLAIM, token({"sub": "alice\u202e"})),
    "a subject that is a number": (TokenFault.CLAIM, token({"sub": 7})),
    "groups in an object": (TokenFault.CLAIM, token({"groups": {"analysts": True}})),
    "a group that is an object": (TokenFault.CLAIM, token({"groups": ["a", {"analysts": True}]})),
    "more groups than anybody has": (TokenFault.CLAIM, token({"groups": [str(number) for number in range(513)]})),
    "groups elsewhere": (TokenFault.GROUPS_ELSEWHERE, token({"_claim_names": {"groups": "src1"}})),
    "a claim nested deeply": (TokenFault.CLAIM, token({"act": nested_actors(40)})),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_each_refusal_has_its_reason(case: str) -> None:
    fault, refused = FAULTS[case]
    with pytest.raises(TokenRejected) as refusal:
        await identified(verifier(), refused)
    assert refusal.value.fault is fault


async def test_a_refusal_is_logged_with_its_reason_and_nothing_of_the_token(caplog: pytest.LogCaptureFixture) -> None:
    hostile = token({"sub": "claude-desktop", "canary": "canary-value"})
    at = verifier()
    with caplog.at_level("INFO"):
        for _ in range(100):
            with pytest.raises(TokenRejected):
                await identified(at, hostile)

    assert 0 < len(caplog.records) <= 30
    assert "token_no_person" in caplog.text
    assert "claude-desktop" not in caplog.text
    assert str(hostile)[-20:] not in caplog.text


async def test_a_token_with_two_hundred_groups_is_accepted() -> None:
    groups = [f"{number:08x}-6b0a-4944-982d-f776045632af-of-the-directory-of-corp" for number in range(200)]
    large = token({"groups": groups})

    assert len(large) > 16_000
    assert (await identified(verifier(), large)).principal.groups == tuple(groups)


async def test_the_memory_is_bounded_by_the_size_of_tokens_too() -> None:
    keys = Keys(*KEYS.members)
    cached = verifier(keys=keys)
    many = [token({"jti": str(number), "padding": "x" * 20_000}) for number in range(640)]
    for one in many:
        await identified(cached, one)
    asked = keys.asked
    await identified(cached, many[-1])
    assert keys.asked == asked
    await identified(cached, many[0])
    assert keys.asked == asked + 1
