"""The settings: environment first (``SIDECAR_*``, nested keys with ``__``), else the TOML file in ``SIDECAR_CONFIG``.

With ``os_environment`` the only reader of the environment. Every secret can also be given as a file (``…_file``),
which is safer than an environment that other processes can read. No secret is ever shown. Unknown names are refused,
so that a misspelt restriction is not silently ignored.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from sidecar.addresses import is_loopback
from sidecar.approval_settings import WaitingCalls
from sidecar.audit_settings import Audit
from sidecar.control_settings import ControlTls
from sidecar.edge import allowed_host, allowed_origin
from sidecar.errors import ConfigurationError
from sidecar.identity import ResourceUri
from sidecar.issuer_settings import MAX_ISSUERS, Issuer, Scope, check_together
from sidecar.listener_settings import ClientConnections, Proxies, Tls, read_address, split_address
from sidecar.opa_settings import Opa
from sidecar.os_environment import CONFIG_VARIABLE, PREFIX
from sidecar.server_settings import Server, Views
from sidecar.session_settings import SessionLimits
from sidecar.setting_names import in_words, names_at, suggestion, variables
from sidecar.settings_group import SettingsGroup, unusable_texts
from sidecar.stdio_settings import Stdio
from sidecar.store_settings import SharedStore, check_places

DEMO_CONNECTION_VARIABLE = "MDB_MCP_CONNECTION_STRING"


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
    """Where MCP is served: `host:port`, or `unix:/path` for a proxy on this machine."""
    admin_listen: str = "127.0.0.1:8081"
    """Where `/livez`, `/readyz` and `/metrics` are: `host:port`. They need no token."""
    control_listen: str = ""
    """Where `mcp-sidecar suspend` and `resume` reach this process: `unix:/path`, or `host:port` with `control_tls`;
    empty: nowhere."""
    suspensions: str = ""
    """Where suspensions are kept: `file:` and a path, for one sidecar; or `mongodb:` and a collection, which several
    share through `mongodb`. Needed with `control_listen`."""
    single_use: str = ""
    """Where it is kept which proofs of possession (DPoP) and which confirmations without a session were presented:
    empty, in the memory of each process; or `mongodb:` and a collection, so that each counts once for all sidecars that
    share `mongodb`."""
    tls_ended_by: Literal["", "proxy"] = ""
    """Who ends TLS before `listen` and `admin_listen`. `proxy`: something in front does, and nothing else reaches them.
    Without it, both must be loopback addresses; `listen` may be another where it has `tls` of its own."""
    resource_url: str
    """The URL that clients use: the audience of tokens, and the resource of the metadata (RFC 9728)."""
    environment: str = "production"
    """What policies see as `input.context.environment`."""
    policies: Path = Path("policies")
    """The policy folder of the managed OPA."""
    policies_candidate: Path | None = None
    """A policy folder that is also asked; differences are counted and audited, and change no decision."""
    max_request_bytes: int = Field(default=1_000_000, ge=1024, le=1_000_000)
    """The largest body of a request; below the MongoDB MCP server's own limit of 1 MiB."""
    max_nesting: int = Field(default=112, ge=16, le=112)
    """How deep arrays and objects of a message may nest, its envelope included; MongoDB's own limit is 100 levels."""
    max_header_bytes: int = Field(default=32_768, ge=8192, le=65_536)
    """The largest header of a request, and so the longest token: one with 200 groups takes about 16,000."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(allowed_host)], ...] = ()
    """Host headers that are served besides the resource URL's and the listening address's."""
    allowed_origins: tuple[Annotated[str, AfterValidator(allowed_origin)], ...] = ()
    """Origins of browser pages that may call (CORS), such as `https://app.example`, besides the resource URL's own."""
    admin_allowed_hosts: tuple[Annotated[str, AfterValidator(allowed_host)], ...] = ()
    """Host headers that the admin listener serves besides its address; needed where probes dial a name."""
    insecure_connections: tuple[str, ...] = ()
    """Connections to other machines that may go without verified TLS, because nobody else can reach that network:
    `opa.url`, `servers.NAME.url`, `servers.NAME.connection_string`, `otlp.traces`, and others that the start names."""
    scopes: tuple[Scope, ...] = ("mongodb:read",)
    """The baseline scopes that metadata and challenges name."""
    step_up: Literal["http", "result"] = "http"
    """How a call is refused that only lacks scopes: `http` answers with status 403 and a challenge, and clients log in
    again; `result` with a tool result, for clients with a fixed token: one of Python 1.x ends its session at a 403."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe messages that go to standard error."""
    dpop_nonce_key_file: Path | None = None
    """32 random bytes or more, the same for all sidecars of one `resource_url`, for `dpop_nonce` of issuers; without it
    each process has a key of its own, and refuses the others' nonces. Read again when it changes."""
    issuers: tuple[Issuer, ...] = Field(min_length=1, max_length=MAX_ISSUERS)
    """The authorization servers whose tokens are accepted."""
    servers: tuple[Server, ...] = Field(min_length=1)
    """The MongoDB MCP servers."""
    opa: Opa = Opa()
    """Where decisions come from."""
    approvals: WaitingCalls = WaitingCalls()
    """Calls that wait for the approval of a second person."""
    audit: Audit = Audit()
    """Where the evidence goes."""
    tls: Tls = Tls()
    """TLS of `listen`."""
    proxies: Proxies = Proxies()
    """Proxies in front."""
    connections: ClientConnections = ClientConnections()
    """How many connections there may be."""
    sessions: SessionLimits = SessionLimits()
    """How many sessions there may be."""
    session_keys_file: Path | None = None
    """One or two lines of 32 random bytes in base64 (`openssl rand -base64 32`), the same for all sidecars of one
    `resource_url`: then each goes on with the sessions of the others. The first key seals, both are read."""
    views: Views = Views()
    """How the definitions of views are kept."""
    mongodb: SharedStore = SharedStore()
    """What several sidecars share."""
    stdio: Stdio = Stdio()
    """Who calls over standard input and output."""
    control_tls: ControlTls = ControlTls()
    """Who may use a `control_listen` on TCP."""

    @field_validator("listen")
    @classmethod
    def _address(cls, address: str) -> str:
        read_address(address)
        return address

    @field_validator("admin_listen")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        split_address(address)
        return address

    @model_validator(mode="after")
    def _whole_control(self) -> Self:
        check_places(
            {
                "suspensions": self.suspensions,
                "single_use": self.single_use,
                "sessions.ended": self.sessions.ended,
                "approvals.store": self.approvals.store,
                "audit.store": self.audit.store,
            },
            self.mongodb,
        )
        if self.sessions.ended and self.session_keys_file is None:
            msg = "sessions.ended needs session_keys_file"
            raise ValueError(msg)
        if self.control_listen and not self.suspensions:
            msg = "control_listen needs suspensions, where they are kept"
            raise ValueError(msg)
        on_tcp = self.control_listen and not isinstance(read_address(self.control_listen), Path)
        if on_tcp and not self.control_tls.complete:
            msg = "control_listen on TCP needs certificate, key, client_ca and operators of control_tls"
            raise ValueError(msg)
        return self

    @field_validator("resource_url")
    @classmethod
    def _canonical(cls, url: str) -> str:
        return ResourceUri.parse(url).text

    @field_validator("resource_url")
    @classmethod
    def _not_in_the_clear(cls, url: str) -> str:
        """RFC 9728 section 1.2: a resource identifier is an https URL. This machine's own addresses need no TLS."""
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            msg = "must begin with https://, because tokens are sent to it; http:// is for loopback addresses only"
            raise ValueError(msg)
        return url

    @model_validator(mode="after")
    def _tls_is_ended(self) -> Self:
        for name, address, ended_here in (
            ("listen", read_address(self.listen), self.tls.files is not None),
            ("admin_listen", split_address(self.admin_listen), False),
        ):
            if not (self.tls_ended_by or ended_here or isinstance(address, Path) or is_loopback(address[0])):
                msg = (
                    f"other machines reach {name} ({address[0]}) without TLS: use a loopback address, or say "
                    'tls_ended_by = "proxy" if something in front ends TLS'
                )
                raise ValueError(msg + ("; or give tls.certificate_file" if name == "listen" else ""))
        if self.listen == self.admin_listen and split_address(self.listen)[1]:
            msg = f"listen and admin_listen are both {self.listen}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _certificates_can_be_shown(self) -> Self:
        if self.tls.client_certificates != "off":
            return self
        if self.proxies.certificate_header:
            msg = 'proxies.certificate_header needs tls with client_certificates: proxies show theirs ("required")'
            raise ValueError(msg)
        if bound := [one.issuer for one in self.issuers if one.mtls != "off"]:
            msg = f'mtls of {", ".join(bound)} needs tls.client_certificates "optional" or "required"'
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _usable_texts(self) -> Self:
        for place in unusable_texts(self):
            msg = f"{place} has a NUL in it, or bytes that are not UTF-8"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [server.name for server in self.servers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"server names must be unique: {', '.join(twice)} occurs twice"
            raise ValueError(msg)
        check_together(self.issuers, self.scopes)
        shown: dict[str, frozenset[str]] = {}
        for key, one in (pair for server in self.servers for pair in server.generic_by_name().items()):
            if shown.setdefault(key, frozenset(one.pointers)) != frozenset(one.pointers):
                msg = f"policy_arguments of {key} must be the same on every server"
                raise ValueError(msg)
        return self

    @cached_property
    def resource(self) -> ResourceUri:
        """``resource_url``, read once."""
        return ResourceUri.parse(self.resource_url)

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
    if file and not is_there(Path(file)):
        msg = f"{CONFIG_VARIABLE} names {file}, which is not a file"
        raise ConfigurationError(msg)
    _refuse_unknown(os.environ)
    try:
        return Settings(**defaults)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problems(error)) + _without_file(file)) from None
    except (ValueError, OSError) as error:
        msg = f"the settings cannot be read: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from None
    except RecursionError:
        msg = "the settings cannot be read: they are nested too deeply"
        raise ConfigurationError(msg) from None


