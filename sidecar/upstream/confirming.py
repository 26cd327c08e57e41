"""A server's question to the user, taken to the client whose call caused it, although many callers share the server.

A question that a server asks over its pipes does not say which call it is about. So a call that may be asked about goes
to a second child, which has been told that its client can be asked, and to which one call at a time is sent::

    first      call ──▶ question ──▶ "cancel"        nothing was done; the question is known, and whose it is
    meanwhile  the question ──▶ the client ──▶ its answer; the call is decided again
    second     call ──▶ the same question ──▶ the answer

So nobody waits for another one's user, and the server's own limit of time does not count. It was measured with MongoDB
MCP server 3.0.4: it asks before it acts, and does nothing when the answer is not ``accept`` with ``Yes``. A question of
the second time that differs from that of the first is answered with ``cancel``.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.errors import NotConfirmed, UpstreamRefused, UpstreamTimedOut
from sidecar.model import JsonObject, Permit, ToolCall, UpstreamResult
from sidecar.upstream.pool import StdioPool
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.watched import SUBSCRIBE

CANCEL: Final[JsonObject] = {"action": "cancel"}


class ConfirmingUpstream:
    """One configured MongoDB MCP server instance whose questions reach clients, as ``sidecar.ports.Upstream``.

    Args:
        plain: serves every other call; its child is told that nobody can be asked, so it asks nothing.
        asking: serves the calls that are asked about; started when there is the first one.
        asks: whether the server would ask about a call.
        required: refuse a call that is asked about where its client cannot be asked; else it is carried out unasked.
        wait_s: how long a call may wait for its turn at ``asking``, each of the two times.
    """

    def __init__(
        self,
        plain: StdioUpstream | StdioPool,
        asking: StdioUpstream,
        asks: Callable[[ToolCall], bool],
        *,
        required: bool,
        wait_s: float = 60.0,
    ) -> None:
        self._plain = plain
        self._asking = asking
        self._asks = asks
        self._required = required
        self._wait_s = wait_s
        self._one_at_a_time = asyncio.Lock()
        self._begun = False

    @property
    def healthy(self) -> bool:
        """Whether the server that most calls go to answers."""
        return self._plain.healthy

    @property
    def refusing(self) -> bool:
        """Whether calls are refused at once at the server that most go to."""
        return self._plain.refusing

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the tool list may have changed."""
        self._plain.on_tools_changed(callback)

    def on_updated(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the URI of each watched resource that may have changed."""
        self._plain.on_updated(callback)
        self._asking.on_updated(callback)

    def on_prompts_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the list of prompts may have changed."""
        self._plain.on_prompts_changed(callback)

    def unwatch(self, uri: str) -> None:
        """Nobody wants to be told of a resource any more (see ``sidecar.ports.Upstream``)."""
        self._plain.unwatch(uri)
        self._asking.unwatch(uri)

    def discard(self, uri: str) -> None:
        """Nobody can read an export any more (see ``sidecar.ports.Upstream``)."""
        self._plain.discard(uri)
        self._asking.discard(uri)

    async def start(self) -> None:
        """Start the server; raises as ``StdioUpstream.start`` does."""
        await self._plain.start()

    async def stop(self) -> None:
        """End both children; calls in flight fail."""
        await self._plain.stop()
        await self._asking.stop()

    async def tools(self) -> tuple[JsonObject, ...]:
        """Return the server's live tools (see ``sidecar.ports.Upstream``)."""
        return await self._plain.tools()

    async def prompts(self) -> tuple[JsonObject, ...]:
        """Return the server's live prompts (see ``sidecar.ports.Upstream``)."""
        return await self._plain.prompts()

    async def forward(self, permit: Permit) -> UpstreamResult:
        """Send exactly the permitted call and return its result (see ``sidecar.ports.Upstream``).

        Raises:
            NotConfirmed: it is asked about, and its client cannot be asked or did not confirm it.
            UpstreamTimedOut: too many calls that are asked about were before it.
        """
        if permit.method != "tools/call":
            return await self._left_behind(permit)
        if not self._asks(permit.call):
            return await self._plain.forward(permit)
        if permit.confirm is None:
            if self._required:
                raise NotConfirmed("its client cannot be asked")
            return await self._plain.forward(permit)
        asked: list[JsonObject] = []

        def put_off(question: JsonObject) -> JsonObject:
            asked.append(question)
            return CANCEL

        result = await self._attempt(permit, put_off)
        if not asked:
            return result
        if len(asked) > 1:
            raise UpstreamRefused("the server asks more than one question about a call")
        answer: JsonObject | None = await permit.confirm(asked[0])

        def repeat(question: JsonObject) -> JsonObject:
            nonlocal answer
            given, answer = answer, None
            return CANCEL if given is None or question != asked[0] else given

        return await self._attempt(permit, repeat)

    async def _left_behind(self, permit: Permit) -> UpstreamResult:
        """Use what a call left: a confirmed one left it in the child that asks, any other in that of most calls.

        Nothing is asked about such a use, and the one in vain does nothing. To be told of a change is asked of both.
        """
        result = await self._plain.forward(permit)
        if not (self._begun and self._asks(permit.call)):
            return result
        if not result.failed and permit.method != SUBSCRIBE:
            return result
        return await self._attempt(permit, None)

    async def _attempt(self, permit: Permit, reply: Callable[[JsonObject], JsonObject] | None) -> UpstreamResult:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._one_at_a_time.acquire()
        except TimeoutError as error:
            raise UpstreamTimedOut(f"no turn within {self._wait_s} s at the child that asks") from error
        try:
            if not self._begun:
                await self._asking.start()
                self._begun = True
            return await self._asking.forward(permit, reply)
        finally:
            self._one_at_a_time.release()
