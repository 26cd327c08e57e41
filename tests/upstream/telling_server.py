"""A real MCP server, on the official Python package, whose tools tell of their calls: on standard streams or HTTP."""

import asyncio
import sys
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server: Any = MCPServer("telling")


@server.tool()
async def count_up(steps: int, ctx: Context) -> str:
    """Report each step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step} of {steps}")
    return f"counted to {steps}"


@server.tool()
async def speak(words: list[str], ctx: Context) -> str:
    """Log each word."""
    for word in words:
        await ctx.info(word)  # type: ignore[deprecated]  # what servers of the earlier revisions do
    return "spoke"


@server.tool()
async def grow(ctx: Context) -> str:
    """Offer another tool from now on, and tell whom it concerns."""
    server.add_tool(speak, name=f"speak_{len(await server.list_tools())}")
    await ctx.notify_tools_changed()
    return "grew"


@server.tool()
async def wait_for_ever(ctx: Context) -> str:
    """Report that it waits, and answer nothing; write down when it is cancelled."""
    await ctx.report_progress(0)
    try:
        await asyncio.Event().wait()
    finally:
        sys.stderr.write("was cancelled\n")
        sys.stderr.flush()
    return ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
