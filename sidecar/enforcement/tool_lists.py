"""Lists of tools as clients read them, kept encoded: for most callers there are few different ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.mcp import Era, stateless_results, tools
from sidecar.model import Identity, JsonObject, RequestContext, VisibleTools

MAX_LISTS: Final = 64
"""Different lists that are kept; one is about 80 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownList:
    """The list of one caller, and what it was made for."""

    identity: Identity
    context: RequestContext
    era: Era
    result: bytes
    """The JSON text of the result."""


class EncodedLists:
    """Encodes each list once, for as long as the same tools are offered."""

    def __init__(self, server_version: str) -> None:
        self._server_version = server_version
        self._known: dict[VisibleTools, tuple[Sequence[JsonObject], bytes]] = {}

    def of(self, visible: VisibleTools, offered: Sequence[JsonObject], era: Era) -> bytes:
        """Return the JSON text of the result for a caller who may see ``visible`` of what is offered.

        Args:
            visible: what its caller may see.
            offered: as ``LiveTools.pinned`` returns it, which is the same object as long as it says the same.
            era: whose form the list has.
        """
        known = self._known.get(visible)
        if known is None or known[0] is not offered:
            result = tools.tools_list_result([tool for tool in offered if tool["name"] in visible.tools])
            if len(self._known) >= MAX_LISTS:
                self._known.clear()
            known = self._known[visible] = (offered, result)
        return stateless_results.listed(known[1], self._server_version) if era is Era.STATELESS else known[1]

    def forget(self) -> None:
        """Drop all of them."""
        self._known.clear()
