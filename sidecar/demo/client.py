"""As much of an MCP client as the tour needs: one session of one identity over Streamable HTTP."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from sidecar.mcp import revision

PROTOCOL: Final = revision.LATEST.value
ACCEPT: Final = "application/json, text/event-stream"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP answer with its JSON-RPC body, where it has one."""

    status: int
    body: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """The JSON-RPC result, or an empty object."""
        result = self.body.get("result")
        return result if isinstance(result, dict) else {}

    @property
    def decision(self) -> dict[str, Any]:
        """The machine-readable part of a refusal, or an empty object."""
        decision = self.result.get("_meta", {}).get("mcp-sidecar/decision")
        return decision if isinstance(decision, dict) else {}

    @property
    def text(self) -> str:
        """What a model would read first."""
        if "error" in self.body:
            return str(self.body["error"].get("message", ""))
        content = self.result.get("content") or [{}]
        return str(content[0].get("text", ""))


class DemoClient:
    """One session; ``token`` None sends no credentials."""

    def __init__(self, url: str, token: str | None, agent: str) -> None:
        self._url = url
        self._agent = agent
        self._headers = {"Accept": ACCEPT}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._http = aiohttp.ClientSession(trust_env=False)
        self._ids = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def initialize(self) -> HttpAnswer:
        """Open the session (MCP 2025-11-25, lifecycle)."""
        params = {
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": self._agent, "version": "demo"},
        }
        answer = await self._request("initialize", params)
        if answer.status == 200:  # noqa: PLR2004 - OK
            self._headers["MCP-Protocol-Version"] = PROTOCOL
            await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def call(self, tool: str, arguments: dict[str, Any]) -> HttpAnswer:
        """Call one tool."""
        return await self._request("tools/call", {"name": tool, "arguments": arguments})

    async def tools(self) -> HttpAnswer:
        """List the tools that this identity may see."""
        return await self._request("tools/list", {})

    async def _request(self, method: str, params: dict[str, Any]) -> HttpAnswer:
        self._ids += 1
        return await self._post({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params})

    async def _post(self, message: dict[str, Any]) -> HttpAnswer:
        async with self._http.post(self._url, json=message, headers=self._headers) as response:
            session = response.headers.get("Mcp-Session-Id")
            if session is not None:
                self._headers["Mcp-Session-Id"] = session
            body = await response.json() if response.content_type == "application/json" else {}
            return HttpAnswer(response.status, body)
