"""From the settings of issuers to what verifies their tokens."""

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import settings
from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.identity import spellings
from sidecar.issuer_settings import Issuer
from sidecar.oauth import (
    LEAST_KEY_BYTES,
    Binding,
    ClientAuthentication,
    Discovery,
    FetchLimits,
    FileKeySet,
    Introspection,
    JwtVerifier,
    KeySet,
    Nonces,
    NotAKeySet,
    RemoteKeySet,
    TrustedIssuer,
    WatchedKeySet,
    key_sets,
)
from sidecar.ports import Clock, ProofMemory
from sidecar.settings import Settings
from sidecar.system import FollowedFiles
from sidecar.token_reading import identity_rules

FIRST_LOOK_S: Final = 5.0
"""How long the start waits for the keys of issuers."""

_LONGEST_KEY: Final = 4096
"""Bytes of the key of nonces."""


def scopes_to_ask_for(config: Settings) -> tuple[str, ...]:
    """Return the scopes that metadata name, as the first issuer is asked for them: the one that clients choose."""
    prefix = config.issuers[0].scope_prefix
    return tuple(prefix + scope for scope in config.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuers:
    """What verifies tokens, and the keys that it does so with, by issuer."""

    verifier: JwtVerifier
    keys: Mapping[str, WatchedKeySet]
    nonces: Nonces | None
    """Where proofs of an issuer's tokens have to carry one."""
    nonce_key: FollowedFiles[bytes] | None = None
    """What their key is read from, where sidecars share one."""

    async def look_first(self) -> None:
        """Have the keys that can be had within ``FIRST_LOOK_S``.

        Raises:
            ConfigurationError: an issuer answers with something that is no key set; one that is away may come back.
        """
        await asyncio.gather(*(_look_first(issuer, key_set) for issuer, key_set in self.keys.items()))

    async def look(self) -> None:
        """Read or fetch the keys that are due; what cannot be had, each key set says for itself."""
        await asyncio.gather(*(key_set.look() for key_set in self.keys.values()), return_exceptions=True)


async def known(
    config: Settings, clock: Clock, stack: AsyncExitStack, *, proofs: ProofMemory | None = None, agent: str = ""
) -> Issuers:
    """Know every configured issuer; keys are fetched when the first token asks for them, or by a look.

    Args:
        config: the settings.
        clock: tells when tokens and keys are old.
        stack: what is opened is closed with it.
        proofs: which proofs were presented before.
        agent: who acts where a token names no agent; empty: such a token is refused.
    """
    # Not trust_env: aiohttp would also send what ~/.netrc holds for a host.
    session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
    keys = {entry.issuer: _keys(entry, clock, session) for entry in config.issuers}
    trust = [trusted(entry, config, keys[entry.issuer], agent) for entry in config.issuers]
    opaque = [
        _introspection(entry, issuer, clock, session) for entry, issuer in zip(config.issuers, trust, strict=True)
    ]
    asked = next((one for one in opaque if one is not None), None)
    nonces, nonce_key = _nonces(config, clock)
    checks = JwtVerifier(trust, clock, longest=config.max_header_bytes, opaque=asked, proofs=proofs, nonces=nonces)
    # One whose tokens are all asked about needs no keys.
    asked_only = {
        entry.issuer
        for entry in config.issuers
        if entry.introspection.uri and entry.jwks_file is None and entry.jwks_uri is None
    }
    watched = {issuer: key_set for issuer, key_set in keys.items() if issuer not in asked_only}
    return Issuers(verifier=checks, keys=watched, nonces=nonces, nonce_key=nonce_key)


def _nonces(config: Settings, clock: Clock) -> tuple[Nonces | None, FollowedFiles[bytes] | None]:
    if not any(entry.dpop_nonce for entry in config.issuers):
        return None, None
    file = config.dpop_nonce_key_file
    if file is None:
        return Nonces(clock, secrets.token_bytes(LEAST_KEY_BYTES)), None
    followed = FollowedFiles("dpop_nonce_key_file", [file], lambda: _nonce_key(file))
    nonces = Nonces(clock, followed.value)
    followed.taken_up = nonces.take_up
    return nonces, followed


def _nonce_key(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            key = stream.read(_LONGEST_KEY + 1)
    except OSError as error:
        raise ConfigurationError(f"dpop_nonce_key_file: {file}: {error.strerror}") from None
    if len(key) > _LONGEST_KEY:
        raise ConfigurationError(f"dpop_nonce_key_file: {file} is larger than {_LONGEST_KEY} bytes, so it is no key")
    return key


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
    settings.proxy_for(asked.uri)
    limits = FetchLimits(proxy_for=settings.proxy_for)
    return Introspection(issuer, asked.uri, client, session, clock, limits=limits, cache_s=asked.cache_s)


async def _look_first(issuer: str, key_set: WatchedKeySet) -> None:
    try:
        async with asyncio.timeout(FIRST_LOOK_S):
            await key_set.look()
    except NotAKeySet as error:
        raise ConfigurationError(f"the keys of {issuer}: {error.detail}") from None
    except (KeysUnavailable, TimeoutError):
        return  # it is logged, ``/readyz`` says so, and it is tried again


def trusted(entry: Issuer, config: Settings, keys: KeySet, agent: str = "") -> TrustedIssuer:
    """Return what is demanded of the tokens of one issuer."""
    audiences = entry.audiences or (config.resource.text,)
    return TrustedIssuer(
        issuer=entry.issuer,
        audiences=frozenset().union(*map(spellings, audiences)),
        keys=keys,
        rules=identity_rules(entry, config, agent),
        algorithms=frozenset(entry.algorithms),
        token_types=frozenset(kind.lower() for kind in entry.token_types),
        required=entry.required,
        clients=frozenset(entry.clients),
        leeway_s=entry.leeway_s,
        dpop=Binding(entry.dpop),
        dpop_nonce=entry.dpop_nonce,
        mtls=Binding(entry.mtls),
    )


def _keys(entry: Issuer, clock: Clock, session: aiohttp.ClientSession) -> WatchedKeySet:
    if entry.jwks_file is not None:
        return FileKeySet(entry.jwks_file, clock)
    settings.proxy_for(entry.jwks_uri or entry.issuer)  # a proxy that cannot be spoken to is refused at start
    limits = FetchLimits(proxy_for=settings.proxy_for)
    locate = key_sets.at(entry.jwks_uri) if entry.jwks_uri is not None else Discovery(entry.issuer, session, limits)
    return RemoteKeySet(locate, session, clock, limits, issuer=entry.issuer)
