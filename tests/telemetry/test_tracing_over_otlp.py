"""Spans as a collector receives them: names, kinds, parents, links, attributes; and who decides what is recorded."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from typing_extensions import override

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.ports import Tracer
from sidecar.telemetry.sampling import MOST_HELD, KeptInSpite, OwnDecision
from sidecar.telemetry.tracing import ITEM_LIMIT, TEXT_LIMIT, OtelTracer, build_tracer_provider
from tests.patience import HANG_S

CLIENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
CLIENT_UNSAMPLED = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
HTTP = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
ERROR = 2


class Collector(ThreadingHTTPServer):
    """A loopback OTLP receiver."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), type("Handler", (Receiver,), {"collector": self}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> dict[str, Any]:
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)


class Receiver(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/x-protobuf"
        self.collector.paths.append(self.path)
        self.collector.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    @override
    def log_message(self, *_args: object) -> None:
        pass


def attributes(holder: Any) -> dict[str, Any]:
    values = {}
    for pair in holder.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        values[pair.key] = tuple(item.string_value for item in value.values) if kind == "array_value" else value
    return values


@contextlib.contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A receiver that the SDK sends to."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)  # the SDK's own variable, which only the SDK reads
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as server:
        yield server


def an_exporting_tracer() -> OtelTracer:
    return OtelTracer(build_tracer_provider(endpoint_configured=True, version="1.2.3"), version="1.2.3")


def test_one_call_is_one_trace_with_its_steps_below_it(collector):
    tracer = an_exporting_tracer()
    with tracer.server("mcp", traceparent=CLIENT, link=HTTP) as call:
        call.rename("tools/call find")
        with tracer.step("derive"):
            pass
        with tracer.step("authorize", client=True) as authorize:
            sent_on = authorize.traceparent
            with tracer.step("inner"):
                pass
        call.set({"mcp.method.name": "tools/call", "mcp_sidecar.accesses": ("read:sales.orders",), "mcp_sidecar.n": 3})
        ids = (call.trace_id, call.span_id)
    assert tracer.shutdown(10)

    assert collector.paths == ["/v1/traces"]
    assert collector.resource["service.name"] == "mcp-sidecar"
    assert collector.resource["service.version"] == "1.2.3"
    spans = collector.spans
    assert {name: KINDS[span.kind] for name, span in spans.items()} == {
        "tools/call find": "SERVER",
        "derive": "INTERNAL",
        "authorize": "CLIENT",
        "inner": "INTERNAL",
    }
    server = spans["tools/call find"]
    assert server.trace_id.hex() == "a" * 32, "the client's trace goes on"
    assert server.parent_span_id.hex() == "b" * 16
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in server.links] == [("c" * 32, "d" * 16)]
    assert (server.trace_id.hex(), server.span_id.hex()) == ids
    assert attributes(server) == {
        "mcp.method.name": "tools/call",
        "mcp_sidecar.accesses": ("read:sales.orders",),
        "mcp_sidecar.n": 3,
    }
    assert server.status.code == 0
    assert spans["derive"].parent_span_id == server.span_id
    assert spans["authorize"].parent_span_id == server.span_id
    assert spans["inner"].parent_span_id == spans["authorize"].span_id
    assert {span.trace_id for span in spans.values()} == {server.trace_id}
    assert sent_on == f"00-{'a' * 32}-{spans['authorize'].span_id.hex()}-01"


