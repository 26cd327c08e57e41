"""From the settings of issuers to what verifies their tokens."""

from contextlib import AsyncExitStack

import aiohttp

from sidecar import settings
from sidecar.identity.claims import ClaimMap
from sidecar.identity.resource import spellings
from sidecar.oauth.fetch import FetchLimits
from sidecar.oauth.jwt_tokens import TrustedIssuer
from sidecar.oauth.key_sets import FileKeySet, KeySet, RemoteKeySet, at
from sidecar.oauth.metadata import Discovery
from sidecar.oauth.verifier import JwtVerifier
from sidecar.ports import Clock
from sidecar.settings import Settings


async def verifier(config: Settings, clock: Clock, stack: AsyncExitStack) -> JwtVerifier:
    """Know every configured issuer; their keys are fetched when the first token asks for them."""
    # Not trust_env: aiohttp would also send what ~/.netrc holds for a host.
    session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    return JwtVerifier([trusted(entry, config, _keys(entry, clock, session)) for entry in config.issuers], clock)


def trusted(entry: settings.Issuer, config: Settings, keys: KeySet) -> TrustedIssuer:
    """Return what is demanded of the tokens of one issuer."""
    audiences = entry.audiences or (config.resource.text,)
    return TrustedIssuer(
        issuer=entry.issuer,
        audiences=frozenset().union(*map(spellings, audiences)),
        keys=keys,
        claims=ClaimMap(**entry.claims.model_dump()),
        algorithms=frozenset(entry.algorithms),
        token_types=frozenset(entry.token_types),
        leeway_s=entry.leeway_s,
    )


def _keys(entry: settings.Issuer, clock: Clock, session: aiohttp.ClientSession) -> KeySet:
    if entry.jwks_file is not None:
        return FileKeySet(entry.jwks_file, clock)
    limits = FetchLimits(proxy_for=settings.proxy_for)
    locate = at(entry.jwks_uri) if entry.jwks_uri is not None else Discovery(entry.issuer, session, limits)
    return RemoteKeySet(locate, session, clock, limits)
