"""Settings of the evidence."""

from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from sidecar.addresses import query_address
from sidecar.settings_group import SettingsGroup

_PLACES: Final = ("file:", "mongodb:")
_SWITCH: Final = TypeAdapter(bool)


class Audit(SettingsGroup):
    """Where the evidence goes, and what happens if it cannot be stored."""

    store: str = "file:audit.jsonl"
    """`file:` and a path; or `mongodb:` and a collection of the database that `mongodb` names, made by
    `mcp-sidecar audit init`."""
    instance: str = Field(default="", pattern=r"^([A-Za-z0-9_.-]{1,128})?$")
    """The name of this sidecar's chain in a `mongodb:` store: each process needs its own, and keeps it over restarts.
    Empty: the name of the machine."""
    on_failure: Literal["deny", "spool"] = "deny"
    """What happens to a call whose record cannot be stored: `deny` refuses it; `spool`, with a `mongodb:` store, keeps
    the record on this machine's disk before the call goes on, and ships it when the store is back. A spool that is full
    or cannot be written refuses too."""
    spool: Path = Path("audit-spool.jsonl")
    """The file of records that wait for a `mongodb:` store, with `on_failure` `spool`."""
    spool_mb: int = Field(default=256, ge=1, le=100_000)
    """How large the spool may be."""
    keep_days: int = Field(default=0, ge=0, le=36_500)
    """How many days records stay in a `mongodb:` store; 0: for ever. Needs `signing_key_file`: what is left is proven
    from a signed checkpoint on."""
    arguments: Literal["digest", "full"] = "digest"
    """Whether records carry the SHA-256 of a call's arguments, or the arguments too."""
    question: bool = False
    """Whether records carry the question that OPA was asked, which `mcp-sidecar replay` needs. It holds the
    caller's groups, roles, scopes, and the claims that `issuers.claims.extra` names."""
    comments: bool = False
    """Whether filters and pipelines that are sent carry a `$comment` with the trace id, so that MongoDB's profiler and
    slow-query log lead back to the trace and the records of a call."""
    sync: Literal["always", "group", "os"] = "os"
    """When a record counts as stored: `os` as soon as the operating system has it (it outlives the process, not a loss
    of power), `group` when the disk has it (`fsync`, shared by calls that wait together), `always` when the disk has
    it and each record has its own `fsync`. `true` is read as `group`, `false` as `os`."""
    rotate_mb: int = Field(default=1024, ge=0, le=1_000_000)
    """The file is rotated when it has this size, and the chain goes on in the next; 0: never. Nothing is deleted."""
    rotate_hours: int = Field(default=0, ge=0, le=87_600)
    """The file is also rotated when its first record is this old; 0: not for its age."""
    checkpoint_s: int = Field(default=60, ge=1, le=86_400)
    """How often the newest record's number and hash are published (log, and a file beside the audit file) while records
    come; also at each rotation and at the end. A cut at the end shows against them."""
    signing_key_file: Path | None = None
    """An Ed25519 private key (PEM) that signs what is published; empty: it is not signed. A secret. Read again when it
    changes."""

    jaeger_url: str = ""
    """Where Jaeger's query API is, such as `http://127.0.0.1:16686`: `mcp-sidecar trace` asks it for the spans of a
    call. The sidecar itself never asks it."""

    @field_validator("jaeger_url")
    @classmethod
    def _query_address(cls, url: str) -> str:
        return query_address(url) if url else url

    @field_validator("on_failure", mode="before")
    @classmethod
    def _never_without_evidence(cls, what: object) -> object:
        if what == "allow":
            msg = '"allow" forwarded calls without evidence and is gone; use "deny", or "spool" with a mongodb: store'
            raise ValueError(msg)
        return what

    @field_validator("sync", mode="before")
    @classmethod
    def _switch(cls, sync: object) -> object:
        try:
            return "group" if _SWITCH.validate_python(sync) else "os"
        except ValidationError:
            return sync

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str) -> str:
        if store.startswith(("mongodb://", "mongodb+srv://")):
            msg = "use mongodb:<collection>; the connection string is a secret: mongodb.uri_file"
            raise ValueError(msg)
        if not store.startswith(_PLACES) or store in _PLACES:
            msg = "use file:<path> or mongodb:<collection>"
            raise ValueError(msg)
        return store

    @model_validator(mode="after")
    def _only_with_mongodb(self) -> Self:
        if self.path is not None and self.on_failure == "spool":
            msg = 'on_failure "spool" needs a mongodb: store; a file is on this machine already'
            raise ValueError(msg)
        if self.path is not None and self.keep_days:
            msg = "keep_days needs a mongodb: store; of a file, nothing is deleted"
            raise ValueError(msg)
        if self.keep_days and self.signing_key_file is None:
            msg = "keep_days needs signing_key_file: what is left is proven from a signed checkpoint on"
            raise ValueError(msg)
        return self

    @property
    def path(self) -> Path | None:
        """The file of a ``file:`` store; None of another."""
        return Path(self.store.removeprefix("file:")) if self.store.startswith("file:") else None

    @property
    def chain_name(self) -> str:
        """The name of this sidecar's chain in a ``mongodb:`` store."""
        return self.instance or gethostname()

    @property
    def spool_path(self) -> Path | None:
        """The file of records that wait; None where none do."""
        return self.spool if self.on_failure == "spool" else None

    @property
    def keep(self) -> timedelta | None:
        """How long records are kept; None for ever."""
        return timedelta(days=self.keep_days) if self.keep_days else None
