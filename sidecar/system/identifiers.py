"""Identifiers that cannot be guessed."""

import secrets
import time
from typing import Final

_RANDOM_BYTES: Final = 10
_STOCK_BYTES: Final = 256 * _RANDOM_BYTES


class RandomIdentifiers:
    """Identifiers from the operating system's randomness, of which request ids take a stock at a time.

    A call has four of them, and each system call takes longer than the rest of an identifier.
    """

    def __init__(self) -> None:
        self._stock = b""
        self._used = 0

    def request_id(self) -> str:
        """Milliseconds since the epoch, then 80 random bits; hexadecimal, sortable by time (as a ULID is)."""
        began = self._used
        self._used += _RANDOM_BYTES
        if self._used > len(self._stock):
            self._stock, began, self._used = secrets.token_bytes(_STOCK_BYTES), 0, _RANDOM_BYTES
        return f"{time.time_ns() // 1_000_000:012x}{self._stock[began : self._used].hex()}"

    def session_id(self) -> str:
        """256 random bits, URL-safe."""
        return secrets.token_urlsafe(32)
