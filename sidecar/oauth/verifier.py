"""Chooses who verifies a credential, and remembers for a moment what was verified; implements ``ports.TokenVerifier``.

What a valid JWT proves ends with ``exp``: a token that its issuer revokes earlier stays good until then, because it
is not asked again (use short lifetimes, or introspection where that is not enough). A key that its issuer
withdraws stops verifying once the key set was refreshed and the cache of verified tokens (``cache_s``) has run out.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidecar.bounded import BoundedMemory
from sidecar.enforcement import Budget
from sidecar.errors import ConfigurationError, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity import identify
from sidecar.model import AuthScheme, Credential, Identity, JsonObject, UnverifiedToken
from sidecar.oauth.confirmation import Binding, Confirmation, confirmation
from sidecar.oauth.dpop import ProofChecker
from sidecar.oauth.introspection import Introspection
from sidecar.oauth.jwt_tokens import TrustedIssuer, verified_claims
from sidecar.oauth.nonces import Nonces
from sidecar.oauth.proof_memory import ProofsInMemory
from sidecar.oauth.unverified import is_jws, peek
from sidecar.ports import Clock, ProofMemory

_log = logging.getLogger(__name__)

DEFAULT_LONGEST: Final = 32_768
"""Characters: what is left of it below the edge's limit for one header. 200 groups make a token of about 16,000."""

LARGE: Final = 4_096
"""Characters of a token from which it is remembered among fewer: its identity takes about as much as the token."""

TOKEN_DIGITS: Final = 32
"""Of the SHA-256 that names a token in evidence."""

LARGE_SHARE: Final = 8
"""For so many remembered tokens there can be one large one; together they stay below 32 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    identity: Identity
    bound: Confirmation
    issuer: TrustedIssuer
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
        longest: characters of a token that is looked at.
        proofs: knows the proofs of possession that were presented before; None remembers them in this process.
        opaque: asks the one issuer whose tokens may be opaque.
        nonces: those that proofs carry, where an issuer's have to.

    Raises:
        ConfigurationError: no issuer, or one twice.
    """

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        clock: Clock,
        *,
        cache_size: int = 4096,
        cache_s: float = 60.0,
        longest: int = DEFAULT_LONGEST,
        proofs: ProofMemory | None = None,
        opaque: Introspection | None = None,
        nonces: Nonces | None = None,
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if not issuers or len(self._issuers) != len(issuers):
            raise ConfigurationError("at least one issuer, and each only once")
        self._clock = clock
        self._cache_s = cache_s
        self._small: BoundedMemory[bytes, _Verified] = BoundedMemory(cache_size)
        self._large: BoundedMemory[bytes, _Verified] = BoundedMemory(max(1, cache_size // LARGE_SHARE))
        self._longest = longest
        self._told = Budget()
        self._opaque = opaque
        self._proofs = ProofChecker(clock, proofs or ProofsInMemory(clock), nonces)

    async def verify(self, credential: Credential) -> Identity:
        """Return who the credential's token speaks for and who acts.

        Raises:
            TokenRejected: the token proves nothing here.
            KeysUnavailable: the issuer's keys cannot be had.
        """
        try:
            verified = await self._verified(credential.token)
            await self._check_holder(credential, verified)
        except TokenRejected as refusal:
            self._tell(refusal)
            raise
        return verified.identity

    async def _verified(self, token: UnverifiedToken) -> _Verified:
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cache = self._large if len(token) > LARGE else self._small
        known = self._recall(cache, digest)
        if known is not None:
            return known
        if self._opaque is not None and len(token) <= self._longest and not is_jws(token):
            claims = await self._opaque.claims(token, digest)
            return self._remember(cache, digest, claims, self._opaque.issuer, min(self._cache_s, self._opaque.cache_s))
        unverified = peek(token, self._longest)
        issuer = self._issuers.get(unverified.issuer)
        if issuer is None:
            raise TokenRejected("unknown issuer", fault=TokenFault.ISSUER)
        claims = await verified_claims(token, unverified, issuer, self._clock)
        return self._remember(cache, digest, claims, issuer, self._cache_s)

    def _remember(
        self,
        cache: BoundedMemory[bytes, _Verified],
        digest: bytes,
        claims: JsonObject,
        issuer: TrustedIssuer,
        cache_s: float,
    ) -> _Verified:
        identity = replace(identify(claims, issuer.rules), token=digest.hex()[:TOKEN_DIGITS])
        verified = _Verified(
            identity=identity,
            bound=confirmation(claims),
            issuer=issuer,
            good_until=identity.expires_at + issuer.leeway_s,
            cached_until=self._clock.monotonic() + cache_s,
        )
        cache.put(digest, verified)
        return verified

    async def _check_holder(self, credential: Credential, verified: _Verified) -> None:
        """Refuse a bound token whose presenter does not prove what it is bound to.

        A token that is bound to a certificate is presented as a bearer token (RFC 8705 section 3; RFC 9449 section 7).
        """
        issuer, bound = verified.issuer, verified.bound
        if credential.scheme is AuthScheme.DPOP:
            if bound.key is None:
                raise TokenRejected("presented with DPoP, and bound to no key", fault=TokenFault.UNBOUND)
            await self._proofs.check(credential, bound.key, issuer.leeway_s, nonce=issuer.dpop_nonce)
            return
        if bound.key is not None:
            raise TokenRejected("bound to a key, and presented as a bearer token", fault=TokenFault.BOUND)
        if bound.certificate is None and Binding.REQUIRED in (issuer.dpop, issuer.mtls):
            raise TokenRejected("tokens of this issuer are bound", fault=TokenFault.UNBOUND)
        bound.check_certificate(credential.certificate)

    def _tell(self, refusal: TokenRejected) -> None:
        """Log why a token was refused, as often as a log can bear; the detail names claims, never their values."""
        others = self._told.admit(refusal.fault, self._clock.monotonic())
        if others is not None:
            more = f" ({others} more like it)" if others else ""
            _log.info("token refused: %s: %s%s", refusal.fault, refusal.detail, more)

    def _recall(self, cache: BoundedMemory[bytes, _Verified], digest: bytes) -> _Verified | None:
        known = cache.use(digest)
        if known is None:
            return None
        if known.good_until <= self._now() or known.cached_until <= self._clock.monotonic():
            cache.drop(digest)
            return None
        return known

    def _now(self) -> float:
        return self._clock.time_ns() / 1e9
