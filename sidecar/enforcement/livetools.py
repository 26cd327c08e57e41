"""The tools that the configured servers offer right now, held against the pins."""

from collections.abc import Collection, Mapping

from sidecar.commands.pinning import Comparison, Standing, compare, shown
from sidecar.errors import CommandNotDerivable, UpstreamError, UpstreamUnreachable
from sidecar.model import JsonObject
from sidecar.ports import Upstream


class LiveTools:
    """Knows what each server offers; compares again whenever a server's list is another one."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams
        self._compared: dict[str, tuple[list[JsonObject], Comparison]] = {}

    async def comparison(self, server: str) -> Comparison:
        """Return how a server's tools stand to the pins.

        Raises:
            UpstreamError: the server cannot be asked.
        """
        upstream = self._upstreams.get(server)
        if upstream is None:
            raise UpstreamUnreachable
        live = await upstream.tools()
        known = self._compared.get(server)
        if known is None or known[0] != live:
            known = self._compared[server] = (live, compare(live))
        return known[1]

    async def require_pinned(self, server: str, tool: str) -> None:
        """Return if the server's tool is the one that the call was derived for.

        Raises:
            CommandNotDerivable: it changed, or this server does not offer it.
            UpstreamError: the server cannot be asked.
        """
        match (await self.comparison(server))[tool]:
            case Standing.PINNED:
                return
            case Standing.ABSENT:
                raise CommandNotDerivable("tool_absent", "The server that serves this call does not offer the tool.")
            case Standing.CHANGED | Standing.UNKNOWN:
                raise CommandNotDerivable(
                    "tool_changed", "The tool is not the one that was reviewed; tell the platform team."
                )

    async def offers(self, tool: str, servers: Collection[str]) -> bool:
        """Return whether one of the servers has the tool, reviewed or not.

        Raises:
            UpstreamError: a server cannot be asked.
        """
        standings = [(await self.comparison(name))[tool] for name in self._upstreams if name in servers]
        return any(standing in {Standing.PINNED, Standing.CHANGED} for standing in standings)

    async def pinned(self, servers: Collection[str]) -> list[JsonObject]:
        """Return the reviewed tools of the servers as they are shown, each name once, in the servers' order.

        Raises:
            UpstreamError: no server could be asked.
        """
        found: dict[str, JsonObject] = {}
        failure: UpstreamError = UpstreamUnreachable()
        asked = not servers
        for name in self._upstreams:
            if name not in servers:
                continue
            try:
                standing = await self.comparison(name)
            except UpstreamError as error:
                failure = error
                continue
            asked = True
            for tool in self._compared[name][0]:
                if standing[str(tool.get("name"))] is Standing.PINNED:
                    found.setdefault(str(tool["name"]), shown(tool))
        if not asked:
            raise failure
        return list(found.values())
