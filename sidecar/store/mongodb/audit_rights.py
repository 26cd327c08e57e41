"""What the sidecar's database user may do with the evidence: insert and find, nothing else.

Two looks, because neither is enough alone. ``connectionStatus`` lists the privileges, where the server does. And an
update and a deletion that match nothing are tried: a server with access control refuses them before it looks for
documents (error 13), whichever way the right was given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from sidecar.store.mongodb.connection import StoredDocument

_UNAUTHORIZED: Final = 13

_ALLOWED: Final = frozenset(
    {"find", "insert", "collStats", "dbStats", "indexStats", "killCursors", "listCollections", "listIndexes"}
)
"""The two, and what shows no document and changes nothing (MongoDB manual, privilege actions)."""

_NEEDED: Final = frozenset({"find", "insert"})

_NOTHING: Final[StoredDocument] = {"_id": {"$in": []}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRights:
    """What was found out."""

    user: str
    """Empty where the database asks nobody who they are."""
    too_many: frozenset[str]
    """Actions that could change or remove evidence."""
    lacking: frozenset[str] = frozenset()
    """What is needed and not among the privileges, where these are listed."""
    unread: str = ""
    """What could not be found out."""


async def rights_on(collection: AsyncCollection[StoredDocument]) -> EvidenceRights:
    """Find out what this connection may do with a collection.

    Raises:
        PyMongoError: the database does not answer.
    """
    status = await collection.database.client.admin.command({"connectionStatus": 1, "showPrivileges": True})
    known: Mapping[str, Any] = status.get("authInfo", {})
    users = [str(one.get("user", "")) for one in known.get("authenticatedUsers", ())]
    if not users:
        return EvidenceRights(user="", too_many=frozenset())
    privileges = known.get("authenticatedUserPrivileges", ())
    listed = frozenset(_listed(privileges, collection.database.name, collection.name))
    unread = "" if privileges else "the database lists no privileges: only that it refuses changes was tried"
    return EvidenceRights(
        user=users[0],
        too_many=(listed - _ALLOWED) | await _tried(collection),
        lacking=_NEEDED - listed if privileges else frozenset(),
        unread=unread,
    )


async def has_unique_index(collection: AsyncCollection[StoredDocument]) -> bool:
    """Whether each number can be there once only, beside the id; where it may not be read, the founder is believed.

    Raises:
        PyMongoError: the database does not answer.
    """
    try:
        found = await collection.index_information()
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        return True
    return any(one.get("unique") and [*dict(one["key"])] == ["instance", "seq"] for one in found.values())


def _listed(privileges: Iterable[Mapping[str, Any]], database: str, collection: str) -> Iterable[str]:
    """Yield the actions that privileges give on a collection."""
    for one in privileges:
        resource: Mapping[str, Any] = one.get("resource", {})
        about = resource.get("anyResource") or (
            "db" in resource
            and resource.get("db") in {"", database}
            and resource.get("collection", "") in {"", collection}
        )
        if about:
            yield from map(str, one.get("actions", ()))


async def _tried(collection: AsyncCollection[StoredDocument]) -> set[str]:
    possible = set()
    try:
        await collection.update_one(_NOTHING, {"$set": {"event": "none"}})
        possible.add("update")
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
    try:
        await collection.delete_one(_NOTHING)
        possible.add("remove")
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
    return possible
