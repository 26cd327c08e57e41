"""``mcp-sidecar client-config``: what to put into a client, so that it calls this sidecar. Never a token.

Each form is its client's own: Claude Code's ``.mcp.json`` and ``managed-mcp.json`` (code.claude.com/docs/en/mcp and
/managed-mcp), VS Code's ``mcp.json`` (code.visualstudio.com/docs/copilot/reference/mcp-configuration) and an entry of
an MCP registry (``server.json`` of 2025-12-11), Claude Desktop's ``claude_desktop_config.json`` and the keys of its
device management, and the file that MCP Inspector 2 takes with ``--config``.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import click

from sidecar import os_environment, settings
from sidecar.identity import ResourceUri
from sidecar.model import JsonObject
from sidecar.printing import escaped

MCP_REMOTE: Final = "mcp-remote@0.15.1"
"""The program that lets a client which only launches processes call an address; it logs its user in by itself."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
"""What each of the clients takes as the name of a server; some make it a part of the names of tools."""


class Client(StrEnum):
    """The clients whose configuration is known."""

    CLAUDE_CODE = "claude-code"
    CLAUDE_DESKTOP = "claude-desktop"
    VSCODE = "vscode"
    INSPECTOR = "inspector"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfiguration:
    """What one file holds, and what to do with it."""

    content: JsonObject
    where: str
    """For the reader: where the file goes, and what belongs beside it."""


def configuration(client: Client, resource: ResourceUri, name: str, *, managed: bool) -> ClientConfiguration:
    """Return what makes a client call the sidecar at ``resource`` under the name ``name``.

    Raises:
        KeyError: the client has no form that administrators distribute.
    """
    return (_MANAGED if managed else _PERSONAL)[client](resource, name)


def _claude_code(resource: ResourceUri, name: str) -> ClientConfiguration:
    return ClientConfiguration(
        content={"mcpServers": {name: {"type": "http", "url": resource.text}}},
        where=f"Save as .mcp.json of a project, or run: claude mcp add --transport http {name} {resource.text}",
    )


def _claude_code_managed(resource: ResourceUri, name: str) -> ClientConfiguration:
    allowed = json.dumps({"allowedMcpServers": [{"serverUrl": resource.text}], "allowManagedMcpServersOnly": True})
    return ClientConfiguration(
        content={"mcpServers": {name: {"type": "http", "url": resource.text}}},
        where=(
            "Distribute as managed-mcp.json: /etc/claude-code (Linux), "
            r"/Library/Application Support/ClaudeCode (macOS), C:\Program Files\ClaudeCode (Windows). Users then have "
            "the servers of this file only. To let them choose "
            f"among allowed ones instead, put this into managed-settings.json: {allowed}"
        ),
    )


def _claude_desktop(resource: ResourceUri, name: str) -> ClientConfiguration:
    return ClientConfiguration(
        content={"mcpServers": {name: {"command": "npx", "args": ["-y", MCP_REMOTE, resource.text]}}},
        where=(
            "Merge into claude_desktop_config.json (Settings, Developer, Edit Config) and start Claude Desktop again. "
            "Needs Node on PATH. The first use opens a browser to log in."
        ),
    )


def _claude_desktop_managed(resource: ResourceUri, name: str) -> ClientConfiguration:
    server: JsonObject = {"name": name, "transport": "http", "url": resource.text, "oauth": True}
    return ClientConfiguration(
        content={"managedMcpServers": [server], "isLocalDevMcpEnabled": False, "isDesktopExtensionEnabled": False},
        where=(
            "Distribute these keys with your device management (com.anthropic.claudefordesktop on macOS, "
            r"SOFTWARE\Policies\Claude on Windows; there the value of managedMcpServers is a string of JSON). The "
            "other two keep users from adding local servers and extensions."
        ),
    )


def _vscode(resource: ResourceUri, name: str) -> ClientConfiguration:
    return ClientConfiguration(
        content={"servers": {name: {"type": "http", "url": resource.text}}},
        where="Save as .vscode/mcp.json of a workspace, or run in VS Code: MCP: Open User Configuration",
    )


