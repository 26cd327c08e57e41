"""Where in a pipeline a stage stands, and what flows out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.commands.fields import MAX_PATHS, ROOT
from sidecar.commands.names import check_collection, check_database
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue, Namespace


@dataclass(slots=True)
class Flow:
    """What can leave a pipeline at the stage reached so far, in paths of the source document."""

    visible: dict[str, None] | None = None
    """Paths that a projection let through; None while every field passes."""
    computes: bool = False
    """Values derived from fields have been added, so every used field may be among them."""
    joined: bool = False
    """Documents of elsewhere, or diagnostics, have been added: it cannot be told any more."""
    limit: int | None = None
    """The most documents that leave, where a stage says so."""

    def reshape(self) -> None:
        """Only derived values go on."""
        self.visible = {}
        self.computes = True

    def cap(self, count: int) -> None:
        """At most ``count`` documents go on."""
        self.limit = count if self.limit is None else min(self.limit, count)

    def returned(self, used: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the paths that can leave, or None for all."""
        if self.joined or self.visible is None or (self.computes and ROOT in used):
            return None
        paths = self.visible | dict.fromkeys(used) if self.computes else self.visible
        return tuple(paths) if len(paths) <= MAX_PATHS else None


@dataclass(slots=True, frozen=True)
class Place:
    """The namespace that a pipeline runs on; no ``collection`` where it runs on a database or on ``$documents``."""

    database: str
    collection: str
    flow: Flow = field(default_factory=Flow)

    def own(self, at: str) -> Namespace:
        """Return the namespace of the collection.

        Raises:
            CommandNotDerivable: the pipeline does not run on a collection.
        """
        if not self.collection:
            raise CommandNotDerivable("needs_collection", "This stage runs on a collection only.", at)
        return Namespace(database=self.database, collection=self.collection)


class Nested(NamedTuple):
    """A pipeline inside a stage, still to be walked."""

    pipeline: JsonValue
    place: Place
    at: str


NONE: Sequence[Nested] = ()
"""What a stage without a nested pipeline returns."""


def resolve(value: JsonValue, database: str, at: str) -> Namespace:
    """Read a namespace in a pipeline: a plain string in ``database``, or ``{db, coll}`` of plain strings.

    Raises:
        CommandNotDerivable: any other form; EJSON symbols reach MongoDB as names (reference, section 2.5).
    """
    if isinstance(value, str):
        return Namespace(database=database, collection=check_collection(database, value, at))
    if not isinstance(value, dict) or value.keys() != {"db", "coll"}:
        raise CommandNotDerivable("malformed", "A namespace is a string or {db, coll}.", at)
    return resolve_pair(value, at)


def resolve_pair(value: JsonObject, at: str) -> Namespace:
    """Read ``db`` and ``coll`` of an object whose keys are known.

    Raises:
        CommandNotDerivable: one of them is not a usable name.
    """
    database = check_database(value["db"], f"{at}/db")
    return Namespace(database=database, collection=check_collection(database, value["coll"], f"{at}/coll"))
