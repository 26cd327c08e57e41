"""The tools that the configured servers offer right now, held against the pins."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from sidecar.bounded import BoundedMemory
from sidecar.commands import (
    CATALOG,
    GenericTools,
    PinComparison,
    PinState,
    ToolGroup,
    groups_off,
    off_everywhere,
    pinning,
)
from sidecar.errors import (
    CommandNotDerivable,
    ToolGroupOff,
    UpstreamError,
    UpstreamProtocolViolation,
    UpstreamUnreachable,
)
from sidecar.model import JsonObject, JsonValue
from sidecar.ports import Upstream

MAX_SHOWN: Final = 64
"""Sets of servers' lists of which is remembered what they show."""

_NONE: Final[Mapping[str, GenericTools]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One list of a server's tools and how they stand; valid for the text, not for what Python takes to be equal."""

    text: bytes
    tools: tuple[JsonObject, ...]
    comparison: PinComparison


_ShownBefore = tuple[tuple[_Compared, ...], tuple[JsonObject, ...]]
"""What is shown of some servers' lists."""


class LiveTools:
    """Knows what each server offers; compares again whenever a server's list is another one.

    Args:
        upstreams: the servers.
        groups: the tool groups that are on, by server. A tool of another group counts as not offered, even if the
            server offers it; on a server that is not named, every group is off.
        generic: the tools outside of the catalog that there are, by server.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        groups: Mapping[str, Collection[ToolGroup]],
        generic: Mapping[str, GenericTools] = _NONE,
    ) -> None:
        self._upstreams = upstreams
        self._pins = {name: {key: one.pin for key, one in generic.get(name, {}).items()} for name in upstreams}
        self._groups = {name: frozenset(groups.get(name, ())) for name in upstreams}
        self._compared: dict[str, _Compared] = {}
        self._shown: BoundedMemory[tuple[int, ...], _ShownBefore] = BoundedMemory(MAX_SHOWN)

    def require_somewhere(self, tool: str) -> None:
        """Return unless the tool's group is off on every server; then policy need not say who may use it.

        Raises:
            ToolGroupOff: it is.
        """
        if off_everywhere(tool, self._groups):
            raise ToolGroupOff(f"tool group {', '.join(groups_off(tool, ()))} is off on every server")

    def is_on(self, server: str, tool: str) -> bool:
        """Return whether every group of a tool is on at a server, or the server's settings name the tool."""
        if tool not in CATALOG:
            return tool in self._pins.get(server, {})
        return not groups_off(tool, self._groups.get(server, ()))

    async def comparison(self, server: str) -> PinComparison:
        """Return how a server's tools stand to the pins.

        The very list that was compared last stands as it did; an upstream returns that one until its list may have
        changed. Other lists are told apart by their JSON: in Python ``True == 1`` and ``0 == False``, so a tool that
        changed from one to the other would keep the standing of the tool that was reviewed. Encoding costs 142 µs for
        the real server's 77 kB, so it is not done for each call.

        Raises:
            UpstreamError: the server cannot be asked, or offers what cannot be compared.
        """
        upstream = self._upstreams.get(server)
        if upstream is None:
            raise UpstreamUnreachable
        live = await upstream.tools()
        known = self._compared.get(server)
        if known is not None and known.tools is live:
            return known.comparison
        try:
            text = msgspec.json.encode(live)
            unchanged = known is not None and known.text == text
            comparison = known.comparison if known is not None and unchanged else self._compare(server, live)
        except RecursionError:
            raise UpstreamProtocolViolation("a tool is nested too deep to be compared") from None
        self._compared[server] = _Compared(text=text, tools=live, comparison=comparison)
        return comparison

    def _compare(self, server: str, live: Sequence[JsonObject]) -> PinComparison:
        on = self._groups[server]
        standings = pinning.compare(live, self._pins[server]).standings
        return PinComparison(
            standings={
                tool: PinState.ABSENT if groups_off(tool, on) else standing for tool, standing in standings.items()
            }
        )

    async def require_pinned(self, server: str, tool: str) -> tuple[JsonObject, ...]:
        """Return the server's tools if the tool is the one that the call was derived for; the permit says which.

        Raises:
            CommandNotDerivable: it changed, or this server does not offer it.
            UpstreamError: the server cannot be asked.
        """
        match (await self.comparison(server))[tool]:
            case PinState.PINNED:
                return self._compared[server].tools
            case PinState.ABSENT:
                raise CommandNotDerivable("tool_absent", "The server that serves this call does not offer the tool.")
            case PinState.CHANGED | PinState.UNKNOWN:
                raise CommandNotDerivable(
                    "tool_changed", "The tool is not the one that was reviewed; tell the platform team."
                )

    def schema(self, server: str, tool: str) -> JsonValue:
        """Return the input schema of a tool that was just found to be the reviewed one; None where it is not there."""
        compared = self._compared.get(server)
        offered = compared.tools if compared is not None else ()
        return next((one.get("inputSchema") for one in offered if one.get("name") == tool), None)

    async def unreviewed(self) -> dict[str, dict[str, str]]:
        """Return, by server that can be asked, the live tools that are refused because they were not reviewed."""
        found = {}
        for name in self._upstreams:
            with suppress(UpstreamError):
                found[name] = (await self.comparison(name)).suspicious()
        return found

    async def offers(self, tool: str, servers: Collection[str]) -> bool:
        """Return whether one of the servers has the tool, reviewed or not.

        Raises:
            UpstreamError: a server cannot be asked.
        """
        standings = [(await self.comparison(name))[tool] for name in self._upstreams if name in servers]
        return any(standing in {PinState.PINNED, PinState.CHANGED} for standing in standings)

    async def pinned(self, servers: Collection[str]) -> tuple[JsonObject, ...]:
        """Return the reviewed tools of the servers as they are shown, each name once, in the servers' order.

        The same object is returned until one of the lists is another one.

        Raises:
            UpstreamError: no server could be asked.
        """
        asked: list[_Compared] = []
        failure: UpstreamError = UpstreamUnreachable()
        for name in self._upstreams:
            if name not in servers:
                continue
            try:
                await self.comparison(name)
            except UpstreamError as error:
                failure = error
                continue
            asked.append(self._compared[name])
        if servers and not asked:
            raise failure
        key = tuple(map(id, asked))
        known = self._shown.get(key)
        if known is None:
            known = (tuple(asked), _shown(asked))  # what is kept is alive, so nothing else has its id
            self._shown.put(key, known)
        return known[1]


def _shown(compared: Sequence[_Compared]) -> tuple[JsonObject, ...]:
    found: dict[str, JsonObject] = {}
    for one in compared:
        for tool in one.tools:
            if one.comparison[str(tool.get("name"))] is PinState.PINNED:
                found.setdefault(str(tool["name"]), pinning.shown(tool))
    return tuple(found.values())
