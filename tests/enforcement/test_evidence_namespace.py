"""Policy that allows everything gives nobody the database in which a sidecar keeps its evidence, by any tool."""

import asyncio
import json

import msgspec
import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.commands.tool_groups import ToolGroup
from sidecar.enforcement import Caller, EnforcementPoint, EnforcementRules, Exchange, Ports
from sidecar.mcp import methods
from sidecar.mcp.session import Sessions
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.ports import PdpAnswer, Question
from sidecar.store.file import FileAuditSink
from sidecar.system.clock import SystemClock
from sidecar.system.identifiers import RandomIdentifiers
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer
from tests.enforcement.crash_rounds import ALICE, Knows
from tests.patience import HANG_S

OWN = "mcp_sidecar"
AT: JsonObject = {"connectionId": "preconfigured", "database": OWN, "collection": "audit"}
NEAR: JsonObject = {**AT, "database": "sales", "collection": "orders"}
WHOLE: JsonObject = {"connectionId": "preconfigured", "database": OWN}


def stages(*pipeline: JsonObject) -> JsonObject:
    return {**NEAR, "pipeline": [*pipeline]}


CALLS: dict[str, tuple[str, JsonObject]] = {
    "find": ("find", AT),
    "find in another case": ("find", {**AT, "database": "MCP_Sidecar"}),
    "find of the heads": ("find", {**AT, "collection": "audit.checkpoints"}),
    "count": ("count", AT),
    "aggregate": ("aggregate", {**AT, "pipeline": []}),
    "aggregate-db": ("aggregate-db", {**WHOLE, "pipeline": [{"$documents": [{}]}]}),
    "lookup": ("aggregate", stages({"$lookup": {"from": {"db": OWN, "coll": "audit"}, "pipeline": [], "as": "x"}})),
    "union": ("aggregate", stages({"$unionWith": {"db": OWN, "coll": "audit"}})),
    "union in a lookup": (
        "aggregate",
        stages({"$lookup": {"from": "a", "as": "x", "pipeline": [{"$unionWith": {"db": OWN, "coll": "audit"}}]}}),
    ),
    "out": ("aggregate", stages({"$out": {"db": OWN, "coll": "audit"}})),
    "out to its own database": ("aggregate", {**AT, "collection": "x", "pipeline": [{"$out": "audit"}]}),
    "merge": ("aggregate", stages({"$merge": {"into": {"db": OWN, "coll": "audit"}, "on": "_id"}})),
    "merge in another case": ("aggregate", stages({"$merge": {"into": {"db": "Mcp_Sidecar", "coll": "audit"}}})),
    "explain": ("explain", {**AT, "method": [{"name": "find", "arguments": {"filter": {}}}]}),
    "explain of a union": (
        "explain",
        {
            **NEAR,
            "method": [
                {
                    "name": "aggregate",
                    "arguments": {"pipeline": [{"$unionWith": {"db": OWN, "coll": "audit"}}]},
                }
            ],
        },
    ),
    "export": (
        "export",
        {**AT, "exportTitle": "x", "exportTarget": [{"name": "find", "arguments": {"filter": {}}}]},
    ),
    "export of a union": (
        "export",
        {
            **NEAR,
            "exportTitle": "x",
            "exportTarget": [
                {
                    "name": "aggregate",
                    "arguments": {"pipeline": [{"$unionWith": {"db": OWN, "coll": "audit"}}]},
                }
            ],
        },
    ),
    "schema": ("collection-schema", AT),
    "indexes": ("collection-indexes", AT),
    "size": ("collection-storage-size", AT),
    "collections": ("list-collections", WHOLE),
    "statistics": ("db-stats", WHOLE),
    "insert": ("insert-many", {**AT, "documents": [{"instance": "one", "seq": 1}]}),
    "update": ("update-many", {**AT, "filter": {}, "update": {"$set": {"tool": "x"}}}),
    "delete": ("delete-many", {**AT, "filter": {}}),
    "rename": ("rename-collection", {**AT, "newName": "elsewhere"}),
    "rename onto it": ("rename-collection", {**AT, "collection": "x", "newName": "audit", "dropTarget": True}),
    "drop": ("drop-collection", AT),
    "drop the database": ("drop-database", WHOLE),
    "create": ("create-collection", AT),
    "create an index": ("create-index", {**AT, "definition": [{"type": "classic", "keys": {"expires": 1}}]}),
    "drop an index": ("drop-index", {**AT, "indexName": "instance_1_seq_1", "type": "classic"}),
}


