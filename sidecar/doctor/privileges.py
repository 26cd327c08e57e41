"""A server's database user against what policy can ever route to the server."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sidecar.doctor.findings import Check, PostureFinding
from sidecar.doctor.needs import HARMLESS, NeededAccess, covers

_AGAIN: Final = "mcp-sidecar doctor"

SYSTEM: Final = ("admin", "local", "config")

_READ: Final = frozenset({"changeStream", "collStats", "dbHash", "dbStats", "find", "killCursors", "listCollections",
                          "listIndexes"})  # fmt: skip
_WRITE: Final = frozenset({"convertToCapped", "createCollection", "createIndex", "dropCollection", "dropIndex",
                           "insert", "remove", "renameCollectionSameDB", "update"})  # fmt: skip
_ADMINISTER: Final = frozenset({"bypassDocumentValidation", "collMod", "compact", "dropDatabase", "enableProfiler",
                                "reIndex", "validate"})  # fmt: skip
_USERS: Final = frozenset({"createRole", "createUser", "dropRole", "dropUser", "grantRole", "revokeRole"})

OF_ROLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "read": _READ,
        "readWrite": _READ | _WRITE,
        "dbAdmin": (_READ - {"find", "changeStream"}) | _WRITE - {"insert", "remove", "update"} | _ADMINISTER,
        "userAdmin": _USERS,
        "dbOwner": _READ | _WRITE | _ADMINISTER | _USERS,
    }
)
"""Built-in roles of one database (MongoDB manual, built-in roles), for servers that list no privileges of them."""

READS: Final = _READ | HARMLESS | {"listDatabases", "planCacheRead", "indexStats"}
"""Actions that change nothing; what is in no list counts as one that does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPrivilege:
    """Actions that a database user may take on one resource."""

    database: str
    """Empty for every database."""
    collection: str
    """Empty for every collection."""
    actions: frozenset[str]
    cluster: bool = False
    """It is about the deployment, not about databases."""
    anything: bool = False
    """``anyResource``."""

    @property
    def place(self) -> str:
        """The resource, for people."""
        return f"{self.database}.{self.collection}" if self.collection else f"the database {self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUser:
    """What a server's connection string gives."""

    name: str
    """Empty without a user."""
    privileges: tuple[HeldPrivilege, ...]
    version: str
    """MongoDB's."""
    roles: tuple[tuple[str, str], ...] = ()
    """Its roles, each with its database."""
    unreadable: str = ""
    """Why the privileges are not known; empty where they are."""


def read_privilege(document: Mapping[str, Any]) -> HeldPrivilege:
    """Read one entry of ``authenticatedUserPrivileges``, or of a role."""
    resource = document.get("resource", {})
    return HeldPrivilege(
        database=str(resource.get("db", "")),
        collection=str(resource.get("collection", "")),
        actions=frozenset(map(str, document.get("actions", ()))),
        cluster=bool(resource.get("cluster", False)),
        anything=bool(resource.get("anyResource", False)),
    )


BUILT_IN: Final = frozenset(
    {*OF_ROLE, "backup", "clusterAdmin", "clusterManager", "clusterMonitor", "hostManager", "restore", "root"}
) | {f"{name}AnyDatabase" for name in ("read", "readWrite", "dbAdmin", "userAdmin")}
"""The names of built-in roles."""


def of_built_in(role: str, database: str) -> tuple[HeldPrivilege, ...]:
    """Return what a built-in role gives; of a role of every database or of the cluster, that it does."""
    if role in OF_ROLE:
        return (HeldPrivilege(database=database, collection="", actions=OF_ROLE[role]),)
    if role.endswith("AnyDatabase"):
        actions = OF_ROLE.get(role.removesuffix("AnyDatabase"), _USERS)
        return (HeldPrivilege(database="", collection="", actions=actions),)
    everything = role in {"root", "__system"}
    anything = HeldPrivilege(database="", collection="", actions=frozenset({"anyAction"}), anything=True)
    cluster = HeldPrivilege(database="", collection="", actions=frozenset({role}), cluster=True)
    return (anything, cluster) if everything else (cluster,)


