"""Keys of ``bench/rolling.py`` that are replaced while calls go on, and how a file is."""

import json
import secrets
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm

from sidecar.demo.identities import Person
from tests.signer import ISSUER, TOKEN_TYPE


class TokenKeys:
    """An issuer whose key changes: what is signed with the one before is good until it is taken away."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.add()

    def add(self) -> None:
        self._keys[secrets.token_hex(4)] = ec.generate_private_key(ec.SECP256R1())
        self._write()

    def drop_oldest(self) -> None:
        del self._keys[next(iter(self._keys))]
        self._write()

    def token(self, person: Person, audience: str, *, newest: bool) -> str:
        name = [*self._keys][-1 if newest else 0]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": person.user,
            "aud": audience,
            "iat": now,
            "exp": now + 600,
            "jti": secrets.token_hex(8),
            "client_id": person.agent,
            "scope": " ".join(person.scopes),
            "groups": [*person.groups],
        }
        return jwt.encode(claims, self._keys[name], algorithm="ES256", headers={"typ": TOKEN_TYPE, "kid": name})

    def _write(self) -> None:
        public = [
            {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig", "alg": "ES256"}
            for name, key in self._keys.items()
        ]
        put(self._file, json.dumps({"keys": public}))


def put(file: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file, whole at any moment."""
    fresh = file.with_name(f"{file.name}.fresh")
    fresh.touch(mode=mode)
    fresh.write_text(text)
    fresh.replace(file)


def a_key_of_heads() -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ed25519.Ed25519PrivateKey.generate().private_bytes(*form).decode()
