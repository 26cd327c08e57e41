"""What a call's identity costs: a remembered token, a new one, a proof of possession, and the memory of many tokens.

``python bench/identity.py`` prints medians over rounds of one thread, without network: keys come from a file.
"""

import asyncio
import base64
import hashlib
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sidecar.model import AuthScheme, Credential, UnverifiedToken
from sidecar.oauth import Binding, FileKeySet, JwtVerifier, TrustedIssuer
from sidecar.system import SystemClock

ISSUER: Final = "https://idp.example"
RESOURCE: Final = "https://mcp.example/mcp"
ROUNDS: Final = 5
CALLS: Final = 400
TOKENS: Final = 100_000

RSA_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
CLIENT: Final = ec.generate_private_key(ec.SECP256R1())
PUBLIC: Final[dict[str, Any]] = {
    name: value
    for name, value in ECAlgorithm.to_jwk(CLIENT.public_key(), as_dict=True).items()
    if name in {"crv", "kty", "x", "y"}
}


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


THUMBPRINT: Final = b64(hashlib.sha256(json.dumps(PUBLIC, sort_keys=True, separators=(",", ":")).encode()).digest())


def verifier(folder: Path) -> JwtVerifier:
    """A verifier of one issuer with two keys."""
    file = folder / "jwks.json"
    keys = [
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa"},
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "ec"},
    ]
    file.write_text(json.dumps({"keys": keys}))
    clock = SystemClock()
    issuer = TrustedIssuer(
        issuer=ISSUER, audiences=frozenset({RESOURCE}), keys=FileKeySet(file, clock), dpop=Binding.ALLOWED
    )
    return JwtVerifier([issuer], clock)


def token(number: int, algorithm: str, **claims: Any) -> str:
    """An access token like no other."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": f"user-{number}",
        "aud": RESOURCE,
        "iat": now,
        "exp": now + 3600,
        "client_id": "claude-desktop",
        "scope": "mongodb:read",
        "groups": ["analysts", "staff"],
        **claims,
    }
    key: Any = RSA_KEY if algorithm == "RS256" else EC_KEY
    kid = "rsa" if algorithm == "RS256" else "ec"
    return jwt.encode(said, key, algorithm=algorithm, headers={"typ": "at+jwt", "kid": kid})


def bearer(text: str) -> Credential:
    """A token as a plain bearer presents it."""
    return Credential(scheme=AuthScheme.BEARER, token=UnverifiedToken(text), method="POST", uri=RESOURCE)


def proven(text: str, number: int) -> Credential:
    """A token with a proof of possession."""
    claims = {
        "jti": str(number),
        "htm": "POST",
        "htu": RESOURCE,
        "iat": int(time.time()),
        "ath": b64(hashlib.sha256(text.encode()).digest()),
    }
    proof = jwt.encode(claims, CLIENT, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": PUBLIC})
    return Credential(scheme=AuthScheme.DPOP, token=UnverifiedToken(text), proof=proof, method="POST", uri=RESOURCE)


async def cost(verify: Callable[[Credential], Awaitable[object]], credentials: list[Credential]) -> float:
    """Microseconds of CPU of one verification."""
    began = time.process_time()
    for credential in credentials:
        await verify(credential)
    return (time.process_time() - began) / len(credentials) * 1e6


async def costs(checker: JwtVerifier) -> dict[str, float]:
    """Medians over all rounds."""
    found: dict[str, list[float]] = {}
    bound = token(0, "ES256", cnf={"jkt": THUMBPRINT})
    for turn in range(ROUNDS):
        numbers = range(turn * CALLS, (turn + 1) * CALLS)
        known = bearer(token(turn, "ES256", jti="known"))
        await checker.verify(known)
        kinds = {
            "a remembered token": [known] * CALLS,
            "a new token, RS256": [bearer(token(number, "RS256")) for number in numbers],
            "a new token, ES256": [bearer(token(number, "ES256")) for number in numbers],
            "a remembered token and a proof, ES256": [proven(bound, number) for number in numbers],
        }
        for name, credentials in kinds.items():
            found.setdefault(name, []).append(await cost(checker.verify, credentials))
    return {name: statistics.median(values) for name, values in found.items()}


async def growth(checker: JwtVerifier) -> float:
    """Megabytes by which the process grows while it verifies very many distinct tokens."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(TOKENS):
        await checker.verify(bearer(token(number, "ES256", jti="m")))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


async def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        checker = verifier(Path(folder))
        for name, microseconds in (await costs(checker)).items():
            print(f"{name:40} {microseconds:8.1f} µs")
        megabytes = await growth(checker)
        print(f"{f'{TOKENS:,} distinct tokens: growth':40} {megabytes:8.1f} MB")


if __name__ == "__main__":
    asyncio.run(main())
