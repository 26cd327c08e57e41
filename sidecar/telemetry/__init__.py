"""Spans, metrics and logs."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.telemetry import logs
    from sidecar.telemetry.exporting import exporter_fault
    from sidecar.telemetry.logs import LoggedRefusals
    from sidecar.telemetry.metrics import OtelMetrics
    from sidecar.telemetry.tracing import OtelTracer, build_tracer_provider
else:
    __getattr__ = by_need(
        __name__,
        {
            "LoggedRefusals": "logs",
            "OtelMetrics": "metrics",
            "OtelTracer": "tracing",
            "build_tracer_provider": "tracing",
            "exporter_fault": "exporting",
            "logs": "logs",
        },
    )

__all__ = ["LoggedRefusals", "OtelMetrics", "OtelTracer", "build_tracer_provider", "exporter_fault", "logs"]
