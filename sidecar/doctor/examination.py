"""Looks at a whole deployment: gathers what each check is about, and collects what was found."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import os_environment, settings
from sidecar.authoring import routable
from sidecar.doctor import database, files, servers
from sidecar.doctor.database_versions import newest_fix, version_problem
from sidecar.doctor.decisions import examine_opa
from sidecar.doctor.evidence_at_rest import examine_stored_evidence
from sidecar.doctor.findings import Check, Posture, PostureFinding
from sidecar.doctor.needs import NeededAccess, read_rows
from sidecar.doctor.privileges import SYSTEM, DatabaseUser, examine_user
from sidecar.doctor.roles import EVERY, ServerRole, role_of
from sidecar.errors import ConfigurationError
from sidecar.listener_settings import read_address
from sidecar.outgoing import certificates_in, connection_strings, connections
from sidecar.printing import escaped
from sidecar.provision import server_version
from sidecar.server_settings import Server
from sidecar.settings import Settings
from sidecar.store_settings import FILE
from sidecar.upstream import hosts_of

CLOCK_S: Final = 30.0
"""How far the clock may be from an issuer's; tokens are checked to the minute."""
_WAIT_S: Final = 5.0
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", "[::]", ""})  # noqa: S104 - what is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedDeployment:
    """A deployment, and what the caller adds to its settings."""

    config: Settings
    file: Path | None
    """The settings file."""
    policies: Path | None
    """The policy folder; None where there is only an OPA of the operator's."""
    databases: Mapping[str, str]
    """By server behind a URL, the connection string that it has."""
    viewer: str | None = None
    """The connection string of a user who may see roles, where databases do not list the rights of a connection."""
    own_addresses: servers.Addresses = servers.own_addresses


async def examine(deployment: ExaminedDeployment, accepted: Sequence[str] = ()) -> Posture:
    """Look at a deployment, without starting any of it.

    Args:
        deployment: what is looked at.
        accepted: checks, or checks with their place, whose findings are no fault.

    Raises:
        ConfigurationError: the settings name what cannot be read.
    """
    config = deployment.config
    found = [*_of_connections(config), *_of_bindings(config), *_of_files(deployment), *_of_environment()]
    found += await examine_stored_evidence(config, datetime.fromtimestamp(time.time(), UTC))
    found += await examine_opa(config.opa)
    found += [one for issuer in _asked_issuers(config) for one in await _of_clock(issuer)]
    found += await _of_servers(deployment)
    unique = list(dict.fromkeys(found))
    return Posture(
        findings=tuple(one for one in unique if not one.is_accepted(accepted)),
        accepted=tuple(one for one in unique if one.is_accepted(accepted)),
        insecure=tuple(
            one.name for one in connections(config) if one.fault and one.name in config.insecure_connections
        ),
    )


# --- what the settings say --------------------------------------------------------------------------------------------


def _of_connections(config: Settings) -> Iterator[PostureFinding]:
    for one in connections(config):
        if one.fault and one.name not in config.insecure_connections:
            yield PostureFinding(
                check=Check.INSECURE_CONNECTION,
                where=one.name,
                what=f"the connection to {one.host} {one.fault}",
                fix=f'use TLS, or if nobody else can reach that network: insecure_connections = ["{one.name}"]',
            )


def _of_bindings(config: Settings) -> Iterator[PostureFinding]:
    for setting, address in (("listen", config.listen), ("admin_listen", config.admin_listen)):
        where = read_address(address)
        if isinstance(where, Path) or where[0] not in _WILDCARDS:
            continue
        if setting == "listen" and config.tls.files is not None:
            continue
        yield PostureFinding(
            check=Check.PUBLIC_BINDING,
            where=setting,
            what=f"it listens without TLS on every address of this machine ({address})",
            fix=f'{setting} = "127.0.0.1:{where[1]}", or the one address that the proxy reaches',
        )


def _of_environment() -> Iterator[PostureFinding]:
    """Yield variables that hold secrets: other processes of the same user can read them."""
    for name, value in sorted(settings.own_variables().items()):
        if name in _SECRET_VARIABLES or any(f'"{key}"' in value for key in _SECRET_KEYS):
            yield PostureFinding(
                check=Check.SECRET_IN_ENVIRONMENT,
                where=name,
                what="the environment holds a secret, and other processes of this user can read it",
                fix="put it into a file of mode 600, and name that in the setting of the same name with _file",
            )


_SECRET_VARIABLES: Final = frozenset({"SIDECAR_MONGODB__URI", "SIDECAR_STDIO__TOKEN"})
_SECRET_KEYS: Final = (
    *("connection_string", "views_connection_string", "api_client_secret", "client_secret", "uri", "token"),
)


# --- files ------------------------------------------------------------------------------------------------------------


