"""The people and agents of the demo, and an issuer for their tokens that lives as long as the process.

The demo signs its own tokens because it has no authorization server. Its private key is made at start and never written
to disk. The public half goes to a key set file, which the sidecar reads like any issuer's.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER: Final = "https://issuer.demo.invalid"
KEY_ID: Final = "demo"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - the JOSE type of RFC 9068, not a secret
TOKEN_SECONDS: Final = 8 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user who lends rights to an agent."""

    user: str
    agent: str
    groups: tuple[str, ...]
    scopes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Who calls, as the tour shows it."""
        return f"{self.user} via {self.agent}"


ANALYST: Final = Person(user="alice", agent="claude-desktop", groups=("analysts",), scopes=("mongodb:read",))
LOADER: Final = Person(
    user="larry", agent="nightly-loader", groups=("loaders",), scopes=("mongodb:read", "mongodb:write")
)
STRANGER: Final = Person(user="mallory", agent="claude-desktop", groups=(), scopes=("mongodb:read",))
EVERYBODY: Final = (ANALYST, LOADER, STRANGER)


class DemoIssuer:
    """Signs access tokens (RFC 9068) for the demo's people."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def write_keys(self, path: Path) -> None:
        """Write the public key set (RFC 7517) for the sidecar."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        path.write_text(json.dumps({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}]}), "utf-8")

    def token(self, person: Person, *, audience: str, now: int) -> str:
        """Return an access token for ``audience`` that is valid from ``now`` (seconds since the epoch)."""
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
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": TOKEN_TYPE, "kid": KEY_ID})
