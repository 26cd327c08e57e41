"""What is looked at before anything is started: files, programs, keys, the clock, and what contradicts itself."""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sidecar import os_environment, settings
from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError, KeysUnavailable, SidecarError
from sidecar.listener_settings import read_address
from sidecar.oauth import key_sets
from sidecar.outgoing import demand_named
from sidecar.ports import Clock
from sidecar.setting_names import suggestion
from sidecar.settings import Settings
from sidecar.store import SessionKeyFile
from sidecar.store_settings import FILE
from sidecar.telemetry import exporter_fault
from sidecar.upstream import Databases, doubtful_options, hosts_of, without_credentials

_LOG = logging.getLogger("sidecar.app")

EARLIEST_NS: Final = 1_764_028_800 * 10**9
"""25 November 2025, the date of the MCP revision that is served: no clock that is right shows an earlier time."""
LATEST_NS: Final = 4_102_444_800 * 10**9
"""The beginning of 2100."""


def require(config: Settings, clock: Clock, *, listening: bool = True) -> None:
    """Look for what the settings name, before anything is started.

    Args:
        config: the settings.
        clock: the system's.
        listening: whether the listeners will be opened.

    Raises:
        ConfigurationError: something is not there or not usable; the detail names the setting.
    """
    _require_files(config)
    _require_programs(config)
    _require_keys(config)
    _require_session_keys(config)
    if listening:
        _require_addresses(config)
    _require_own_files(config)
    demand_named(config)
    if fault := exporter_fault(settings.exporter_variables()):
        raise ConfigurationError(fault)
    if not EARLIEST_NS <= clock.time_ns() < LATEST_NS:
        raise ConfigurationError(
            f"the system clock shows {clock.time_ns() // 10**9} seconds since 1970, so no token could be verified: "
            "set the clock"
        )


def _files(config: Settings) -> dict[str, Path | None]:
    files = {
        "audit.signing_key_file": config.audit.signing_key_file,
        "opa.ca_file": config.opa.ca_file,
        "opa.token_file": config.opa.token_file,
        "dpop_nonce_key_file": config.dpop_nonce_key_file,
        "session_keys_file": config.session_keys_file,
        "mongodb.uri_file": config.mongodb.uri_file,
        "tls.certificate_file": config.tls.certificate_file,
        "tls.key_file": config.tls.key_file,
        "tls.client_ca_file": config.tls.client_ca_file,
    }
    for number, issuer in enumerate(config.issuers):
        files |= {f"issuers.{number}.{name}": file for name, file in issuer.files().items()}
    for number, server in enumerate(config.servers):
        files |= {f"servers.{number}.{name}": file for name, file in server.files().items()}
    return files


def _require_files(config: Settings) -> None:
    for setting, file in _files(config).items():
        if file is not None and not (settings.is_there(file) and os.access(file, os.R_OK)):
            raise ConfigurationError(f"{setting}: {file} cannot be read, or is not a file")
    if not config.opa.url and not _is_folder(config.policies):
        # A candidate decides nothing, so one that is not there is a refused candidate, and the start goes on.
        raise ConfigurationError(f"policies: {config.policies} is not a folder")


def _require_own_files(config: Settings) -> None:
    """See that what is written here is nothing else's: a file of two purposes would lose one of them."""
    here = {"audit.store": config.audit.path, "audit.spool": config.audit.spool_path}
    written = {setting: path for setting, path in here.items() if path is not None}
    for setting, place in (("suspensions", config.suspensions), ("approvals.store", config.approvals.store)):
        if place.startswith(FILE):
            written[setting] = Path(place.removeprefix(FILE))
    for setting, address in (("listen", config.listen), ("control_listen", config.control_listen)):
        if address and isinstance(where := read_address(address), Path):
            written[setting] = where
    resolved = {setting: _real(path) for setting, path in written.items()}
    read = {setting: _real(file) for setting, file in _files(config).items() if file is not None}
    for setting, path in resolved.items():
        others = [name for name, other in (*resolved.items(), *read.items()) if other == path and name != setting]
        if others:
            raise ConfigurationError(f"{setting}: {written[setting]} is also {others[0]}; give each its own file")
        if not config.opa.url and path.is_relative_to(_real(config.policies)):
            raise ConfigurationError(f"{setting}: {written[setting]} lies in the policy folder; put it elsewhere")
        if setting in {"suspensions", "approvals.store"} and _is_folder(path):
            raise ConfigurationError(f"{setting}: {written[setting]} is a folder")


def _is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; one that no folder could have (too long) is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _real(path: Path) -> Path:
    """Return where a path leads; what leads nowhere is refused by who opens it."""
    try:
        return path.absolute().resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _require_programs(config: Settings) -> None:
    programs = {} if config.opa.url and config.policies_candidate is None else {"opa.binary": config.opa.binary}
    for number, server in enumerate(config.servers):
        if server.command:
            programs[f"servers.{number}.command"] = server.command[0]
    for setting, program in programs.items():
        if shutil.which(program, path=os_environment.search_path()) is None:
            raise ConfigurationError(f"{setting}: program {program} not found; name its path, or put it on PATH")