def is_there(file: Path) -> bool:
    """Whether a path is that of a regular file; one that no file could have (too long) is not."""
    try:
        return file.is_file()
    except OSError:
        return False


def _problems(error: ValidationError) -> Iterator[str]:
    """Say what is wrong; a list is not also too short because an entry of it is wrong."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    places = [problem["loc"] for problem in found]
    for problem in found:
        here = problem["loc"]
        within = any(place[: len(here)] == here and len(place) > len(here) for place in places)
        if not (problem["type"] == "too_short" and within):
            yield _problem(problem["type"], here, problem["msg"])


def _without_file(file: str) -> str:
    return "" if file else f" ({CONFIG_VARIABLE} names no settings file)"


def _problem(kind: str, place: tuple[str | int, ...], message: str) -> str:
    """Say what is wrong with one setting, without its value."""
    name = ".".join(map(str, place)) or "settings"
    if kind == "tuple_type" and names_at(Settings, place):
        return f"{name}: tables are needed, each below a line [[{name}]]"
    if kind == "extra_forbidden":
        return f"{name}: is not a setting{suggestion(str(place[-1]), names_at(Settings, place[:-1]))}"
    return f"{name}: {in_words(kind, message)}"


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Refuse variables that no setting would be read from; what is below a known group, pydantic checks.

    Names count in any case, because settings are read in any case.
    """
    for name in environ:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper == CONFIG_VARIABLE or upper.startswith("SIDECAR_TEST_"):
            continue
        field, *below = upper.removeprefix(PREFIX).lower().split("__")
        if field not in Settings.model_fields or (below and field not in _GROUPS):
            msg = f"{name} is not a setting{suggestion(upper, (*variables(Settings, PREFIX), CONFIG_VARIABLE))}"
            raise ConfigurationError(msg)
        if below and below[0] not in names_at(Settings, (field,)):
            msg = f"{name} is not a setting{suggestion(upper, (*variables(Settings, PREFIX), CONFIG_VARIABLE))}"
            raise ConfigurationError(msg)


