"""What traces and metrics share: the service's name, the exporters, and a shutdown that does not hang."""

import threading
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from sidecar.errors import ConfigurationError

SERVICE_NAME: Final = "mcp-sidecar"

SCOPE: Final = "sidecar"

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
"""The version of the MCP and GenAI conventions whose names are used (MCP page: status Development)."""

_PROTOCOLS = frozenset({"", "http/protobuf"})


def resource(version: str) -> Resource:
    """Describe this process; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win over the defaults here."""
    default = Resource.create({"service.name": SERVICE_NAME, "service.version": version})
    return default.merge(OTELResourceDetector().detect())


def require_http_protobuf(protocol: str) -> None:
    """Refuse an OTLP transport that is not built in, instead of exporting nothing.

    Args:
        protocol: the value of ``OTEL_EXPORTER_OTLP_PROTOCOL`` or of the signal's own variable; empty where unset.

    Raises:
        ConfigurationError: it is neither empty nor ``http/protobuf``.
    """
    if protocol.strip().lower() not in _PROTOCOLS:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}: use http/protobuf (port 4318), the only one built in"
        )


_NUMBERS: Final = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
)


def exporter_fault(environ: Mapping[str, str]) -> str:
    """Say which of OpenTelemetry's variables the SDK would trip over or silently not use; empty where none is.

    Args:
        environ: the variables.
    """
    for name in ("", "_TRACES", "_METRICS"):
        variable = f"OTEL_EXPORTER_OTLP{name}_ENDPOINT"
        parts = urlsplit(environ.get(variable, ""))
        if any(parts) and (parts.scheme not in {"http", "https"} or not parts.hostname):
            return f"{variable} is no http://host:port or https://host:port"
    for variable in _NUMBERS:
        value = environ.get(variable, "")
        if value and not value.replace(".", "", 1).isdecimal():
            return f"{variable} is no number"
    return ""


def within(seconds: float, end: Callable[[], None]) -> bool:
    """Run a blocking shutdown for at most ``seconds``; return whether it ended.

    The SDK's own shutdown waits up to 30 s for a collector that does not answer, per signal, and takes no bound. The
    thread is a daemon: what is left of it ends with the process.
    """
    thread = threading.Thread(target=end, name="telemetry-shutdown", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
