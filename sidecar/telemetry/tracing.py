"""Spans through the OpenTelemetry SDK, with names and keys from the conventions (MCP, GenAI, database).

Trust: a client's ``traceparent`` names the parent span, so that both traces are one (SEP-414), and that is all it does.
Whether spans are recorded is the operator's decision: with parent-based sampling a caller could switch its own
evidence off by sending ``sampled=0``, and with ratio sampling by choosing its trace ids. Denials and approvals are kept
in spite of the sampler (``sampling``). Baggage and tracestate are ignored (O-04).

Without an exporter nothing is recorded, and there are no steps; but the span of each message still has ids: audit
records and replies name them, and OPA and the server behind are told them.
"""

from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Token
from types import TracebackType
from typing import Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar.errors import SidecarError
from sidecar.ports import AttributeValue, Span
from sidecar.printing import escaped
from sidecar.system import REQUEST_ID
from sidecar.telemetry.exporting import SCHEMA_URL, SCOPE, require_http_protobuf, resource, within
from sidecar.telemetry.sampling import KeptInSpite, OwnDecision
from sidecar.telemetry.steps import Steps

TEXT_LIMIT: Final = 1024
"""Characters of one attribute, before escapes. A caller chooses request ids and names; it may not fill the collector
with them."""

ITEM_LIMIT: Final = 128
"""Items of one attribute, for the same reason."""

_TRACEPARENT_LIMIT = 512
"""Longer values are not looked at: the SDK would log a warning for each."""

_EMPTY = Context()
_PROPAGATOR = TraceContextTextMapPropagator()
_IDS = RandomIdGenerator()

_Start = Callable[[str, Context | None, SpanKind, Sequence[Link], int | None], trace.Span]
"""Name, context (None for the current one), kind, links, start in nanoseconds since the epoch (None for now)."""


def build_tracer_provider(*, endpoint_configured: bool, protocol: str = "", version: str = "") -> TracerProvider | None:
    """Build the SDK's side of tracing.

    Args:
        endpoint_configured: an OTLP endpoint for traces is set in the environment, the SDK is not disabled
            (``OTEL_SDK_DISABLED``) and ``OTEL_TRACES_EXPORTER`` is not ``none``. Everything else about it (headers,
            certificates, batch sizes, sampler, limits) the SDK reads from its standard variables itself.
        protocol: ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``, else ``OTEL_EXPORTER_OTLP_PROTOCOL``, else empty.
        version: the sidecar's version.

    Returns:
        The provider, or None where nothing is exported.

    Raises:
        ConfigurationError: the protocol is not http/protobuf.
    """
    if not endpoint_configured:
        return None
    require_http_protobuf(protocol)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - slow to load, seldom needed
        OTLPSpanExporter,
    )

    provider = TracerProvider(resource=resource(version), shutdown_on_exit=False)
    provider.sampler = OwnDecision(provider.sampler)  # the SDK has read OTEL_TRACES_SAMPLER; tracers take it from here
    provider.add_span_processor(KeptInSpite(BatchSpanProcessor(OTLPSpanExporter())))
    return provider