def test_standard_variables_are_the_sdks_own(collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate-eu")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    tracer = an_exporting_tracer()
    with tracer.server("x", traceparent=None, link=None):
        pass
    assert tracer.shutdown(10)
    assert collector.resource["service.name"] == "gate-eu"
    assert collector.resource["deployment.environment.name"] == "prod"


def test_a_client_cannot_switch_its_trace_off(collector):
    tracer = an_exporting_tracer()
    with tracer.server("seen", traceparent=CLIENT_UNSAMPLED, link=None) as call, tracer.step("below"):
        assert call.traceparent.endswith("-01")
    assert tracer.shutdown(10)
    assert collector.spans.keys() == {"seen", "below"}
    assert collector.spans["seen"].parent_span_id.hex() == "b" * 16


def test_a_client_cannot_choose_a_trace_id_that_is_never_sampled(collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.999999999")
    tracer = an_exporting_tracer()
    with tracer.server("seen", traceparent="00-" + "f" * 32 + "-" + "b" * 16 + "-00", link=None):
        pass
    assert tracer.shutdown(10)
    assert collector.spans.keys() == {"seen"}


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
def test_the_operator_can_and_a_client_cannot_switch_it_on_again(collector, monkeypatch, sampler):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    tracer = an_exporting_tracer()
    with tracer.server("unseen", traceparent=CLIENT, link=None) as call, tracer.step("below") as step:
        assert call.trace_id == step.trace_id == "a" * 32
    assert tracer.shutdown(10)
    assert collector.spans == {}


UNSAMPLED = ("always_off", "parentbased_always_off", "traceidratio", "parentbased_traceidratio")
KEPT: dict[str, dict[str, Any]] = {
    "denied": {"user.id": "alice", "mcp_sidecar.decision": "deny"},
    "waits for an approval": {"mcp_sidecar.decision": "allow", "mcp_sidecar.approval.id": "a"},
    "refused by the sidecar": {"user.id": "alice", "error.type": "obligation_unsupported"},
}
LEFT_OUT: dict[str, dict[str, Any]] = {
    "allowed": {"user.id": "alice", "mcp_sidecar.decision": "allow"},
    "an error of the tool": {"user.id": "alice", "mcp_sidecar.decision": "allow", "error.type": "tool_error"},
    "a stranger": {"error.type": "token_missing"},
}


@pytest.mark.parametrize("sampler", UNSAMPLED)
@pytest.mark.parametrize("what", [*KEPT, *LEFT_OUT])
def test_a_denial_and_an_approval_are_exported_whatever_the_sampler_says(collector, monkeypatch, sampler, what):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    tracer = an_exporting_tracer()
    with tracer.server("message", traceparent=CLIENT, link=HTTP) as call:
        tracer.past("authenticate", start_ns=1, end_ns=2)
        with tracer.step("authorize", client=True) as step, tracer.step("within"):
            assert step.traceparent.endswith("-00"), "who is told of it learns what the sampler said"
        call.set((KEPT | LEFT_OUT)[what])
    assert tracer.shutdown(10)
    spans = collector.spans
    if what in LEFT_OUT:
        assert spans == {}
        return
    assert spans.keys() == {"message", "authenticate", "authorize", "within"}
    assert {span.trace_id.hex() for span in spans.values()} == {"a" * 32}
    assert spans["message"].parent_span_id.hex() == "b" * 16
    assert [link.trace_id.hex() for link in spans["message"].links] == ["c" * 32]
    assert spans["authorize"].parent_span_id == spans["authenticate"].parent_span_id == spans["message"].span_id
    assert spans["within"].parent_span_id == spans["authorize"].span_id


def test_messages_of_one_trace_at_the_same_time_are_kept_or_left_out_each_for_itself(collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracer = an_exporting_tracer()
    with tracer.server("kept", traceparent=CLIENT, link=None) as kept:
        with tracer.server("left out", traceparent=CLIENT, link=None), tracer.step("step of it"):
            pass
        with tracer.step("step"):
            pass
        kept.set(KEPT["denied"])
    assert tracer.shutdown(10)
    assert collector.spans.keys() == {"kept", "step"}


def test_what_is_held_of_one_message_is_bounded_and_nothing_stays(collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    held: list[str] = []
    keeping = KeptInSpite(SimpleSpanProcessor(_Noting(held)))
    provider = TracerProvider(sampler=OwnDecision(ALWAYS_OFF))
    provider.add_span_processor(keeping)
    tracer = OtelTracer(provider)
    for outcome in (KEPT["denied"], LEFT_OUT["allowed"]):
        with tracer.server("message", traceparent=None, link=None) as call:
            for number in range(2 * MOST_HELD):
                with tracer.step(f"{number}"):
                    pass
            call.set(outcome)
    assert len(held) == MOST_HELD + 1
    assert held[-1] == "message"
    assert keeping._open == {}


class _Noting(SpanExporter):
    def __init__(self, names: list[str]) -> None:
        self._names = names

    @override
    def export(self, spans: Any) -> SpanExportResult:
        self._names += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def test_a_message_is_never_below_a_span_that_happens_to_be_open(collector):
    tracer = an_exporting_tracer()
    with tracer.step("somebody else's"), tracer.server("message", traceparent=None, link=None), tracer.step("its step"):
        pass
    assert tracer.shutdown(10)
    spans = collector.spans
    assert spans["message"].parent_span_id == b""
    assert spans["message"].trace_id != spans["somebody else's"].trace_id
    assert spans["its step"].parent_span_id == spans["message"].span_id


def test_what_ran_before_the_message_was_known_is_in_its_trace(collector):
    tracer = an_exporting_tracer()
    with tracer.server("message", traceparent=CLIENT, link=None, start_ns=1_000):
        tracer.past("authenticate", start_ns=2_000, end_ns=3_000)
    tracer.past("nowhere", start_ns=2_000, end_ns=3_000)
    assert tracer.shutdown(10)
    spans = collector.spans
    assert spans.keys() == {"message", "authenticate"}
    assert spans["message"].start_time_unix_nano == 1_000
    earlier = spans["authenticate"]
    assert (earlier.start_time_unix_nano, earlier.end_time_unix_nano) == (2_000, 3_000)
    assert earlier.parent_span_id == spans["message"].span_id
    assert earlier.trace_id == spans["message"].trace_id


def test_the_same_context_twice_is_a_parent_and_no_link(collector):
    tracer = an_exporting_tracer()
    with tracer.server("message", traceparent=CLIENT, link=CLIENT):
        pass
    assert tracer.shutdown(10)
    assert not collector.spans["message"].links


class ForeignError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "error_type", "description"),
    [
        (DecisionUnavailable("secret detail"), "decision_unavailable", DecisionUnavailable.public),
        (asyncio.CancelledError(), "cancelled", ""),
        (ForeignError("secret detail"), "ForeignError", ""),
    ],
)
def test_an_exception_marks_the_step_and_never_tells_its_text(collector, raised, error_type, description):
    tracer = an_exporting_tracer()
    with pytest.raises(type(raised)), tracer.step("forward", client=True):
        raise raised
    assert tracer.shutdown(10)
    span = collector.spans["forward"]
    assert attributes(span) == {"error.type": error_type}
    assert (span.status.code, span.status.message) == (ERROR, description)
    assert not span.events
    assert b"secret" not in collector.requests[0].SerializeToString()


def test_the_first_failure_stands(collector):
    tracer = an_exporting_tracer()
    with contextlib.suppress(ForeignError), tracer.step("forward") as step:
        step.fail("tool_error", "The tool failed.")
        step.fail("later")
        raise ForeignError
    with tracer.step("nameless") as step:
        step.fail("")
    assert tracer.shutdown(10)
    assert attributes(collector.spans["forward"]) == {"error.type": "tool_error"}
    assert collector.spans["forward"].status.message == "The tool failed."
    assert attributes(collector.spans["nameless"]) == {"error.type": "_OTHER"}


def test_a_caller_cannot_fill_the_collector(collector):
    tracer = an_exporting_tracer()
    with tracer.server("x", traceparent=None, link=None) as call:
        call.rename("y" * 100_000)
        call.set({"jsonrpc.request.id": "i" * 900_000, "mcp_sidecar.accesses": ("a" * 9_000,) * 9_000})
        call.fail("e", "d" * 100_000)
    assert tracer.shutdown(10)
    (span,) = collector.spans.values()
    assert len(span.name) == TEXT_LIMIT
    found = attributes(span)
    assert len(found["jsonrpc.request.id"]) == TEXT_LIMIT
    assert len(found["mcp_sidecar.accesses"]) == ITEM_LIMIT
    assert len(found["mcp_sidecar.accesses"][0]) == TEXT_LIMIT


@pytest.mark.parametrize("text", ["\x9b2J", "a\u202eb", "a\u2028b", "a\x85b", "a\nb"], ids=ascii)
def test_nothing_that_a_terminal_acts_on_reaches_the_collector(collector, text):
    tracer = an_exporting_tracer()
    with tracer.server("x", traceparent=None, link=None) as call:
        call.rename(text)
        call.set({"jsonrpc.request.id": text, "mcp_sidecar.accesses": (text,)})
        call.fail("e", text)
    assert tracer.shutdown(10)
    (span,) = collector.spans.values()
    found = attributes(span)
    shown = [span.name, span.status.message, found["jsonrpc.request.id"], *found["mcp_sidecar.accesses"]]
    assert all(each.isprintable() and each for each in shown)


async def test_calls_at_the_same_time_keep_their_own_parents(collector):
    tracer = an_exporting_tracer()
    barrier = asyncio.Barrier(5)

    async def call(number: int) -> None:
        with tracer.server(f"call {number}", traceparent=None, link=None):
            await barrier.wait()
            with tracer.step(f"step {number}"):
                await barrier.wait()

    await asyncio.gather(*(call(number) for number in range(5)))
    assert await asyncio.to_thread(tracer.shutdown, 10)
    for number in range(5):
        assert collector.spans[f"step {number}"].parent_span_id == collector.spans[f"call {number}"].span_id


MALFORMED = [
    None, "", "x", CLIENT[:-1], CLIENT + "0", CLIENT.upper(), "ff" + CLIENT[2:], CLIENT + "-x",
    "00-" + "0" * 32 + CLIENT[35:], CLIENT[:36] + "0" * 16 + "-01", CLIENT + " " * 1000, "01" + CLIENT[2:] + "é" * 600,
]  # fmt: skip


@pytest.mark.parametrize("traceparent", MALFORMED)
def test_a_malformed_parent_counts_as_none(traceparent, caplog):
    with OtelTracer(None).server("x", traceparent=traceparent, link=traceparent) as call:
        assert call.trace_id != "a" * 32
        assert int(call.trace_id, 16)
    assert not caplog.records


@given(st.text())
def test_no_parent_however_odd_raises(traceparent):
    with OtelTracer(None).server("x", traceparent=traceparent, link=traceparent) as call:
        assert len(call.traceparent) == 55


@pytest.mark.parametrize("traceparent", [CLIENT, CLIENT_UNSAMPLED])
def test_without_an_exporter_spans_have_ids_and_the_trace_goes_on_as_it_came(traceparent):
    tracer: Tracer = OtelTracer(build_tracer_provider(endpoint_configured=False, protocol="grpc"))
    with tracer.server("x", traceparent=traceparent, link=None) as call:
        assert trace.get_current_span().get_span_context().span_id == int(call.span_id, 16)
        with tracer.step("y") as step:
            assert step.trace_id == call.trace_id == "a" * 32
            assert step.span_id == call.span_id != "b" * 16, "there are no steps"
            assert step.traceparent == f"00-{'a' * 32}-{step.span_id}-{traceparent[-2:]}"
        tracer.past("before", start_ns=1, end_ns=2)
        call.set({"a": "b"})
        call.rename("z")
        call.fail("e")
    assert not trace.get_current_span().get_span_context().is_valid
    assert OtelTracer(None).shutdown(0)


def test_a_disabled_sdk_still_gives_ids(collector, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = an_exporting_tracer()
    with tracer.server("x", traceparent=None, link=None) as call:
        assert int(call.trace_id, 16)
        assert int(call.span_id, 16)
    assert tracer.shutdown(10)
    assert not collector.requests


@pytest.mark.parametrize("protocol", ["grpc", "http/json", "HTTP"])
def test_a_transport_that_is_not_built_in_refuses_to_start(protocol):
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        build_tracer_provider(endpoint_configured=True, protocol=protocol)


@pytest.mark.parametrize("protocol", ["", "http/protobuf", " HTTP/protobuf "])
def test_the_one_that_is_starts(collector, protocol):
    assert OtelTracer(build_tracer_provider(endpoint_configured=True, protocol=protocol)).shutdown(10)


def test_a_collector_that_does_not_answer_delays_the_end_by_the_bound_only(monkeypatch):
    others = set(threading.enumerate())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracer = an_exporting_tracer()
        with tracer.server("x", traceparent=None, link=None):
            pass
        assert not tracer.shutdown(0.1), "it gave up waiting"
        left = set(threading.enumerate()) - others
        assert left
        assert all(thread.daemon for thread in left), "what is left ends with the process"
        # Here it must end with the test: its back-off draws from ``random``, which Hypothesis watches in other tests.
        for thread in left:
            thread.join(HANG_S)
            assert not thread.is_alive()