class AllowsEverything:
    """Policy that allows whatever it is asked."""

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        if question is not Question.DECISION:
            return PdpAnswer(result={"v": 1, "tools": [*CATALOG], "revision": "r1"}, revision="r1")
        accesses = document["accesses"]
        assert isinstance(accesses, list)
        one: JsonObject = {
            "owner": "t",
            "grants": ["g"],
            "filter": None,
            "mask": [],
            "max_documents": None,
            "max_time_ms": None,
        }
        return PdpAnswer(
            result={
                "v": 1,
                "allow": True,
                "reasons": [],
                "server": "demo",
                "approval": None,
                "revision": "r1",
                "accesses": [one for _ in accesses],
            },
            revision="r1",
        )


class Reached:
    """An MCP server that says what reached it."""

    healthy = True

    def __init__(self, offered: tuple[JsonObject, ...]) -> None:
        self._offered = offered
        self.calls: list[JsonObject] = []

    async def forward(self, permit: Permit) -> UpstreamResult:
        self.calls.append(permit.call.arguments)
        return UpstreamResult(result=b'{"content":[]}', failed=False, documents=1)

    async def tools(self) -> tuple[JsonObject, ...]:
        return self._offered

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()


@pytest.fixture
def world(offered, tmp_path):
    server, clock = Reached(offered), SystemClock()
    ports = Ports(
        verifier=Knows(),
        decisions=AllowsEverything(),
        audit=FileAuditSink(tmp_path / "audit.jsonl"),
        upstreams={"demo": server},
        clock=clock,
        identifiers=RandomIdentifiers(),
        tracer=OtelTracer(None),
        metrics=OtelMetrics(methods=methods.KNOWN, tools=CATALOG.keys(), servers=["demo"]),
    )
    rules = EnforcementRules(
        environment="test",
        server_version="0",
        own_database=OWN,
        tool_groups={"demo": frozenset({ToolGroup.EXPORT})},
    )
    return EnforcementPoint(ports, rules, Sessions(100, 100, 3600)), server, tmp_path / "audit.jsonl"


async def called(pep: EnforcementPoint, tool: str, arguments: JsonObject) -> None:
    caller = Caller(identity=ALICE, began_ns=1, ended_ns=2)
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}
    opened = await pep.enforce(json.dumps(hello).encode(), Exchange(transport="http", client_ip="127.0.0.1"), caller)
    exchange = Exchange(transport="http", client_ip="127.0.0.1", session_id=getattr(opened, "session_id", None))
    params = {"name": tool, "arguments": arguments}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
    await asyncio.wait_for(pep.enforce(json.dumps(call).encode(), exchange, caller), HANG_S)


def moved(value: JsonObject) -> JsonObject:
    """The same call about another database, whose name begins like the sidecar's own."""
    text = json.dumps(value)
    for spelling in (OWN, "MCP_Sidecar", "Mcp_Sidecar"):
        text = text.replace(f'"{spelling}"', f'"{spelling}2"')
    other: JsonObject = json.JSONDecoder().decode(text)
    return other


@pytest.mark.parametrize("name", CALLS)
async def test_no_tool_reaches_the_evidence_and_the_near_miss_goes_on(world, name):
    pep, server, file = world
    tool, arguments = CALLS[name]
    await called(pep, tool, arguments)
    assert server.calls == []
    refused = msgspec.json.decode(file.read_bytes().splitlines()[-1])
    assert (refused["event"], refused["outcome"]["error"]) == ("refusal", "own_database")
    other = moved(arguments)
    assert other != arguments
    await called(pep, tool, other)
    assert len(server.calls) == 1, file.read_bytes().splitlines()[-1]


def test_every_tool_that_names_a_database_is_tried(offered):
    naming = {tool["name"] for tool in offered if "database" in tool["inputSchema"].get("properties", {})}
    assert len(naming) > 15
    assert {tool for tool, _ in CALLS.values()} == naming
