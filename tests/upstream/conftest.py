import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from sidecar.model import JsonObject, JsonValue, Permit, ToolCall, UpstreamResult
from sidecar.upstream.process import StdioUpstream
from tests.patience import HANG_S

FAULT_SERVER = Path(__file__).with_name("fault_server.py")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop is what serves; where processes die and pipes break, asyncio's own loop has to do the same."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_stdio_faults.py":
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tried on uvloop with every change is tried on asyncio's own loop at night."""
    for item in items:
        spec = getattr(item, "callspec", None)
        if item.path.name == "test_stdio_faults.py" and spec is not None and "asyncio" in spec.id.split("-"):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session")
def permit() -> Callable[..., Permit]:
    def make(tool: str, traceparent: str | None = None, server: str = "double", **arguments: JsonValue) -> Permit:
        return Permit(
            server=server,
            call=ToolCall(name=tool, arguments=arguments),
            request_id="r",
            audit_id="a",
            traceparent=traceparent,
        )

    return make


@pytest.fixture(scope="session")
def structured() -> Callable[[UpstreamResult], JsonObject]:
    def read(result: UpstreamResult) -> JsonObject:
        content: JsonObject = msgspec.json.decode(result.result)["structuredContent"]
        return content

    return read


@pytest.fixture(scope="session")
def until() -> Callable[..., object]:
    async def wait(condition: Callable[[], object], seconds: float = HANG_S) -> None:
        """Give other tasks turns until the condition holds; the limit only ends a test that has failed."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 -- what is waited for happens in other processes
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
async def double() -> AsyncIterator[Callable[..., object]]:
    """Starts fault servers; all are stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*options: str, environment: dict[str, str] | None = None, **limits: Any) -> StdioUpstream:
            upstream = StdioUpstream(
                "double",
                [sys.executable, str(FAULT_SERVER), *options],
                environment or {},
                **{"timeout_s": 10.0, "stop_grace_s": 1.0, **limits},
            )
            stack.push_async_callback(upstream.stop)
            await upstream.start()
            return upstream

        yield start
