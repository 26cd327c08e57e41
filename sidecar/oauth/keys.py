"""Verification keys: JSON Web Keys in, keys that may verify exactly the algorithms they are for out.

A key set is the trust anchor of one issuer. The rules for a single key are one pure function (``parse_key_set``); the
three sources (a file, a fixed address, an issuer's own metadata) share one law: what was good stays until something
good replaces it, and what is missing is an error, never an empty success. Nothing in a token ever names a source
(``jku``, ``x5u``, ``jwk``: RFC 8725 section 3.10).
"""

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import SplitResult, urlsplit

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.model import JsonObject, JsonValue
from sidecar.oauth.unverified import strict_object
from sidecar.ports import Clock

_log = logging.getLogger(__name__)

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
MAX_KEY_SET_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64

_FILE_CHECK_INTERVAL_S: Final = 1.0


_PUBLIC_NAME: Final = re.compile(r"([a-z0-9_-]+\.)+[a-z][a-z0-9-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key and what it may be used for."""

    id: str | None
    algorithms: frozenset[str]
    public_key: PublicKey


class KeySet(Protocol):
    """The keys of one issuer."""

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys that may have signed a token with this header; none if no such key is published.

        A token without a key id matches only a set of exactly one key: trying all of them would make the choice of key
        the attacker's.

        Raises:
            KeysUnavailable: whether such a key exists is not known, because the set cannot be had.
        """
        ...


def parse_key_set(document: JsonObject) -> tuple[VerificationKey, ...]:
    """Read the usable keys of a JWK set (RFC 7517 section 5); unusable members are skipped, as that section asks.

    Raises:
        KeysUnavailable: the document is not a key set, or no key of it is usable.
    """
    members = document.get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise KeysUnavailable("not a JSON Web Key Set of acceptable size")
    keys = tuple(key for member in members if (key := _parse_key(member)) is not None)
    if not keys:
        raise KeysUnavailable("the key set has no usable key")
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
        return None  # PyJWT promises only its own family; whatever a malformed member provokes, it is not a key
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


def _matching(keys: tuple[VerificationKey, ...], key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
    if key_id is None:
        return tuple(key for key in keys if len(keys) == 1 and algorithm in key.algorithms)
    return tuple(key for key in keys if key.id == key_id and algorithm in key.algorithms)


class FileKeySet:
    """A key set in a file; a changed file is read again at most a second later.

    Args:
        path: a JWK set as JSON.
        clock: paces the checks.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._keys: tuple[VerificationKey, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._checked_at: float | None = None

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """See ``KeySet``."""
        self._refresh()
        return _matching(self._keys, key_id, algorithm)

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if self._checked_at is None or now - self._checked_at >= _FILE_CHECK_INTERVAL_S:
            self._checked_at = now
            self._reload_if_changed()
        if not self._keys:
            raise KeysUnavailable(f"no usable keys in {self._path.name}")

    def _reload_if_changed(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._keys = self._read()
                self._stamp = stamp
        except (OSError, ValueError, KeysUnavailable) as error:
            # a half-written or emptied file must not lock everybody out: the last good set stays in force
            _log.warning("key file %s is not usable: %s", self._path.name, error)

    def _read(self) -> tuple[VerificationKey, ...]:
        with self._path.open("rb") as file:
            data = file.read(MAX_KEY_SET_BYTES + 1)
        if len(data) > MAX_KEY_SET_BYTES:
            raise KeysUnavailable("the key file is too large")
        return parse_key_set(strict_object(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How much a key server may cost; seconds and bytes."""

    timeout_s: float = 5.0
    max_bytes: int = MAX_KEY_SET_BYTES
    max_age_s: float = 600.0
    """A set older than this is fetched anew before it is used."""
    max_stale_s: float = 86_400.0
    """How long a good set outlives a key server that is down; afterwards tokens of this issuer are refused."""
    cooldown_s: float = 10.0
    """Shortest time between two fetches: a flood of unknown key ids must not become a flood of requests to the issuer
    (the rule of Warehouse's ``oidc/`` room)."""
    retry_s: float = 2.0
    """The same after a failure, so that an issuer's restart is not felt for a whole cool-down."""


class RemoteKeySet:
    """A key set behind an address, cached; fetched again when it is old or a token names a key it does not have.

    Args:
        locate: gives the address of the JWK set; ``at`` for a fixed one, ``Discovery`` for the issuer's metadata.
        session: makes the requests; its owner closes it.
        clock: paces the fetches.
        limits: see ``FetchLimits``.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[str]],
        session: aiohttp.ClientSession,
        clock: Clock,
        limits: FetchLimits | None = None,
    ) -> None:
        self._locate = locate
        self._session = session
        self._clock = clock
        self._limits = limits or FetchLimits()
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._failed = False
        self._flight: asyncio.Task[None] | None = None

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """See ``KeySet``."""
        if self._age() >= self._limits.max_age_s:
            await self._refresh()
        found = _matching(self._current(), key_id, algorithm)
        if found or key_id is None or any(key.id == key_id for key in self._keys):
            return found
        await self._refresh()
        found = _matching(self._current(), key_id, algorithm)
        if not found and self._failed:
            raise KeysUnavailable("unknown key id, and the key set cannot be refreshed")
        return found

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _current(self) -> tuple[VerificationKey, ...]:
        if not self._keys or self._age() >= self._limits.max_stale_s:
            raise KeysUnavailable("the key set could not be fetched")
        return self._keys

    async def _refresh(self) -> None:
        """Fetch once for everybody who waits, unless the last attempt is too recent.

        The fetch is a task of its own: the caller who started it may be cancelled, the others still want the keys.
        """
        if self._flight is None:
            pause = self._limits.retry_s if self._failed else self._limits.cooldown_s
            if self._clock.monotonic() - self._attempted_at < pause:
                return
            self._attempted_at = self._clock.monotonic()
            self._flight = asyncio.create_task(self._fetch(), name="fetch-keys")
        await asyncio.shield(self._flight)

    async def _fetch(self) -> None:
        try:
            uri = await self._locate()
            self._keys = parse_key_set(await fetch_object(self._session, uri, self._limits))
            self._fetched_at = self._clock.monotonic()
            self._failed = False
        except KeysUnavailable as error:
            self._failed = True
            _log.warning("keys could not be fetched: %s", error)
        finally:
            self._flight = None


def at(uri: str) -> Callable[[], Awaitable[str]]:
    """Return a fixed address for ``RemoteKeySet``.

    Raises:
        ConfigurationError: the address is not one that keys may come from.
    """
    try:
        check_address(uri)
    except ValueError as error:
        raise ConfigurationError(f"jwks_uri: {error}") from error

    async def locate() -> str:
        return uri

    return locate


class Discovery:
    """Finds ``jwks_uri`` in the issuer's own metadata (RFC 8414 section 3.1, else OpenID Connect Discovery section 4).

    Args:
        issuer: the issuer exactly as tokens name it.
        session: makes the requests; its owner closes it.
        limits: see ``FetchLimits``.

    Raises:
        ConfigurationError: the issuer is not an address that keys may come from.
    """

    def __init__(self, issuer: str, session: aiohttp.ClientSession, limits: FetchLimits | None = None) -> None:
        try:
            parts = check_address(issuer)
        except ValueError as error:
            raise ConfigurationError(f"issuer: {error}") from error
        if parts.query:
            raise ConfigurationError("issuer: an issuer has no query (RFC 8414 section 2)")
        self._issuer = issuer
        self._host = parts.hostname
        self._loopback = is_loopback(parts)
        self._session = session
        self._limits = limits or FetchLimits()
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        self._addresses = (
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}{path}/.well-known/openid-configuration",
        )

    async def __call__(self) -> str:
        """Return the address of the JWK set.

        Raises:
            KeysUnavailable: no metadata, or metadata that is not this issuer's.
        """
        problem = KeysUnavailable("no metadata")
        for address in self._addresses:
            try:
                return self._jwks_uri(await fetch_object(self._session, address, self._limits))
            except KeysUnavailable as error:
                problem = error
        raise problem

    def _jwks_uri(self, metadata: JsonObject) -> str:
        """RFC 8414 section 3.3: the issuer in the metadata must be identical to the one asked for."""
        uri = metadata.get("jwks_uri")
        if metadata.get("issuer") != self._issuer or not isinstance(uri, str):
            raise KeysUnavailable("the metadata is not this issuer's")
        try:
            parts = check_address(uri)
        except ValueError as error:
            raise KeysUnavailable(f"jwks_uri: {error}") from error
        if parts.hostname != self._host and not self._loopback and not _is_public_name(parts):
            raise KeysUnavailable("jwks_uri: a public issuer's keys are not at an internal address")
        return uri


async def fetch_object(session: aiohttp.ClientSession, uri: str, limits: FetchLimits) -> JsonObject:
    """GET one strict JSON object: no redirect, no cookie, a time and a size limit.

    Raises:
        KeysUnavailable: anything else than status 200 with such a body in time.
    """
    try:
        async with session.get(
            uri,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=limits.timeout_s),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as response:
            if response.status != 200:  # noqa: PLR2004 - the one status that means "here it is"
                raise KeysUnavailable(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise KeysUnavailable("answer too large")
            return strict_object(bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise KeysUnavailable(f"{type(error).__name__}") from error
    except ValueError as error:
        raise KeysUnavailable("answer is not a strict JSON object") from error


def check_address(uri: str) -> SplitResult:
    """Return the parts of an address that trust anchors may come from: HTTPS, or plain HTTP on this machine.

    Raises:
        ValueError: it is not one.
    """
    parts = urlsplit(uri)
    if not parts.hostname or parts.username is not None or parts.fragment or not uri.isascii():
        raise ValueError("an absolute address without user and fragment is needed")
    _ = parts.port  # a port that is none raises ValueError
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts)):
        raise ValueError("HTTPS is required for anything but loopback")
    return parts


def is_loopback(parts: SplitResult) -> bool:
    """Whether the host is this machine by its literal form; names are not resolved."""
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_public_name(parts: SplitResult) -> bool:
    """Whether the host is a name of the public DNS by its form.

    No address literals in any spelling (``2130706433``, ``0x7f.1``, NAT64): GO-2026-5996, GO-2026-6002.
    """
    host = (parts.hostname or "").rstrip(".")
    return _PUBLIC_NAME.fullmatch(host) is not None and not host.endswith((".localhost", ".local", ".internal"))
