"""Nonces that proofs of possession have to carry (RFC 9449 sections 8 and 9), so that none can be made in advance.

A nonce is the code of a stretch of time under a key that only the sidecars have: nothing is remembered per client, and
processes with the same key accept each other's. It counts in its own stretch and in the next one.

A new key is accepted at once, and given out two stretches later, while the one before is accepted for two more. So
sidecars that get the new key within one stretch (two minutes) of each other never refuse each other's nonces.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.ports import Clock

STRETCH_S: Final = 120
"""Seconds after which nonces change; one counts for that long at least and twice that long at most."""

LEAST_KEY_BYTES: Final = 32
"""As long as the code's own strength (RFC 2104 section 3)."""

_WAITS: Final = 2
"""Stretches after which a new key is given out, and for which the one before is accepted after that."""

_MOST_KEYS: Final = 4
"""Keys that are accepted at a time, however often the file changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NonceKey:
    key: bytes
    since: int
    """The stretch from which on it is given out."""


class Nonces:
    """Gives nonces, and knows them again.

    Args:
        clock: says which stretch of time it is.
        key: random bytes; the same for all processes that serve one resource.

    Raises:
        ConfigurationError: the key is too short.
    """

    def __init__(self, clock: Clock, key: bytes) -> None:
        require_long(key)
        self._clock = clock
        self._keys: tuple[_NonceKey, ...] = (_NonceKey(key=key, since=0),)
        """Oldest first."""
        self._of = lru_cache(maxsize=4 * _MOST_KEYS)(_code)

    def take_up(self, key: bytes) -> None:
        """Go over to another key.

        Raises:
            ConfigurationError: the key is too short; nothing changes.
        """
        require_long(key)
        now, present = self._stretch(), self._keys
        if key != present[-1].key:
            kept = _counting(present, now)[1 - _MOST_KEYS :]
            self._keys = (*kept, _NonceKey(key=key, since=now + _WAITS))

    def current(self) -> str:
        """Return the nonce of now."""
        now, keys = self._stretch(), self._keys
        given = next((one.key for one in reversed(keys) if one.since <= now), keys[0].key)
        return self._of(given, now)

    def good(self, nonce: str) -> bool:
        """Whether a nonce is this stretch's or the one's before it; the next one's too, since clocks differ."""
        now, keys = self._stretch(), self._keys
        given = nonce.encode("utf-8", "surrogatepass")
        return any(
            hmac.compare_digest(self._of(one.key, now + shift).encode(), given)
            for one in _counting(keys, now)
            for shift in (0, -1, 1)
        )

    def _stretch(self) -> int:
        return self._clock.time_ns() // (STRETCH_S * 1_000_000_000)


def _counting(keys: tuple[_NonceKey, ...], now: int) -> list[_NonceKey]:
    """Return the keys whose nonces count: the newest, and each whose successor is not given out for long."""
    return [*(one for one, later in pairwise(keys) if now < later.since + _WAITS), keys[-1]]


def require_long(key: bytes) -> None:
    """See that a key is as long as it needs to be.

    Raises:
        ConfigurationError: it is not.
    """
    if len(key) < LEAST_KEY_BYTES:
        raise ConfigurationError(f"the key of nonces needs {LEAST_KEY_BYTES} random bytes at least")


def _code(key: bytes, stretch: int) -> str:
    code = hmac.digest(key, b"mcp-sidecar nonce " + str(stretch).encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(code).rstrip(b"=").decode()
