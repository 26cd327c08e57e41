"""Connections that the sidecar and its children make to other parts, and which of them anybody on the way could read.

A connection is protected if it stays on this machine, or if it is TLS whose other end is verified. Python's and Node's
libraries speak TLS 1.2 at least. Any other connection starts only if the operator has named it in
``insecure_connections``: a network that is private is known to its operator, and not to this program.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from sidecar import settings
from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError
from sidecar.setting_names import suggestion
from sidecar.settings import Settings

_UNVERIFIED: Final = frozenset({"tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames"})
"""Options (lower case) of a connection string with which a certificate is not, or not wholly, looked at."""
_CERTIFICATES: Final = frozenset({"tlscafile", "tlscertificatekeyfile"})
_YES: Final = frozenset({"true", "1", "yes", "y", "t"})
"""What drivers take for true."""
_SRV: Final = "mongodb+srv://"
SCHEMES: Final = ("mongodb://", _SRV)


_BY_ENVIRONMENT: Final = frozenset({"otlp.traces", "otlp.metrics"})
"""Connections that OpenTelemetry's variables name: the same settings serve with and without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingConnection:
    """One connection to another part."""

    name: str
    """The setting that it comes from, as ``insecure_connections`` names it: ``servers.NAME.url``, ``opa.url``."""
    host: str
    """Where it goes."""
    fault: str
    """Why it is not protected; empty where it is."""


def connections(config: Settings) -> tuple[OutgoingConnection, ...]:
    """Return the connections that the settings and OpenTelemetry's variables name.

    Those to issuers are not among them: their addresses must be https in any case. A connection string that cannot be
    used is none: what is to use it refuses it.
    """
    return tuple(_all(config))


def demand_named(config: Settings) -> None:
    """See that each unprotected connection is named by the operator, and that nothing else is.

    Raises:
        ConfigurationError: one is not named, or a name is of no connection.
    """
    found = connections(config)
    known = {one.name for one in found} | _BY_ENVIRONMENT
    for name in config.insecure_connections:
        if name not in known:
            raise ConfigurationError(f"insecure_connections: {name} is no connection{suggestion(name, known)}")
    for one in found:
        _demand(one, config.insecure_connections)


def demand_protected(name: str, connection_string: str, unprotected: Collection[str]) -> None:
    """See that a connection string that was read again holds to what the start demanded.

    Args:
        name: the setting, as ``insecure_connections`` names it.
        connection_string: what was read.
        unprotected: what ``insecure_connections`` names.

    Raises:
        ConfigurationError: it goes to another machine unprotected, and is not named.
    """
    if connection_string.startswith(SCHEMES):
        _demand(_to_mongodb(name, connection_string), unprotected)


def _demand(one: OutgoingConnection, unprotected: Collection[str]) -> None:
    if one.fault and one.name not in unprotected:
        raise ConfigurationError(
            f"{one.name}: the connection to {one.host} {one.fault}; use TLS, or name it in insecure_connections if "
            "nobody else can reach that network"
        )


def _all(config: Settings) -> Iterator[OutgoingConnection]:
    if _is_url(config.opa.url):
        yield _by_url("opa.url", config.opa.url)
    for server in config.servers:
        if _is_url(server.url):
            yield _by_url(f"servers.{server.name}.url", server.url)
    for name, text in connection_strings(config):
        yield _to_mongodb(name, text)
    for name, exporter in (
        ("otlp.traces", settings.exporter("TRACES")),
        ("otlp.metrics", settings.exporter("METRICS")),
    ):
        if _is_url(exporter.endpoint):
            yield _by_url(name, exporter.endpoint)


def connection_strings(config: Settings) -> Iterator[tuple[str, str]]:
    """Yield the connection strings of MongoDB that the settings name and that can be read, by setting."""
    given: list[tuple[str, SecretStr | None, Path | None]] = []
    for one in config.servers:
        prefix = f"servers.{one.name}"
        given += [
            (f"{prefix}.connection_string", one.connection_string, one.connection_string_file),
            (f"{prefix}.views_connection_string", one.views_connection_string, one.views_connection_string_file),
        ]
    given.append(("mongodb.uri", config.mongodb.uri, config.mongodb.uri_file))
    for name, value, file in given:
        if (text := _readable(value, file)).startswith(SCHEMES):
            yield name, text


def certificates_in(connection_string: str) -> tuple[Path, ...]:
    """Return the files of certificates that a connection string names."""
    options = parse_qsl(connection_string.partition("?")[2].replace(";", "&"))
    return tuple(Path(value) for name, value in options if name.lower() in _CERTIFICATES)


def _readable(value: SecretStr | None, file: Path | None) -> str:
    try:
        return settings.secret(value, file)
    except ConfigurationError:
        return ""


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


def _by_url(name: str, url: str) -> OutgoingConnection:
    parts = urlsplit(url)
    host = parts.hostname or url
    if parts.scheme == "https" or is_loopback(host):
        return OutgoingConnection(name=name, host=host, fault="")
    return OutgoingConnection(name=name, host=host, fault="is not encrypted")


def _to_mongodb(name: str, text: str) -> OutgoingConnection:
    hosts = hosts_in(text)
    shown = ", ".join(hosts) or "no host"
    if hosts and not text.startswith(_SRV) and all(_is_here(host) for host in hosts):
        return OutgoingConnection(name=name, host=shown, fault="")
    return OutgoingConnection(name=name, host=shown, fault=tls_fault(text))


def hosts_in(connection_string: str) -> tuple[str, ...]:
    """Return the hosts of a connection string of MongoDB, without ports."""
    address = connection_string.partition("://")[2].partition("?")[0]
    listed = address.rpartition("@")[2].partition("/")[0]
    return tuple(_without_port(unquote(host)) for host in listed.split(",") if host)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host if host.startswith("/") else host.rpartition(":")[0] or host


def _is_here(host: str) -> bool:
    return host.startswith("/") or is_loopback(host.lower())


def tls_fault(connection_string: str) -> str:
    """Say why a connection string does not ask for verified TLS; empty where it does.

    An option that is given twice counts by its worse value: drivers differ in which one they take. PyMongo also takes a
    semicolon between options.
    """
    given = connection_string.partition("?")[2].replace(";", "&")
    options = [(name.lower(), value.lower()) for name, value in parse_qsl(given, keep_blank_values=True)]
    asked = [value in _YES for name, value in options if name in {"tls", "ssl"}]
    if not all(asked) or not (asked or connection_string.startswith(_SRV)):
        return "is not encrypted"
    if any(value in _YES for name, value in options if name in _UNVERIFIED):
        return "does not verify the certificate"
    return ""
