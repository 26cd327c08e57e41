"""JSON Web Keys: a published set in, keys that may verify exactly the algorithms they are for out (RFC 7517, 7518).

Pure. A key set is the trust anchor of one issuer; where it comes from is ``sidecar.oauth.key_sets``.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sidecar.errors import KeysUnavailable
from sidecar.model import JsonObject, JsonValue

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_ALGORITHMS_OF: Final[dict[tuple[str, str], frozenset[str]]] = {
    ("RSA", ""): _RSA_ALGORITHMS,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""Key type and curve → the algorithms such a key can verify (RFC 7518 section 3.1, RFC 8037). No ``oct``: a shared
secret in a published set would let every reader of the set sign (RFC 8725 section 3.1)."""

ASYMMETRIC_ALGORITHMS: Final = frozenset().union(*_ALGORITHMS_OF.values())
"""All that an issuer may be configured with."""

MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
MAX_RSA_BITS: Final = 8192
"""Verification time grows with the modulus; no issuer in use publishes more than 4096."""
MAX_KEYS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key and what it may be used for."""

    id: str | None
    algorithms: frozenset[str]
    public_key: PublicKey


class NotAKeySet(KeysUnavailable):
    """An answer came, and it is no key set that can be used."""


def holds_private_part(document: JsonObject) -> bool:
    """Whether a key set gives away what signs: a private key (RFC 7518 section 6, ``d``) or a shared secret (``k``)."""
    members = document.get("keys")
    return isinstance(members, list) and any(
        isinstance(member, dict) and {"d", "k"} & member.keys() for member in members
    )


def parse_key_set(document: JsonObject) -> tuple[VerificationKey, ...]:
    """Read the usable keys of a JWK set (RFC 7517 section 5); unusable members are skipped, as that section asks.

    Raises:
        NotAKeySet: the document is not a key set, or no key of it is usable.
    """
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise NotAKeySet("not a JSON Web Key Set of acceptable size")
    keys = tuple(key for member in members if (key := _parse_key(member)) is not None)
    if not keys:
        raise NotAKeySet("the key set has no usable key")
    return keys


def _parse_key(member: JsonValue) -> VerificationKey | None:
    if not isinstance(member, dict) or not _is_for_verification(member):
        return None
    algorithms = _algorithms_of(member)
    key_id = member.get("kid")
    if not algorithms or not (key_id is None or isinstance(key_id, str)):
        return None
    try:
        public_key = jwt.PyJWK(dict(member), algorithm=min(algorithms)).key
    except (jwt.PyJWTError, TypeError, ValueError, KeyError, AttributeError):
        return None  # PyJWT promises only its own family; a malformed member can raise others, and is not a key
    if not isinstance(public_key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return None
    if isinstance(public_key, RSAPublicKey) and not MIN_RSA_BITS <= public_key.key_size <= MAX_RSA_BITS:
        return None
    return VerificationKey(id=key_id, algorithms=algorithms, public_key=public_key)


def _is_for_verification(member: JsonObject) -> bool:
    """RFC 7517 section 4.2 and 4.3; a set that publishes a private part (``d``) has given that key away."""
    if "d" in member or member.get("use", "sig") != "sig":
        return False
    operations = member.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _algorithms_of(member: JsonObject) -> frozenset[str]:
    kind, curve = member.get("kty"), member.get("crv", "")
    if not isinstance(kind, str) or not isinstance(curve, str):
        return frozenset()
    possible = _ALGORITHMS_OF.get((kind, curve), frozenset())
    declared = member.get("alg")
    if declared is None:
        return possible
    return possible & {declared} if isinstance(declared, str) else frozenset()


def matching(keys: tuple[VerificationKey, ...], key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
    """Return the keys that may have signed a token with this header.

    A token without a key id matches only a set of exactly one key: trying all of them would make the choice of key the
    attacker's.
    """
    if key_id is None:
        return tuple(key for key in keys if len(keys) == 1 and algorithm in key.algorithms)
    return tuple(key for key in keys if key.id == key_id and algorithm in key.algorithms)