def examine_user(
    server: str,
    user: DatabaseUser,
    *,
    read_only: bool,
    needs: Collection[NeededAccess] | None,
    store: str,
) -> Iterator[PostureFinding]:
    """Yield what is wrong with the rights of a server's database user.

    Args:
        server: its name in the settings.
        user: its database user.
        read_only: whether the server is to be one that cannot write.
        needs: what policy can route to it; None where policy is not known.
        store: the database of what sidecars share, if it is in the same deployment; else empty.
    """
    where, fix = f"servers.{server}", f"mcp-sidecar roles --server {server}"
    if user.unreadable:
        what = f"the rights of the database user cannot be read: {user.unreadable}"
        yield _found(Check.PRIVILEGES_UNREADABLE, where, what, f"{_AGAIN} --roles-as FILE")
        return
    if not user.name:
        what = "the connection string names no user, and the database answers"
        yield _found(Check.NO_DATABASE_USER, where, what, f"turn access control on, then {fix}")
        return
    held = [one for one in user.privileges if one.actions]
    wide = [one for one in held if one.anything or not (one.database or one.cluster)]
    if wide:
        what = f"the user {user.name} has rights on every database ({_listed(wide)})"
        yield _found(Check.ANY_RESOURCE, where, what, fix)
    if cluster := [one for one in held if one.cluster]:
        what = f"the user {user.name} may act on the whole deployment ({_listed(cluster)})"
        yield _found(Check.CLUSTER_ACTIONS, where, what, fix)
    narrow = [one for one in held if one.database and not one.cluster]
    if own := [one for one in narrow if one.database in SYSTEM]:
        what = f"the user {user.name} has rights on {_places(own)}, which are MongoDB's own"
        yield _found(Check.SYSTEM_DATABASES, where, what, fix)
    if store and (shared := [one for one in narrow if one.database == store]):
        what = f"the user {user.name} has rights on {_places(shared)}, where sidecars keep what they share"
        yield _found(Check.STORE_WITHIN_REACH, where, what, fix)
    if read_only and (writing := [one for one in held if one.actions - READS and not one.cluster]):
        what = f"the server is read-only, but its user {user.name} may write ({_listed(writing, READS)})"
        yield _found(Check.READ_ONLY_CAN_WRITE, where, what, fix)
    if needs is not None:
        rest = [one for one in narrow if one.database not in {*SYSTEM, store}]
        yield from _beyond_policy(where, user.name, rest, needs, READS if read_only else None)


def _beyond_policy(
    where: str,
    user: str,
    held: Iterable[HeldPrivilege],
    needs: Collection[NeededAccess],
    only: frozenset[str] | None,
) -> Iterator[PostureFinding]:
    """Yield one finding for the actions that policy never routes here; of a read-only server only those that read."""
    beyond = []
    for one in held:
        actions = one.actions if only is None else one.actions & only
        more = sorted(action for action in actions if not covers(needs, one.database, one.collection, action))
        if more:
            beyond.append(f"{', '.join(more)} on {one.place}")
    if beyond:
        what = f"the user {user} may do what policy never routes there: {'; '.join(sorted(beyond))}"
        yield _found(Check.MORE_THAN_POLICY, where, what, f"mcp-sidecar roles --server {where.partition('.')[2]}")


def _found(check: Check, where: str, what: str, fix: str) -> PostureFinding:
    return PostureFinding(check=check, where=where, what=what, fix=fix)


def _listed(held: Iterable[HeldPrivilege], without: frozenset[str] = frozenset()) -> str:
    return ", ".join(sorted({action for one in held for action in one.actions - without}))


def _places(held: Iterable[HeldPrivilege]) -> str:
    return ", ".join(sorted({one.place for one in held}))
