"""The settings: environment first (``SIDECAR_*``, nested keys with ``__``), else the TOML file in ``SIDECAR_CONFIG``.

This is the only reader of the environment. Every secret can also be given as a file (``…_file``), and is never shown:
a file beats a value on a command line or in an environment that others can read. Unknown names are refused, so that a
misspelt restriction cannot silently be none.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from sidecar.errors import ConfigurationError

PREFIX = "SIDECAR_"
CONFIG_VARIABLE = "SIDECAR_CONFIG"
DEMO_CONNECTION_VARIABLE = "MDB_MCP_CONNECTION_STRING"

Port = Annotated[int, Field(ge=0, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]


class _Group(BaseModel):
    """A group of settings: immutable, and closed against unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Claims(_Group):
    """Which claims of an issuer's tokens mean what; a dot reaches into a nested claim."""

    subject: str = "sub"
    groups: str = "groups"
    roles: str = "roles"
    scope: str = "scope"
    agent: tuple[str, ...] = Field(default=("act.sub", "client_id", "azp"), min_length=1)
    extra: tuple[str, ...] = ()


class Issuer(_Group):
    """An authorization server whose tokens are accepted."""

    issuer: str = Field(min_length=1)
    jwks_file: Path | None = None
    jwks_uri: str | None = None
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"], ...] = (
        Field(default=("RS256", "ES256"), min_length=1)
    )
    audiences: tuple[str, ...] = ()
    """Empty: the resource URL."""
    token_types: tuple[str, ...] = Field(default=("at+jwt", "application/at+jwt"), min_length=1)
    """Accepted ``typ`` headers (RFC 9068 section 2.1)."""
    leeway_s: int = Field(default=30, ge=0, le=300)
    claims: Claims = Claims()

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        """With neither, the keys are found through the issuer's own metadata (RFC 8414)."""
        if self.jwks_file is not None and self.jwks_uri is not None:
            msg = "give at most one of jwks_file and jwks_uri"
            raise ValueError(msg)
        return self


class Opa(_Group):
    """Where decisions come from: an OPA by URL, or with an empty URL a local process that the sidecar manages."""

    url: str = ""
    binary: str = "opa"
    timeout_ms: Milliseconds = 500
    ca_file: Path | None = None
    token_file: Path | None = None
    memory_mb: int = Field(default=512, ge=256, le=65536)
    """Of the managed process; an idle one takes about 135."""
    memo_ms: int = Field(default=1000, ge=0, le=1000)
    """How long an answer stands for an equal question; 0 asks OPA for every call."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url and urlsplit(url).scheme not in {"http", "https", "unix"}:
            msg = "use http://, https:// or unix://"
            raise ValueError(msg)
        return url


class Server(_Group):
    """One MongoDB MCP server instance; policy names it, callers cannot."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    command: tuple[str, ...] = ()
    url: str = ""
    headers_file: Path | None = None
    connection_string: SecretStr | None = None
    connection_string_file: Path | None = None
    read_only: bool = True
    timeout_ms: Milliseconds = 60_000

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if bool(self.command) == bool(self.url):
            msg = "give exactly one of command and url"
            raise ValueError(msg)
        given = [source for source in (self.connection_string, self.connection_string_file) if source is not None]
        if self.command and len(given) != 1:
            msg = "a command needs exactly one of connection_string and connection_string_file"
            raise ValueError(msg)
        if self.url and given:
            msg = "a server behind a url has its own connection string"
            raise ValueError(msg)
        if self.command and self.headers_file is not None:
            msg = "headers_file goes with url"
            raise ValueError(msg)
        return self


class Audit(_Group):
    """Where the evidence goes, and what happens when it cannot."""

    store: str = "file:audit.jsonl"
    on_failure: Literal["deny", "allow"] = "deny"
    arguments: Literal["digest", "full"] = "digest"
    sync: bool = False
    """Wait for the disk at every record (group commit), not only for the operating system."""

    @field_validator("store")
    @classmethod
    def _known_store(cls, store: str) -> str:
        if not store.startswith("file:") or not store.removeprefix("file:"):
            msg = "use file:<path>"
            raise ValueError(msg)
        return store

    @property
    def path(self) -> Path:
        """The file of a ``file:`` store."""
        return Path(self.store.removeprefix("file:"))


class SessionLimits(_Group):
    """How many sessions there may be; beyond that initialize is refused (CVE-2026-59951, CVE-2026-67430)."""

    total: int = Field(default=10_000, ge=1)
    per_identity: int = Field(default=64, ge=1)
    idle_s: int = Field(default=3600, ge=1)


