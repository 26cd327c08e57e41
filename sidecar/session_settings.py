"""Settings of sessions."""

from pydantic import Field

from sidecar.settings_group import SettingsGroup


class SessionLimits(SettingsGroup):
    """How many sessions there may be; at a bound the least recently used one ends (CVE-2026-59951, CVE-2026-67430)."""

    total: int = Field(default=10_000, ge=1)
    """Open sessions of the process."""
    per_identity: int = Field(default=64, ge=1)
    """Open sessions of one user through one agent."""
    idle_s: int = Field(default=3600, ge=1)
    """Seconds after which an unused session ends. With `session_keys_file` it only gives its place away, because other
    sidecars may have it in use."""
    lifetime_s: int = Field(default=86_400, ge=60, le=2_592_000)
    """With `session_keys_file`: seconds after which a session ends, used or not."""
    ended: str = ""
    """With `session_keys_file`: `mongodb:` and a collection, through which sidecars tell each other which sessions
    ended before their time. Without it, a session that was ended at one is good at others until `lifetime_s` is
    over."""
    streams_per_identity: int = Field(default=64, ge=1)
    """Streams for news (HTTP GET) that one user through one agent may read at a time, one for each session."""
    listeners_per_identity: int = Field(default=16, ge=1, le=1024)
    """Requests `subscriptions/listen` (without a session) that one user through one agent may have open; at the bound
    the oldest ends."""
    watches_per_subscriber: int = Field(default=64, ge=1, le=1024)
    """Resources that one session, or one `subscriptions/listen`, may watch."""
    watches: int = Field(default=4096, ge=16, le=65_536)
    """Resources that are watched in all; at the bound the oldest of the user who has most ends."""
    batch_members: int = Field(default=64, ge=1, le=256)
    """Members of one batch (MCP 2025-03-26)."""
    calls_per_identity: int = Field(default=32, ge=1)
    """Tool calls that one user through one agent may have under way."""
    large_bytes_per_identity: int = Field(default=32_000_000, ge=1_000_000)
    """Bytes of messages over 64 kB that one user through one agent may have under way
    ([limits.md](../limits.md#large-messages))."""
    large_bytes: int = Field(default=128_000_000, ge=1_000_000)
    """The same of everybody together. What is left of it is also the most that one user through one agent may have."""
    stall_ms: int = Field(default=10_000, ge=1, le=3_600_000)
    """How long a call keeps its client waiting before its answer is a stream ([streams.md](../streams.md))."""
