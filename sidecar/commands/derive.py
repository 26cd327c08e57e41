"""From a tool call to what it would do, or a refusal."""

from typing import Final

from sidecar.commands.catalog import CATALOG
from sidecar.commands.draft import Draft
from sidecar.commands.expressions import scan
from sidecar.commands.generic import NO_GENERIC_TOOLS, GenericTools, derive_generic
from sidecar.commands.mongodb import PRECONFIGURED
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable, UnknownTool
from sidecar.model import ToolCall
from sidecar.sites import Derivation, Site, SiteForm

_AT: Final = "/arguments"


def derive(call: ToolCall, generic: GenericTools = NO_GENERIC_TOOLS) -> Derivation:
    """Return everything that the call would touch, and each place of its arguments where it does.

    The order is fixed: the tool, the form of its arguments, the scan of everything nested (after which nothing is deep
    or ambiguous), the connection, the tool's own rule.

    Args:
        call: the call.
        generic: the tools outside of the catalog that there are; the catalog comes first.

    Raises:
        UnknownTool: neither has such a tool.
        InvalidArguments: the arguments are not of the tool's form.
        CommandNotDerivable: what the call would touch is not known for certain.
    """
    tool = CATALOG.get(call.name)
    if tool is None:
        if call.name in generic:
            command = derive_generic(call, generic[call.name])
            return Derivation(command=command, sites=(Site(0, (), SiteForm.NONE),))
        raise UnknownTool("the catalog has no such tool")
    arguments = call.arguments
    tool.arguments.check(arguments, _AT)
    draft = Draft()
    for key, value in arguments.items():
        if isinstance(value, (dict, list)):
            draft.traits |= scan(value, below(_AT, key), documents=key in tool.stored)
    if arguments.get("connectionId", PRECONFIGURED) != PRECONFIGURED:
        raise CommandNotDerivable("connection_refused", f'Use connectionId "{PRECONFIGURED}".', f"{_AT}/connectionId")
    tool.derive(draft, arguments)
    return draft.derivation(tool.name)
