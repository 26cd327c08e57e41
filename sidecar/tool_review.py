"""Whether the tools of the configured servers are the reviewed ones, for people and scripts."""

from contextlib import AsyncExitStack, suppress

from rich.console import Console
from rich.table import Table

from sidecar import app, settings
from sidecar.commands import CATALOG, PinState, generic, pinning, pins
from sidecar.errors import UpstreamError
from sidecar.model import JsonObject
from sidecar.ports import Upstream
from sidecar.printing import escaped


async def compare_tools(console: Console) -> bool:
    """Ask the configured servers for their tools and show how each stands to its pin.

    Returns:
        Whether every tool that a server offers is the reviewed one.

    Raises:
        ConfigurationError: the settings cannot be used, or a server does not start.
    """
    config = settings.load()
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
