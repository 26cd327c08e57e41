"""Views on the way of a call: their definitions come from outside, and what lies behind them stays there."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Final

from sidecar.commands import View, databases, expand
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, Command, Namespace, Reason
from sidecar.ports import ViewCatalog

OWN_DATABASE: Final = "own_database"

BEHIND: Final = frozenset({"view_not_derivable", "too_many_accesses", OWN_DATABASE})
"""Reasons of a ``CommandNotDerivable`` that tell what the definition of a view holds, which callers may not know."""


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


def folded(
    reasons: Sequence[Reason], named: Sequence[Access], accesses: Sequence[Access], owners: Sequence[str]
) -> tuple[Reason, ...]:
    """Return the reasons against a call as reasons against what the caller named.

    A caller who was told which access of how many was refused, and by whose policy, would learn that a name is a view,
    how many sources it has and whose they are. So a reason about something behind a view is one about the view, and
    comes from the view's owner.

    Args:
        reasons: of the decision.
        named: the accesses by the call's own words.
        accesses: the same, then those behind views.
        owners: the owning team of each of ``accesses``; may be shorter.
    """

    def fold(reason: Reason) -> Reason:
        if reason.access is None or not len(named) <= reason.access < len(accesses):
            return reason
        behind = accesses[reason.access]
        homes = [index for index, access in enumerate(named) if access.via == behind.via]
        home = next((index for index in homes if named[index].namespace == behind.via_view), next(iter(homes), None))
        owner = owners[home] if home is not None and home < len(owners) else ""
        return replace(reason, access=home, source=owner or "platform")

    return tuple(dict.fromkeys(map(fold, reasons)))


def require_open(command: Command, own_database: str) -> None:
    """Return if a call touches nothing of the sidecar's own: who writes there can lift a suspension.

    By the name alone, at every server: two spellings of an address can be one deployment. MongoDB has no two databases
    whose names differ in case only.

    Raises:
        CommandNotDerivable: it does.
    """
    touched = {access.namespace.database.casefold() for access in command.accesses}
    if own_database and own_database.casefold() in touched:
        raise CommandNotDerivable(OWN_DATABASE, "The database is the sidecar's own, which no call may touch.")
