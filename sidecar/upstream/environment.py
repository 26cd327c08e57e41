"""The environment of the child process: a minimal base, the recommended settings, the secret; nothing else."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sidecar.commands import ToolGroup
from sidecar.errors import ConfigurationError

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_EXPORTS_PATH: Final = re.compile(r"--?exports-?path\b", re.IGNORECASE)
"""Every spelling that the server's reader of command lines takes for ``exportsPath``, and some that it does not."""
_URI_SCHEMES = ("mongodb://", "mongodb+srv://")

BASE: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "NODE_ENV": "production",
        "DO_NOT_TRACK": "1",
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_LOGGERS": "stderr",
    }
)
"""Telemetry is on by default in the server and would report the client's name; the default loggers write to disk."""


FURTHER: Final = frozenset(
    {
        "KRB5_CONFIG",
        "KRB5_CLIENT_KTNAME",
        "KRB5CCNAME",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "NODE_EXTRA_CA_CERTS",
        "MDB_MCP_INDEX_CHECK",
        "MDB_MCP_MAX_DOCUMENTS_PER_QUERY",
        "MDB_MCP_MAX_BYTES_PER_QUERY",
        "MDB_MCP_MAX_TIME_M_S",
        "MDB_MCP_QUERY_COUNT_MAX_TIME_MS_CAP",
        "MDB_MCP_AGGREGATION_COUNT_MAX_TIME_MS_CAP",
    }
)
"""What an operator may add to a child's environment: how it proves who it is (Kerberos; MONGODB-OIDC and MONGODB-AWS
of the driver), how it reaches the network, and limits of the server on its own reads. Left out is what would undo a
setting of the sidecar (tools, transport, logs, telemetry, overrides), send credentials elsewhere
(``MDB_MCP_API_BASE_URL``), choose where files are written, or make the process run other code (``NODE_OPTIONS``,
``LD_PRELOAD``, ``PATH``)."""


def read_further(text: str) -> dict[str, str]:
    """Read lines ``NAME=value``; empty lines and lines that begin with # do not count.

    Raises:
        ConfigurationError: a line of another form, or a name that may not be added; a value is never repeated.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.strip().partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not _NAME.fullmatch(name):
            raise ConfigurationError(f"line {number} is not NAME=value")
        if name not in FURTHER:
            raise ConfigurationError(f"line {number}: {name} is not a name that a server's environment may have")
        if name in found:
            raise ConfigurationError(f"line {number}: {name} is there twice")
        found[name] = value
    check_environment(found)
    return found


def child_environment(passed: Mapping[str, str], home: Path, exports: Path) -> dict[str, str]:
    """Return the whole environment of a child.

    Args:
        passed: what the operator passed, which wins over the base.
        home: its private folder.
        exports: where it writes exports, and nowhere else: from there they are deleted with their sessions.
    """
    return {**BASE, "HOME": str(home), "TMPDIR": str(home), **passed, "MDB_MCP_EXPORTS_PATH": str(exports)}


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse what no environment can hold; the operating system would answer with a bare ``ValueError``.

    Raises:
        ConfigurationError: a name or value that cannot be passed.
    """
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ConfigurationError(
                f"the environment variable {name!r} cannot be passed to the server: its name or value has a NUL or a ="
            )


