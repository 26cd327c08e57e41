"""From a tool call to what it would do to MongoDB, or a refusal."""

from sidecar.commands import pinning, pins
from sidecar.commands.catalog import CATALOG
from sidecar.commands.derive import derive
from sidecar.commands.pinning import PinComparison, PinState
from sidecar.commands.tool_groups import ToolGroup, groups_off, off_everywhere
from sidecar.commands.views import View, ViewDefinitions, databases, expand

__all__ = [
    "CATALOG",
    "PinComparison",
    "PinState",
    "ToolGroup",
    "View",
    "ViewDefinitions",
    "databases",
    "derive",
    "expand",
    "groups_off",
    "off_everywhere",
    "pinning",
    "pins",
]
