"""One call is one trace, as a collector receives it from a whole deployment; and what the admin listener says."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from tests import parts
from tests.integration.deployment import Deployment, deployed, wait_until

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
FIND = {**ORDERS, "filter": {"status": "canary-filter-value"}, "limit": 1}
JOIN = {
    **ORDERS,
    "pipeline": [
        {"$match": {"status": "canary-filter-value"}},
        {"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "pipeline": [], "as": "x"}},
    ],
}
PARENT = ("a" * 32, "b" * 16)
LINK = ("c" * 32, "d" * 16)

SERVER, CLIENT, INTERNAL = 2, 3, 1

ALWAYS = {"mcp.method.name", "network.transport", "client.address"}
ON_A_CALL = ALWAYS | {
    "mcp.session.id", "mcp.protocol.version", "jsonrpc.request.id", "gen_ai.tool.name", "gen_ai.operation.name",
    "user.id", "user.type", "gen_ai.agent.id", "db.system.name", "db.namespace", "db.collection.name",
    "db.operation.name",
    "mcp_sidecar.accesses", "mcp_sidecar.decision", "mcp_sidecar.reasons", "mcp_sidecar.grants", "mcp_sidecar.server",
    "mcp_sidecar.policy.revision", "mcp_sidecar.opa.decision_id", "mcp_sidecar.audit.id",
}  # fmt: skip
"""The keys of the contract (docs/traces.md), which dashboards are built on."""


class Collector(ThreadingHTTPServer):
    """A loopback OTLP receiver; keeps the raw bytes too, to look for what must not be in them."""

    daemon_threads = True

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.metrics: list[bytes] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), type("Handler", (Receiver,), {"collector": self}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def everything(self) -> Iterator[bytes]:
        """All that was received, by the time that it is looked at."""
        yield from self.raw
        yield from self.metrics

    def spans(self) -> list[tuple[str, Any]]:
        """Every span so far with the service that sent it."""
        found = []
        with self.lock:
            bodies = list(self.raw)
        for body in bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = attributes(resource.resource).get("service.name", "")
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def trace(self, trace_id: str) -> "Trace":
        return Trace([(service, span) for service, span in self.spans() if span.trace_id.hex() == trace_id])


class Receiver(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.collector.lock:
            (self.collector.raw if self.path == "/v1/traces" else self.collector.metrics).append(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    @override
    def log_message(self, *_args: object) -> None:
        pass


class Trace:
    """The spans of one trace, by service and name."""

    def __init__(self, spans: list[tuple[str, Any]]) -> None:
        self.spans = spans

    def own(self) -> dict[str, Any]:
        return {span.name: span for service, span in self.spans if service == "mcp-sidecar"}

    def kinds(self) -> set[int]:
        """Kinds of our own spans; the server's is exported last."""
        return {span.kind for service, span in self.spans if service == "mcp-sidecar"}

    def named(self, name: str) -> list[Any]:
        return [span for service, span in self.spans if service == "mcp-sidecar" and span.name == name]

    def opas(self) -> list[Any]:
        return [span for service, span in self.spans if service == "opa"]

    def decided_by_opa(self) -> bool:
        """Whether OPA's own span of the decision has arrived; those of its other answers come by themselves."""
        decision_id = attributes(self.server())["mcp_sidecar.opa.decision_id"]
        return decision_id in {value for span in self.opas() for value in attributes(span).values()}

    def server(self) -> Any:
        (found,) = [span for service, span in self.spans if service == "mcp-sidecar" and span.kind == SERVER]
        return found


def attributes(holder: Any) -> dict[str, Any]:
    values = {}
    for pair in holder.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        values[pair.key] = tuple(item.string_value for item in value.values) if kind == "array_value" else value
    return values


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, database, collector) -> Iterator[Deployment]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRICS_EXPORTER": "none",
        "SIDECAR_OPA__MEMO_MS": "0",
    }
    folder = tmp_path_factory.mktemp("traced")
    with deployed(folder, database, environment=environment, spans=collector.everything()) as running:
        yield running


