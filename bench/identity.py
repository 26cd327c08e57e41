"""What a call's identity costs: tokens, proofs, certificates, a look at suspensions, and the memory of many tokens.

``python bench/identity.py`` prints medians over rounds of one thread, without network: keys come from a file. Beside
each stands what it may cost; ``--strict`` ends with status 1 where one costs more.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sidecar.enforcement import Suspensions
from sidecar.identity import Suspendable, Suspension, SuspensionTarget
from sidecar.model import Actor, AuthScheme, Credential, Identity, Principal, UnverifiedToken
from sidecar.oauth import Binding, FileKeySet, JwtVerifier, Nonces, TrustedIssuer
from sidecar.system import SystemClock

ISSUER: Final = "https://idp.example"
RESOURCE: Final = "https://mcp.example/mcp"
ROUNDS: Final = 5
CALLS: Final = 400
TOKENS: Final = 100_000
SUSPENDED: Final = 10_000
CERTIFICATE: Final = "A" * 43

MOST: Final = {
    "a remembered token": 30.0,
    "a new token, RS256": 300.0,
    "a new token, ES256": 300.0,
    "a remembered token and its certificate": 30.0,
    "a remembered token and a proof, ES256": 500.0,
    "the same, with a nonce": 500.0,
    "a look at no suspension": 1.0,
    "a look at 10,000 suspensions": 5.0,
}
"""Microseconds of CPU that each may cost."""

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


def verifier(folder: Path, *, nonces: Nonces | None = None) -> JwtVerifier:
    """A verifier of one issuer with two keys; its proofs carry nonces where some are given."""
    file = folder / "jwks.json"
    keys = [
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa"},
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "ec"},
    ]
    file.write_text(json.dumps({"keys": keys}))
    clock = SystemClock()
    issuer = TrustedIssuer(
        issuer=ISSUER,
        audiences=frozenset({RESOURCE}),
        keys=FileKeySet(file, clock),
        dpop=Binding.ALLOWED,
        dpop_nonce=nonces is not None,
        mtls=Binding.ALLOWED,
    )
    return JwtVerifier([issuer], clock, nonces=nonces)


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


def bearer(text: str, certificate: str | None = None) -> Credential:
    """A token as a bearer presents it, over a connection with this certificate."""
    return Credential(
        scheme=AuthScheme.BEARER, token=UnverifiedToken(text), certificate=certificate, method="POST", uri=RESOURCE
    )


def proven(text: str, number: int, **more: str) -> Credential:
    """A token with a proof of possession."""
    claims = {
        "jti": str(number),
        "htm": "POST",
        "htu": RESOURCE,
        "iat": int(time.time()),
        "ath": b64(hashlib.sha256(text.encode()).digest()),
        **more,
    }
    proof = jwt.encode(claims, CLIENT, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": PUBLIC})
    return Credential(scheme=AuthScheme.DPOP, token=UnverifiedToken(text), proof=proof, method="POST", uri=RESOURCE)


async def cost(verify: Callable[[Credential], Awaitable[object]], credentials: list[Credential]) -> float:
    """Microseconds of CPU of one verification."""
    began = time.process_time()
    for credential in credentials:
        await verify(credential)
    return (time.process_time() - began) / len(credentials) * 1e6


async def costs(folder: Path) -> dict[str, float]:
    """Medians over all rounds."""
    nonces = Nonces(SystemClock(), bytes(range(32)))
    plain, careful = verifier(folder), verifier(folder, nonces=nonces)
    found: dict[str, list[float]] = {}
    bound = token(0, "ES256", cnf={"jkt": THUMBPRINT})
    for turn in range(ROUNDS):
        numbers = range(turn * CALLS, (turn + 1) * CALLS)
        known = bearer(token(turn, "ES256", jti="known"))
        shown = bearer(token(turn, "ES256", cnf={"x5t#S256": CERTIFICATE}), CERTIFICATE)
        for one in (known, shown):
            await plain.verify(one)
        nonce = nonces.current()
        for name, checker, credentials in (
            ("a remembered token", plain, [known] * CALLS),
            ("a new token, RS256", plain, [bearer(token(number, "RS256")) for number in numbers]),
            ("a new token, ES256", plain, [bearer(token(number, "ES256")) for number in numbers]),
            ("a remembered token and its certificate", plain, [shown] * CALLS),
            ("a remembered token and a proof, ES256", plain, [proven(bound, number) for number in numbers]),
            ("the same, with a nonce", careful, [proven(bound, number, nonce=nonce) for number in numbers]),
        ):
            found.setdefault(name, []).append(await cost(checker.verify, credentials))
    return {name: statistics.median(values) for name, values in found.items()}


def looks() -> dict[str, float]:
    """Microseconds of one look whether a caller may go on; there are several on the way of a call."""
    caller = Identity(
        principal=Principal(issuer=ISSUER, subject="ann"),
        actor=Actor(id="desk", chain=("first", "second")),
        expires_at=2e9,
        token="0" * 32,
    )
    targets = (SuspensionTarget(kind=Suspendable.USER, issuer=ISSUER, subject=f"u{n}") for n in range(SUSPENDED))
    kept = [Suspension(target=one, until=None, reason="r", operator="o", since=1) for one in targets]
    found = {}
    for name, table in (
        ("a look at no suspension", Suspensions(SystemClock())),
        ("a look at 10,000 suspensions", Suspensions(SystemClock(), kept)),
    ):
        began = time.process_time()
        for _ in range(TOKENS):
            table.require(caller, "session")
        found[name] = (time.process_time() - began) / TOKENS * 1e6
    return found


async def growth(checker: JwtVerifier) -> float:
    """Megabytes by which the process grows while it verifies very many distinct tokens."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(TOKENS):
        await checker.verify(bearer(token(number, "ES256", jti="m")))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


async def main() -> bool:
    """Print the table, and return whether everything costs at most what it may."""
    with tempfile.TemporaryDirectory() as folder:
        found = await costs(Path(folder)) | looks()
        for name, microseconds in found.items():
            print(f"{name:40} {microseconds:8.1f} µs  (at most {MOST[name]:.0f})")
        megabytes = await growth(verifier(Path(folder)))
        print(f"{f'{TOKENS:,} distinct tokens: growth':40} {megabytes:8.1f} MB")
    return all(microseconds <= MOST[name] for name, microseconds in found.items())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--strict", action="store_true", help="end with status 1 where something costs more than it may"
    )
    strict = arguments.parse_args().strict
    sys.exit(not asyncio.run(main()) and strict)