class OtelSpan:
    """One span (``sidecar.ports.Span``)."""

    __slots__ = ("_context", "_failed", "_span")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._context = span.get_span_context()
        self._failed = False

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits."""
        return f"{self._context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits."""
        return f"{self._context.span_id:016x}"

    @property
    def traceparent(self) -> str:
        """W3C traceparent of this span (version 00), to be sent on."""
        context = self._context
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def recording(self) -> bool:
        """Whether its name and attributes go anywhere."""
        return self._span.is_recording()

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes, each bounded (``TEXT_LIMIT``, ``ITEM_LIMIT``) and made to print."""
        if self._span.is_recording():
            self._span.set_attributes({key: _bounded(value) for key, value in attributes.items()})

    def rename(self, name: str) -> None:
        """Give the span its final name."""
        self._span.update_name(escaped(name[:TEXT_LIMIT]))

    def end(self) -> None:
        """Close the span; called by its context manager only."""
        self._span.end()

    def fail(self, error_type: str, description: str = "") -> None:
        """Mark the span as failed. The first failure stands: what follows is its consequence."""
        if self._failed:
            return
        self._failed = True
        self._span.set_attribute("error.type", error_type or "_OTHER")
        self._span.set_status(Status(StatusCode.ERROR, escaped(description[:TEXT_LIMIT]) or None))


class _Opened:
    """A span that is current between enter and exit. A class, since a generator costs three times as much."""

    __slots__ = ("_arguments", "_span", "_start", "_token")

    _span: OtelSpan
    _token: Token[Context]

    def __init__(
        self,
        start: _Start,
        name: str,
        kind: SpanKind,
        *,
        context: Context | None = None,
        links: Sequence[Link] = (),
        start_ns: int | None = None,
    ) -> None:
        self._start = start
        self._arguments = (name, context, kind, links, start_ns)

    def __enter__(self) -> OtelSpan:
        span = self._start(*self._arguments)
        self._token = otel_context.attach(trace.set_span_in_context(span, self._arguments[1]))
        self._span = OtelSpan(span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if error is not None:
            # Never the exception's own text: it may quote what the caller sent.
            public = error.public if isinstance(error, SidecarError) else ""
            self._span.fail(_error_type(error), public)
        self._span.end()


class _UnrecordedStep:
    """A step that is not recorded, and its span: attributes go nowhere, and the ids are those of its message.

    The span of the message stays the parent of what follows.
    """

    __slots__ = ()
    recording = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    @property
    def trace_id(self) -> str:
        return OtelSpan(trace.get_current_span()).trace_id

    @property
    def span_id(self) -> str:
        return OtelSpan(trace.get_current_span()).span_id

    @property
    def traceparent(self) -> str:
        return OtelSpan(trace.get_current_span()).traceparent

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def fail(self, error_type: str, description: str = "") -> None:
        pass


_UNRECORDED = _UnrecordedStep()


class OtelTracer:
    """Makes spans (``sidecar.ports.Tracer``).

    Args:
        provider: what ``build_tracer_provider`` returned; None makes spans that have ids and nothing else.
        version: the sidecar's version, also of the scope.
    """

    def __init__(self, provider: TracerProvider | None, *, version: str = "") -> None:
        self._provider = provider
        self._start: _Start = _ids_only
        self._steps = False
        if provider is not None:
            tracer = provider.get_tracer(SCOPE, version, SCHEMA_URL)
            # OTEL_SDK_DISABLED gives a tracer without ids; the evidence needs them all the same.
            if not isinstance(tracer, trace.NoOpTracer):
                self._start = _recorded(tracer)
                self._steps = True

    def server(
        self, name: str, *, traceparent: str | None, link: str | None, start_ns: int | None = None, request_id: str = ""
    ) -> AbstractContextManager[Span]:
        """Open the span of one incoming message; see ``sidecar.ports.Tracer.server``.

        Without a remote parent it begins a trace: no span that happens to be open becomes its parent.
        """
        parent, other = _remote(traceparent), _remote(link)
        context = _EMPTY if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY)
        if request_id:
            context = otel_context.set_value(REQUEST_ID, request_id, context)
        links = (Link(other),) if other is not None and other != parent else ()
        return _Opened(self._start, name, SpanKind.SERVER, context=context, links=links, start_ns=start_ns)

    def step(self, name: str, *, client: bool = False) -> AbstractContextManager[Span]:
        """Open the span of one step, below the innermost open one."""
        if not self._steps:
            return _UNRECORDED
        return _Opened(self._start, name, SpanKind.CLIENT if client else SpanKind.INTERNAL)

    def past(self, name: str, *, start_ns: int, end_ns: int) -> None:
        """Add a step that is over, below the innermost open span."""
        if self._steps and trace.get_current_span().is_recording():
            self._start(name, None, SpanKind.INTERNAL, (), start_ns).end(end_ns)

    def shutdown(self, seconds: float) -> bool:
        """Send what is waiting and end, blocking for at most ``seconds``; return whether all was done by then."""
        return self._provider is None or within(seconds, self._provider.shutdown)


def _recorded(tracer: trace.Tracer) -> _Start:
    steps = Steps(tracer) if isinstance(tracer, Tracer) else None

    def start(
        name: str, context: Context | None, kind: SpanKind, links: Sequence[Link], start_ns: int | None
    ) -> trace.Span:
        if context is None and steps is not None:
            step = steps.below(trace.get_current_span(), name, kind, start_ns)
            if step is not None:
                return step
        return tracer.start_span(name, context, kind, links=links, start_time=start_ns, record_exception=False)

    return start


def _ids_only(
    _name: str, context: Context | None, _kind: SpanKind, _links: Sequence[Link], _start_ns: int | None
) -> trace.Span:
    """Start a span that has ids and is not recorded; the sampled flag goes on as it came (W3C trace context, 3.3.1)."""
    parent = trace.get_current_span(context).get_span_context()
    return NonRecordingSpan(
        SpanContext(
            trace_id=parent.trace_id if parent.is_valid else _IDS.generate_trace_id(),
            span_id=_IDS.generate_span_id(),
            is_remote=False,
            trace_flags=parent.trace_flags if parent.is_valid else TraceFlags(TraceFlags.DEFAULT),
        )
    )


def _remote(traceparent: str | None) -> SpanContext | None:
    """Read a W3C traceparent; a malformed one counts as none (SEP-414, O-01)."""
    if not traceparent or len(traceparent) > _TRACEPARENT_LIMIT:
        return None
    found = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent}, _EMPTY)).get_span_context()
    return found if found.is_valid else None


def _error_type(error: BaseException) -> str:
    match error:
        case SidecarError():
            return error.label
        case CancelledError():
            return "cancelled"
        case _:
            return type(error).__qualname__


def _bounded(value: AttributeValue) -> AttributeValue:
    match value:
        case str():
            return escaped(value[:TEXT_LIMIT])
        case tuple():
            return tuple(escaped(item[:TEXT_LIMIT]) for item in value[:ITEM_LIMIT])
        case _:
            return value
