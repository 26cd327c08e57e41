"""OPA's own span inside ours, as a real OTLP receiver sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from sidecar.opa.managed import ManagedOpa
from sidecar.ports import Question
from tests.patience import HANG_S

pytestmark = pytest.mark.real


class Receiver:
    """The OTLP/HTTP trace endpoint of a collector (opentelemetry-proto, ``/v1/traces``)."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[tuple[str, Span]] = []
        self._arrived = asyncio.Event()

    async def accept(self, request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            [service] = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        self._arrived.set()
        return web.Response(content_type="application/x-protobuf")

    async def first(self) -> None:
        async with asyncio.timeout(HANG_S):
            await self._arrived.wait()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    collector = Receiver()
    application = web.Application()
    application.router.add_post("/v1/traces", collector.accept)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()


async def test_opas_span_is_the_child_of_ours_with_the_decision_id(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    unsampled = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test")
    async with receiver() as collector:
        opa = ManagedOpa(
            opa_binary, make_policies(), directory=runtime, timeout_s=20.0, otlp_endpoint=collector.address
        )
        async with opa:
            await opa.ask(Question.DECISION, {})
            with unsampled.start_as_current_span("not sampled"):
                await opa.ask(Question.DECISION, {})
            with tracer.start_as_current_span("authorize") as ours:
                answer = await opa.ask(Question.DECISION, {})
            await collector.first()
    context = ours.get_span_context()
    family = {(service, span.trace_id.hex(), span.parent_span_id.hex()) for service, span in collector.spans}
    assert family == {("opa", trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))}
    ids = [item.value.string_value for _, span in collector.spans for item in span.attributes if "decision" in item.key]
    assert ids == [answer.decision_id]


async def test_a_collector_that_is_not_there_costs_no_decision(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path, free_port: int
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    address = f"127.0.0.1:{free_port}"
    async with ManagedOpa(opa_binary, make_policies(), directory=runtime, timeout_s=20.0, otlp_endpoint=address) as opa:
        with tracer.start_as_current_span("authorize"):
            assert (await opa.ask(Question.DECISION, {})).decision_id
