"""What of a grant no call can use, because the settings leave off what it takes: tool groups, or kept approvals."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from sidecar.commands import CATALOG, ToolGroup, groups_off
from sidecar.model import JsonValue
from sidecar.obligations import ApprovalKind

Servers = Mapping[str, Collection[ToolGroup]]
"""The configured servers, with the groups of tools that are on."""


def switched_off(kinds: Iterable[str], names: Iterable[str], servers: Servers) -> Iterator[JsonValue]:
    """Say which kinds every tool that has them is off for, by server; servers that are not configured say nothing."""
    named = [*names]
    for kind in kinds:
        for name in named:
            ways = [groups_off(tool.name, servers.get(name, ())) for tool in CATALOG.values() if kind in tool.kinds]
            if name in servers and ways and all(ways):
                groups = min(ways, key=len)
                noun = "group" if len(groups) == 1 else "groups"
                be = "is" if len(groups) == 1 else "are"
                yield f"{kind}: tool {noun} {', '.join(groups)} {be} off on server {name}"


def nobody_asked(row: Mapping[str, Any], *, kept: bool) -> Iterator[JsonValue]:
    """Say that a row waits for a second person, where the settings keep no calls that wait."""
    asking = [row, *row["platform_obligations"]]
    if not kept and any(one.get("approval") == ApprovalKind.SECOND_PERSON for one in asking):
        yield "no calls are kept that wait for a second person (approvals.store)"
