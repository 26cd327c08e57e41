"""Nonces that proofs of possession have to carry (RFC 9449 sections 8 and 9), so that none can be made in advance.

A nonce is the code of a stretch of time under a key that only the sidecars have: nothing is remembered per client, and
processes with the same key accept each other's. It counts in its own stretch and in the next one.
"""

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.ports import Clock

STRETCH_S: Final = 120
"""Seconds after which nonces change; one counts for that long at least and twice that long at most."""

LEAST_KEY_BYTES: Final = 32
"""As long as the code's own strength (RFC 2104 section 3)."""


class Nonces:
    """Gives nonces, and knows them again.

    Args:
        clock: says which stretch of time it is.
        key: random bytes; the same for all processes that serve one resource.

    Raises:
        ConfigurationError: the key is too short.
    """

    def __init__(self, clock: Clock, key: bytes) -> None:
        if len(key) < LEAST_KEY_BYTES:
            raise ConfigurationError(f"the key of nonces needs {LEAST_KEY_BYTES} random bytes at least")
        self._clock = clock
        self._of = lru_cache(maxsize=4)(lambda stretch: _code(key, stretch))

    def current(self) -> str:
        """Return the nonce of now."""
        return self._of(self._stretch())

    def good(self, nonce: str) -> bool:
        """Whether a nonce is this stretch's or the one's before it; the next one's too, since clocks differ."""
        now = self._stretch()
        given = nonce.encode("utf-8", "surrogatepass")
        return any(hmac.compare_digest(self._of(now + shift).encode(), given) for shift in (0, -1, 1))

    def _stretch(self) -> int:
        return self._clock.time_ns() // (STRETCH_S * 1_000_000_000)


def _code(key: bytes, stretch: int) -> str:
    code = hmac.digest(key, b"mcp-sidecar nonce " + str(stretch).encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(code).rstrip(b"=").decode()
