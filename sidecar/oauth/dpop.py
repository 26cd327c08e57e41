"""Proof of possession (RFC 9449): a client with a bound token shows with every request that it holds the key.

A proof is a JWT that the client signs itself. It counts only beside an access token that its issuer signed and bound to
that key (``cnf.jkt``); so it is looked at after the token, and nothing in it chooses anything but the key that the
token already names.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import jwt

from sidecar.bounded import BoundedMemory
from sidecar.errors import KeysUnavailable, NonceRequired, ProofRejected, TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import Credential, JsonObject, JsonValue
from sidecar.oauth.jwk import VerificationKey, parse_key_set
from sidecar.oauth.nonces import Nonces
from sidecar.oauth.unverified import split
from sidecar.ports import Clock, ProofMemory

PROOF_ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "RS256", "PS256")
"""What a client may sign a proof with; told in challenges. None is symmetric (RFC 9449 section 4.3, check 6)."""

MAX_PROOF_CHARACTERS: Final = 8_192
MAX_JTI_CHARACTERS: Final = 256
MAX_AGE_S: Final = 60.0
"""How long ago a proof may have been made; the issuer's leeway comes on top, and bounds the future."""
MAX_KEYS: Final = 4_096
"""Public keys of clients that are remembered, because reading one costs about as much as a signature."""

