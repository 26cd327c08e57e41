"""The catalog: one row per tool of MongoDB MCP server 3.0.4, all 53. A tool that is not here does not exist.

Annotations and operation types of the server say nothing useful (``aggregate`` with ``$out`` calls itself read-only),
so none of them is used. Source: reference, section 1.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sidecar.commands.atlas_tools import ATLAS_TOOLS
from sidecar.commands.mongodb_tools import MONGODB_TOOLS
from sidecar.commands.tool import Tool

CATALOG: Final[Mapping[str, Tool]] = MappingProxyType({tool.name: tool for tool in (*MONGODB_TOOLS, *ATLAS_TOOLS)})
"""Every tool by its exact name."""
