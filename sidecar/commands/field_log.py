"""What a command was found to look at, while it is being read."""

from collections.abc import Mapping
from typing import Final, Self

from sidecar.commands.amplifiers import Amplifiers
from sidecar.commands.growth import Size

MAX_PATHS: Final = 256
"""Distinct fields that are told apart; beyond it a command counts as using every field."""

MAX_PATH_LENGTH: Final = 512
"""Characters of a field path that is told apart."""

MAX_EMBEDDED: Final = 64
"""Names of embedded foreign documents that are told apart; beyond it a command counts as using every field."""

ROOT: Final = ""
"""The path of the document itself."""


class ValueReads:
    """What one computed value reads; collects inside a ``with`` block."""

    __slots__ = ("_open", "origins", "paths")

    def __init__(self, reads: list["ValueReads"]) -> None:
        self._open = reads
        self.paths: list[str] = []
        """Paths of the documents at this stage."""
        self.origins: set[str] = set()
        """Paths of their own documents that variables are made of."""

    @property
    def distinct(self) -> frozenset[str]:
        """Every path of these documents; only the root, if there are more than are told apart."""
        paths = frozenset(self.paths)
        return paths if len(paths) <= MAX_PATHS else frozenset({ROOT})

    def __enter__(self) -> Self:
        self._open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.pop()


class FieldLog:
    """Collects the paths that a command uses, from the root of whichever document they are in."""

    __slots__ = (
        "_embedded",
        "_embedding",
        "_read",
        "_used",
        "amplifiers",
        "binding",
        "depth",
        "repeated",
        "scope",
        "sizes",
        "variable_sizes",
        "variables",
    )

    def __init__(self) -> None:
        self._used: dict[str, None] = {}
        self._embedded: list[str] = []
        self._embedding: set[str] = set()
        """These names and the paths on the way to them."""
        self._read: list[ValueReads] = []
        self.amplifiers = Amplifiers()
        self.sizes: Mapping[str, int] = {}
        """The sizes of the fields of the documents at this stage, where they are not 1; of all others under ``""``."""
        self.scope: dict[str, Size | int] = {}
        """The variables around the expression that is being read: their sizes, or the number of the binding."""
        self.variables: dict[str, set[str]] = {}
        """Paths that the variables of ``let`` of a stage are made of; all stages of the command together."""
        self.variable_sizes: dict[str, int] = {}
        """The sizes of those variables, the largest of each name."""
        self.binding = 0
        self.depth = 0
        self.repeated = 1
        """How often the expression that is being read is evaluated for one document."""

    @property
    def used(self) -> tuple[str, ...]:
        """Every path, each once, in the order of reading; only the root, if it is among them."""
        return (ROOT,) if ROOT in self._used else tuple(self._used)

    def embed(self, name: str) -> None:
        """Note that foreign documents stand under ``name``: paths into them are recorded from their own root too."""
        if ROOT in self._used or name in self._embedded:
            return
        if len(self._embedded) == MAX_EMBEDDED:
            self.use(ROOT)
            return
        self._embedded.append(name)
        parts = name.split(".")
        self._embedding.update(".".join(parts[:length]) for length in range(1, len(parts) + 1))
        for path in tuple(self._used):  # a path read before may be read again, and mean the foreign document then
            if path == name or name.startswith(path + "."):
                self.use(ROOT)
            elif path.startswith(name + "."):
                self.use(path[len(name) + 1 :])

    def reading(self) -> ValueReads:
        """Return what collects what the expressions inside its ``with`` block read."""
        return ValueReads(self._read)

    def use_variable(self, name: str) -> None:
        """Note that a variable of ``let`` is read; what it is made of was recorded where it is defined."""
        origins = self.variables.get(name)
        if origins:
            for read in self._read:
                read.origins |= origins

    def unwind(self, path: str) -> None:
        """Record the path of ``$unwind``; of foreign documents it tells how many there are, and of no field in them."""
        if path not in self._embedded:
            self.use(path)

    def use(self, path: str) -> None:
        """Record one dotted path, also without its array positions (``a.0.b``, ``a.$[].b``)."""
        for read in self._read:
            read.paths.append(path)
        used = self._used
        if path in used or ROOT in used:
            return
        found = [path]
        while found:
            path = found.pop()
            if path in used:
                continue
            if not path or len(path) > MAX_PATH_LENGTH or len(used) >= MAX_PATHS:
                used[ROOT] = None
                return
            used[path] = None
            if "." in path:
                found.append(without_positions(path))
            if path in self._embedding:
                found.append(ROOT)
            elif self._embedded and "." in path:
                found += [path[len(name) + 1 :] for name in self._embedded if path.startswith(name + ".")]


def without_positions(path: str) -> str:
    """Return a path without its positions in arrays (``a.0.b``, ``a.$[].b``)."""
    return ".".join([part for part in path.split(".") if not (part.isdigit() or part.startswith("$"))])
