"""What policy can ever route to a server, in terms of MongoDB's privileges."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

from sidecar.model import AccessKind

OF_KIND: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        AccessKind.READ.value: frozenset({"find"}),
        AccessKind.METADATA.value: frozenset({"collStats", "dbStats", "listCollections", "listIndexes"}),
        AccessKind.INSERT.value: frozenset({"insert"}),
        AccessKind.UPDATE.value: frozenset({"update"}),
        AccessKind.DELETE.value: frozenset({"remove"}),
        AccessKind.CREATE.value: frozenset({"createCollection"}),
        AccessKind.INDEX.value: frozenset({"createIndex", "dropIndex", "createSearchIndexes", "dropSearchIndex"}),
        AccessKind.DROP.value: frozenset({"dropCollection"}),
    }
)
"""Actions that a kind of access takes (MongoDB manual, privilege actions). Other kinds are none on a namespace."""

WHOLE_DATABASE: Final = frozenset({"dbStats", "listCollections"})
"""Actions that MongoDB checks on a database, not on a collection."""

HARMLESS: Final = frozenset(
    {"collStats", "dbStats", "indexStats", "killCursors", "listCollections", "listIndexes", "listSearchIndexes"}
)
"""What shows no document and changes nothing: wherever anything is needed of a database, these may be there."""

WRITING_KINDS: Final = frozenset(OF_KIND) - {AccessKind.READ.value, AccessKind.METADATA.value}
"""Kinds that a read-only server cannot do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededAccess:
    """One kind of use of some collections of a database that policy can route to a server."""

    database: str
    collection: str
    """A name, a glob of policies, or empty for the database itself."""
    kind: str

    @property
    def is_glob(self) -> bool:
        """Whether it stands for collections that no privilege can name one by one."""
        return any(character in self.collection for character in "*?[{")

    @property
    def actions(self) -> frozenset[str]:
        """The actions of MongoDB that it takes."""
        actions = OF_KIND.get(self.kind, frozenset())
        return actions | ({"dropDatabase"} if self.kind == AccessKind.DROP.value and not self.collection else set())


def read_rows(database: str, server: str, rows: Iterable[Mapping[str, Any]]) -> frozenset[NeededAccess]:
    """Return what the rows of ``policy who`` of a database need of one server.

    Args:
        database: whose rows they are.
        server: its name in the settings.
        rows: the ways to grants; those that this build refuses do not count.
    """
    found = set()
    for row in rows:
        if row["server"] != server or row["refused"]:
            continue
        for kind in row["kinds"]:
            for collection in ("", "*") if row["collections"] is None else row["collections"]:
                found.add(NeededAccess(database=database, collection=collection, kind=str(kind)))
    return frozenset(found)


def covers(needs: Iterable[NeededAccess], database: str, collection: str, action: str) -> bool:
    """Whether policy can route something to a server that takes an action on a resource.

    Args:
        needs: what it can route.
        database: of the resource.
        collection: of the resource; empty for the whole database.
        action: of MongoDB.
    """
    # A glob with alternatives ({a,b}) counts as any name: what is asked here is whether something is beyond all grants.
    here = [one for one in needs if one.database == database]
    if action in HARMLESS:
        return bool(here)
    for one in here:
        if action not in one.actions:
            continue
        if not collection:
            # MongoDB has no globs: who needs some collections by a pattern has to be given the database.
            if one.is_glob or (not one.collection and action == "dropDatabase"):
                return True
        elif one.collection and ("{" in one.collection or fnmatchcase(collection, one.collection)):
            return True
    return False
