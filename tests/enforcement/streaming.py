"""The real endpoint before real policies and evidence, with an MCP server whose calls go as a test stages them.

The MongoDB MCP server reports no progress, so what one tells of its calls is staged here; ``tests/upstream`` has a real
server that does.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sidecar.commands.catalog import CATALOG
from sidecar.edge.http import EdgeConfig, build_application
from sidecar.edge.origins import default_hosts, default_origins
from sidecar.edge.server import ServerLimits, serve
from sidecar.enforcement import EnforcementPoint, EnforcementRules, Ports, SharedSessions, Suspensions
from sidecar.errors import TokenRejected
from sidecar.identity import ApprovalStore
from sidecar.identity.resource import ResourceUri
from sidecar.mcp import methods
from sidecar.mcp.session import Sessions
from sidecar.model import Actor, Credential, Identity, JsonObject, Permit, Principal, UpstreamResult
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import DecisionPoint, Upstream
from sidecar.store.file import FileAuditSink
from sidecar.system.clock import SystemClock
from sidecar.system.identifiers import RandomIdentifiers
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer
from tests.patience import HANG_S

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
FIND: JsonObject = {"name": "find", "arguments": {**ORDERS, "filter": {}, "limit": 1}}
GROUPS = {"alice": "analysts", "bob": "analysts", "hanna": "hr-admins"}
Script = Callable[[Permit], Awaitable[str]]


@dataclass
class ScriptedServer:
    """An MCP server that writes down what reached it, and does with a call what the test says."""

    offered: tuple[JsonObject, ...]
    script: Script
    permits: list[Permit] = field(default_factory=list)
    healthy: bool = True

    async def forward(self, permit: Permit) -> UpstreamResult:
        self.permits.append(permit)
        text = await self.script(permit)
        result = json.dumps({"content": [{"type": "text", "text": text}]}).encode()
        return UpstreamResult(result=result, failed=False, documents=1)

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()

    async def tools(self) -> tuple[JsonObject, ...]:
        return self.offered


class NamedTokens:
    """A token is the name of its user; ``expired`` in it counts seconds from now."""

    async def verify(self, credential: Credential) -> Identity:
        user, _, lasts = str(credential.token).partition("-")
        if user not in GROUPS:
            raise TokenRejected("unknown")
        principal = Principal(
            issuer="https://idp.example", subject=user, groups=(GROUPS[user],), scopes=("mongodb:read",)
        )
        return Identity(
            principal=principal, actor=Actor(id="claude-desktop"), expires_at=time.time() + float(lasts or 3600)
        )


@dataclass(frozen=True)
class Event:
    id: str
    message: Any
    """None: an event without one."""


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Read server-sent events as WHATWG HTML 9.2.6 says, comments skipped; ends with the stream."""
    event_id, data = "", None
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if not line:
            if data is not None:
                yield Event(event_id, json.loads(data) if data else None)  # noqa: TID251 - our own answer
            event_id, data = "", None
        elif line.startswith("id: "):
            event_id = line[4:]
        elif line.startswith("data: "):
            data = line[6:]


@dataclass
class Streaming:
    """The running endpoint, and what a test looks at behind it."""

    url: str
    pep: EnforcementPoint
    server: ScriptedServer
    audit: Path
    http: aiohttp.ClientSession
    runner: web.AppRunner

    def headers(self, session: str | None = None, user: str = "alice", **more: str) -> dict[str, str]:
        given = {
            "Authorization": f"Bearer {user}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }
        return given | ({"Mcp-Session-Id": session} if session else {}) | more

    async def open(self, user: str = "alice", revision: str = "2025-11-25", **capabilities: Any) -> str:
        params = {
            "protocolVersion": revision,
            "capabilities": capabilities,
            "clientInfo": {"name": "t", "version": "0"},
        }
        async with self.http.post(
            self.url, json=message("initialize", params), headers=self.headers(user=user)
        ) as answer:
            assert answer.status == 200
            return answer.headers["Mcp-Session-Id"]

    def post(self, session: str, body: Any, user: str = "alice") -> Any:
        return self.http.post(self.url, json=body, headers=self.headers(session, user))

    def listen(self, session: str, after: str | None = None, user: str = "alice") -> Any:
        more = {} if after is None else {"Last-Event-ID": after}
        return self.http.get(self.url, headers=self.headers(session, user, **more))

    def outcomes(self) -> list[tuple[str, str | None]]:
        rows = [json.loads(line) for line in self.audit.read_bytes().splitlines()]  # noqa: TID251 - our own file
        return [(row["outcome"]["status"], row["outcome"]["error"]) for row in rows if row["event"] == "outcome"]


def message(method: str, params: Any = None, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


def call(number: Any = 1, token: Any = None, params: JsonObject = FIND) -> dict[str, Any]:
    meta = {} if token is None else {"_meta": {"progressToken": token}}
    return message("tools/call", {**params, **meta}, number)


@asynccontextmanager
async def streaming(
    opa: ManagedOpa | DecisionPoint,
    offered: tuple[JsonObject, ...],
    script: Script,
    *,
    stall_s: float = 30.0,
    shutdown_s: float = 5.0,
    lasts_s: float | None = 10.0 * HANG_S,
    upstream: Upstream | None = None,
    approvals: ApprovalStore | None = None,
    shared_sessions: SharedSessions | None = None,
    **edge: Any,
) -> AsyncIterator[Streaming]:
    """The endpoint, for as long as the block lasts; ``upstream`` serves instead of the scripted server."""
    with tempfile.TemporaryDirectory(prefix="streams-") as folder:
        audit = Path(folder) / "audit.jsonl"
        store, server, clock = FileAuditSink(audit), ScriptedServer(offered, script), SystemClock()
        ports = Ports(
            verifier=NamedTokens(),
            decisions=opa,
            audit=store,
            upstreams=dict.fromkeys(("demo-ro", "demo-rw"), upstream or server),
            clock=clock,
            identifiers=RandomIdentifiers(),
            tracer=OtelTracer(None),
            metrics=OtelMetrics(methods=methods.KNOWN, tools=CATALOG.keys(), servers=["demo-ro", "demo-rw"]),
            suspensions=Suspensions(clock),
            approvals=approvals,
            shared_sessions=shared_sessions,
        )
        rules = EnforcementRules(environment="test", server_version="0", stall_s=stall_s)
        pep = EnforcementPoint(ports, rules, Sessions(100, 100, 3600))
        resource = ResourceUri.parse("http://127.0.0.1/mcp")
        config = EdgeConfig(
            resource_uri=resource,
            authorization_servers=("https://idp.example",),
            allowed_hosts=default_hosts(resource, "127.0.0.1"),
            allowed_origins=default_origins(resource, "127.0.0.1"),
            **edge,
        )
        runner = await serve(
            build_application(pep, config), ("127.0.0.1", 0), limits=ServerLimits(shutdown_s=shutdown_s)
        )
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
            async with (
                asyncio.timeout(lasts_s),
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
            ):
                yield Streaming(url, pep, server, audit, http, runner)
        finally:
            await runner.cleanup()
            await store.close()
