"""The settings of where decisions come from."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from sidecar.settings_group import Milliseconds, SettingsGroup


class Opa(SettingsGroup):
    """Where decisions come from: an OPA by URL, or with an empty URL a local process that the sidecar manages."""

    url: str = ""
    """`http(s)://host:port` or `unix:///path` of an external OPA; empty: the sidecar starts its own."""
    binary: str = "opa"
    """The OPA program of the managed one: a path, or a name on `PATH`."""
    timeout_ms: Milliseconds = 500
    """How long a decision may take; after that the call is refused. The time in which the sidecar itself was busy, and
    that in the queue, do not count."""
    at_once: int = Field(default=0, ge=0, le=1024)
    """Questions that are put to OPA at the same time; others wait, and users take turns. 0: 8 for a process that the
    sidecar starts, 64 for the OPA of `url`."""
    queue: int = Field(default=1024, ge=1, le=65_536)
    """Questions that wait; where there are as many, the newest of the user with most of them makes room."""
    queue_ms: int = Field(default=2000, ge=1, le=60_000)
    """How long a question may wait to be put; one that would wait longer is refused at once
    ([limits.md](../limits.md#beyond-saturation))."""
    ca_file: Path | None = None
    """Certificates (PEM) that an https `url` is checked against; empty: the system's."""
    token_file: Path | None = None
    """The bearer token that `url` asks for. A secret, given as a file only."""
    memory_mb: int = Field(default=512, ge=256, le=65536)
    """Memory limit (address space) of each managed process; an idle one takes about 135, of which 40 are resident."""
    standby: bool = True
    """Keep a hot standby: if a team's policy ends one managed process, the decisions of other teams go on."""
    memo_ms: int = Field(default=1000, ge=0, le=1000)
    """How long an answer of the managed process that depends on the time is reused; others are as long as the policies
    serve. 0 asks for every call."""
    reload_ms: int = Field(default=1000, ge=0, le=3_600_000)
    """How long a changed policy folder has to be at rest before it serves; an edit is in force within twice that. 0: it
    is read at the start only."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url and urlsplit(url).scheme not in {"http", "https", "unix"}:
            msg = "must begin with http://, https:// or unix://"
            raise ValueError(msg)
        return url
