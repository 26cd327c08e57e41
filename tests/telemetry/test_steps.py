"""A step is exported as the SDK would export it, under the same variables of the environment."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from sidecar.errors import PolicyDenied
from sidecar.telemetry import OtelTracer, steps
from tests.telemetry.test_tracing_over_otlp import CLIENT, HTTP, an_exporting_tracer, attributes, collecting

LIMITS = {
    "none": {},
    "characters": {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5"},
    "characters of spans": {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "7"},
    "attributes": {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"},
    "a sampler that takes all": {"OTEL_TRACES_SAMPLER": "always_on"},
    "a sampler that takes none": {"OTEL_TRACES_SAMPLER": "always_off"},
}


def play(tracer: OtelTracer, parent: str | None) -> None:
    """A call with all that a step can have."""
    with tracer.server("mcp", traceparent=parent, link=HTTP) as call:
        call.rename("tools/call find")
        call.set({"user.id": "alice", "mcp_sidecar.decision": "deny"})
        tracer.past("authenticate", start_ns=1, end_ns=2)
        with tracer.step("derive") as derive:
            derive.rename("derived")
        with tracer.step("authorize", client=True) as authorize:
            authorize.set({"a": "a long text", "b": ("one that is long", "two"), "c": 3, "d": True})
            authorize.set({"a": "another long text"})
            with tracer.step("inner"):
                pass
            authorize.fail("timeout", "it took too long")
            authorize.fail("never", "told")
        with pytest.raises(PolicyDenied), tracer.step("audit"):
            raise PolicyDenied("with details")
        with pytest.raises(RuntimeError), tracer.step("forward", client=True):
            raise RuntimeError("a caller's text")


def exported(monkeypatch: pytest.MonkeyPatch, parent: str | None) -> list[dict[str, Any]]:
    with collecting(monkeypatch) as collector:
        tracer = an_exporting_tracer()
        play(tracer, parent)
        assert tracer.shutdown(10)
        spans = [
            (scope.scope.name, span)
            for request in collector.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    names = {span.span_id: span.name for _, span in spans}
    told = [
        {
            "name": span.name,
            "scope": scope,
            "kind": span.kind,
            "parent": names.get(span.parent_span_id, span.parent_span_id.hex()),
            "flags": span.flags,
            "status": (span.status.code, span.status.message),
            "attributes": attributes(span),
            "dropped": (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
            "events": len(span.events),
            "links": len(span.links),
            "in order": span.start_time_unix_nano <= span.end_time_unix_nano,
            "same trace": span.trace_id == spans[0][1].trace_id,
        }
        for scope, span in spans
    ]
    return sorted(told, key=lambda one: str(one["name"]))


@pytest.mark.parametrize("parent", [CLIENT, None], ids=["remote parent", "no parent"])
@pytest.mark.parametrize("limits", LIMITS)
def test_a_step_is_exported_as_the_sdk_would(monkeypatch: pytest.MonkeyPatch, limits: str, parent: str | None) -> None:
    for name, value in LIMITS[limits].items():
        monkeypatch.setenv(name, value)
    found = exported(monkeypatch, parent)
    monkeypatch.setattr(steps.Steps, "below", lambda *_: None)
    assert found == exported(monkeypatch, parent)
    assert [one["name"] for one in found].count("derived") == 1
    assert len(found) == 7
    assert "a caller's text" not in str(found)


def a_step(monkeypatch: pytest.MonkeyPatch) -> steps.StepSpan:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracer = an_exporting_tracer()
    with tracer.server("mcp", traceparent=None, link=None), tracer.step("derive"):
        found = trace.get_current_span()
    assert isinstance(found, steps.StepSpan)
    tracer.shutdown(0.1)
    return found


def test_a_step_that_has_ended_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    step = a_step(monkeypatch)
    before = step.to_json()
    step.set_attribute("a", 1)
    step.set_attributes({"b": 2})
    step.update_name("other")
    step.set_status(Status(StatusCode.ERROR))
    step.add_event("late")
    step.record_exception(RuntimeError("late"))
    step.end()
    assert step.to_json() == before
    assert not step.is_recording()


def test_an_exception_of_a_step_is_its_type_and_never_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    step = a_step(monkeypatch)
    step._end_time = None
    step.record_exception(RuntimeError("what a caller sent"), {"exception.message": "what a caller sent"})
    assert [event.name for event in step.events] == ["exception"]
    assert "RuntimeError" in step.to_json()
    assert "what a caller sent" not in step.to_json()
