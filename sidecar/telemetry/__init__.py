"""Spans, metrics and logs."""

from sidecar.telemetry import logs
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer, build_tracer_provider

__all__ = ["OtelMetrics", "OtelTracer", "build_tracer_provider", "logs"]
