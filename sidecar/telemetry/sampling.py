"""Which spans are exported: those that the operator's sampler takes, and those of every denial and every approval.

A sampler decides when a span begins, and whether a call is refused is known when it ends. So what the sampler leaves
out is recorded all the same, held until its message has ended, and then exported or dropped::

    sampler takes it ─────────────────────────────▶ exported as spans end
    sampler leaves it ──▶ held ──▶ message has ended ──▶ refused, or of an approval? ──▶ exported with its steps
                                                     └─▶ dropped

What is told to others before the end (the ``sampled`` flag of W3C trace context) is the sampler's decision, so that
OPA and the server behind record nothing of what is only held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.util.types import Attributes
from typing_extensions import override

MOST_HELD: Final = 256
"""Spans of one message; a call has some ten, and further probes or questions a few more each."""

_EMPTY: Final = Context()
_IDS: Final = RandomIdGenerator()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SERVERS_OWN: Final = "tool_error"
"""The ``error.type`` of a call that was let through, and whose result is an error of its tool."""


class OwnDecision(Sampler):
    """Samples a whole trace as its first span here was sampled; a client's flag does not count.

    What is not sampled is recorded, so that ``KeptInSpite`` can export it.

    Args:
        first: decides for the first span (``OTEL_TRACES_SAMPLER``). It sees no parent, and a fresh trace id,
            because the client chose the real one.
    """

    def __init__(self, first: Sampler) -> None:
        self._first = first

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid and not parent.is_remote:
            decision = Decision.RECORD_AND_SAMPLE if parent.trace_flags.sampled else Decision.RECORD_ONLY
            return SamplingResult(decision, attributes)
        if parent.is_valid:
            trace_id = _IDS.generate_trace_id()
        found = self._first.should_sample(_EMPTY, trace_id, name, kind, attributes, links, trace_state)
        if found.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes)
        return found

    @override
    def get_description(self) -> str:
        return f"OwnDecision{{{self._first.get_description()}}}"


@dataclass(slots=True)
class _Message:
    """The spans of one message that are held."""

    first: int
    """Id of the span of the message itself."""
    ended: list[ReadableSpan] = field(default_factory=list)


class KeptInSpite(SpanProcessor):
    """Hands sampled spans on as they end, and those that are held once their message was a denial or an approval.

    Args:
        onward: exports what it is given.
    """

    def __init__(self, onward: SpanProcessor) -> None:
        self._onward = onward
        self._open: dict[int, _Message] = {}
        """By the ids of spans that are held and have not ended."""

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = span.get_span_context()
        if context.trace_flags.sampled:
            self._onward.on_start(span, parent_context)
            return
        parent = span.parent
        above = None if parent is None or parent.is_remote else self._open.get(parent.span_id)
        self._open[context.span_id] = above or _Message(first=context.span_id)

    @override
    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or context.trace_flags.sampled:
            self._onward.on_end(span)
            return
        message = self._open.pop(context.span_id, None)
        if message is None:
            return
        if context.span_id != message.first:
            if len(message.ended) < MOST_HELD:
                message.ended.append(span)
        elif is_kept(span.attributes or {}):
            for each in (*message.ended, span):
                self._onward.on_end(_sampled(each))

    @override
    def shutdown(self) -> None:
        self._onward.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._onward.force_flush(timeout_millis)


def is_kept(attributes: Mapping[str, Any]) -> bool:
    """Whether the span of a message is of a denial or an approval: of a known caller, so that strangers fill nothing.

    A call that was let through and failed on its way is kept with them: its caller has no answer either.
    """
    if attributes.get("mcp_sidecar.decision") == "deny" or "mcp_sidecar.approval.id" in attributes:
        return True
    return "user.id" in attributes and attributes.get("error.type", _SERVERS_OWN) != _SERVERS_OWN


def _sampled(span: ReadableSpan) -> ReadableSpan:
    """Return the same span as if the sampler had taken it; an exporter leaves out all others."""
    context = span.context
    return ReadableSpan(
        name=span.name,
        context=None if context is None else SpanContext(context.trace_id, context.span_id, False, _SAMPLED),  # noqa: FBT003
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
