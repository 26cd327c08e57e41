"""An MCP server that is slow, dies, answers twice, answers late, and answers what nobody asked.

The pipes are simulated; what reads and writes them is the product's ``sidecar.upstream.child.Child``.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

from sidecar.errors import UpstreamTimedOut
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.upstream.child import Child
from sidecar.upstream.messages import outgoing, read_result
from sidecar.upstream.redaction import Redactor, Repeats
from sidecar.upstream.spawning import ChildProcess
from sidecar.upstream.toollist import ToolList
from tests.simulation.simulated_loop import SimulatedLoop

TIMEOUT_S = 0.2
NO_PROCESS = 2**30
"""More than Linux gives to a process, so that a signal reaches none."""

_LOG = logging.getLogger("tests.simulation.server")
_LOG.disabled = True


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A call that was written to the server: from then on it may have happened."""

    call: int
    """Its number."""
    moment: float
    permit: Permit
    durable: int
    """Bytes of the audit file that would have outlived a loss of power at that moment."""


class _Process:
    """One process: what is written to it is answered later."""

    def __init__(self, loop: SimulatedLoop, answers_oddly: Callable[[], bool]) -> None:
        self._loop = loop
        self._odd = answers_oddly
        self.out = asyncio.StreamReader(loop=loop)
        self.err = asyncio.StreamReader(loop=loop)
        self.exited = asyncio.Event()
        self._cancelled: set[int] = set()
        stdin = SimpleNamespace(
            write=self._read,
            drain=loop.passes,
            is_closing=lambda: False,
            close=self.end,
            transport=SimpleNamespace(get_write_buffer_size=lambda: 0),
        )
        transport = SimpleNamespace(get_pid=lambda: NO_PROCESS, get_returncode=lambda: 0, close=lambda: None)
        protocol = SimpleNamespace(stdin=stdin, stdout=self.out, stderr=self.err, exited=self.exited)
        self.pipes = ChildProcess(transport=cast("Any", transport), protocol=cast("Any", protocol))

    def end(self) -> None:
        if not self.exited.is_set():
            self.exited.set()
            self.out.feed_eof()
            self.err.feed_eof()

    def _read(self, line: bytes) -> None:
        sent = json.loads(line)  # noqa: TID251 - what we sent ourselves
        if "id" not in sent:
            self._cancelled.add(sent["params"]["requestId"])
            return
        number = sent["id"]
        self._loop.call_later(self._loop.delay(), self._answer, number, sent["params"])
        if self._odd():
            self._loop.call_later(self._loop.delay(), self._answer, number, sent["params"])
            self._loop.call_later(self._loop.delay(), self._answer, number + 10_000, {})

    def _answer(self, number: int, params: Any) -> None:
        if self.exited.is_set() or (number in self._cancelled and self._odd()):
            return
        call = number_in(params["_meta"]["traceparent"]) if params else "nobody"
        content = [{"type": "text", "text": f"the answer to {call}"}]
        answer = {"jsonrpc": "2.0", "id": number, "result": {"content": content}}
        self.out.feed_data(json.dumps(answer).encode() + b"\n")


class SimulatedServer:
    """An upstream (``sidecar.ports.Upstream``) whose process is started again when it has died.

    Args:
        loop: the run's.
        offered: its tools.
        durable: how much of the evidence would outlive a loss of power now.
    """

    healthy = True

    def __init__(self, loop: SimulatedLoop, offered: tuple[JsonObject, ...], durable: Callable[[], int]) -> None:
        self._loop = loop
        self._offered = offered
        self._durable = durable
        self.odd = 0.0
        """How often it answers twice, of one."""
        self.effects: list[Effect] = []
        self._process: _Process | None = None
        self._child: Child | None = None

    async def tools(self) -> tuple[JsonObject, ...]:
        return self._offered

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    def dies(self) -> None:
        """End the process with every call that it has."""
        if self._process is not None:
            self._process.end()

    async def forward(self, permit: Permit) -> UpstreamResult:
        await self._loop.passes()  # its turn

        def leaving() -> None:
            permit.leaving()
            self.effects.append(
                Effect(
                    call=number_in(str(permit.traceparent)),
                    moment=self._loop.time(),
                    permit=permit,
                    durable=self._durable(),
                )
            )

        request = replace(outgoing(permit), leaving=leaving)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result = await self._living().ask(request.method, request.params, request.leaving, request.tell)
        except TimeoutError:
            raise UpstreamTimedOut from None
        return read_result(permit.method, result)

    async def stop(self) -> None:
        """End the process."""
        if self._child is not None:
            self.dies()
            await self._child.ended()

    def _living(self) -> Child:
        if self._child is None or not self._child.open:
            self._process = _Process(self._loop, lambda: self._loop.random.random() < self.odd)
            self._child = Child(
                self._process.pipes,
                log=_LOG,
                redactor=Redactor(()),
                repeats=Repeats(),
                tools=ToolList(),
                told=lambda _: None,
                on_end=lambda: None,
            )
        return self._child


def traceparent_of(number: int) -> str:
    """Return the trace context of a call: the one part of it that goes all the way and that no rule looks at."""
    return f"00-{number:032x}-{1:016x}-01"


def number_in(traceparent: str) -> int:
    return int(traceparent.split("-")[1], 16)
