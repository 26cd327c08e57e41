"""The connection to the MongoDB that several sidecars share, and what is demanded of it.

Writes are acknowledged by a majority and reads go to the primary, also where the connection string says otherwise: what
a failover rolls back was never suspended, and never used once.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.server_description import ServerDescription
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError
from sidecar.system import Retired

APP_NAME: Final = "mcp-sidecar-store"

StoredDocument: TypeAlias = dict[str, Any]
StoreCollection: TypeAlias = AsyncCollection[StoredDocument]

_SCHEMES: Final = ("mongodb://", "mongodb+srv://")
_CONNECTIONS: Final = 32
_UNVERIFIED: Final = ("tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames")
_UNAUTHORIZED: Final = 13
_NOTHING: Final[StoredDocument] = {"_id": {"$in": []}}


class StoreConnection:
    """One client of the shared store.

    Args:
        connection_string: with its credentials.
        database: its name.
        timeout_s: the longest one operation may take.

    Raises:
        ConfigurationError: as for ``MongoStore``.
    """

    def __init__(self, connection_string: str, database: str, *, timeout_s: float) -> None:
        milliseconds = max(1, round(timeout_s * 1000))
        self.local = local = require_verified_tls(connection_string)
        self.places = frozenset(_places(connection_string))
        """Where the deployment is looked for."""
        try:
            self._client: AsyncMongoClient[StoredDocument] = AsyncMongoClient(
                connection_string,
                appname=APP_NAME,
                maxPoolSize=_CONNECTIONS,
                timeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                # Members of a replica set that is reached in the clear on this machine may be on others.
                server_selector=on_this_machine if local else None,
            )
        except (PyMongoError, ValueError, TypeError, OSError) as error:
            raise ConfigurationError(
                f"PyMongo does not accept the connection string ({type(error).__name__})"
            ) from None
        self._database = database

    def collection(self, name: str, *, journaled: bool = False) -> StoreCollection:
        """Return a collection; nothing is dialled before it is used."""
        return self._client[self._database].get_collection(
            name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True) if journaled else WriteConcern("majority"),
        )

    async def refused(self, name: str) -> set[str]:
        """Return what the user may not do with a collection, by trying it with no document.

        Raises:
            PyMongoError: the database does not answer, or does not take the user.
        """
        collection, found = self.collection(name), set()
        for what, trial in (
            ("find", lambda: collection.find_one(_NOTHING, {"_id": 1})),
            ("update", lambda: collection.update_one(_NOTHING, {"$unset": {"none": ""}})),
            ("remove", lambda: collection.delete_one(_NOTHING)),
        ):
            try:
                await trial()
            except OperationFailure as error:
                if error.code != _UNAUTHORIZED:
                    raise
                found.add(what)
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class MongoStore:
    """The connection for everything that is shared; it can be replaced by one with another user or certificate.

    Args:
        connection_string: with its credentials.
        database: its name.
        timeout_s: the longest one operation may take.

    Raises:
        ConfigurationError: it is not usable, or would reach another machine without verified TLS. The detail repeats
            nothing of it.
    """

    def __init__(self, connection_string: str, database: str, *, timeout_s: float) -> None:
        self._now = StoreConnection(connection_string, database, timeout_s=timeout_s)
        self._database = database
        self.timeout_s = timeout_s
        """The longest one operation may take."""
        self._demands: list[Callable[[StoreConnection], Awaitable[str]]] = []
        self._names: set[str] = set()
        self._retired = Retired(2 * timeout_s, "store")

    @property
    def local(self) -> bool:
        """Whether it is on this machine, and reached without TLS."""
        return self._now.local

    def collection(self, name: str) -> StoreCollection:
        """Return a collection of the connection of now; nothing is dialled before it is used."""
        return self._now.collection(name)

    def lasting(self, name: str, *, journaled: bool = False) -> Callable[[], StoreCollection]:
        """Return what gives a collection, of the connection that is there at that moment."""
        self._names.add(name)
        made = self._now, self._now.collection(name, journaled=journaled)

        def of_now() -> StoreCollection:
            nonlocal made
            if made[0] is not self._now:
                made = self._now, self._now.collection(name, journaled=journaled)
            return made[1]

        return of_now

    def demand(self, fault: Callable[[StoreConnection], Awaitable[str]]) -> None:
        """Have another connection taken only where this finds nothing wrong with it."""
        self._demands.append(fault)

    async def renew(self, connection_string: str) -> None:
        """Go over to another connection to the same deployment, once it was seen to be as good as the present one.

        What is under way is done over the present one, which is closed after that.

        Raises:
            ConfigurationError: it is not usable, leads elsewhere, or its user may not do what the present one may. Then
                the present one is used on.
        """
        fresh = StoreConnection(connection_string, self._database, timeout_s=self.timeout_s)
        try:
            await self._require_fit(fresh)
            before, self._now = self._now, fresh
        except (PyMongoError, OSError) as error:
            code = f" {error.code}" if isinstance(error, OperationFailure) else ""
            raise ConfigurationError(f"the database does not take it ({type(error).__name__}{code})") from None
        finally:
            if self._now is not fresh:
                await fresh.close()
        self._retired.put(before.close)

    async def close(self) -> None:
        """Close the connections."""
        await self._retired.close()
        await self._now.close()

    async def _require_fit(self, fresh: StoreConnection) -> None:
        if not fresh.places & self._now.places:
            raise ConfigurationError("it names no host of the present one: another deployment takes a restart")
        async with asyncio.timeout(4 * self.timeout_s):
            for name in sorted(self._names):
                if (refused := await fresh.refused(name)) and (lost := refused - await self._refused_now(name)):
                    raise ConfigurationError(
                        f"its user has no right of {', '.join(sorted(lost))} on {self._database}.{name}, "
                        "as the present one has"
                    )
            for demand in self._demands:
                if why := await demand(fresh):
                    raise ConfigurationError(why)

    async def _refused_now(self, name: str) -> set[str]:
        """Return what the present user may not do; one that the database does not know any more may nothing."""
        try:
            return await self._now.refused(name)
        except (PyMongoError, OSError):
            return {"find", "update", "remove"}


def on_this_machine(servers: list[ServerDescription]) -> list[ServerDescription]:
    """Return the servers that are on this machine: no other one is spoken to without TLS, credentials least of all."""
    return [one for one in servers if one.address[1] is None or is_loopback(one.address[0])]


def _places(connection_string: str) -> set[object]:
    """Return the hosts of a connection string that PyMongo takes, with their ports; of a name of SRV records, that."""
    address = connection_string.partition("://")[2].partition("?")[0].partition("/")[0].rpartition("@")[2]
    if connection_string.startswith(_SCHEMES[1]):
        return {address.lower()}
    return set(parse_uri(f"mongodb://{address}")["nodelist"])


def require_verified_tls(connection_string: str) -> bool:
    """See that the server which answers is the one that was meant, unless it is on this machine.

    The options are read by PyMongo's own parser: another reader could take them for something else.

    Returns:
        Whether it is on this machine, and reached without TLS.

    Raises:
        ConfigurationError: it is no connection string, or another machine would be reached in the clear or without a
            look at its certificate.
    """
    scheme = next((scheme for scheme in _SCHEMES if connection_string.startswith(scheme)), None)
    if scheme is None:
        raise ConfigurationError(f"a connection string begins with {' or '.join(_SCHEMES)}")
    address, question, options = connection_string.removeprefix(scheme).partition("?")
    # The lookup of SRV records is left to the connection: only what the text itself says counts here.
    kept = "&".join(option for option in options.split("&") if not option.lower().startswith("srv"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            parsed = parse_uri(f"mongodb://{address}{question}{kept}", validate=True, warn=True)
        except OSError:
            raise ConfigurationError("the connection string names a file that cannot be read") from None
        except (PyMongoError, UserWarning, ValueError):
            raise ConfigurationError(
                "the connection string has an option that PyMongo does not take, or twice"
            ) from None
    by_name = scheme != _SCHEMES[0]
    if not by_name and all(port is None or is_loopback(host) for host, port in parsed["nodelist"]):
        return not parsed["options"].get("tls", False)
    given = parsed["options"]
    if not given.get("tls", by_name):
        raise ConfigurationError("the store is on another machine: add tls=true to the connection string")
    if unverified := [name for name in _UNVERIFIED if given.get(name)]:
        raise ConfigurationError(
            f"the store is on another machine, whose certificate has to be verified: leave out {unverified[0]}"
        )
    return False
