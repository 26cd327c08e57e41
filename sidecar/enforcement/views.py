"""Views on the way of a call: their definitions are had from outside before what lies behind them can be said."""

from collections.abc import Hashable

from sidecar.commands.views import View, databases, expand
from sidecar.model import Command, Namespace
from sidecar.ports import ViewCatalog


async def through_views(command: Command, catalog: ViewCatalog, asker: Hashable) -> Command:
    """Return the command with everything that it reads through views; the command itself where there is none.

    A view may lead into another database (Data Federation), where there may be views again. Every round asks about a
    database that was not asked about before, and a command has a bounded number of accesses, so this ends.

    Raises:
        CommandNotDerivable: a view's own pipeline cannot be read for certain.
        ViewsUnavailable: the definitions cannot be had.
    """
    known: dict[Namespace, tuple[View, ...]] = {}
    asked: frozenset[str] = frozenset()
    expanded = command
    while missing := databases(expanded) - asked:
        asked |= missing
        known |= {name: tuple(views) for name, views in (await catalog.views(missing, asker)).items()}
        expanded = expand(command, known)
    return expanded
