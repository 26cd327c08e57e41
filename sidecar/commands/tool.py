"""What a row of the catalog says about a tool."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sidecar.commands.arguments import ArgumentForm, ExactObject
from sidecar.commands.draft import Draft
from sidecar.model import AccessKind, JsonObject, Trait

Deriver = Callable[[Draft, JsonObject], None]
"""Writes what checked and scanned arguments would touch into the draft."""


class Category(StrEnum):
    """The four families of tools; the server registers them under different conditions (reference, section 1)."""

    MONGODB = "mongodb"
    ATLAS = "atlas"
    ATLAS_LOCAL = "atlas-local"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool: what it takes, what it can touch, how that is derived."""

    name: str
    category: Category
    effect: str
    """What it does, in one sentence for people who write policies."""
    arguments: ExactObject
    derive: Deriver
    needs: frozenset[AccessKind]
    """Kinds that every call needs, with any arguments. A caller who can have none of them cannot use the tool."""
    may_need: frozenset[AccessKind] = frozenset()
    """Kinds that some calls need besides. A system namespace adds ``admin`` to any of them."""
    traits: frozenset[Trait] = frozenset()
    """Traits that a call can carry, apart from those of names and nested values."""
    stored: frozenset[str] = frozenset()
    """Arguments that hold documents to be stored: data, in which operators have no place."""

    @property
    def kinds(self) -> frozenset[AccessKind]:
        """Every kind that a call on ordinary namespaces can need."""
        return self.needs | self.may_need


def row(  # one parameter per column of the table
    name: str,
    effect: str,
    derive: Deriver,
    arguments: Mapping[str, ArgumentForm],
    *,
    needs: Iterable[AccessKind],
    required: str = "",
    may_need: Iterable[AccessKind] = (),
    traits: Iterable[Trait] = (),
    stored: Iterable[str] = (),
    category: Category = Category.MONGODB,
) -> Tool:
    """Return one row of the catalog; ``required`` names the required arguments, separated by spaces."""
    return Tool(
        name=name,
        category=category,
        effect=effect,
        arguments=ExactObject(fields=arguments, required=tuple(required.split())),
        derive=derive,
        needs=frozenset(needs),
        may_need=frozenset(may_need),
        traits=frozenset(traits),
        stored=frozenset(stored),
    )
