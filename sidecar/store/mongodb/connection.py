"""The connection to the MongoDB that several sidecars share, and what is demanded of it.

Writes are acknowledged by a majority and reads go to the primary, also where the connection string says otherwise: what
a failover rolls back was never suspended, and never used once.
"""

import warnings
from typing import Any, Final, TypeAlias

from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.server_description import ServerDescription
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError

APP_NAME: Final = "mcp-sidecar-store"

StoredDocument: TypeAlias = dict[str, Any]

_SCHEMES: Final = ("mongodb://", "mongodb+srv://")
_CONNECTIONS: Final = 32
_UNVERIFIED: Final = ("tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames")


class MongoStore:
    """One client for everything that is shared.

    Args:
        connection_string: with its credentials.
        database: its name.
        timeout_s: the longest one operation may take.

    Raises:
        ConfigurationError: it is not usable, or would reach another machine without verified TLS. The detail repeats
            nothing of it.
    """

    def __init__(self, connection_string: str, database: str, *, timeout_s: float) -> None:
        milliseconds = max(1, round(timeout_s * 1000))
        local = self.local = require_verified_tls(connection_string)
        """Whether it is on this machine, and reached without TLS."""
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
        self.timeout_s = timeout_s
        """The longest one operation may take."""

    def collection(self, name: str) -> AsyncCollection[StoredDocument]:
        """Return a collection; nothing is dialled before it is used."""
        return self._client[self._database].get_collection(
            name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def on_this_machine(servers: list[ServerDescription]) -> list[ServerDescription]:
    """Return the servers that are on this machine: no other one is spoken to without TLS, credentials least of all."""
    return [one for one in servers if one.address[1] is None or is_loopback(one.address[0])]


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
        except (PyMongoError, UserWarning, ValueError, OSError):
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
