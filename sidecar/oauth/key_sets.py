"""Key sets of issuers: a file, a fixed address, or what the issuer's own metadata names.

One law for all: what was good stays until something good replaces it, and what is missing is an error, never an empty
success. Nothing in a token ever names a source (``jku``, ``x5u``, ``jwk``: RFC 8725 section 3.10).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.oauth.fetch import MAX_DOCUMENT_BYTES, FetchLimits, check_address, fetch_object
from sidecar.oauth.jwk import NotAKeySet, VerificationKey, holds_private_part, matching, parse_key_set
from sidecar.oauth.unverified import strict_object
from sidecar.ports import Clock
from sidecar.system import stamps

_log = logging.getLogger(__name__)

_FILE_CHECK_INTERVAL_S: Final = 1.0

MAX_WAITING: Final = 64
"""Tokens with unknown keys that wait for the next fetch; they are invented for nothing."""


class KeySet(Protocol):
    """The keys of one issuer."""

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys that may have signed a token with this header; none if no such key is published.

        See ``jwk.matching``.

        Raises:
            KeysUnavailable: whether such a key exists is not known, because the set cannot be had.
        """
        ...


class WatchedKeySet(KeySet, Protocol):
    """A key set whose condition can be asked for."""

    @property
    def usable(self) -> bool:
        """Whether there are keys that tokens can be verified with."""
        ...

    @property
    def fault(self) -> str:
        """Why the newest keys could not be had; empty where they could."""
        ...

    async def look(self) -> None:
        """Read or fetch the keys if that is due.

        Raises:
            KeysUnavailable: there are none that may be used.
        """
        ...