def _of_files(deployment: ExaminedDeployment) -> Iterator[PostureFinding]:
    config, now = deployment.config, datetime.fromtimestamp(time.time(), UTC)
    for setting, path in _secret_files(config):
        yield from files.examine_secret(setting, path)
        yield from files.examine_writable(setting, path)
    if deployment.file is not None:
        yield from files.examine_writable("SIDECAR_CONFIG", deployment.file)
        if any(key in _keys_of(deployment.file) for key in _SECRET_KEYS):
            yield from files.examine_secret("SIDECAR_CONFIG", deployment.file)
    if deployment.policies is not None:
        yield from files.examine_writable("policies", deployment.policies)
    yield from _of_evidence(config)
    if config.suspensions.startswith(FILE):
        yield from files.examine_writable("suspensions", Path(config.suspensions.removeprefix(FILE)))
    for setting, program in _programs(config):
        yield from files.examine_writable(setting, program)
    for setting, path in _certificates(config):
        yield from files.examine_certificate(setting, path, now)


def _of_evidence(config: Settings) -> Iterator[PostureFinding]:
    here = {"audit.store": config.audit.path, "audit.spool": config.audit.spool_path}
    for setting, file in here.items():
        if file is not None:
            yield from files.examine_writable(setting, file if file.exists() else file.absolute().parent)
            yield from files.examine_evidence(setting, file)
    if config.audit.signing_key_file is None:
        yield PostureFinding(
            check=Check.HEADS_UNSIGNED,
            where="audit.signing_key_file",
            what="published heads of the evidence are not signed, so another chain with heads of its own looks as good",
            fix='openssl genpkey -algorithm ed25519 -out audit-key.pem, and audit.signing_key_file = "audit-key.pem"',
        )


