"""Groups of tools that a server has only where its settings say so.

A group is what ``disabledTools`` of the MongoDB MCP server takes as one name: a category, an operation type or a tool
(3.0.4). What the sidecar knows to be off is refused whether or not the server offers it.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sidecar.commands.catalog import CATALOG
from sidecar.commands.tool import Category, Tool
from sidecar.model import AccessKind


class ToolGroup(StrEnum):
    """The groups; tools of the database are in none and always on."""

    ASSISTANT = "assistant"
    ATLAS = "atlas"
    ATLAS_LOCAL = "atlas-local"
    CONNECT = "connect"
    """Also the tools that connect to a cluster, of Atlas and Atlas Local; these need both their groups."""
    EXPORT = "export"


_OF_CATEGORY: Final[Mapping[Category, frozenset[ToolGroup]]] = MappingProxyType(
    {
        Category.MONGODB: frozenset(),
        Category.ATLAS: frozenset({ToolGroup.ATLAS}),
        Category.ATLAS_LOCAL: frozenset({ToolGroup.ATLAS_LOCAL}),
        Category.ASSISTANT: frozenset({ToolGroup.ASSISTANT}),
    }
)
_OF_KIND: Final = MappingProxyType({AccessKind.CONNECT: ToolGroup.CONNECT, AccessKind.EXPORT: ToolGroup.EXPORT})


def groups_of(tool: Tool) -> frozenset[ToolGroup]:
    """Return the groups of a tool; it is there where all of them are on."""
    return _OF_CATEGORY[tool.category] | {group for kind, group in _OF_KIND.items() if kind in tool.needs}


GROUPS: Final[Mapping[str, frozenset[ToolGroup]]] = MappingProxyType(
    {name: groups_of(tool) for name, tool in CATALOG.items()}
)
"""The groups of each tool of the catalog."""


def exports(tool: str) -> bool:
    """Whether a tool of the catalog makes an export, which the process that made it has."""
    return ToolGroup.EXPORT in GROUPS.get(tool, ())


def groups_off(tool: str, on: Collection[ToolGroup]) -> tuple[ToolGroup, ...]:
    """Return the groups that keep a tool off where the groups ``on`` are on; of an unknown tool, none."""
    return tuple(sorted(GROUPS.get(tool, frozenset()).difference(on)))


def off_everywhere(tool: str, servers: Mapping[str, Collection[ToolGroup]]) -> bool:
    """Whether no server, given with the groups that are on there, can have a tool of the catalog."""
    groups = GROUPS.get(tool)
    return groups is not None and not any(groups.issubset(on) for on in servers.values())
