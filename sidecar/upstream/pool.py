"""Several children of one configured server, as one upstream: each call goes to the child with the fewest under way.

What a call leaves in a child is found there only, so a call that leaves something goes to the child that its caller has
for that (``remembered``), and one that uses it to the child that made it: another one did while the caller's own was
away. A child that ends or is replaced takes it along: it does not exist any more.
Connections that callers open themselves serve calls of every kind, and the settings refuse a pool with that group.

A call goes only to a child whose live tools are those that were looked at: while children are replaced, one may be
another version, and its tools are compared with the reviewed ones before it gets a call (``tools``).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from sidecar.bounded import BoundedMemory
from sidecar.errors import UpstreamError, UpstreamUnreachable
from sidecar.mcp import resources
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.upstream.process import StdioUpstream

_ATTEMPTS: Final = 3

MAX_MADE: Final = 16_384
"""Exports of which it is remembered which child made them; of an older one, it is the child of its caller."""


class StdioPool:
    """One configured MongoDB MCP server instance with several processes, as ``sidecar.ports.Upstream``.

    Args:
        members: the upstreams of single children, all of the same name and started from the same.
        remembered: whether a call leaves something in a child, or uses what another one left.
    """

    def __init__(
        self, members: Sequence[StdioUpstream], remembered: Callable[[Permit], bool] = lambda _permit: False
    ) -> None:
        if not members:
            raise ValueError("a pool has members")
        self._members = tuple(members)
        self._remembered = remembered
        self._tools: tuple[JsonObject, ...] | None = None
        self._text = b""
        self._alike: tuple[StdioUpstream, ...] = ()
        """Members that have ``_tools``."""
        self._asked: frozenset[StdioUpstream] = frozenset()
        """Members that were asked for their tools."""
        self._changes = 0
        self._callbacks: list[Callable[[], None]] = []
        self._turn = asyncio.Lock()
        self._made: BoundedMemory[str, StdioUpstream] = BoundedMemory(MAX_MADE)
        for member in self._members:
            member.on_tools_changed(self._changed)

    @property
    def healthy(self) -> bool:
        """Whether some child runs and answered the last thing it was asked in time."""
        return any(member.healthy for member in self._members)

    @property
    def refusing(self) -> bool:
        """Whether calls are refused at once, because no child answers a ping."""
        return all(member.refusing for member in self._members)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the present children."""
        return tuple(member.pid for member in self._members if member.pid is not None)

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the tool list of a child may have changed."""
        self._callbacks.append(callback)

    def on_updated(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the URI of each watched resource that may have changed at a child."""
        for member in self._members:
            member.on_updated(callback)

    def on_prompts_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the list of prompts of a child may have changed."""
        for member in self._members:
            member.on_prompts_changed(callback)

    def unwatch(self, uri: str) -> None:
        """Nobody wants to be told of a resource any more (see ``sidecar.ports.Upstream``)."""
        for member in self._members:
            member.unwatch(uri)

    def discard(self, uri: str) -> None:
        """Nobody can read an export any more (see ``sidecar.ports.Upstream``)."""
        maker = self._made.get(uri)
        self._made.drop(uri)
        for member in self._members if maker is None else (maker,):
            member.discard(uri)

    async def start(self) -> None:
        """Start every child.

        Raises:
            ConfigurationError: the command cannot be executed.
            UpstreamError: a child went away, or does not speak MCP; nothing is left running.
        """
        results = await asyncio.gather(*(member.start() for member in self._members), return_exceptions=True)
        if failed := next((result for result in results if result is not None), None):
            await self.stop()
            raise failed

    async def stop(self) -> None:
        """End every child; calls in flight fail. Returns when nothing of them is left."""
        await asyncio.gather(*(member.stop() for member in self._members))

    async def forward(self, permit: Permit) -> UpstreamResult:
        """Send exactly the permitted call to one child and return its result (see ``sidecar.ports.Upstream``)."""
        await self.tools()
        if self._remembered(permit):
            maker = self._maker(permit) or self._home(permit.caller)
            result = await maker.forward(permit)
            if permit.method == "tools/call":
                for link in resources.export_links(result.result):
                    self._made.put(link.uri, maker)
            return result
        able = [member for member in self._alike if member.healthy] or self._alike
        return await min(able, key=_calls).forward(permit)

    def _maker(self, permit: Permit) -> StdioUpstream | None:
        """Return the child that made what a call uses; None where that is not known, or it cannot be asked now."""
        uri = permit.call.arguments.get("uri")
        maker = self._made.get(uri) if isinstance(uri, str) and permit.method != "tools/call" else None
        return maker if maker in self._alike else None

    def _home(self, caller: tuple[str, ...]) -> StdioUpstream:
        """Return the caller's own child: by a digest, so that nothing is kept; the next one where it is away.

        One that is only slow is not away: what it has would not be found elsewhere.
        """
        first = int.from_bytes(sha256(msgspec.json.encode(caller)).digest()[:8])
        places = (self._members[(first + step) % len(self._members)] for step in range(len(self._members)))
        return next(member for member in places if member in self._alike)

    async def tools(self) -> tuple[JsonObject, ...]:
        """Return the live tools that most children have (see ``sidecar.ports.Upstream``)."""
        if self._tools is None or self._one_came_back():
            async with self._turn:
                if self._tools is None or self._one_came_back():
                    await self._look()
        if self._tools is None:
            raise UpstreamUnreachable("the tools of the children changed as they were read")
        return self._tools

    async def prompts(self) -> tuple[JsonObject, ...]:
        """Return the live prompts of a child that has the tools that most have (see ``sidecar.ports.Upstream``)."""
        await self.tools()
        return await self._alike[0].prompts()

    def _one_came_back(self) -> bool:
        return any(member.healthy and member not in self._asked for member in self._members)

    async def _look(self) -> None:
        """Read the tools of every child that answers, and remember which children have those that most have."""
        for _ in range(_ATTEMPTS):
            changes = self._changes
            asked = [member for member in self._members if member.healthy] or list(self._members)
            found = await asyncio.gather(*(member.tools() for member in asked), return_exceptions=True)
            if failed := next((one for one in found if isinstance(one, BaseException) and not _is_away(one)), None):
                raise failed
            lists = {member: tools for member, tools in zip(asked, found, strict=True) if isinstance(tools, tuple)}
            if not lists:
                raise next(error for error in found if isinstance(error, UpstreamError))
            if changes == self._changes:
                self._take(lists)
                self._asked = frozenset(asked)
                return
        raise UpstreamUnreachable("the tools of the children kept changing while they were read")

    def _take(self, lists: Mapping[StdioUpstream, tuple[JsonObject, ...]]) -> None:
        # By their JSON: in Python ``True == 1``, and a tool that changed from one to the other is another tool.
        texts = {member: msgspec.json.encode(tools) for member, tools in lists.items()}
        [(most, _)] = Counter(texts.values()).most_common(1)
        self._alike = tuple(member for member, text in texts.items() if text == most)
        if self._tools is None or self._text != most:
            self._tools, self._text = lists[self._alike[0]], most

    def _changed(self) -> None:
        self._changes += 1
        self._tools, self._alike = None, ()
        for callback in self._callbacks:
            callback()


def _calls(member: StdioUpstream) -> int:
    return member.calls


def _is_away(error: BaseException) -> bool:
    return isinstance(error, UpstreamError)
