"""Metrics as Prometheus and a collector read them, with label sets that a caller cannot grow."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from sidecar.errors import ConfigurationError
from sidecar.ports import Metrics
from sidecar.telemetry.metrics import OPERATION_BOUNDARIES, OTHER, STEP_BOUNDARIES, OtelMetrics
from sidecar.telemetry.tallies import MOST_SERIES, Tallies
from tests.examples import examples


def some_metrics(**more: Any) -> OtelMetrics:
    return OtelMetrics(methods=["tools/call", "ping"], tools=["find", "count"], servers=["sales-ro"], **more)


def samples(metrics: OtelMetrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def exercise(metrics: Metrics) -> None:
    metrics.operation("tools/call", "find", "", 0.015)
    metrics.operation("ping", "", "policy_denied", 0.001)
    metrics.decided(allow=True, reason="", owner="analytics", tool="find")
    metrics.decided(allow=False, reason="not_granted", owner="hr", tool="count")
    metrics.refused("authenticate", "token_missing")
    metrics.asked(0.001)
    metrics.audited(0.0001)
    metrics.forwarded("sales-ro", 0.002)
    metrics.sessions(3)
    metrics.in_flight(1)
    metrics.in_flight(1)
    metrics.in_flight(-1)


def test_every_metric_of_the_contract_is_rendered():
    metrics = some_metrics()
    exercise(metrics)
    metrics.health("opa", up=True)
    metrics.health("server/sales-ro", up=True)
    metrics.health("server/sales-ro", up=False)
    found = samples(metrics)
    assert ({"mcp_method_name": "tools/call", "gen_ai_tool_name": "find", "error_type": ""}, 1.0) in found[
        "mcp_server_operation_duration_seconds_count"
    ]
    assert ({"decision": "allow", "reason": "", "owner": "analytics", "tool": "find"}, 1.0) in found[
        "mcp_sidecar_decisions_total"
    ]
    assert ({"decision": "deny", "reason": "not_granted", "owner": "hr", "tool": "count"}, 1.0) in found[
        "mcp_sidecar_decisions_total"
    ]
    assert found["mcp_sidecar_refusals_total"] == [({"stage": "authenticate", "error": "token_missing"}, 1.0)]
    assert found["mcp_sidecar_opa_duration_seconds_sum"] == [({}, 0.001)]
    assert found["mcp_sidecar_audit_duration_seconds_sum"] == [({}, 0.0001)]
    assert found["mcp_sidecar_upstream_duration_seconds_sum"] == [({"server": "sales-ro"}, 0.002)]
    assert found["mcp_sidecar_sessions"] == [({}, 3.0)]
    assert found["mcp_sidecar_in_flight"] == [({}, 1.0)]
    assert found["mcp_sidecar_health"] == [({"component": "opa"}, 1.0), ({"component": "server/sales-ro"}, 0.0)]


def test_the_operation_has_the_boundaries_of_the_convention():
    metrics = some_metrics()
    metrics.operation("ping", "", "", 0.015)
    bounds = [float(labels["le"]) for labels, _ in samples(metrics)["mcp_server_operation_duration_seconds_bucket"]]
    assert bounds == [*OPERATION_BOUNDARIES, float("inf")]


def test_a_name_that_a_caller_invents_counts_as_other():
    metrics = some_metrics()
    for number in range(500):
        metrics.operation(f"method-{number}", f"tool-{number}", "method_refused", 0.001)
        metrics.decided(allow=False, reason="x", owner="", tool=f"tool-{number}")
        metrics.forwarded(f"server-{number}", 0.001)
    found = samples(metrics)
    assert found["mcp_server_operation_duration_seconds_count"] == [
        ({"mcp_method_name": OTHER, "gen_ai_tool_name": OTHER, "error_type": "method_refused"}, 500.0)
    ]
    assert found["mcp_sidecar_decisions_total"] == [
        ({"decision": "deny", "reason": "x", "owner": "", "tool": OTHER}, 500.0)
    ]
    assert found["mcp_sidecar_upstream_duration_seconds_count"] == [({"server": OTHER}, 500.0)]


def test_labels_that_come_from_policy_are_taken_as_they_come_up_to_a_number():
    metrics = some_metrics()
    for number in range(500):
        metrics.refused("authorize", f"error-{number}")
        metrics.health(f"server/{number}", up=True)
    refusals = samples(metrics)["mcp_sidecar_refusals_total"]
    assert len(refusals) == 65
    assert sum(value for _, value in refusals) == 500
    assert len(samples(metrics)["mcp_sidecar_health"]) == 65


def test_refused_candidates_unreviewed_tools_and_open_circuits_are_gauges_of_their_own():
    metrics = some_metrics()
    metrics.policy_load("loaded")
    metrics.policy_serves("sha256:1")
    metrics.policy_serves("sha256:2")
    metrics.candidate_load("refused")
    metrics.unreviewed_tools("sales-ro", ["changed", "unknown", "changed"])
    metrics.unreviewed_tools("elsewhere", [])
    metrics.circuit("sales-ro", is_open=True)
    metrics.circuit("elsewhere", is_open=False)
    found = samples(metrics)
    assert found["mcp_sidecar_upstream_circuit_open"] == [({"server": "sales-ro"}, 1.0), ({"server": OTHER}, 0.0)]
    assert found["mcp_sidecar_policy_revision"] == [({"revision": "sha256:2"}, 1.0)], "the one that serves now"
    assert found["mcp_sidecar_policy_load"] == [({"result": "loaded"}, 1.0), ({"result": "refused"}, 0.0)]
    assert found["mcp_sidecar_policy_candidate_load"] == [({"result": "loaded"}, 0.0), ({"result": "refused"}, 1.0)]
    assert found["mcp_sidecar_tools_unreviewed"] == [
        ({"server": "sales-ro", "state": "changed"}, 2.0),
        ({"server": "sales-ro", "state": "unknown"}, 1.0),
        ({"server": OTHER, "state": "changed"}, 0.0),
        ({"server": OTHER, "state": "unknown"}, 0.0),
    ]
    metrics.unreviewed_tools("sales-ro", [])
    assert {value for _, value in samples(metrics)["mcp_sidecar_tools_unreviewed"]} == {0.0}, "reviewed since"


def test_two_of_them_share_nothing_and_leave_the_global_registry_alone():
    before = {family.name for family in REGISTRY.collect()}
    one, two = some_metrics(), some_metrics()
    one.refused("a", "b")
    assert "mcp_sidecar_refusals_total" in samples(one)
    assert "mcp_sidecar_refusals_total" not in samples(two)
    assert {family.name for family in REGISTRY.collect()} == before


class Receiver(BaseHTTPRequestHandler):
    received: list[ExportMetricsServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    @override
    def log_message(self, *_args: object) -> None:
        pass


def test_a_collector_gets_the_same_under_the_names_of_the_contract(monkeypatch):
    received: list[ExportMetricsServiceRequest] = []
    handler = type("Handler", (Receiver,), {"received": received})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        metrics = some_metrics(endpoint_configured=True, version="1.2.3")
        exercise(metrics)
        metrics.health("opa", up=True)
        assert metrics.shutdown(10)
        server.shutdown()
        thread.join()
    resources = [resource for request in received for resource in request.resource_metrics]
    assert any(
        pair.key == "service.name" and pair.value.string_value == "mcp-sidecar"
        for pair in resources[0].resource.attributes
    )
    assert {metric.name: metric.unit for r in resources for scope in r.scope_metrics for metric in scope.metrics} == {
        "mcp.server.operation.duration": "s",
        "mcp_sidecar.decisions": "",
        "mcp_sidecar.refusals": "",
        "mcp_sidecar.opa.duration": "s",
        "mcp_sidecar.audit.duration": "s",
        "mcp_sidecar.upstream.duration": "s",
        "mcp_sidecar.sessions": "",
        "mcp_sidecar.in_flight": "",
        "mcp_sidecar.health": "",
    }


def test_a_transport_that_is_not_built_in_refuses_to_start():
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        some_metrics(endpoint_configured=True, protocol="grpc")
    assert some_metrics(protocol="grpc").shutdown(5), "nobody is sent anything"


def seconds() -> st.SearchStrategy[float]:
    return st.one_of(st.sampled_from((*OPERATION_BOUNDARIES, *STEP_BOUNDARIES, 0.0)), st.floats(0, 400))


def measurements() -> st.SearchStrategy[list[Callable[[Metrics], None]]]:
    name = st.sampled_from(["", "tools/call", "ping", "find", "count", "sales-ro", "invented", "x" * 300, 'a\nb"c\\'])
    return st.lists(
        st.one_of(
            st.builds(lambda *of: lambda one: one.operation(*of), name, name, name, seconds()),
            st.builds(
                lambda allow, *of: lambda one: one.decided(allow=allow, reason=of[0], owner=of[1], tool=of[2]),
                *(st.booleans(), name, name, name),
            ),
            st.builds(lambda *of: lambda one: one.refused(*of), name, name),
            st.builds(lambda of: lambda one: one.asked(of), seconds()),
            st.builds(lambda of: lambda one: one.audited(of), seconds()),
            st.builds(lambda *of: lambda one: one.forwarded(*of), name, seconds()),
        ),
        max_size=30,
    )


def told(metrics: OtelMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (name, frozenset(labels.items())): round(value, 9)
        for name, found in samples(metrics).items()
        for labels, value in found
    }


@pytest.fixture(scope="module")
def listening() -> Iterator[str]:
    """A collector that takes what it gets, for metrics that are sent by the library."""
    handler = type("Handler", (Receiver,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, pytest.MonkeyPatch.context() as patch:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield "http/protobuf"
        server.shutdown()
        thread.join()


@settings(max_examples=examples(20, deep=2_000))
@given(measurements())
def test_what_is_added_up_here_reads_as_what_the_library_adds_up(listening: str, measured: list[Any]):
    own, library = some_metrics(), some_metrics(endpoint_configured=True, protocol=listening)
    try:
        for each in measured:
            each(own)
            each(library)
        assert told(own) == told(library)
    finally:
        assert library.shutdown(10)


def test_label_sets_beyond_the_bound_are_counted_together():
    tallies = Tallies()
    counts, durations = tallies.counts("a", "x"), tallies.durations("b", "x", STEP_BOUNDARIES)
    for number in range(MOST_SERIES + 10):
        counts.add(1, {"label": str(number)})
        durations.record(0.5, {"label": str(number)})
    rest = {"otel.metric.overflow": True}
    [counted, measured] = [tally.metric(1) for tally in (counts, durations)]
    assert counted is not None
    assert measured is not None
    assert [len(metric.data.data_points) for metric in (counted, measured)] == [MOST_SERIES + 1] * 2
    last: Any = counted.data.data_points[-1]
    assert (last.attributes, last.value) == (rest, 10)
    last = measured.data.data_points[-1]
    assert (last.attributes, last.count) == (rest, 10)