class Settings(BaseSettings):
    """Everything an operator sets. Names are those of docs/reference/settings.md."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    listen: str = "127.0.0.1:8080"
    admin_listen: str = "127.0.0.1:8081"
    resource_url: str
    environment: str = "production"
    policies: Path = Path("policies")
    max_request_bytes: int = Field(default=1_000_000, ge=1024, le=1_000_000)
    """Below the MongoDB MCP server's own limit of 1 MiB."""
    allowed_hosts: tuple[str, ...] = ()
    """Host headers that are served besides the resource URL's and the listening address's."""
    allowed_origins: tuple[str, ...] = ()
    """Browser origins that may call; none by default."""
    scopes: tuple[str, ...] = ("mongodb:read",)
    """The baseline scopes that metadata and challenges name."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    issuers: tuple[Issuer, ...] = Field(min_length=1)
    servers: tuple[Server, ...] = Field(min_length=1)
    opa: Opa = Opa()
    audit: Audit = Audit()
    sessions: SessionLimits = SessionLimits()

    @field_validator("listen", "admin_listen")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        split_address(address)
        return address

    @field_validator("resource_url")
    @classmethod
    def _canonical(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment or parts.query:
            msg = "an http(s) URL without query and fragment (RFC 9728 section 1.2)"
            raise ValueError(msg)
        if parts.netloc != parts.netloc.lower() or parts.username is not None:
            msg = "a lower-case host without user information (MCP 2025-11-25, canonical server URI)"
            raise ValueError(msg)
        return url

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        for what, names in (
            ("server names", [server.name for server in self.servers]),
            ("issuers", [issuer.issuer for issuer in self.issuers]),
        ):
            if len(set(names)) != len(names):
                msg = f"{what} must be unique"
                raise ValueError(msg)
        return self

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment, then the TOML file, then what the caller gives as defaults (the demo's own)."""
        del dotenv_settings, file_secret_settings
        file = os.environ.get(CONFIG_VARIABLE, "")
        toml = (TomlConfigSettingsSource(settings_cls, toml_file=file),) if file else ()
        return (env_settings, *toml, init_settings)


def load(**defaults: Any) -> Settings:
    """Read and check the whole configuration.

    Args:
        defaults: values below environment and file, for commands that bring their own.

    Raises:
        ConfigurationError: something is missing, unknown or malformed; the detail names the setting, never its value.
    """
    file = os.environ.get(CONFIG_VARIABLE, "")
    if file and not Path(file).is_file():
        msg = f"{CONFIG_VARIABLE} names {file}, which is not a file"
        raise ConfigurationError(msg)
    _refuse_unknown(os.environ)
    try:
        return Settings(**defaults)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise ConfigurationError(problems) from None
    except (ValueError, OSError) as error:
        msg = f"the settings cannot be read: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in environ:
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or name.startswith("SIDECAR_TEST_"):
            continue
        field = name.removeprefix(PREFIX).split("__", 1)[0].lower()
        if field not in Settings.model_fields:
            msg = f"{name} is not a setting"
            raise ConfigurationError(msg)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is not one.
    """
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
        msg = "use host:port"
        raise ValueError(msg)
    return parts.hostname, parts.port


def secret(value: SecretStr | None, file: Path | None) -> str:
    """Return a secret that was given as a value or as a file (surrounding white space of a file is not part of it).

    Raises:
        ConfigurationError: the file cannot be read, or there is nothing.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{file}: {type(error).__name__}"
            raise ConfigurationError(msg) from None
    else:
        text = value.get_secret_value() if value is not None else ""
    if not text:
        msg = "a secret is empty"
        raise ConfigurationError(msg)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """What OpenTelemetry's own variables say of one signal; everything else about it the SDK reads for itself."""

    endpoint: str
    """Empty where nothing is exported."""
    protocol: str


def exporter(signal: Literal["TRACES", "METRICS"]) -> Exporter:
    """Return where a signal is exported to (OpenTelemetry specification, OTLP exporter configuration)."""
    environ = os.environ
    endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{signal}_EXPORTER") == "none"
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return Exporter(endpoint="" if off else endpoint, protocol=protocol)


def search_path() -> str:
    """Where programs are looked for; a server's own command may need it to find its interpreter."""
    return os.environ.get("PATH", os.defpath)


def demo_connection_string() -> str:
    """The database that the demo is told to use (the MongoDB MCP server's own variable), or empty."""
    return os.environ.get(DEMO_CONNECTION_VARIABLE, "")
