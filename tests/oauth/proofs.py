"""Proofs of possession, honest and hostile: one row for each way in which one can lie."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.faults import TokenFault
from tests.oauth.test_jwt_verification import NOW, RESOURCE, b64, jwk

CLIENT = ec.generate_private_key(ec.SECP256R1())
RSA_CLIENT = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED_CLIENT = ed25519.Ed25519PrivateKey.generate()
THIEF = ec.generate_private_key(ec.SECP256R1())
ABSENT = object()


def public(key: Any) -> dict[str, Any]:
    return {name: value for name, value in jwk(key).items() if name in {"kty", "crv", "x", "y", "n", "e"}}


def thumbprint(key: Any) -> str:
    text = json.dumps(public(key), sort_keys=True, separators=(",", ":"))
    return b64(hashlib.sha256(text.encode()).digest())


def token_hash(token: str) -> str:
    return b64(hashlib.sha256(token.encode()).digest())


def proof(token: str, *, key: Any = CLIENT, alg: str = "ES256", header: Any = None, **changes: Any) -> str:
    """An honest proof for this token, but for what is changed."""
    claims = {"jti": "1", "htm": "POST", "htu": RESOURCE, "iat": NOW, "ath": token_hash(token), **changes}
    head = {"typ": "dpop+jwt", "jwk": public(key), **(header or {})}
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not ABSENT},
        key,
        algorithm=alg,
        headers={name: value for name, value in head.items() if value is not ABSENT},
    )


def _resealed(token: str, **header: Any) -> str:
    """An honest proof whose header was rewritten without signing again."""
    head, payload, signature = proof(token).split(".")
    decoded = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))  # noqa: TID251 - made above
    return f"{b64(json.dumps(decoded | header).encode())}.{payload}.{signature}"


def _unsigned(token: str, algorithm: str) -> str:
    head, payload, _ = _resealed(token, alg=algorithm).split(".")
    return f"{head}.{payload}.AA"


def _shared_secret(token: str) -> str:
    """Signed with the public key as if it were a shared secret (RFC 8725 section 2.1)."""
    head, payload, _ = _resealed(token, alg="HS256").split(".")
    secret = json.dumps(public(CLIENT)).encode()
    return f"{head}.{payload}.{b64(hmac.digest(secret, f'{head}.{payload}'.encode(), 'sha256'))}"


def _padded(name: str) -> Callable[[str], str]:
    """A key that is written otherwise than the thumbprint is made of."""
    return lambda token: proof(token, header={"jwk": {**public(CLIENT), name: public(CLIENT)[name] + "="}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lie:
    """A proof that shows nothing, and the reason for which it is refused."""

    title: str
    make: Callable[[str], str | None]
    fault: TokenFault
    extra: dict[str, Any] = field(default_factory=dict)


def _row(title: str, fault: TokenFault, make: Callable[[str], str | None]) -> Lie:
    return Lie(title=title, make=make, fault=fault)


def _claim(fault: TokenFault, name: str, *values: Any) -> list[Lie]:
    def make(value: Any) -> Callable[[str], str]:
        return lambda token: proof(token, **{name: value})

    return [_row(_title(name, value), fault, make(value)) for value in values]


def _header(fault: TokenFault, name: str, *values: Any) -> list[Lie]:
    def make(value: Any) -> Callable[[str], str]:
        return lambda token: proof(token, header={name: value})

    return [_row(_title(f"header {name}", value), fault, make(value)) for value in values]


def _title(name: str, value: Any) -> str:
    return f"{name} {'absent' if value is ABSENT else repr(value)}"[:70]


F = TokenFault
LIES: list[Lie] = [
    _row("no proof", F.PROOF_MISSING, lambda _: None),
    _row("an empty proof", F.PROOF_MISSING, lambda _: ""),
    _row("no JWS", F.PROOF_MALFORMED, lambda _: "abc"),
    _row("two proofs in one header", F.PROOF_MALFORMED, lambda token: f"{proof(token)},{proof(token)}"),
    _row("the access token itself", F.PROOF_TYPE, lambda token: token),
    _row("too long", F.PROOF_MALFORMED, lambda token: proof(token, pad="x" * 8192)),
    _row("no signature", F.PROOF_MALFORMED, lambda token: proof(token).rsplit(".", 1)[0] + "."),
    _row("alg none", F.PROOF_ALGORITHM, lambda token: _unsigned(token, "none")),
    _row("alg None in other letters", F.PROOF_ALGORITHM, lambda token: _unsigned(token, "nOnE")),
    _row("the public key as a shared secret", F.PROOF_ALGORITHM, _shared_secret),
    _row("alg of another key type", F.PROOF_ALGORITHM, lambda token: _unsigned(token, "RS256")),
    _row("alg that is no text", F.PROOF_ALGORITHM, lambda token: _resealed(token, alg=["ES256"])),
    _row("a thief's key", F.PROOF_KEY, lambda token: proof(token, key=THIEF)),
    _row(
        "the right key, a thief's signature",
        F.PROOF_SIGNATURE,
        lambda t: proof(t, key=THIEF, header={"jwk": public(CLIENT)}),
    ),
    _row("a header that was changed", F.PROOF_SIGNATURE, lambda token: _resealed(token, kid="x")),
    _row("a private key", F.PROOF_KEY, lambda token: proof(token, header={"jwk": {**public(CLIENT), "d": "AA"}})),
    _row("a shared key", F.PROOF_KEY, lambda token: proof(token, header={"jwk": {"kty": "oct", "k": "AA"}})),
    _row("a key beside other primes", F.PROOF_KEY, lambda t: proof(t, header={"jwk": {**public(CLIENT), "oth": []}})),
    _row("a key that is padded", F.PROOF_KEY, _padded("x")),
    _row(
        "a curve that is another's", F.PROOF_KEY, lambda t: proof(t, header={"jwk": {**public(CLIENT), "crv": "P-384"}})
    ),
    _row("a list of keys", F.PROOF_KEY, lambda token: proof(token, header={"jwk": [public(CLIENT)]})),
    _row("a key by URL", F.PROOF_KEY, lambda t: proof(t, header={"jwk": ABSENT, "jku": "https://evil.example/k"})),
    _row("a key by id", F.PROOF_KEY, lambda token: proof(token, header={"jwk": ABSENT, "kid": thumbprint(CLIENT)})),
    _row(
        "a thumbprint in place of the key", F.PROOF_KEY, lambda t: proof(t, header={"jwk": {"jkt": thumbprint(CLIENT)}})
    ),
    *_header(F.PROOF_TYPE, "typ", ABSENT, "JWT", "at+jwt", "DPoP+JWT", "application/dpop+jwt", "dpop"),
    *_header(F.PROOF_MALFORMED, "crit", ["exp"], []),
    _row("an unencoded payload", F.PROOF_MALFORMED, lambda token: _resealed(token, b64=False)),
    *_claim(F.PROOF_METHOD, "htm", "GET", "post", "DELETE", "", ABSENT, None, ["POST"], "POST "),
    *_claim(
        F.PROOF_URI,
        "htu",
        ABSENT,
        "",
        None,
        [RESOURCE],
        RESOURCE.replace("https", "http"),
        RESOURCE.replace("mcp.corp", "mcp.c\u043erp"),
        RESOURCE.replace(".example", ".example."),
        RESOURCE.replace(".example/", ".example:8443/"),
        RESOURCE.replace("https://", "https://user@"),
        RESOURCE.replace("https://", "https://evil.example\\@"),
        "https://mcp.corp.example",
        "https://mcp.corp.example/",
        "https://mcp.corp.example/MCP",
        "https://mcp.corp.example/mcp//",
        "https://mcp.corp.example/%6dcp",
        "https://mcp.corp.example/x/../mcp",
        "https://mcp.corp.example/mcp/other",
        "https://evil.example/mcp",
        "//mcp.corp.example/mcp",
        "/mcp",
        f" {RESOURCE}",
        "https://mcp.corp.example:99999/mcp",
        "https://[mcp.corp.example/mcp",
        "https://evil.example/?" + RESOURCE,
        "https://evil.example/#" + RESOURCE,
    ),
    *_claim(
        F.PROOF_TIME,
        "iat",
        ABSENT,
        None,
        str(NOW),
        True,
        NOW - 71,
        NOW + 11,
        NOW * 1000,
        -1,
        [NOW],
        10**400,
        -(10**400),
    ),
    *_claim(F.PROOF_OTHER, "ath", ABSENT, "", None, token_hash("another"), token_hash("x") + "=", 1, "\u00e4"),
    _row("ath in hexadecimal", F.PROOF_OTHER, lambda t: proof(t, ath=hashlib.sha256(t.encode()).hexdigest())),
    _row("ath of a part", F.PROOF_OTHER, lambda token: proof(token, ath=token_hash(token)[:-1])),
    *_claim(F.PROOF_MALFORMED, "jti", ABSENT, "", None, 1, ["1"], "x" * 257),
]
"""Each with a token that is bound to ``CLIENT``, in a POST to ``RESOURCE``."""