def _require_keys(config: Settings) -> None:
    for number, issuer in enumerate(config.issuers):
        if issuer.jwks_file is not None:
            try:
                key_sets.read_key_file(issuer.jwks_file, public=True)
            except (KeysUnavailable, OSError, ValueError) as error:
                what = error.detail if isinstance(error, KeysUnavailable) else str(error)
                raise ConfigurationError(f"issuers.{number}.jwks_file: {issuer.jwks_file}: {what}") from None


def _require_session_keys(config: Settings) -> None:
    if config.session_keys_file is not None:
        with naming("session_keys_file"):
            SessionKeyFile(config.session_keys_file, config.resource.text)


def _require_addresses(config: Settings) -> None:
    """Try to listen now: the listeners themselves come last, after everything that takes long."""
    for setting, address in (("listen", config.listen), ("admin_listen", config.admin_listen)):
        where = read_address(address)
        if isinstance(where, Path):
            continue
        host, port = where
        try:
            family, kind, protocol, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(bound)
                trial.listen()
        except OSError as error:
            raise ConfigurationError(f"{setting}: cannot listen on {address}: {error.strerror or error}") from None


def databases(config: Settings) -> Databases:
    """Know the databases behind the children; a server behind a URL has its own.

    Raises:
        ConfigurationError: a connection string is not usable.
    """
    found, renewed = {}, {}
    for entry in config.servers:
        if entry.command:
            try:
                found[entry.name] = settings.secret(entry.connection_string, entry.connection_string_file)
                if entry.connection_string_file is not None:
                    renewed[entry.name] = partial(settings.secret, None, entry.connection_string_file)
                without_credentials(found[entry.name])
            except ConfigurationError as error:
                raise ConfigurationError(f"servers ({entry.name}): {error.detail}") from None
    try:
        return Databases(found, renewed)
    except ConfigurationError as error:
        raise ConfigurationError(f"servers: {error.detail}") from None


def concerns(config: Settings) -> Collection[str]:
    """Log what is most likely a mistake though everything can start, and return its names for probes."""
    found = _concerns(config)
    for sentence in found.values():
        _LOG.warning("%s", sentence)
    return found.keys()


def _neighbours(config: Settings) -> Iterator[tuple[str, str]]:
    """Say which servers are in the deployment of the shared store; what rights their users have there is not known."""
    if not config.mongodb.given:
        return
    store = hosts_of(settings.secret(config.mongodb.uri, config.mongodb.uri_file))
    for entry in config.servers:
        if entry.command and store & hosts_of(settings.secret(entry.connection_string, entry.connection_string_file)):
            where = f"the shared store ({config.mongodb.database}) is in the deployment of the server {entry.name}"
            yield (
                f"shared_store:{entry.name}",
                f"{where}: see that the server's database user has no rights on it; calls of tools are refused it",
            )


def _concerns(config: Settings) -> Mapping[str, str]:
    found = {**dict(_doubtful(config)), **dict(_neighbours(config))}
    resource, address = urlsplit(config.resource_url), read_address(config.listen)
    if isinstance(address, Path) or not is_loopback(address[0]) or not is_loopback(resource.hostname or ""):
        return found
    if address[1] and resource.scheme == "http" and (resource.port or 80) != address[1]:
        found["resource_url"] = (
            f"resource_url is {config.resource_url}, but the sidecar listens on {config.listen}: clients and tokens "
            "use resource_url"
        )
    return found


def _doubtful(config: Settings) -> Iterator[tuple[str, str]]:
    """Find options of connection strings with which a server starts and every call fails."""
    for entry in config.servers:
        if entry.command:
            text = settings.secret(entry.connection_string, entry.connection_string_file)
            if options := doubtful_options(text):
                what = f"options that no driver takes, so every call would fail: {', '.join(options)}"
                yield f"connection_string:{entry.name}", f"the connection string of {entry.name} has {what}"


def require_routes(config: Settings, routed: frozenset[str] | None) -> None:
    """See that a call can be routed at all; ``routed`` is None where that is not known.

    Raises:
        ConfigurationError: no route of the policies leads to any configured server, so every call would be refused.
    """
    configured = {server.name for server in config.servers}
    if routed is not None and not routed & configured:
        raise ConfigurationError(
            f"servers: no route of platform/data.json leads to {_listed(configured)}; they lead to {_listed(routed)}"
        )


def differing_routes(config: Settings, routed: frozenset[str] | None) -> str:
    """Say what the routes of the policies and the configured servers do not have in common; empty for nothing."""
    if routed is None:
        return ""
    configured = {server.name for server in config.servers}
    told = [
        f"a route leads to {name}, which is not configured under servers{suggestion(name, configured)}"
        for name in sorted(routed - configured)
    ]
    told += [f"no route leads to the server {name}" for name in sorted(configured - routed)]
    return "; ".join(told)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def headers(file: Path) -> dict[str, str]:
    """Read ``Name: value`` lines: the shared secret of an MCP server behind a URL.

    Raises:
        ConfigurationError: a line is of another form.
    """
    headers = {}
    for line in settings.secret(None, file).splitlines():
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigurationError(f"{file}: lines are Name: value")
        headers[name.strip()] = value.strip()
    return headers


@contextlib.contextmanager
def naming(setting: str) -> Iterator[None]:
    """Say which setting a part that does not come up was built from."""
    try:
        yield
    except SidecarError as error:
        raise ConfigurationError(f"{setting}: {error}") from error