_GROUPS: Final = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)
)
"""Settings with settings of their own; lists are given whole, as JSON."""


_LONGEST_SECRET: Final = 65_536
"""Bytes: a file of headers or of an environment is the longest."""


def secret(value: SecretStr | None, file: Path | None) -> str:
    """Return a secret that was given as a value or as a file (white space around it in a file does not count).

    Raises:
        ConfigurationError: the file cannot be read, or the secret is empty.
    """
    if file is not None:
        try:
            with file.open("rb") as stream:
                read = stream.read(_LONGEST_SECRET + 1)
            text = read.decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{file} cannot be read: {type(error).__name__}"
            raise ConfigurationError(msg) from None
        if len(read) > _LONGEST_SECRET:
            msg = f"{file} is larger than {_LONGEST_SECRET} bytes, so it is no secret"
            raise ConfigurationError(msg)
    else:
        text = value.get_secret_value() if value is not None else ""
    if not text:
        msg = "a secret is empty"
        raise ConfigurationError(msg)
    return text


FOUNDER_VARIABLE: Final = "MCP_SIDECAR_INIT_URI"
"""The connection string of who makes the collections of the evidence; never a setting of the sidecar itself."""


def founder_uri(file: Path | None) -> str:
    """Return the connection string of ``audit init``: of a file, else of its variable.

    Raises:
        ConfigurationError: there is none, or the file cannot be read.
    """
    if file is None and not os.environ.get(FOUNDER_VARIABLE):
        raise ConfigurationError(f"name a file with the connection string (--uri-file), or set {FOUNDER_VARIABLE}")
    return secret(SecretStr(os.environ.get(FOUNDER_VARIABLE, "")), file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """What OpenTelemetry's own variables say of one signal; everything else about it the SDK reads for itself."""

    endpoint: str
    """Empty if nothing is exported."""
    protocol: str


def exporter(signal: Literal["TRACES", "METRICS"]) -> Exporter:
    """Return where a signal is exported to (OpenTelemetry specification, OTLP exporter configuration).

    Traces go to any endpoint that is named. Metrics are served at ``/metrics`` anyway, so they are pushed only if the
    environment asks for that (an endpoint for metrics, or ``OTEL_METRICS_EXPORTER=otlp``): Jaeger takes none.
    """
    environ = os.environ
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "")
    chosen = environ.get(f"OTEL_{signal}_EXPORTER", "otlp" if signal == "TRACES" or own else "none")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or "otlp" not in chosen.split(",")
    endpoint = own or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return Exporter(endpoint="" if off else endpoint, protocol=protocol)


def exporter_variables() -> Mapping[str, str]:
    """Return OpenTelemetry's own variables."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for an address (``HTTPS_PROXY``, ``NO_PROXY``), or None.

    Raises:
        ConfigurationError: it is none that is spoken to with HTTP.
    """
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_http(proxy):
        # Not the value: it may hold a password.
        raise ConfigurationError(
            "the proxy that HTTPS_PROXY or ALL_PROXY names must be http://host:port or https://host:port (no SOCKS)"
        )
    return proxy


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def forget_tokens() -> None:
    """Take the token of ``stdio`` out of the environment, once it is read."""
    for name in [name for name in os.environ if name.upper() in {f"{PREFIX}STDIO", f"{PREFIX}STDIO__TOKEN"}]:
        del os.environ[name]


def own_variables() -> Mapping[str, str]:
    """Return the variables that settings are read from."""
    return {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}


def demo_connection_string() -> str:
    """The database that the demo is told to use (the MongoDB MCP server's own variable), or empty."""
    return os.environ.get(DEMO_CONNECTION_VARIABLE, "")
