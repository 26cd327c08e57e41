"""From a tool call to what it would do to MongoDB, or a refusal."""

from sidecar.commands import generic, pinning, pins
from sidecar.commands.catalog import CATALOG
from sidecar.commands.derive import derive
from sidecar.commands.generic import NO_GENERIC_TOOLS, GenericTool, GenericTools
from sidecar.commands.pinning import PinComparison, PinState
from sidecar.commands.stages import STAGES
from sidecar.commands.tool_groups import ToolGroup, exports, groups_off, off_everywhere
from sidecar.commands.views import View, ViewDefinitions, databases, expand

__all__ = [
    "CATALOG",
    "NO_GENERIC_TOOLS",
    "STAGES",
    "GenericTool",
    "GenericTools",
    "PinComparison",
    "PinState",
    "ToolGroup",
    "View",
    "ViewDefinitions",
    "databases",
    "derive",
    "expand",
    "exports",
    "generic",
    "groups_off",
    "off_everywhere",
    "pinning",
    "pins",
]