def _keys_of(file: Path) -> frozenset[str]:
    """Return the names that a settings file sets; a file that cannot be read has been refused by then."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(line.partition("=")[0].strip().strip('"') for line in lines if "=" in line)


def _secret_files(config: Settings) -> Iterator[tuple[str, Path]]:
    named = {
        "opa.token_file": config.opa.token_file,
        "dpop_nonce_key_file": config.dpop_nonce_key_file,
        "session_keys_file": config.session_keys_file,
        "mongodb.uri_file": config.mongodb.uri_file,
        "tls.key_file": config.tls.key_file,
        "control_tls.key": config.control_tls.key,
        "audit.signing_key_file": config.audit.signing_key_file,
    }
    for server in config.servers:
        named |= {f"servers.{server.name}.{name}": path for name, path in server.files().items()}
    for number, issuer in enumerate(config.issuers):
        secret = {name: path for name, path in issuer.files().items() if "secret" in name or "key" in name}
        named |= {f"issuers.{number}.{name}": path for name, path in secret.items() if "jwks" not in name}
    yield from ((setting, path) for setting, path in named.items() if path is not None)


def _programs(config: Settings) -> Iterator[tuple[str, Path]]:
    named = {} if config.opa.url else {"opa.binary": config.opa.binary}
    named |= {f"servers.{one.name}.command": one.command[0] for one in config.servers if one.command}
    for setting, program in named.items():
        if (path := shutil.which(program, path=os_environment.search_path())) is not None:
            yield setting, Path(path)


def _certificates(config: Settings) -> Iterator[tuple[str, Path]]:
    named = {
        "tls.certificate_file": config.tls.certificate_file,
        "tls.client_ca_file": config.tls.client_ca_file,
        "opa.ca_file": config.opa.ca_file,
        "control_tls.certificate": config.control_tls.certificate,
        "control_tls.client_ca": config.control_tls.client_ca,
    }
    for number, issuer in enumerate(config.issuers):
        named[f"issuers.{number}.introspection.certificate_file"] = issuer.introspection.certificate_file
    yield from ((setting, path) for setting, path in named.items() if path is not None)
    for setting, text in connection_strings(config):
        yield from ((setting, path) for path in certificates_in(text))


# --- the issuers' clock -----------------------------------------------------------------------------------------------


def _asked_issuers(config: Settings) -> Iterator[str]:
    yield from (one.jwks_uri or one.issuer for one in config.issuers if one.jwks_file is None)


async def _of_clock(address: str) -> list[PostureFinding]:
    limit = aiohttp.ClientTimeout(total=_WAIT_S)
    try:
        async with (
            aiohttp.ClientSession(trust_env=False, timeout=limit) as http,
            http.get(address, proxy=settings.proxy_for(address), allow_redirects=False) as answer,
        ):
            told, now = answer.headers.get("Date", ""), time.time()
    except (aiohttp.ClientError, OSError) as error:
        what = f"{address} does not answer ({type(error).__name__}), so its keys cannot be fetched"
        return [PostureFinding(check=Check.ISSUER_UNREACHABLE, where=address, what=what, fix=f"curl -i {address}")]
    try:
        away = abs(parsedate_to_datetime(told).timestamp() - now)
    except (TypeError, ValueError):
        return []
    if away <= CLOCK_S:
        return []
    what = f"this machine's clock is {away:.0f} s away from the issuer's, so tokens are refused or live too long"
    return [PostureFinding(check=Check.CLOCK, where=address, what=what, fix="timedatectl set-ntp true")]


# --- the servers ------------------------------------------------------------------------------------------------------


async def _of_servers(deployment: ExaminedDeployment) -> list[PostureFinding]:
    config, pinned = deployment.config, server_version()
    users = {one.name: await _user_of(one, deployment) for one in config.servers}
    needs, found = await needs_of(deployment, users)
    versions: dict[tuple[str, ...], str] = {}
    for server in config.servers:
        if server.command:
            found += servers.examine_command(server, pinned)
            if servers.is_pinned(server):
                if server.command not in versions:
                    versions[server.command] = await servers.version_of(server.command)
                found += servers.examine_version(server, versions[server.command], pinned)
        else:
            found += await servers.examine_remote(server, deployment.own_addresses)
        user = users[server.name]
        store = _store_beside(deployment, server)
        routed = None if needs is None else needs[server.name]
        found += examine_user(server.name, user, read_only=server.read_only, needs=routed, store=store)
        if not user.unreadable and (problem := version_problem(user.version)):
            fix = f"upgrade to MongoDB {newest_fix(user.version)} or newer"
            where = f"servers.{server.name}"
            found.append(PostureFinding(check=Check.DATABASE_VERSION, where=where, what=problem, fix=fix))
    return found


def connection_string_of(server: Server, deployment: ExaminedDeployment) -> str | None:
    """Return the connection string of a server; None of one behind a URL that was not told.

    Raises:
        ConfigurationError: its file cannot be read.
    """
    if server.command:
        return settings.secret(server.connection_string, server.connection_string_file)
    return deployment.databases.get(server.name)


async def _user_of(server: Server, deployment: ExaminedDeployment) -> DatabaseUser:
    text = connection_string_of(server, deployment)
    if text is None:
        why = f"it is behind a URL; name its connection string: --database {server.name}=FILE"
        return DatabaseUser(name="", privileges=(), version="", unreadable=why)
    return await database.ask_user(text, deployment.viewer)


async def role_for(deployment: ExaminedDeployment, server: Server) -> ServerRole:
    """Return the role that a server's database user needs, with the user as it is.

    Raises:
        ConfigurationError: policy is not known, or a file cannot be read.
    """
    user = await _user_of(server, deployment)
    needs, faults = await needs_of(deployment, {server.name: user})
    if needs is None:
        raise ConfigurationError("; ".join(one.what for one in faults))
    patterns = {one.database for one in needs[server.name] if one.is_glob and one.collection != EVERY}
    text = connection_string_of(server, deployment)
    live = await database.live_collections(text, sorted(patterns)) if text and not user.unreadable else {}
    return role_of(server.name, needs[server.name], user, live, read_only=server.read_only)


async def needs_of(
    deployment: ExaminedDeployment, users: Mapping[str, DatabaseUser]
) -> tuple[dict[str, frozenset[NeededAccess]] | None, list[PostureFinding]]:
    """Return what policy can route to each server; None and why, where policy is not known."""
    config = deployment.config
    if deployment.policies is None:
        what = "your own OPA decides, so what policy can route to a server is not known"
        fix = "mcp-sidecar doctor --policies DIR"
        return None, [PostureFinding(check=Check.POLICY_UNREADABLE, where="opa.url", what=what, fix=fix)]
    held = {name: {one.database for one in user.privileges if one.database} - {*SYSTEM} for name, user in users.items()}
    groups = {one.name: one.tool_groups for one in config.servers}
    try:
        rows = await routable(deployment.policies, config.opa.binary, held, groups)
    except ConfigurationError as error:
        fix = f"mcp-sidecar policy check {deployment.policies}"
        what = f"what policy can route to a server is not known: {escaped(str(error))}"
        return None, [PostureFinding(check=Check.POLICY_UNREADABLE, where="policies", what=what, fix=fix)]
    needs = {
        server: frozenset(need for name, listed in found.items() for need in read_rows(name, server, listed))
        for server, found in rows.items()
    }
    return needs, []


def _store_beside(deployment: ExaminedDeployment, server: Server) -> str:
    """Return the database of what sidecars share, if a server's database is in the same deployment."""
    shared = deployment.config.mongodb
    text = connection_string_of(server, deployment)
    if text is None or (shared.uri is None and shared.uri_file is None):
        return ""
    own = settings.secret(shared.uri, shared.uri_file)
    return shared.database if hosts_of(own) & hosts_of(text) else ""