@pytest.fixture(scope="module")
def played(deployment, collector):
    """Four calls: allowed, denied, with too few scopes, without a token; then every span has arrived."""
    trace_ids = asyncio.run(play(deployment))
    wait_until(
        lambda: (
            all(SERVER in collector.trace(trace_id).kinds() for trace_id in trace_ids.values())
            and all(collector.trace(trace_ids[name]).decided_by_opa() for name in ("allowed", "denied"))
        ),
        "the spans to arrive",
    )
    return {name: collector.trace(trace_id) for name, trace_id in trace_ids.items()}


async def play(deployment):
    await demo_database.seed(deployment.uri)
    trace_ids = {}
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        message = {"jsonrpc": "2.0", "id": 41, "method": "tools/call"}
        meta = {"traceparent": f"00-{PARENT[0]}-{PARENT[1]}-01", "com.example/other": "canary-meta"}
        client._headers["traceparent"] = f"00-{LINK[0]}-{LINK[1]}-01"
        allowed = await client._post({**message, "params": {"name": "find", "arguments": FIND, "_meta": meta}})
        assert not allowed.result.get("isError")
        trace_ids["allowed"] = PARENT[0]
        del client._headers["traceparent"]
        denied = await client.call("aggregate", JOIN)
        trace_ids["denied"] = denied.decision["trace_id"]
        assert "error" in (await client._request("no/such/method", {})).body
    async with deployment.plain(replace(LOADER, scopes=("mongodb:read",))) as client:
        await client.initialize()
        client._headers["traceparent"] = f"00-{'9' * 32}-{'8' * 16}-01"
        staging = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
        assert (await client.call("insert-many", {**staging, "documents": [{"x": "canary-document"}]})).status == 403
        trace_ids["lacking"] = "9" * 32
    async with deployment.plain(None) as client:
        client._headers["traceparent"] = f"00-{'e' * 32}-{'f' * 16}-01"
        assert (await client.call("find", FIND)).status == 401
        trace_ids["refused"] = "e" * 32
    return trace_ids


def test_an_allowed_call_is_a_tree_of_its_steps(played):
    trace = played["allowed"]
    server = trace.server()
    assert server.name == "tools/call find"
    steps = {name: span.kind for name, span in trace.own().items() if span.parent_span_id == server.span_id}
    assert steps == {
        "authenticate": INTERNAL,
        "derive": INTERNAL,
        "authorize": CLIENT,
        "audit": INTERNAL,
        "forward": CLIENT,
    }
    assert len(trace.named("audit")) == 2, "the intent before, the outcome after"
    starts = [min(span.start_time_unix_nano for span in trace.named(name)) for name in steps]
    assert starts == sorted(starts), "in the order of docs/architecture.md"
    assert all(
        server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= server.end_time_unix_nano
        for span in trace.own().values()
    )
    assert server.status.code == 0


def test_the_callers_meta_is_the_parent_and_its_header_a_link(played):
    server = played["allowed"].server()
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == PARENT
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in server.links] == [LINK]


def test_without_meta_the_header_is_the_parent(played):
    server = played["refused"].server()
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == ("e" * 32, "f" * 16)
    assert not server.links


def test_without_either_a_trace_begins(played):
    assert played["denied"].server().parent_span_id == b""


def test_opas_own_span_is_inside_authorize(played):
    for name in ("allowed", "denied"):
        trace = played[name]
        inside = {span.span_id for span in trace.named("authorize")}
        assert {span.parent_span_id for span in trace.opas()} <= inside
        assert trace.decided_by_opa()


