"""A command while it is being derived: accesses and their sites, traits, stages and fields as they are found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from sidecar.commands.amplifiers import is_amplifying
from sidecar.commands.field_log import FieldLog
from sidecar.commands.names import is_system
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, Command, FieldUse, Namespace, Target, Trait
from sidecar.sites import Derivation, Site, SiteForm, SitePath

MAX_ACCESSES: Final = 64
"""Accesses of one command. Deciding is linear in them, and no honest pipeline comes near."""

MAX_STAGES: Final = 500
"""Stages of one command, nested ones included (mongod's own limit is 1000 for one pipeline)."""

MAX_VIA: Final = 128
"""Characters at each end of a pointer that an access keeps. Each access repeats the keys on the way to it, so without a
bound 13 kB of nested stages wrote 570 kB of evidence."""

_AccessKey: TypeAlias = tuple[AccessKind, Namespace, Target | None]


class Draft:
    """The mutable side of ``Command``. One per call; every rule of this room writes into it."""

    __slots__ = (
        "_accesses",
        "_depth",
        "_sites",
        "database",
        "fields",
        "limit",
        "looks",
        "path",
        "returned",
        "stages",
        "traits",
    )

    def __init__(self, database: str = "") -> None:
        self._accesses: dict[_AccessKey, tuple[int, Access]] = {}
        self._sites: dict[Site, None] = {}
        self._depth = 0
        self.looks: dict[SitePath, frozenset[str]] = {}
        self.path: SitePath = ()
        """Where the stage that is being read stands; of what no stage touches, the place of its site."""
        self.database = database
        """The database that the caller named; another one is ``cross_database``."""
        self.traits: set[Trait] = set()
        self.stages: list[str] = []
        self.fields = FieldLog()
        self.returned: tuple[str, ...] | None = None
        self.limit: int | None = None

    def touch(
        self,
        kind: AccessKind,
        namespace: Namespace,
        via: str,
        form: SiteForm = SiteForm.NONE,
        path: SitePath | None = None,
    ) -> None:
        """Add an access to a namespace, and its place; one of MongoDB's own adds ``admin`` to it.

        Args:
            kind: the use.
            namespace: what is used.
            via: where the call names it, for people.
            form: how the place says which documents.
            path: the place; where it is left out, the one of the stage that is being read.

        Raises:
            CommandNotDerivable: more accesses than ``MAX_ACCESSES``.
        """
        if path is not None:
            self.path = path
        self._add(kind, namespace, via, None, form)
        if namespace.database:
            if namespace.database != self.database:
                self.traits.add(Trait.CROSS_DATABASE)
            if is_system(namespace):
                self.traits.add(Trait.SYSTEM_NAMESPACE)
                self._add(AccessKind.ADMIN, namespace, via, None, SiteForm.NONE)

    def read_again(self, namespace: Namespace, path: SitePath) -> None:
        """Note that a pipeline inside a stage reads the namespace from its beginning, as the pipeline around it does.

        What is decided about the one is decided about the other, so this is a place more and no other access.
        """
        for (kind, touched, _), (index, _) in self._accesses.items():
            if touched == namespace and kind in (AccessKind.READ, AccessKind.EXPORT):
                self._sites[Site(index, path, SiteForm.PIPELINE_HEAD)] = None

    def touch_target(self, kind: AccessKind, target: Target, via: str) -> None:
        """Add an access to something outside the database.

        Raises:
            CommandNotDerivable: more accesses than ``MAX_ACCESSES``.
        """
        self._add(kind, Namespace(), via, target, SiteForm.NONE)
        if kind is AccessKind.EXTERNAL:
            self.traits.add(Trait.EXTERNAL_SERVICE)

    def enter_stage(self, name: str, at: str) -> None:
        """Note one pipeline stage.

        Raises:
            CommandNotDerivable: more stages than ``MAX_STAGES``.
        """
        if len(self.stages) == MAX_STAGES:
            raise CommandNotDerivable("too_many_stages", f"The command has more than {MAX_STAGES} stages.", at)
        self.stages.append(name)

    @contextmanager
    def nesting(self, at: str) -> Iterator[None]:
        """Count the pipelines inside one another."""
        self._depth += 1
        self.fields.amplifiers.note("$lookup.depth", self._depth, at)
        try:
            yield
        finally:
            self._depth -= 1

    def derivation(self, tool: str) -> Derivation:
        """Return the finished command with the places of its accesses; raises as ``command`` does."""
        return Derivation(command=self.command(tool), sites=tuple(self._sites), looks=self.looks)

    def command(self, tool: str) -> Command:
        """Return the finished command.

        Raises:
            CommandNotDerivable: nothing was touched (law 3: empty is an error).
        """
        if not self._accesses:
            raise CommandNotDerivable("no_access", "What this call would touch is not known.", "/name")
        amplifiers = self.fields.amplifiers.found()
        if is_amplifying(amplifiers):
            self.traits.add(Trait.AMPLIFYING)
        return Command(
            tool=tool,
            accesses=tuple(access for _, access in self._accesses.values()),
            traits=frozenset(self.traits),
            stages=tuple(self.stages),
            fields=FieldUse(filtered=self.fields.used, returned=self.returned),
            limit=self.limit,
            amplifiers=amplifiers,
        )

    def _add(self, kind: AccessKind, namespace: Namespace, via: str, target: Target | None, form: SiteForm) -> None:
        key = (kind, namespace, target)
        known = self._accesses.get(key)
        if known is not None:
            self._sites[Site(known[0], self.path, form)] = None
            return
        if len(self._accesses) == MAX_ACCESSES:
            raise CommandNotDerivable("too_many_accesses", f"The command has more than {MAX_ACCESSES} accesses.", via)
        if len(via) > MAX_VIA:
            via = via[: via.rfind("/", 0, MAX_VIA)]
        index = len(self._accesses)
        self._accesses[key] = index, Access(kind=kind, namespace=namespace, via=via, target=target)
        self._sites[Site(index, self.path, form)] = None
