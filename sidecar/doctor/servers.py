"""The MongoDB MCP servers themselves: how they are started, which version they are, and who else reaches them."""

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sidecar import os_environment, set_up
from sidecar.addresses import is_loopback
from sidecar.commands import CATALOG, PinState, generic, pinning
from sidecar.doctor.findings import Check, PostureFinding
from sidecar.doctor.needs import WRITING_KINDS
from sidecar.errors import SidecarError
from sidecar.model import JsonObject
from sidecar.printing import escaped
from sidecar.server_settings import Server
from sidecar.system import StandardStreams, kill, spawn
from sidecar.upstream import HttpUpstream

Addresses = Callable[[], Collection[str]]

_LAUNCHERS: Final = frozenset({"npx", "bunx", "pnpx", "pnpm", "yarn"})
"""Programs that fetch another one when they start it."""
_CREDENTIALS: Final = re.compile(r"mongodb(?:\+srv)?://[^/\s@]*:[^/\s@]+@", re.IGNORECASE)
_SECRET_OPTION: Final = re.compile(
    r"--?(?:connection-?string|api-?client-?secret|password|http-?headers)(?:=.*)?", re.IGNORECASE
)
_VERSION: Final = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}(?:-[0-9A-Za-z.-]+)?")
_VERSION_S: Final = 30.0
_DIAL_S: Final = 1.0
_ASK_S: Final = 15.0
_DOCUMENTATION: Final = ("192.0.2.1", 9)
"""An address that is nobody's (RFC 5737): a datagram socket is connected to it, and nothing is sent."""


def examine_command(server: Server, pinned: str) -> Iterator[PostureFinding]:
    """Yield what the command of a child says."""
    where = f"servers.{server.name}.command"
    for word in server.command[1:]:
        if _CREDENTIALS.search(word) or _SECRET_OPTION.fullmatch(word):
            yield PostureFinding(
                check=Check.SECRET_ON_COMMAND_LINE,
                where=where,
                what="every user of this machine can read the command line, and it names a secret",
                fix=f"take it out of the command, and name a file in servers.{server.name}.connection_string_file",
            )
            break
    fetching = server.command and (Path(server.command[0]).name in _LAUNCHERS)
    if fetching or any(word.endswith("@latest") for word in server.command):
        yield PostureFinding(
            check=Check.UNPINNED_COMMAND,
            where=where,
            what=f"the program is fetched when it is started ({' '.join(map(escaped, server.command[:3]))})",
            fix=f"mcp-sidecar setup, which installs mongodb-mcp-server {pinned} by a lock file",
        )


def is_pinned(server: Server) -> bool:
    """Whether a command can be asked for its version without fetching anything."""
    return not any(one.check is Check.UNPINNED_COMMAND for one in examine_command(server, ""))


async def version_of(command: Sequence[str]) -> str:
    """Return which version a server says that it is; empty if it does not."""
    program = shutil.which(command[0], path=os_environment.search_path())
    if program is None:
        return ""
    pipe = StandardStreams(stdout=asyncio.subprocess.PIPE)
    environment = {"PATH": os_environment.search_path(), "HOME": "/nonexistent", "DO_NOT_TRACK": "1"}
    process = await spawn((program, *command[1:], "--version"), pipe, environment=environment)
    try:
        async with asyncio.timeout(_VERSION_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        await kill(process)
    found = _VERSION.fullmatch(printed.decode("utf-8", "replace").strip())
    return found[0] if found is not None else ""


def examine_version(server: Server, version: str, pinned: str) -> Iterator[PostureFinding]:
    """Yield that a child is not the version that was reviewed."""
    if version != pinned:
        yield PostureFinding(
            check=Check.SERVER_VERSION,
            where=f"servers.{server.name}.command",
            what=f"the server is version {version or '(it does not say)'}, and {pinned} was reviewed",
            fix="mcp-sidecar setup",
        )


async def examine_remote(server: Server, own_addresses: Addresses) -> list[PostureFinding]:
    """Return what is wrong with a server behind a URL: who else reaches it, and what it offers."""
    where = f"servers.{server.name}.url"
    try:
        headers = set_up.headers(server.headers_file) if server.headers_file is not None else {}
        tools = await _tools(server, headers)
    except SidecarError as error:
        what = f"the server does not answer: {error.public}"
        return [
            PostureFinding(check=Check.SERVER_UNREACHABLE, where=where, what=what, fix=f"curl -i {server.url}"),
        ]
    found = [*examine_tools(server, tools)]
    if not headers or await _answers_without(server):
        found.append(
            PostureFinding(
                check=Check.SERVER_WITHOUT_SECRET,
                where=where,
                what="the server answers everybody who reaches it: it asks for no secret",
                fix="start it with MDB_MCP_HTTP_HEADERS, and name the same header in "
                f"servers.{server.name}.headers_file",
            )
        )
    if (exposed := await _exposed(server.url, own_addresses)) is not None:
        found.append(
            PostureFinding(
                check=Check.SERVER_EXPOSED,
                where=where,
                what=f"other machines reach the server: it also listens on {exposed}",
                fix="start it with --httpHost 127.0.0.1",
            )
        )
    return found


def examine_tools(server: Server, tools: Sequence[JsonObject]) -> Iterator[PostureFinding]:
    """Yield what the tool list of a server behind a URL says of it."""
    where = f"servers.{server.name}.url"
    writing = [
        name for tool in tools if (name := str(tool.get("name"))) in CATALOG and {*CATALOG[name].kinds} & WRITING_KINDS
    ]
    only_by_arguments = {"aggregate", "aggregate-db", "explain", "export"}
    named = sorted({*writing} - only_by_arguments)
    if server.read_only and named:
        yield PostureFinding(
            check=Check.READ_ONLY_HAS_WRITING_TOOLS,
            where=where,
            what=f"the settings say read_only, and the server offers {', '.join(named)}",
            fix="start it with MDB_MCP_READ_ONLY=true",
        )
    own = {tool.name: tool.pin for tool in generic.only_tools(server.generic_by_name()).values()}
    states = pinning.compare(tools, own).standings
    if changed := sorted(name for name, state in states.items() if state is PinState.CHANGED):
        yield PostureFinding(
            check=Check.SERVER_VERSION,
            where=where,
            what=f"tools differ from those that were reviewed: {', '.join(map(escaped, changed))}",
            fix="mcp-sidecar inspect --tools",
        )


async def _tools(server: Server, headers: Mapping[str, str]) -> tuple[JsonObject, ...]:
    upstream = HttpUpstream(server.name, server.url, headers, timeout_s=_ASK_S, prefer_stateless=server.stateless)
    await upstream.start()
    try:
        return await upstream.tools()
    finally:
        await upstream.stop()


async def _answers_without(server: Server) -> bool:
    try:
        await _tools(server, {})
    except SidecarError:
        return False
    return True


async def _exposed(url: str, own_addresses: Addresses) -> str | None:
    """Return an address of this machine, other than the configured one, on which a server on loopback listens."""
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or ""):
        return None
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    for address in own_addresses():
        try:
            async with asyncio.timeout(_DIAL_S):
                _, writer = await asyncio.open_connection(address, port)
        except OSError:  # TimeoutError is one
            continue
        writer.close()
        return address
    return None


def own_addresses() -> Collection[str]:
    """Return this machine's addresses that others could reach."""
    found = set()
    # Where there is no way off this machine, there is no such address.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(_DOCUMENTATION)
        found.add(str(probe.getsockname()[0]))
    with contextlib.suppress(OSError):  # its name leads nowhere
        found |= {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)}
    return {address for address in found if not is_loopback(address)}