def test_an_allowed_call_says_who_what_where_and_why(played, deployment):
    found = attributes(played["allowed"].server())
    assert found.keys() == ON_A_CALL
    intent = next(r for r in deployment.records() if r["event"] == "intent")
    assert found | {"mcp_sidecar.opa.decision_id": "", "client.address": ""} == {
        "mcp.method.name": "tools/call",
        "mcp.session.id": intent["session"],
        "mcp.protocol.version": "2025-11-25",
        "jsonrpc.request.id": "41",
        "gen_ai.tool.name": "find",
        "gen_ai.operation.name": "execute_tool",
        "user.id": "alice",
        "user.type": "user",
        "gen_ai.agent.id": "claude-desktop",
        "db.system.name": "mongodb",
        "db.namespace": "sales",
        "db.collection.name": "orders",
        "db.operation.name": "find",
        "mcp_sidecar.accesses": ("read:sales.orders",),
        "mcp_sidecar.decision": "allow",
        "mcp_sidecar.reasons": (),
        "mcp_sidecar.grants": ("analytics/analysts-read-orders",),
        "mcp_sidecar.server": "demo-ro",
        "mcp_sidecar.policy.revision": intent["decision"]["revision"],
        "mcp_sidecar.opa.decision_id": "",
        "mcp_sidecar.audit.id": intent["id"],
        "network.transport": "tcp",
        "client.address": "",
    }
    assert (intent["trace_id"], intent["span_id"]) == (PARENT[0], played["allowed"].server().span_id.hex())


def test_a_denied_call_says_which_access_and_goes_no_further(played):
    trace = played["denied"]
    found = attributes(trace.server())
    assert found.keys() == ON_A_CALL | {"error.type", "mcp_sidecar.refused.accesses", "mcp_sidecar.refused.owner"}
    assert found["mcp_sidecar.refused.accesses"] == ("read:hr.salaries",)
    assert found["mcp_sidecar.refused.owner"] == "people"
    assert found["mcp_sidecar.decision"] == "deny"
    assert found["mcp_sidecar.accesses"] == ("read:sales.orders", "read:hr.salaries")
    assert "not_granted" in found["mcp_sidecar.reasons"]
    assert found["error.type"] == "policy_denied"
    assert trace.server().status.code == 2
    assert "forward" not in trace.own()
    assert len(trace.named("audit")) == 1


def test_a_call_that_lacks_a_scope_says_which(played):
    trace = played["lacking"]
    found = attributes(trace.server())
    refused = {"error.type", "mcp_sidecar.refused.accesses", "mcp_sidecar.refused.owner"}
    assert found.keys() == ON_A_CALL | refused | {"mcp_sidecar.missing_scopes"}
    assert found["mcp_sidecar.missing_scopes"] == ("mongodb:write",)
    assert (found["error.type"], found["mcp_sidecar.decision"]) == ("insufficient_scope", "deny")
    assert "scope_missing" in found["mcp_sidecar.reasons"]
    assert trace.server().status.code == 2
    assert "forward" not in trace.own()


def test_a_401_is_a_span_of_its_own(played, deployment):
    trace = played["refused"]
    assert trace.own().keys() == {"refused", "audit"}
    found = attributes(trace.server())
    assert found.keys() == ALWAYS | {"error.type", "mcp_sidecar.audit.id"}
    assert found["error.type"] == "token_missing"
    assert found["mcp_sidecar.audit.id"] in {r["id"] for r in deployment.records() if r["event"] == "refusal"}


def test_no_span_holds_a_value_a_document_or_a_token(played, collector, deployment):
    token = deployment.token(ANALYST)
    assert collector.raw
    for raw in collector.raw:
        for canary in ("canary-", "Ada", "Bearer", token[:40], token.split(".")[1][:30], "mongodb://", "Mcp-Session"):
            assert canary.encode() not in raw


# --- the admin listener -----------------------------------------------------------------------------------------------

CONTRACT = {
    "mcp_server_operation_duration_seconds": {"mcp_method_name", "gen_ai_tool_name", "error_type"},
    "mcp_sidecar_decisions": {"decision", "reason", "owner", "tool"},
    "mcp_sidecar_opa_duration_seconds": set(),
    "mcp_sidecar_audit_duration_seconds": set(),
    "mcp_sidecar_upstream_duration_seconds": {"server"},
    "mcp_sidecar_refusals": {"stage", "error"},
    "mcp_sidecar_sessions": set(),
    "mcp_sidecar_in_flight": set(),
    "mcp_sidecar_health": {"component"},
}


