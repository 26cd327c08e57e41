"""Asks a server's database what its user may do, over PyMongo and with the server's own connection string."""

import contextlib
import warnings
from collections.abc import Iterable
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from sidecar.doctor.privileges import BUILT_IN, DatabaseUser, HeldPrivilege, of_built_in, read_privilege

APP_NAME: Final = "mcp-sidecar-doctor"
WAIT_MS: Final = 5000

DatabaseClient = AsyncMongoClient[dict[str, Any]]


async def ask_user(connection_string: str, viewer: str | None = None) -> DatabaseUser:
    """Return the user of a connection string with its privileges, and MongoDB's version.

    The answer says what cannot be read, and repeats nothing of a connection string.

    Args:
        connection_string: the server's own.
        viewer: that of a user who may see roles (``viewRole``), where the database lists no privileges of a connection.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(_client(connection_string))
            viewing = client if viewer is None else await stack.enter_async_context(_client(viewer))
        except (PyMongoError, ValueError, TypeError, OSError) as error:
            return _unreadable(f"PyMongo does not accept the connection string ({type(error).__name__})")
        try:
            return await _asked(client, viewing)
        except (PyMongoError, OSError) as error:
            return _unreadable(type(error).__name__)


def _client(connection_string: str) -> DatabaseClient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that only the server's own driver has
        return AsyncMongoClient(
            connection_string,
            appname=APP_NAME,
            maxPoolSize=1,
            serverSelectionTimeoutMS=WAIT_MS,
            connectTimeoutMS=WAIT_MS,
            socketTimeoutMS=WAIT_MS,
        )


async def live_collections(connection_string: str, databases: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the collections of databases, as far as the user of a connection string may list them."""
    found = {}
    async with _client(connection_string) as client:
        for database in databases:
            with contextlib.suppress(PyMongoError, OSError):
                names = await client[database].list_collection_names()
                found[database] = tuple(name for name in names if not name.startswith("system."))
    return found


def _unreadable(why: str, version: str = "") -> DatabaseUser:
    return DatabaseUser(name="", privileges=(), version=version, unreadable=why)


async def _asked(client: DatabaseClient, viewing: DatabaseClient) -> DatabaseUser:
    status = await client.admin.command({"connectionStatus": 1, "showPrivileges": True})
    version = str((await client.admin.command("buildInfo")).get("version", ""))
    info = status["authInfo"]
    users = [str(one["user"]) for one in info.get("authenticatedUsers", ())]
    privileges = [read_privilege(one) for one in info.get("authenticatedUserPrivileges", ())]
    roles = [(str(one["role"]), str(one["db"])) for one in info.get("authenticatedUserRoles", ())]
    if users and roles and not privileges:
        try:
            privileges = await _of_roles(viewing, roles, frozenset())
        except (PyMongoError, KeyError):
            return _unreadable(f"it lists none, and rolesInfo of {', '.join(name for name, _ in roles)} fails", version)
    return DatabaseUser(name=", ".join(users), privileges=tuple(privileges), version=version, roles=tuple(roles))


async def _of_roles(
    client: DatabaseClient, roles: Iterable[tuple[str, str]], seen: frozenset[tuple[str, str]]
) -> list[HeldPrivilege]:
    """Return the privileges of roles, for a database that does not list those of a connection.

    Raises:
        KeyError: a role is not known.
    """
    held: list[HeldPrivilege] = []
    for name, database in roles:
        if name in BUILT_IN:
            held += of_built_in(name, database)
            continue
        asked = {"role": name, "db": database}
        known = (await client[database].command({"rolesInfo": asked, "showPrivileges": True})).get("roles") or []
        if not known:
            raise KeyError(name)
        held += [read_privilege(one) for one in known[0].get("privileges") or ()]
        inherited = [(str(one["role"]), str(one["db"])) for one in known[0].get("roles") or ()]
        further = [one for one in inherited if one not in seen]
        held += await _of_roles(client, further, seen | {(name, database)}) if further else []
    return held