_TYPE: Final = "dpop+jwt"
_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
"""What a thumbprint is made of (RFC 7638 section 3.2, RFC 8037 section 2), in the order of the alphabet."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1: members that no public key has."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_UNVERIFIED_CLAIMS: Final[jwt.types.Options] = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    "require": [],
    # a proof has its own claims, and each is checked below
    "verify_iss": False,
    "verify_aud": False,
    "verify_sub": False,
    "verify_jti": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    id: bytes
    """Digest of key and ``jti``."""
    good_until: float


class ProofChecker:
    """Checks proofs, each of which counts once.

    Args:
        clock: the only source of time.
        memory: knows the proofs that were presented before.
        nonces: those that proofs carry, where an issuer's have to.
    """

    def __init__(self, clock: Clock, memory: ProofMemory, nonces: Nonces | None = None) -> None:
        self._clock = clock
        self._memory = memory
        self._nonces = nonces
        self._keys: BoundedMemory[tuple[str, str], VerificationKey] = BoundedMemory(MAX_KEYS)

    async def check(self, credential: Credential, thumbprint: str, leeway_s: float, *, nonce: bool = False) -> None:
        """Let a request pass whose proof shows the key of its token (RFC 9449 section 4.3).

        Args:
            credential: what was presented; its token is verified.
            thumbprint: of the key that the token is bound to.
            leeway_s: seconds by which clocks may differ.
            nonce: whether the proof has to carry a nonce.

        Raises:
            NonceRequired: it carries none, or none that counts.
            ProofRejected: it shows nothing.
        """
        proof = self._checked(credential, thumbprint, leeway_s, nonce=nonce)
        if not await self._memory.is_first(proof.id, thumbprint, proof.good_until):
            raise ProofRejected("the proof was presented before", fault=TokenFault.PROOF_REPLAYED)

    def _checked(self, credential: Credential, thumbprint: str, leeway_s: float, *, nonce: bool) -> _Proof:
        proof = credential.proof
        if not proof:
            raise ProofRejected("no proof", fault=TokenFault.PROOF_MISSING)
        if len(proof) > MAX_PROOF_CHARACTERS:
            raise ProofRejected("the proof is too long", fault=TokenFault.PROOF_MALFORMED)
        try:
            header, _ = split(proof)
        except TokenRejected as error:
            raise ProofRejected(error.detail, fault=TokenFault.PROOF_MALFORMED) from None
        if header.get("typ") != _TYPE:
            raise ProofRejected("not a proof by its type", fault=TokenFault.PROOF_TYPE)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in PROOF_ALGORITHMS:
            raise ProofRejected("algorithm not allowed for proofs", fault=TokenFault.PROOF_ALGORITHM)
        key = self._key(header.get("jwk"), algorithm, thumbprint)
        claims = _signed(proof, key, algorithm)
        _check_request(claims, credential)
        if nonce:
            self._check_nonce(claims.get("nonce"))
        return _Proof(id=_proof_id(claims, thumbprint), good_until=self._check_time(claims.get("iat"), leeway_s))

    def _key(self, member: JsonValue, algorithm: str, thumbprint: str) -> VerificationKey:
        """Return the key in the proof's header, which is the token's."""
        if not isinstance(member, dict) or not _PRIVATE.isdisjoint(member):
            raise ProofRejected("the proof's key is not a public one", fault=TokenFault.PROOF_KEY)
        if not hmac.compare_digest(_thumbprint(member), thumbprint):
            raise ProofRejected("the proof's key is not the token's", fault=TokenFault.PROOF_KEY)
        known = self._keys.use((thumbprint, algorithm))
        if known is not None:
            return known
        try:
            [key] = parse_key_set({"keys": [{name: member[name] for name in _MEMBERS[str(member["kty"])]}]})
        except KeysUnavailable:
            raise ProofRejected("the proof's key cannot be used", fault=TokenFault.PROOF_KEY) from None
        if algorithm not in key.algorithms:
            raise ProofRejected("the proof's key is for another algorithm", fault=TokenFault.PROOF_ALGORITHM)
        self._keys.put((thumbprint, algorithm), key)
        return key

    def _check_nonce(self, nonce: JsonValue) -> None:
        """RFC 9449 section 4.3, check 10."""
        if nonce is None:
            raise NonceRequired("the proof has no nonce", fault=TokenFault.PROOF_NONCE_MISSING)
        if self._nonces is None or not isinstance(nonce, str) or not self._nonces.good(nonce):
            raise NonceRequired("the proof has another nonce", fault=TokenFault.PROOF_NONCE)

    def _check_time(self, issued: JsonValue, leeway_s: float) -> float:
        """Return until when the proof could be presented again."""
        if isinstance(issued, bool) or not isinstance(issued, int | float):
            raise ProofRejected("iat of the proof is not a number", fault=TokenFault.PROOF_TIME)
        now = self._clock.time_ns() / 1e9
        if not now - MAX_AGE_S - leeway_s <= issued <= now + leeway_s:
            raise ProofRejected("the proof was not made now", fault=TokenFault.PROOF_TIME)
        return issued + MAX_AGE_S + leeway_s


def _signed(proof: str, key: VerificationKey, algorithm: str) -> JsonObject:
    try:
        claims: JsonObject = jwt.decode(proof, key.public_key, algorithms=[algorithm], options=_UNVERIFIED_CLAIMS)
    except jwt.PyJWTError:
        raise ProofRejected("the proof's signature does not match", fault=TokenFault.PROOF_SIGNATURE) from None
    return claims


def _check_request(claims: JsonObject, credential: Credential) -> None:
    """RFC 9449 section 4.3, checks 8, 9 and 12: for this method, this URI and this token."""
    if claims.get("htm") != credential.method:
        raise ProofRejected("the proof is for another method", fault=TokenFault.PROOF_METHOD)
    target = claims.get("htu")
    if not isinstance(target, str) or _normal(target) not in _served(credential.uri):
        raise ProofRejected("the proof is for another URI", fault=TokenFault.PROOF_URI)
    token_hash = claims.get("ath")
    expected = _b64(hashlib.sha256(credential.token.encode("ascii", "replace")).digest())
    if not isinstance(token_hash, str) or not hmac.compare_digest(token_hash.encode(), expected.encode()):
        raise ProofRejected("the proof is for another token", fault=TokenFault.PROOF_OTHER)


def _proof_id(claims: JsonObject, thumbprint: str) -> bytes:
    name = claims.get("jti")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_JTI_CHARACTERS:
        raise ProofRejected("jti of the proof is not a short text", fault=TokenFault.PROOF_MALFORMED)
    return hashlib.sha256(f"{thumbprint} {name}".encode("utf-8", "surrogatepass")).digest()


def _thumbprint(member: JsonObject) -> str:
    """Return the SHA-256 thumbprint of a JWK (RFC 7638 section 3); empty where it is not one."""
    kind = member.get("kty")
    names = _MEMBERS.get(kind, ()) if isinstance(kind, str) else ()
    values = [member.get(name) for name in names]
    if not values or not all(isinstance(value, str) and value.isascii() and '"' not in value for value in values):
        return ""
    text = ",".join(f'"{name}":"{value}"' for name, value in zip(names, values, strict=True))
    return _b64(hashlib.sha256(f"{{{text}}}".encode()).digest())


@lru_cache(maxsize=8)
def _served(uri: str) -> frozenset[tuple[str, str, int, str] | None]:
    """Return what ``htu`` may be for this endpoint: it is served with and without a slash at the end."""
    with_and_without = (uri.rstrip("/"), f"{uri.rstrip('/')}/")
    return frozenset(map(_normal, with_and_without)) - {None}


def _normal(uri: str) -> tuple[str, str, int, str] | None:
    """Return a URI without query and fragment as RFC 9449 section 4.3 compares it, or None where it is not one.

    Scheme and host in lower case, and the scheme's port where none is named (RFC 3986 sections 6.2.2.1 and 6.2.3).
    Nothing is decoded, and no dots are removed: an honest client has no reason to write this endpoint's path otherwise.
    """
    if len(uri) > MAX_PROOF_CHARACTERS or not uri.isascii() or not uri.isprintable() or " " in uri or "\\" in uri:
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return (parts.scheme, parts.hostname, _DEFAULT_PORTS[parts.scheme] if port is None else port, parts.path or "/")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
