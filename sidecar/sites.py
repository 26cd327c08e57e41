"""Where in a call its accesses come from: the places that an obligation is discharged at.

Policy is asked about each use of a namespace once, however often a call says it: accesses are deduplicated. What is
added to a call for an obligation has to be added at every place; so a derivation carries both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from sidecar.model import Command

SitePath: TypeAlias = tuple[str | int, ...]
"""The keys and positions that lead from the arguments of a call to one value. Never cut, unlike pointers for people."""


class SiteForm(StrEnum):
    """What the call reads or writes a namespace with, at one place.

    Closed; what each means for an obligation is in the tables of ``sidecar.obligations``.
    """

    FILTER = "filter"
    """A query that chooses what is read. The path leads to it; there may be none there."""
    UPDATE_FILTER = "update_filter"
    """The same of what is updated or deleted."""
    PIPELINE_HEAD = "pipeline_head"
    """A pipeline that reads the namespace. The path leads to the list of its stages."""
    LOOKUP = "lookup"
    """A ``$lookup`` from the namespace. The path leads to its options."""
    UNION = "union"
    """A ``$unionWith`` of the namespace. The path leads to its options, or to the name that stands for them."""
    GRAPH_RESTRICT = "graph_restrict"
    """A ``$graphLookup`` from the namespace. The path leads to its options."""
    DOCUMENTS = "documents"
    """Documents to be inserted. The path leads to the list."""
    UPSERT = "upsert"
    """The document that an upsert inserts. The path leads to the arguments with its filter and update."""
    VIEW = "view"
    """The namespace is read through a view; the path is that of the place where the view is read."""
    NONE = "none"
    """Nothing of the call says which documents."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place of one access."""

    access: int
    """Index into the command's accesses."""
    path: SitePath
    form: SiteForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What a call would do, and where it says so."""

    command: Command
    sites: tuple[Site, ...]
    """At least one of each access."""
    looks: Mapping[SitePath, frozenset[str]] = field(default_factory=dict)
    """By path of a stage that starts a pipeline, or goes over a graph: the fields that its own conditions look at, from
    the root of the documents that it reads; the empty path is the document itself."""

    def through(self, command: Command) -> "Derivation":
        """Return the same with what the command reads through views besides; its first accesses are those of this one.

        What lies behind a view has the places of the view, with the form of a view: nothing that stands there can be
        held to rows of its sources.
        """
        named = self.command.accesses
        found = list(self.sites)
        for index, access in enumerate(command.accesses[len(named) :], len(named)):
            homes = [at for at, one in enumerate(named) if access.via_view in (None, one.namespace)]
            found += [Site(index, site.path, SiteForm.VIEW) for site in self.sites if site.access in homes]
        return Derivation(command=command, sites=tuple(dict.fromkeys(found)), looks=self.looks)
