"""The official Python client agrees with the endpoint on a revision, in each of its modes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from tests.edge.endpoint import Endpoint, encoded, running, token
from tests.patience import HANG_S


@asynccontextmanager
async def connected(endpoint: Endpoint, mode: str) -> AsyncIterator[mcp.Client]:
    url = f"http://127.0.0.1:{endpoint.port}/mcp"
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token()}"}, timeout=HANG_S) as http,
        mcp.Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("mode", "agreed", "sessions"),
    [("auto", "2026-07-28", 0), ("2026-07-28", "2026-07-28", 0), ("legacy", "2025-11-25", 1)],
)
async def test_each_mode_gets_its_revision(tmp_path: Path, mode: str, agreed: str, sessions: int) -> None:
    async with running(tmp_path) as endpoint, connected(endpoint, mode) as client:
        assert client.protocol_version == agreed
        assert len(endpoint.sessions) == sessions
        with pytest.raises(mcp.MCPError) as caught:
            await client.list_tools()
        assert caught.value.code == 1503, "the decision point of this endpoint is down, which is an answer"
        assert {record["protocol"] for record in endpoint.ledger.records} == {agreed}
        assert {record["session"] is None for record in endpoint.ledger.records} == {sessions == 0}


async def test_a_client_of_a_later_revision_is_told_what_is_spoken(tmp_path: Path) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2027-01-01", "io.modelcontextprotocol/clientCapabilities": {}}
    body = encoded({"jsonrpc": "2.0", "id": 7, "method": "server/discover", "params": {"_meta": meta}})
    async with running(tmp_path) as endpoint:
        answer = await endpoint.ask(body=body, MCP_Protocol_Version="2027-01-01", Mcp_Method="server/discover")
    assert (answer.status, answer.json["id"], answer.json["error"]["code"]) == (400, 7, -32022)
    assert answer.json["error"]["data"]["requested"] == "2027-01-01"
    assert {"2026-07-28", "2025-11-25"} <= {*answer.json["error"]["data"]["supported"]}
