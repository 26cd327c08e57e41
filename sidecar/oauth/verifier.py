"""Chooses who verifies a credential, and remembers for a moment what was verified; implements ``ports.TokenVerifier``.

What a valid JWT proves ends with ``exp``: a token that its issuer revokes earlier stays good until then, because nobody
is asked (use short lifetimes, or introspection where that is not enough). A key that its issuer withdraws stops
verifying once the key set was refreshed and the cache of verified tokens (``cache_s``) has run out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.bounded import BoundedMemory
from sidecar.errors import ConfigurationError, TokenRejected
from sidecar.identity.claims import identify
from sidecar.model import Credential, Identity
from sidecar.oauth.jwt_tokens import TrustedIssuer, verified_claims
from sidecar.oauth.unverified import peek
from sidecar.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    identity: Identity
    good_until: float
    """Seconds since the epoch: ``exp`` and the issuer's leeway."""
    cached_until: float
    """On the monotonic clock."""


class JwtVerifier:
    """Proves JWT access tokens of the configured issuers; implements ``ports.TokenVerifier``.

    Args:
        issuers: each issuer once.
        clock: the only source of time.
        cache_size: verified tokens that are remembered (by SHA-256, never the token); least recently used go first.
        cache_s: how long one is remembered at most.

    Raises:
        ConfigurationError: no issuer, or one twice.
    """

    def __init__(
        self, issuers: Sequence[TrustedIssuer], clock: Clock, *, cache_size: int = 4096, cache_s: float = 60.0
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if not issuers or len(self._issuers) != len(issuers):
            raise ConfigurationError("at least one issuer, and each only once")
        self._clock = clock
        self._cache_s = cache_s
        self._cache: BoundedMemory[bytes, _Verified] = BoundedMemory(cache_size)

    async def verify(self, credential: Credential) -> Identity:
        """Return who the credential's token speaks for and who acts.

        Raises:
            TokenRejected: the token proves nothing here.
            KeysUnavailable: the issuer's keys cannot be had.
        """
        digest = hashlib.sha256(credential.token.encode("utf-8", "surrogatepass")).digest()
        known = self._recall(digest)
        if known is not None:
            return known
        unverified = peek(credential.token)
        issuer = self._issuers.get(unverified.issuer)
        if issuer is None:
            raise TokenRejected("unknown issuer")
        claims = await verified_claims(credential.token, unverified, issuer, self._clock)
        identity = identify(claims, issuer.claims)
        self._remember(digest, identity, issuer)
        return identity

    def _recall(self, digest: bytes) -> Identity | None:
        known = self._cache.use(digest)
        if known is None:
            return None
        if known.good_until <= self._now() or known.cached_until <= self._clock.monotonic():
            self._cache.drop(digest)
            return None
        return known.identity

    def _remember(self, digest: bytes, identity: Identity, issuer: TrustedIssuer) -> None:
        verified = _Verified(
            identity=identity,
            good_until=identity.expires_at + issuer.leeway_s,
            cached_until=self._clock.monotonic() + self._cache_s,
        )
        self._cache.put(digest, verified)

    def _now(self) -> float:
        return self._clock.time_ns() / 1e9
