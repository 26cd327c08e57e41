"""From the settings of issuers to what verifies their tokens."""

from contextlib import AsyncExitStack

import aiohttp

from sidecar import settings
from sidecar.identity import ClaimMap, IdentityRules, PersonRule, spellings
from sidecar.issuer_settings import Issuer
from sidecar.oauth import (
    ClientAuthentication,
    Discovery,
    Dpop,
    FetchLimits,
    FileKeySet,
    Introspection,
    JwtVerifier,
    KeySet,
    RemoteKeySet,
    TrustedIssuer,
    key_sets,
)
from sidecar.ports import Clock
from sidecar.settings import Settings


def identity_rules(entry: Issuer, config: Settings) -> IdentityRules:
    """Return how the tokens of one issuer of these settings are read."""
    return IdentityRules(
        claims=ClaimMap(**entry.claims.model_dump()),
        person=PersonRule(**entry.person.model_dump()),
        services=frozenset(entry.services),
        several_issuers=len(config.issuers) > 1,
    )


async def verifier(config: Settings, clock: Clock, stack: AsyncExitStack) -> JwtVerifier:
    """Know every configured issuer; their keys are fetched when the first token asks for them."""
    # Not trust_env: aiohttp would also send what ~/.netrc holds for a host.
    session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    known = [trusted(entry, config, _keys(entry, clock, session)) for entry in config.issuers]
    opaque = [
        _introspection(entry, issuer, clock, session) for entry, issuer in zip(config.issuers, known, strict=True)
    ]
    asked = next((one for one in opaque if one is not None), None)
    return JwtVerifier(known, clock, longest=config.max_header_bytes, opaque=asked)


def _introspection(
    entry: Issuer, issuer: TrustedIssuer, clock: Clock, session: aiohttp.ClientSession
) -> Introspection | None:
    asked = entry.introspection
    if not asked.uri:
        return None
    client = ClientAuthentication(
        asked.method,
        asked.client_id,
        audience=entry.issuer,
        secret_file=asked.secret_file,
        certificate_file=asked.certificate_file,
        algorithm=asked.algorithm,
        clock=clock,
    )
    limits = FetchLimits(proxy_for=settings.proxy_for)
    return Introspection(issuer, asked.uri, client, session, clock, limits=limits, cache_s=asked.cache_s)


def trusted(entry: Issuer, config: Settings, keys: KeySet) -> TrustedIssuer:
    """Return what is demanded of the tokens of one issuer."""
    audiences = entry.audiences or (config.resource.text,)
    return TrustedIssuer(
        issuer=entry.issuer,
        audiences=frozenset().union(*map(spellings, audiences)),
        keys=keys,
        rules=identity_rules(entry, config),
        algorithms=frozenset(entry.algorithms),
        token_types=frozenset(kind.lower() for kind in entry.token_types),
        required=entry.required,
        clients=frozenset(entry.clients),
        leeway_s=entry.leeway_s,
        dpop=Dpop(entry.dpop),
    )


def _keys(entry: Issuer, clock: Clock, session: aiohttp.ClientSession) -> KeySet:
    if entry.jwks_file is not None:
        return FileKeySet(entry.jwks_file, clock)
    limits = FetchLimits(proxy_for=settings.proxy_for)
    locate = key_sets.at(entry.jwks_uri) if entry.jwks_uri is not None else Discovery(entry.issuer, session, limits)
    return RemoteKeySet(locate, session, clock, limits)