def mongodb_environment(
    connection_string: str,
    *,
    read_only: bool,
    app_name: str = "mcp-sidecar",
    tool_groups: Collection[ToolGroup] = (),
    atlas: tuple[str, str] | None = None,
    confirmed_tools: Collection[str] | None = None,
    max_time_ms: int | None = None,
) -> dict[str, str]:
    """Return the ``MDB_MCP_*`` settings for a child that serves one connection.

    The names were checked against the installed 3.0.4 with ``--dryRun``. The credentials stay inside the connection
    string, because a separate user name and password are merged into every ``connect``, to any host that it names.

    Args:
        connection_string: with its credentials; ``appName`` is added where it has none, so that the database's own log
            and profiler name the sidecar.
        read_only: drop the tools that write and refuse ``$out`` and ``$merge``.
        app_name: at most 128 bytes of letters, digits, ``-``, ``_`` and ``.``.
        tool_groups: those that are on. ``connect`` is a tool and an operation type: it takes ``disconnect`` and both
            cluster connectors with it. It dials any host and can hand over configured credentials. Exports are shared
            by all callers of the process.
        atlas: id and secret of the service account that the Atlas tools act as; without one, they are not registered.
        confirmed_tools: names of tools that the server asks a confirmation for; None leaves its own list.
        max_time_ms: ``maxTimeMS`` of the reads, or None for no limit.

    Raises:
        ConfigurationError: a value that the server would misread.
    """
    environment = {
        "MDB_MCP_CONNECTION_STRING": _with_app_name(connection_string, app_name),
        "MDB_MCP_TRANSPORT": "stdio",
        "MDB_MCP_READ_ONLY": "true" if read_only else "false",
        "MDB_MCP_DISABLE_SERVER_SIDE_JS": "true",
        "MDB_MCP_ALLOW_REQUEST_OVERRIDES": "false",
        "MDB_MCP_PREVIEW_FEATURES": "",
    }
    if disabled := [group.value for group in ToolGroup if group not in tool_groups]:
        environment["MDB_MCP_DISABLED_TOOLS"] = ",".join(disabled)
    if atlas is not None:
        environment["MDB_MCP_API_CLIENT_ID"], environment["MDB_MCP_API_CLIENT_SECRET"] = atlas
    if confirmed_tools is not None:
        environment["MDB_MCP_CONFIRMATION_REQUIRED_TOOLS"] = ",".join(confirmed_tools)
    if max_time_ms is not None:
        if max_time_ms <= 0:
            raise ConfigurationError("max_time_ms must be at least 1: the server reads 0 as no limit")
        # The option is called maxTimeMS; MDB_MCP_MAX_TIME_MS becomes maxTimeMs and is silently ignored.
        environment["MDB_MCP_MAX_TIME_M_S"] = str(max_time_ms)
    return environment


def check_command(command: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Refuse a command line that carries a secret, which can be read by every user of the machine, or moves exports.

    Raises:
        ConfigurationError: no command, or a connection string or secret of the environment among the arguments, or one
            that says where exports are written.
    """
    if not command or not command[0]:
        raise ConfigurationError("command is empty: name the server's program")
    if any(_EXPORTS_PATH.match(argument) for argument in command[1:]):
        raise ConfigurationError(
            "command says where exports are written: leave it out, the sidecar deletes them from a folder of its own"
        )
    secrets = secrets_of(environment)
    if any(scheme in argument for argument in command for scheme in _URI_SCHEMES) or any(
        secret in argument for argument in command for secret in secrets if len(secret) >= _LEAST_COMPARABLE
    ):
        raise ConfigurationError(
            "command holds a secret, which every user of the machine can read: use connection_string_file"
        )


_LEAST_COMPARABLE = 6
"""A secret of a few letters occurs in ordinary arguments by chance."""

_SECRET_NAMES = (
    "SECRET",
    "PASSWORD",
    "TOKEN",
    "KEY",
    "CONNECTION_STRING",
    "HTTP_HEADERS",
    "CREDENTIAL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
)


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values that may appear in the child's environment only."""
    return tuple(
        value
        for name, value in environment.items()
        if value and (any(part in name.upper() for part in _SECRET_NAMES) or value.startswith(_URI_SCHEMES))
    )


def _with_app_name(connection_string: str, app_name: str) -> str:
    if not connection_string.startswith(_URI_SCHEMES):
        raise ConfigurationError("connection_string must begin with mongodb:// or mongodb+srv://")
    if not app_name or len(app_name) > 128 or not app_name.isascii() or not app_name.translate(_PLAIN).isalnum():  # noqa: PLR2004 -- MongoDB handshake specification: 128 bytes
        raise ConfigurationError("appName must have 1 to 128 letters, digits, hyphens, underscores and dots")
    address, question, options = connection_string.partition("?")
    if any(option.partition("=")[0].lower() == "appname" for option in options.split("&")):
        return connection_string
    if not question and "/" not in address.partition("://")[2]:
        address += "/"
    joined = "&".join(part for part in (options, f"appName={app_name}") if part)
    return f"{address}?{joined}"


_PLAIN = str.maketrans("", "", "-_.")