def _vscode_managed(resource: ResourceUri, name: str) -> ClientConfiguration:
    host = resource.authority.partition(":")[0] if "[" not in resource.authority else "localhost"
    return ClientConfiguration(
        content={
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": f"{'.'.join(reversed(host.split('.')))}/{name}",
            "title": "MongoDB",
            "description": "MongoDB behind a policy",
            "version": "1.0.0",
            "remotes": [{"type": "streamable-http", "url": resource.text}],
        },
        where=(
            "Publish in your MCP registry, and set the policies ChatMCP to registry and McpGalleryServiceUrl to the "
            "registry's address (Group Policy, a profile, or /etc/vscode/policy.json). Users can then install what the "
            "registry has, and use nothing else."
        ),
    )


def _inspector(resource: ResourceUri, name: str) -> ClientConfiguration:
    return ClientConfiguration(
        content={"mcpServers": {name: {"type": "streamable-http", "url": resource.text}}},
        where=(
            "Save as FILE and run: npx @modelcontextprotocol/inspector@2 --cli --config FILE "
            f"--server {name} --method tools/list"
        ),
    )


def launching(client: Client, name: str, file: Path) -> ClientConfiguration:
    """Return what makes a client launch ``mcp-sidecar stdio`` with the settings of ``file``."""
    program = shutil.which("mcp-sidecar") or sys.executable
    entry: JsonObject = {
        "type": "stdio",
        "command": program,
        "args": ["stdio"] if program != sys.executable else ["-m", "sidecar", "stdio"],
        "env": {os_environment.CONFIG_VARIABLE: str(file.resolve())},
    }
    table = "servers" if client is Client.VSCODE else "mcpServers"
    where = configuration_file(client)
    return ClientConfiguration(
        content={table: {name: entry}},
        where=f"{where} stdio.token_file of the settings names the file with the token; put none into this one.",
    )


def configuration_file(client: Client) -> str:
    """Say where a client has its own configuration."""
    match client:
        case Client.CLAUDE_CODE:
            return "Save as .mcp.json of a project."
        case Client.CLAUDE_DESKTOP:
            return "Merge into claude_desktop_config.json and start Claude Desktop again."
        case Client.VSCODE:
            return "Save as .vscode/mcp.json of a workspace."
        case Client.INSPECTOR:
            return "Save as FILE, for --config FILE."


_ClientForm = Callable[[ResourceUri, str], ClientConfiguration]

_PERSONAL: Final[Mapping[Client, _ClientForm]] = {
    Client.CLAUDE_CODE: _claude_code,
    Client.CLAUDE_DESKTOP: _claude_desktop,
    Client.VSCODE: _vscode,
    Client.INSPECTOR: _inspector,
}

_MANAGED: Final[Mapping[Client, _ClientForm]] = {
    Client.CLAUDE_CODE: _claude_code_managed,
    Client.CLAUDE_DESKTOP: _claude_desktop_managed,
    Client.VSCODE: _vscode_managed,
}
"""MCP Inspector is a tool of developers: nothing of it is managed."""


@click.command("client-config")
@click.argument("client", type=click.Choice([client.value for client in Client]))
@click.option("--managed", is_flag=True, help="Print the form that an administrator distributes to all users.")
@click.option("--stdio", "launched", is_flag=True, help="Print what makes the client launch the sidecar itself.")
@click.option("--settings", "file", envvar=os_environment.CONFIG_VARIABLE, hidden=True, type=click.Path(path_type=Path))
@click.option("--name", default="mongodb", show_default=True, help="What the client calls the server.")
def client_config(client: str, *, managed: bool, launched: bool, file: Path | None, name: str) -> None:
    """Print the configuration that makes CLIENT call this sidecar, from the settings' resource_url.

    The configuration goes to standard output, and where it belongs to standard error. It never holds a token: each
    client logs its user in.
    """
    if not _NAME.fullmatch(name):
        raise click.UsageError("--name: use up to 32 of a-z, 0-9, _ and -, and begin with a letter or digit")
    resource = settings.load().resource
    if launched and (managed or file is None):
        raise click.UsageError(
            "--stdio is for one machine with a settings file: without --managed, with SIDECAR_CONFIG"
        )
    try:
        if launched and file is not None:
            found = launching(Client(client), name, file)
        else:
            found = configuration(Client(client), resource, name, managed=managed)
    except KeyError:
        raise click.UsageError(f"{client} has no form that an administrator distributes") from None
    click.echo(escaped(json.dumps(found.content, indent=2, ensure_ascii=False), keep="\n"))
    click.echo(escaped(found.where), err=True)
