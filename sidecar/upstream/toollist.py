"""The server's tool list: fetched once, all pages, forgotten when it may have changed."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from sidecar.errors import UpstreamProtocolViolation, UpstreamUnreachable
from sidecar.model import JsonObject
from sidecar.upstream.messages import read_page

_MAX_PAGES = 64

OF_PROMPTS: Final = frozenset({"prompts/get", "completion/complete"})
"""Methods that use a prompt: what was reviewed for them are the server's prompts, and for all others its tools."""


class ToolList:
    """A cache of ``tools/list`` (77 kB and 14 ms from the real server each time it is asked).

    Args:
        max_age_s: how long a list is kept where the server may not be able to say that it changed.
    """

    def __init__(self, *, max_age_s: float = math.inf) -> None:
        self.max_age_s = max_age_s
        self._tools: tuple[JsonObject, ...] | None = None
        self._fetched_at = -math.inf
        self._generation = 0
        self._fetching = asyncio.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._alike: tuple[JsonObject, ...] | None = None
        """Another list that was found to say the same as the one that is kept."""

    def of_another(self) -> "ToolList":
        """Return an empty list for another process of the same server; the same callbacks hear of its changes."""
        other = ToolList(max_age_s=self.max_age_s)
        other._callbacks = self._callbacks
        return other

    @property
    def known(self) -> tuple[JsonObject, ...]:
        """The list as it was fetched last; empty where it is to be fetched again."""
        return self._tools or ()

    @property
    def kept(self) -> tuple[JsonObject, ...] | None:
        """The list, while it may be answered without asking the server; else None."""
        if self._tools is None or asyncio.get_running_loop().time() - self._fetched_at >= self.max_age_s:
            return None
        return self._tools

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on every later change."""
        self._callbacks.append(callback)

    def changed(self) -> None:
        """Forget the list. Callbacks run in a later turn of the loop, so that a failure in one stops nothing here."""
        self._generation += 1
        self._tools = self._alike = None
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback)

    async def get(self, fetch: Callable[[JsonObject], Awaitable[bytes]]) -> tuple[JsonObject, ...]:
        """Return the tools; ``fetch`` sends ``tools/list`` with the params it is given and returns the result.

        The same object is returned until the list may have changed, so that what was computed from it can be kept.

        Raises:
            UpstreamProtocolViolation: the answer is not a list, has too many pages, or has two tools of one name.
            UpstreamError: what ``fetch`` raises.
        """
        async with self._fetching:
            if (kept := self.kept) is not None:
                return kept
            generation = self._generation
            tools = await _all_pages(fetch, "tools/list")
            if generation == self._generation:
                # A list that changed while it was read is served once and not kept.
                self._tools = tools
                self._fetched_at = asyncio.get_running_loop().time()
            return tools

    async def require(self, reviewed: tuple[JsonObject, ...], fetch: Callable[[JsonObject], Awaitable[bytes]]) -> None:
        """Return if these are the tools that were reviewed, told by their JSON: in Python ``True == 1``.

        Args:
            reviewed: the list that was held against the pins.
            fetch: as for ``get``.

        Raises:
            UpstreamUnreachable: they are others; the next call is held against the list of today.
            UpstreamError: as for ``get``.
        """
        if self._tools is not None and (reviewed is self._tools or reviewed is self._alike):
            return
        live = await self.get(fetch)
        if not _alike(live, reviewed):
            raise UpstreamUnreachable("the server has other tools by now than those that were looked at")
        if live is self._tools:
            self._alike = reviewed


class PromptList:
    """The server's prompts: read each time they are asked for, and held against those that were reviewed.

    Prompts are few and seldom used, so nothing is kept but from which process they were read last.
    """

    def __init__(self) -> None:
        self._seen: tuple[object, tuple[JsonObject, ...]] | None = None

    async def read(self, source: object, fetch: Callable[[JsonObject], Awaitable[bytes]]) -> tuple[JsonObject, ...]:
        """Return the prompts of a source; raises as ``all_prompts`` does."""
        prompts = await all_prompts(fetch)
        self._seen = source, prompts
        return prompts

    def changed(self) -> None:
        """They may be others by now."""
        self._seen = None

    async def require(
        self, source: object, reviewed: tuple[JsonObject, ...], fetch: Callable[[JsonObject], Awaitable[bytes]]
    ) -> None:
        """Return if a source has the prompts that were reviewed.

        Raises:
            UpstreamUnreachable: it has others.
            UpstreamError: as for ``read``.
        """
        if self._seen is not None and self._seen[0] is source and self._seen[1] is reviewed:
            return
        if not _alike(await self.read(source, fetch), reviewed):
            raise UpstreamUnreachable("the server has other prompts by now than those that were looked at")


async def all_prompts(fetch: Callable[[JsonObject], Awaitable[bytes]]) -> tuple[JsonObject, ...]:
    """Return the server's prompts, all pages; ``fetch`` sends ``prompts/list``.

    Raises:
        UpstreamProtocolViolation: the answer is not a list, has too many pages, or has two prompts of one name.
        UpstreamError: what ``fetch`` raises.
    """
    return await _all_pages(fetch, "prompts/list")


def _alike(live: tuple[JsonObject, ...], reviewed: tuple[JsonObject, ...]) -> bool:
    """Whether two lists have the same JSON."""
    try:
        return msgspec.json.encode(live) == msgspec.json.encode(reviewed)
    except RecursionError:
        raise UpstreamProtocolViolation("an entry is nested too deep to be compared") from None


async def _all_pages(fetch: Callable[[JsonObject], Awaitable[bytes]], method: str) -> tuple[JsonObject, ...]:
    entries: list[JsonObject] = []
    params: JsonObject = {}
    for _ in range(_MAX_PAGES):
        page, cursor = read_page(method, await fetch(params))
        entries += page
        if cursor is None:
            break
        params = {"cursor": cursor}
    else:
        raise UpstreamProtocolViolation(f"{method} has more than {_MAX_PAGES} pages")
    names = [entry["name"] for entry in entries]
    if len(set(map(str, names))) != len(names):
        raise UpstreamProtocolViolation(f"{method} has one name twice")
    return tuple(entries)
