"""The real MongoDB MCP server's list of tools, asked for once in each file."""

import os

import pytest_asyncio

from sidecar.model import JsonObject
from sidecar.upstream.process import StdioUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def offered(mcp_server_command: list[str]) -> list[JsonObject]:
    """The real server's own list of tools, which the pins are of."""
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:1/",
        "MDB_MCP_TELEMETRY": "disabled",
    }
    server = StdioUpstream("demo-ro", mcp_server_command, environment, timeout_s=30.0)
    await server.start()
    try:
        return await server.tools()
    finally:
        await server.stop()
