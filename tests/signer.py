"""An issuer without a server: it signs access tokens for the demo's people in the test's own process.

For tests that need tokens of any kind, not somebody who logs in; ``tests.authorization_server`` is the real one.
"""

import json
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sidecar.demo.identities import TOKEN_SECONDS, Person

ISSUER: Final = "https://issuer.demo.invalid"
KEY_ID: Final = "demo"
TOKEN_TYPE: Final = "at+jwt"  # the JOSE type of RFC 9068


class Signer:
    """Signs access tokens (RFC 9068)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def write_keys(self, path: Path) -> None:
        """Write the public key set (RFC 7517) for the sidecar."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        path.write_text(json.dumps({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]}), "utf-8")

    def token(self, person: Person, *, audience: str, now: int, confirmation: dict[str, str] | None = None) -> str:
        """Return an access token for ``audience`` that is valid from ``now`` (seconds since the epoch).

        With a ``confirmation`` (``cnf``) it is bound to a key of its client.
        """
        claims = {
            "iss": ISSUER,
            "sub": person.user,
            "aud": audience,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "jti": f"{person.user}-{now}",
            "client_id": person.agent,
            "scope": " ".join(person.scopes),
            "groups": list(person.groups),
            **({"cnf": confirmation} if confirmation is not None else {}),
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": TOKEN_TYPE, "kid": KEY_ID})