def read_key_file(path: Path, *, public: bool = False) -> tuple[VerificationKey, ...]:
    """Read the keys of a file. Blocking file access.

    Args:
        path: a JWK set as JSON.
        public: refuse a file that also holds what signs.

    Raises:
        KeysUnavailable: it is not a key set that can be used.
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    with path.open("rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise NotAKeySet("the key file is too large")
    document = strict_object(data)
    if public and holds_private_part(document):
        raise NotAKeySet("it holds a private key or a shared secret; leave only public keys in it")
    return parse_key_set(document)


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
        self._seen: tuple[object, ...] = ()
        self._checked_at: float | None = None
        self._fault = ""

    @property
    def usable(self) -> bool:
        """See ``WatchedKeySet``."""
        return bool(self._keys)

    @property
    def fault(self) -> str:
        """See ``WatchedKeySet``."""
        return self._fault

    async def look(self) -> None:
        """See ``WatchedKeySet``."""
        self._refresh()

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """See ``KeySet``."""
        self._refresh()
        known = key_id is None or any(key.id == key_id for key in self._keys)
        if not known and not self._fault:
            self._reload_if_changed()  # a rotation: the key can be newer than the last look
        return matching(self._keys, key_id, algorithm)

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if self._checked_at is None or now - self._checked_at >= _FILE_CHECK_INTERVAL_S:
            self._checked_at = now
            self._reload_if_changed()
        if not self._keys:
            raise KeysUnavailable(f"no usable keys in {self._path.name}")

    def _reload_if_changed(self) -> None:
        try:
            seen = stamps([self._path])
            if seen != self._seen or self._fault:
                self._keys = read_key_file(self._path)
                self._seen = seen
        except (OSError, ValueError, KeysUnavailable) as error:
            # a half-written or emptied file must not lock everybody out: the last good set stays in force
            if not self._fault:
                _log.warning("key file %s is not usable: %s", self._path.name, error)
            self._fault = str(error)
        else:
            if self._fault:
                _log.warning("key file %s is usable again", self._path.name)
            self._fault = ""


class RemoteKeySet:
    """A key set behind an address, cached; fetched again when it is old or a token names a key it does not have.

    Args:
        locate: gives the address of the JWK set; ``at`` for a fixed one, ``Discovery`` for the issuer's metadata.
        session: makes the requests; its owner closes it.
        clock: paces the fetches.
        limits: see ``FetchLimits``.
        issuer: whose keys they are, for the log.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[str]],
        session: aiohttp.ClientSession,
        clock: Clock,
        limits: FetchLimits | None = None,
        *,
        issuer: str = "",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._sleep = sleep
        self._waiting = 0
        self._locate = locate
        self._session = session
        self._clock = clock
        self._limits = limits or FetchLimits()
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._failure: KeysUnavailable | None = None
        self._flight: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """See ``WatchedKeySet``."""
        return bool(self._keys) and self._age() < self._limits.max_stale_s

    @property
    def fault(self) -> str:
        """See ``WatchedKeySet``."""
        return self._failure.detail if self._failure is not None else ""

    async def look(self) -> None:
        """See ``WatchedKeySet``."""
        if self._failure is not None or self._age() >= self._limits.max_age_s:
            await self._refresh()
        self._current()

    async def candidates(self, key_id: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """See ``KeySet``."""
        asked = self._clock.monotonic()
        if self._age() >= self._limits.max_age_s:
            # Where the last fetch failed, calls do not wait for the next one to fail too while there are good keys.
            self._begin() if self._failure is not None and self.usable else await self._refresh()
        found = matching(self._current(), key_id, algorithm)
        if found or key_id is None or any(key.id == key_id for key in self._keys):
            return found
        await self._refresh()
        found = matching(self._current(), key_id, algorithm)
        if not found and self._attempted_at < asked:
            await self._refresh_after(asked)
            found = matching(self._current(), key_id, algorithm)
        if not found and self._failure is not None:
            raise KeysUnavailable("unknown key id, and the key set cannot be refreshed")
        return found

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _current(self) -> tuple[VerificationKey, ...]:
        if not self.usable:
            failure = self._failure
            if isinstance(failure, NotAKeySet):
                raise NotAKeySet(failure.detail)
            raise KeysUnavailable(f"the key set could not be fetched: {failure.detail if failure else 'not tried yet'}")
        return self._keys

    async def _refresh(self) -> None:
        """Fetch once for everybody who waits, unless the last attempt is too recent.

        The fetch is a task of its own: the caller who started it may be cancelled, the others still want the keys.
        """
        self._begin()
        if self._flight is not None:
            await asyncio.shield(self._flight)

    def _begin(self) -> None:
        if self._flight is None and self._pause() <= 0:
            self._attempted_at = self._clock.monotonic()
            self._flight = asyncio.create_task(self._fetch(), name="fetch-keys")

    def _pause(self) -> float:
        """Seconds until the next fetch may begin."""
        pause = self._limits.retry_s if self._failure is not None else self._limits.cooldown_s
        return self._attempted_at + pause - self._clock.monotonic()

    async def _refresh_after(self, asked: float) -> None:
        """Wait for a fetch that begins after ``asked``: an issuer that rotates signs with keys newer than the last one.

        A timer may wake a moment too early (its resolution is a millisecond), so the condition is looked at again.

        Raises:
            KeysUnavailable: too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise KeysUnavailable("too many tokens wait for keys that are not known")
        self._waiting += 1
        try:
            while self._attempted_at < asked:
                await self._sleep(max(0.0, self._pause()))
                await self._refresh()
        finally:
            self._waiting -= 1

    async def _fetch(self) -> None:
        try:
            uri = await self._locate()
            self._keys = parse_key_set(await fetch_object(self._session, uri, self._limits))
        except KeysUnavailable as error:
            if self._failure is None:
                _log.warning("the keys of %s cannot be fetched: %s", self._issuer or "an issuer", error)
            self._failure = error
        else:
            self._fetched_at = self._clock.monotonic()
            if self._failure is not None:
                _log.warning("the keys of %s can be fetched again", self._issuer or "an issuer")
            self._failure = None
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
