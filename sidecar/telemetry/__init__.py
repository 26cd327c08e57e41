"""Spans, metrics and logs."""

from sidecar.telemetry import logs
from sidecar.telemetry.exporting import exporter_fault
from sidecar.telemetry.logs import LoggedRefusals
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer, build_tracer_provider

__all__ = ["LoggedRefusals", "OtelMetrics", "OtelTracer", "build_tracer_provider", "exporter_fault", "logs"]
