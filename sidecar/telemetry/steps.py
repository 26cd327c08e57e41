"""A step of a call as a span that costs a quarter of the SDK's.

A call has six steps, and the SDK spends most of its time on what a step does not have: links, events, a lock for each
of them, and a sampler that is asked again what was decided for the call. So a step below a span that is recorded and
sampled is made here, and handed to the SDK's processors when it ends; everything else is the SDK's. The limits of the
environment on attributes (``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`` and its like) are the SDK's own here too.
"""

from collections.abc import Mapping
from time import time_ns
from typing import Final

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, Tracer
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue
from typing_extensions import override


class StepSpan(ReadableSpan, trace.Span):
    """One step, used by one task.

    Args:
        name: as the contract has it.
        above: the span that it is a step of.
        context: its own ids.
        kind: whether another program is asked.
        start_ns: nanoseconds since the epoch; None for now.
        steps: makes it.
    """

    def __init__(
        self, name: str, above: ReadableSpan, context: SpanContext, kind: SpanKind, start_ns: int | None, steps: "Steps"
    ) -> None:
        super().__init__(
            name=name,
            context=context,
            parent=above.context,
            resource=above.resource,
            kind=kind,
            start_time=time_ns() if start_ns is None else start_ns,
            instrumentation_scope=above.instrumentation_scope,
        )
        self._steps = steps
        self._own = context
        self._bounded: BoundedAttributes | None = None

    @override
    def get_span_context(self) -> SpanContext:
        return self._own

    @override
    def is_recording(self) -> bool:
        return self._end_time is None

    @override
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self._end_time is not None:
            return
        if self._bounded is None:
            self._attributes = self._bounded = self._steps.bounded()
        for key, value in attributes.items():
            self._bounded[key] = value

    @override
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self.set_attributes({key: value})

    @override
    def update_name(self, name: str) -> None:
        if self._end_time is None:
            self._name = name

    @override
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self._end_time is None:
            self._status = status if isinstance(status, Status) else Status(status, description)

    @override
    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if self._end_time is None:
            self._events = (*self._events, Event(name, attributes, timestamp))

    @override
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record its type only: its text may quote what a caller sent."""
        self.add_event("exception", {"exception.type": type(exception).__qualname__}, timestamp)

    @override
    def end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = time_ns() if end_time is None else end_time
            self._steps.ended(self)


class Steps:
    """Makes steps.

    Args:
        tracer: the SDK's, whose ids and processors they have.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._ids: Final = tracer.id_generator
        self.ended: Final = tracer.span_processor.on_end
        self._limits: Final = SpanLimits()

    def below(self, above: trace.Span, name: str, kind: SpanKind, start_ns: int | None) -> StepSpan | None:
        """Return a new step; None where the SDK has to make it."""
        if not isinstance(above, ReadableSpan) or not above.is_recording():
            return None
        parent = above.get_span_context()
        if not parent.trace_flags.sampled:
            return None  # it is held until its message has ended (``sampling``)
        own = SpanContext(
            trace_id=parent.trace_id,
            span_id=self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=parent.trace_flags,
            trace_state=parent.trace_state,
        )
        return StepSpan(name, above, own, kind, start_ns, self)

    def bounded(self) -> BoundedAttributes:
        """Return no attributes, bounded as those of the SDK's spans are."""
        limits = self._limits
        return BoundedAttributes(
            limits.max_span_attributes, immutable=False, max_value_len=limits.max_span_attribute_length
        )
