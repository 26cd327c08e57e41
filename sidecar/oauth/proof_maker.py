"""Proofs of possession that a command of the sidecar's own sends with a bound token (RFC 9449 section 4.2)."""

import base64
import hashlib
from typing import Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sidecar.model import JsonObject

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
_PUBLIC: Final = ("crv", "e", "kty", "n", "x", "y")
_ProofKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey


class ProofMaker:
    """Signs proofs with one key.

    Args:
        pem: the private key, without a password.

    Raises:
        ValueError: it is no key that proofs can be signed with. The text never repeats any of it.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("no private key in PEM without a password") from None
        self._key, self._algorithm, public = _known(key)
        self._public: JsonObject = {name: public[name] for name in _PUBLIC if name in public}

    def proof(self, token: str, method: str, uri: str, *, now_s: int, proof_id: str, nonce: str | None = None) -> str:
        """Return the proof of one request.

        Args:
            token: the access token that goes with it.
            method: of the request.
            uri: that it is sent to, without query and fragment.
            now_s: seconds since the epoch.
            proof_id: a new one for each.
            nonce: what the server asked to have in it.
        """
        digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims: JsonObject = {"jti": proof_id, "htm": method, "htu": uri, "iat": now_s, "ath": digest}
        if nonce is not None:
            claims["nonce"] = nonce
        headers = {"typ": "dpop+jwt", "jwk": self._public}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers)


def _known(key: object) -> tuple[_ProofKey, str, JsonObject]:
    match key:
        case EllipticCurvePrivateKey() if key.curve.name in _CURVES:
            return key, _CURVES[key.curve.name], ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case Ed25519PrivateKey():
            return key, "EdDSA", OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case RSAPrivateKey():
            return key, "PS256", RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            raise ValueError("a key of a kind that no proof is signed with; take P-256, P-384, Ed25519 or RSA")
