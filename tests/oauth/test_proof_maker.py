"""Proofs of the sidecar's own commands: what the checker of proofs takes, and keys that none is signed with."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sidecar.errors import ProofRejected
from sidecar.model import AuthScheme, Credential, UnverifiedToken
from sidecar.oauth import ProofMaker, ProofsInMemory
from sidecar.oauth.dpop import ProofChecker
from sidecar.system.clock import SystemClock
from tests import unknown_curve
from tests.oauth.proofs import thumbprint

URI = "https://mcp.example/mcp/approvals"
KEYS = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(public_exponent=65537, key_size=2048),
}


def pem(key: Any, encryption: Any = None) -> bytes:
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return found


@pytest.mark.parametrize("name", KEYS)
async def test_a_proof_counts_for_its_own_request_alone(name: str) -> None:
    maker, clock = ProofMaker(pem(KEYS[name])), SystemClock()
    checker = ProofChecker(clock, ProofsInMemory(clock))

    async def check(number: int, **changes: str) -> None:
        proof = maker.proof("token", "GET", URI, now_s=int(time.time()), proof_id=f"{name} {number}")
        shown = {"token": "token", "method": "GET", "uri": URI, **changes}
        credential = Credential(
            scheme=AuthScheme.DPOP,
            token=UnverifiedToken(shown["token"]),
            method=shown["method"],
            uri=shown["uri"],
            proof=proof,
        )
        await checker.check(credential, thumbprint(KEYS[name]), 5.0)

    await check(1)
    for number, changes in enumerate(({"token": "other"}, {"method": "POST"}, {"uri": f"{URI}/1"}, {}), 2):
        with pytest.raises(ProofRejected):
            await check(number if changes else 1, **changes)


def test_a_proof_has_the_nonce_and_nothing_of_the_private_key() -> None:
    for key in KEYS.values():
        proof = ProofMaker(pem(key)).proof("token", "GET", URI, now_s=1, proof_id="1", nonce="n")
        assert jwt.decode(proof, options={"verify_signature": False})["nonce"] == "n"
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & jwt.get_unverified_header(proof)["jwk"].keys()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        pem(ec.generate_private_key(ec.SECP521R1())),
        pem(KEYS["P-256"], BestAvailableEncryption(b"password")),
        unknown_curve.private_key(),
    ],
    ids=["nothing", "no key", "a curve of no proof", "with a password", "an unknown curve"],
)
def test_what_no_proof_is_signed_with_is_refused_without_a_word_of_it(content: bytes) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        ProofMaker(content)
    assert "secret" not in str(refused.value)
