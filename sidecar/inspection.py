"""What a tool call would touch, and whether the servers' tools are the reviewed ones: for people and scripts."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from typing import TextIO

from rich.console import Console
from rich.table import Table

from sidecar import app
from sidecar.commands import CATALOG, PinState, derive, generic, pinning, pins
from sidecar.errors import CallRefused, MessageError, UnknownTool, UpstreamError
from sidecar.mcp import jsonrpc, tools
from sidecar.model import JsonObject
from sidecar.policy import command_document
from sidecar.ports import Upstream
from sidecar.printing import escaped
from sidecar.settings import Settings

_BEFORE, _AFTER = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":', b"}"
"""The text is read inside a message, so that it passes the very decoder that serves."""


def inspect(text: bytes) -> JsonObject:
    """Return the derived command of ``tools/call`` params, or ``{"refused": {"code", "message", "path"}}``."""
    try:
        message = jsonrpc.decode(_BEFORE + text.strip() + _AFTER)
        if not isinstance(message, jsonrpc.Request):
            return _refused("invalid_request", "Not the params of one tools/call.", "")
        call = tools.parse_call(message.params)
        return command_document(derive(call).command)
    except CallRefused as error:
        return _refused(error.reason, error.message, error.path)
    except UnknownTool as error:
        return _refused(error.label, error.public, "/name")
    except MessageError as error:
        return _refused(error.label, error.public, "")


def inspect_lines(lines: Iterable[bytes], out: TextIO) -> bool:
    """Answer each line with one line; return whether no call was refused. Empty lines are passed over."""
    ok = True
    for line in lines:
        if line.strip():
            found = inspect(line)
            ok = ok and "refused" not in found
            out.write(escaped(json.dumps(found, ensure_ascii=False)) + "\n")
    return ok


async def compare_tools(config: Settings, console: Console) -> bool:
    """Ask the configured servers for their tools and show how each stands to its pin.

    Returns:
        Whether every tool that a server offers is the reviewed one.

    Raises:
        ConfigurationError: a server does not start.
    """
    suspicious = False
    async with AsyncExitStack() as stack:
        named = {server.name: server.generic_by_name() for server in config.servers}
        for name, upstream in (await app.connect_servers(config, stack)).items():
            try:
                live = await upstream.tools()
                own = {tool.name: tool.pin for tool in generic.only_tools(named[name]).values()}
                standings = pinning.compare(live, own).standings
            except UpstreamError as error:
                console.print(f"{name}: {error.public}", markup=False)
                suspicious = True
                continue
            suspicious |= any(standing in {PinState.CHANGED, PinState.UNKNOWN} for standing in standings.values())
            table = Table(title=f"{name}, against {pins.SERVER}", title_justify="left")
            table.add_column("tool")
            table.add_column("standing")
            table.add_column("sha256, for generic_tools", overflow="fold")
            digests = {str(tool.get("name")): _digest(tool) for tool in live}
            for tool, standing in standings.items():
                shown = tool not in CATALOG and standing is not PinState.ABSENT
                table.add_row(escaped(tool), standing.value, digests[tool] if shown else "")
            console.print(table)
            await _show_prompts(name, upstream, console)
    return not suspicious


async def _show_prompts(name: str, upstream: Upstream, console: Console) -> None:
    """Print the digests of a server's prompts, where it has some."""
    with suppress(UpstreamError):
        prompts = await upstream.prompts()
        table = Table(title=f"{name}, prompts", title_justify="left")
        table.add_column("prompt")
        table.add_column("sha256, for generic_prompts", overflow="fold")
        for prompt in prompts:
            table.add_row(escaped(str(prompt["name"])), _digest(prompt))
        if prompts:
            console.print(table)


def _digest(tool: JsonObject) -> str:
    try:
        return pinning.fingerprint(tool)
    except ValueError:
        return "(has no canonical form)"


def _refused(code: str, message: str, path: str) -> JsonObject:
    return {"refused": {"code": code, "message": message, "path": path}}
