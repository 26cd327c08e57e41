"""A real Jaeger 2 finds the traces of calls by user, agent, tool, collection and decision; the terminal draws them."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from sidecar.command_line import cli
from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, STRANGER
from tests import parts, programs
from tests.integration.deployment import deployed, wait_until
from tests.patience import HANG_S

JAEGER = "jaeger-2.13.0"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}

pytestmark = [pytest.mark.real, pytest.mark.needs(JAEGER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJaeger:
    query: str
    otlp: str

    def get(self, path: str, **parameters: str) -> list[Any]:
        try:
            with urlopen(f"{self.query}{path}?{urlencode(parameters)}", timeout=HANG_S) as answer:  # noqa: S310 - loopback
                found: list[Any] = json.load(answer)["data"] or []
        except (URLError, OSError):
            return []
        return found

    def everything(self) -> Iterator[bytes]:
        """The spans of the sidecar and of OPA, by the time that they are looked at."""
        for service in ("mcp-sidecar", "opa"):
            yield json.dumps(self.get("/api/traces", service=service, limit="1000"), ensure_ascii=False).encode()

    def search(self, **tags: str) -> set[str]:
        """The ids of the traces that have all of these tags on one span."""
        told = self.get("/api/traces", service="mcp-sidecar", limit="100", tags=json.dumps(tags))
        return {trace["traceID"] for trace in told}


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningJaeger]:
    ports = {name: str(parts.free_port()) for name in ("UI", "OTLP", "GRPC", "HEALTH")}
    log = tmp_path_factory.mktemp("jaeger") / "log"
    command = [str(programs.path_of(JAEGER)), "--config", str(parts.ROOT / "deploy/jaeger.yaml")]
    environment = {f"JAEGER_{name}_PORT": port for name, port in ports.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    running = RunningJaeger(query=f"http://127.0.0.1:{ports['UI']}", otlp=f"http://127.0.0.1:{ports['OTLP']}")
    health = f"http://127.0.0.1:{ports['HEALTH']}/status"
    wait_until(lambda: answers(health), f"Jaeger to be healthy; its log: {log}", process)
    yield running
    parts.stop(process)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, database: str, jaeger: RunningJaeger) -> dict[str, Any]:
    """Two callers, an allowed and two refused calls; their trace ids by name, from the evidence."""
    folder = tmp_path_factory.mktemp("traced")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp,
        "OTEL_SERVICE_NAME": "mcp-sidecar",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with deployed(folder, database, environment=environment, spans=jaeger.everything()) as running:
        asyncio.run(play(running))
        lines = (folder / "audit.jsonl").read_bytes().splitlines()
        records = [json.loads(line) for line in lines]  # noqa: TID251 - our own records
        begun = [row for row in records if row["event"] in {"intent", "refusal"} and row["method"] == "tools/call"]
        ids = {(row["subject"]["id"], row["tool"], row["event"]): row["trace_id"] for row in begun}
        wait_until(
            lambda: (
                set(ids.values()) <= {trace["traceID"] for trace in jaeger.get("/api/traces", service="mcp-sidecar")}
            ),
            "the traces to arrive",
        )
    return {"ids": ids, "file": folder / "audit.jsonl"}


async def play(running: Any) -> None:
    await demo_database.seed(running.uri)
    async with running.client(ANALYST) as client:
        await client.call_tool("find", {**ORDERS, "limit": 1})
        await client.call_tool("count", SALARIES)
    async with running.plain(STRANGER) as client:
        await client.initialize()
        await client.call("find", {**ORDERS, "limit": 1})


def test_traces_are_found_by_user_agent_tool_collection_and_decision(jaeger: RunningJaeger, calls: Any) -> None:
    ids = calls["ids"]
    allowed = ids[ANALYST.user, "find", "intent"]
    denied = ids[ANALYST.user, "count", "refusal"]
    mine = {"user.id": ANALYST.user}
    assert {allowed, denied} <= jaeger.search(**mine)
    assert {allowed, denied} <= jaeger.search(**{"gen_ai.agent.id": ANALYST.agent})
    assert jaeger.search(**mine, **{"gen_ai.tool.name": "find"}) == {allowed}
    assert jaeger.search(**mine, **{"db.namespace": "hr", "db.collection.name": "salaries"}) == {denied}
    assert jaeger.search(**mine, **{"mcp_sidecar.accesses": '["read:sales.orders"]'}) == {allowed}
    assert jaeger.search(**mine, **{"mcp_sidecar.decision": "deny"}) == {denied}
    assert jaeger.search(**mine, **{"error.type": "policy_denied"}) == {denied}
    assert jaeger.search(**{"user.id": "nobody"}) == set()


def test_one_trace_is_drawn_with_the_spans_of_jaeger_and_agrees_with_the_evidence(
    jaeger: RunningJaeger, calls: Any
) -> None:
    allowed = calls["ids"][ANALYST.user, "find", "intent"]
    words = ["trace", "--file", str(calls["file"]), allowed, "--jaeger", jaeger.query, "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)  # noqa: TID251 - our own output
    [call] = found["calls"]
    spans = {span["name"]: span["depth"] for span in found["spans"]}
    assert spans.items() >= {"tools/call find": 0, "derive": 1, "authorize": 1, "audit": 1, "forward": 1}.items()
    [trace] = jaeger.get(f"/api/traces/{allowed}")
    [message] = [span for span in trace["spans"] if span["operationName"] == "tools/call find"]
    tags = {tag["key"]: tag["value"] for tag in message["tags"]}
    assert tags["mcp_sidecar.opa.decision_id"] == call["opa_decision_id"]
    assert tags["mcp_sidecar.policy.revision"] == call["revision"]
    assert json.loads(tags["mcp_sidecar.grants"]) == call["grants"]  # noqa: TID251
