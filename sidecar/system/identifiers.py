"""Identifiers that cannot be guessed."""

import secrets
import time


class RandomIdentifiers:
    """Identifiers from the operating system's randomness."""

    def request_id(self) -> str:
        """Milliseconds since the epoch, then 80 random bits; hexadecimal, sortable by time (as a ULID is)."""
        return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"

    def session_id(self) -> str:
        """256 random bits, URL-safe."""
        return secrets.token_urlsafe(32)
