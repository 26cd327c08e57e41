"""The real MongoDB MCP server and its list of tools, asked for once in each file."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio

from sidecar.model import JsonObject
from sidecar.upstream.process import StdioUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_server(mcp_server_command: list[str]) -> AsyncIterator[StdioUpstream]:
    """The real server, without a database behind it."""
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:1/",
        "MDB_MCP_TELEMETRY": "disabled",
    }
    server = StdioUpstream("demo-ro", mcp_server_command, environment, timeout_s=30.0)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def offered(real_server: StdioUpstream) -> tuple[JsonObject, ...]:
    """The real server's own list of tools, which the pins are of."""
    return await real_server.tools()
