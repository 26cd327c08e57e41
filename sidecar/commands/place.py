"""Where in a pipeline a stage stands, and what flows out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.commands.amplifiers import MOST
from sidecar.commands.names import check_collection, check_database
from sidecar.commands.shape import FieldOrigin, Shape
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue, Namespace
from sidecar.sites import SitePath


@dataclass(slots=True)
class Flow:
    """What can leave a pipeline at the stage reached so far."""

    shape: Shape = field(default_factory=Shape)
    limit: int | None = None
    """The most documents that leave, where a stage says so."""
    sizes: dict[str, int] = field(default_factory=dict)
    """The sizes of computed fields (``sidecar.commands.growth``) by the first part of their names."""
    documents: int = 1
    """How many documents one stored document has become."""

    def cap(self, count: int) -> None:
        """At most ``count`` documents go on."""
        self.limit = count if self.limit is None else min(self.limit, count)

    def multiply(self, number: int) -> None:
        """Each document becomes that many."""
        self.documents = min(self.documents * number, MOST)

    def resize(self, name: str, copies: int) -> None:
        """Note the size of one field."""
        first = name.partition(".")[0]
        self.sizes[first] = copies if first == name else max(copies, self.sizes.get(first, 1))

    def largest(self) -> int:
        """Return the size of the list of all documents that one stored document has become."""
        return min(self.documents * max(self.sizes.values(), default=1), MOST)

    def gather(self, sizes: dict[str, int]) -> None:
        """Let documents of these fields go on, each made of any number of those before."""
        self.sizes = {name: min(copies * self.documents, MOST) for name, copies in sizes.items()}
        self.documents = 1

    def replace(self, origin: FieldOrigin, copies: int) -> None:
        """Let the values of one expression go on."""
        self.shape.replace(origin)
        self.sizes = {"": copies} if copies > 1 else {}


@dataclass(slots=True, frozen=True)
class Place:
    """The namespace that a pipeline runs on; no ``collection`` where it runs on a database or on ``$documents``."""

    database: str
    collection: str
    flow: Flow = field(default_factory=Flow)
    outermost: bool = False
    """It is the tool's own pipeline, which the server reads by a schema of its own (``mongodbSchemas.js``)."""
    path: SitePath = ()
    """Where the pipeline stands in the arguments."""

    def own(self, at: str) -> Namespace:
        """Return the namespace of the collection.

        Raises:
            CommandNotDerivable: the pipeline does not run on a collection.
        """
        if not self.collection:
            raise CommandNotDerivable("needs_collection", "This stage runs on a collection only.", at)
        return Namespace(database=self.database, collection=self.collection)


class InnerPipeline(NamedTuple):
    """A pipeline inside a stage, still to be walked."""

    pipeline: JsonValue
    place: Place
    at: str
    steps: SitePath
    """From the stage's value to the pipeline."""
    then: Callable[[Flow], None] | None = None
    """What the stage makes of the documents that leave it."""


NONE: Sequence[InnerPipeline] = ()
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