def families(deployment: Deployment) -> dict[str, Any]:
    status, text = deployment.admin("/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_of_the_contract_is_there_with_its_labels(played, deployment):
    found = families(deployment)
    for name, labels in CONTRACT.items():
        assert name in found, f"{name} is not among {sorted(found)}"
        assert found[name].samples
        assert {label for sample in found[name].samples for label in sample.labels} - {"le"} == labels


def test_a_refusal_of_policy_is_no_tool_error_in_the_metric_of_operations(played, deployment):
    counted = {
        sample.labels["error_type"]
        for sample in families(deployment)["mcp_server_operation_duration_seconds"].samples
        if sample.labels.get("gen_ai_tool_name") == "aggregate" and "error_type" in sample.labels
    }
    assert counted == {"policy_denied"}


async def test_a_notification_that_nobody_acts_on_is_counted(played, deployment):
    def ignored() -> float:
        counted = families(deployment)["mcp_server_operation_duration_seconds"].samples
        dropped = (one for one in counted if one.name.endswith("_count") and one.labels["error_type"] == "dropped")
        return float(sum(one.value for one in dropped))

    before = ignored()
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        for method in ("notifications/roots/list_changed", "notifications/made-up"):
            assert (await client._post({"jsonrpc": "2.0", "method": method})).status == 202
    assert ignored() == before + 2


async def test_names_that_callers_make_up_are_no_labels(played, deployment):
    before = {name: len(family.samples) for name, family in families(deployment).items()}
    async with deployment.plain(STRANGER) as client:
        await client.initialize()
        for number in range(80):
            await client.call(f"made-up-{number}", {})
            await client._request(f"made/up/{number}", {})
    after = families(deployment)
    values = {value for family in after.values() for sample in family.samples for value in sample.labels.values()}
    assert not [value for value in values if "made" in value]
    assert sum(len(family.samples) for family in after.values()) < sum(before.values()) + 200
    assert not [value for value in values if value in {"alice", "mallory", "claude-desktop"}], "nor are people"


def test_health_says_which_parts_are_up(played, deployment):
    components = {s.labels["component"]: s.value for s in families(deployment)["mcp_sidecar_health"].samples}
    assert components.keys() >= {"opa"}
    assert len([name for name in components if "demo-r" in name]) == 2
    assert set(components.values()) == {1.0}


def test_probes_and_nothing_else(deployment):
    assert deployment.admin("/livez") == (200, "ok\n")
    status, text = deployment.admin("/readyz")
    assert (status, json.loads(text)) == (200, {"ready": True, "failing": []})  # noqa: TID251 - our own answer
    for path in ("/", "/mcp", "/readyz/", "/livez/x"):
        assert deployment.admin(path)[0] == 404


def test_not_ready_names_what_is_not_there_and_stays_alive(deployment):
    answers: list[tuple[int, str]] = []

    def seen_without_opa() -> bool:
        # Again and again: it may be back before anybody looks.
        for opa in deployment.children("/opa"):
            with suppress(psutil.NoSuchProcess):
                opa.kill()
        answers.append(deployment.admin("/readyz"))
        return answers[-1][0] != 200

    wait_until(seen_without_opa, "the sidecar to say that it is not ready")
    status, text = answers[-1]
    assert status == 503
    assert json.loads(text) == {"ready": False, "failing": ["opa"]}  # noqa: TID251 - our own answer
    assert deployment.admin("/livez") == (200, "ok\n")
    wait_until(deployment.ready, "OPA to be back")


def test_the_page_about_traces_names_every_attribute():
    page = (parts.ROOT / "docs/traces.md").read_text()
    named = set(re.findall(r"^\| `([a-z_.]+)`", page, re.MULTILINE))
    source = (parts.ROOT / "sidecar/enforcement/evidence.py").read_text()
    families = "client|db|error|gen_ai|jsonrpc|mcp|mcp_sidecar|network|user"
    assert named == set(re.findall(rf'"((?:{families})\.[a-z_.]+)"', source)) | {"error.type"}
    assert named >= ON_A_CALL
