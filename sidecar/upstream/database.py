"""Whether the databases behind the MCP servers answer: a ping without user and password, for readiness.

A child connects when the first call needs it, so without this a wrong host shows only in a failing call.
"""

import asyncio
import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from sidecar.errors import ConfigurationError
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)

APP_NAME: Final = "mcp-sidecar-health"
PING_S: Final = 2.0

SCHEMES: Final = ("mongodb://", "mongodb+srv://")

_REACHING: Final = frozenset(
    {
        "tls",
        "ssl",
        "tlscafile",
        "tlscertificatekeyfile",
        "tlscertificatekeyfilepassword",
        "tlsallowinvalidcertificates",
        "tlsallowinvalidhostnames",
        "tlsinsecure",
        "replicaset",
        "directconnection",
        "loadbalanced",
        "srvservicename",
        "srvmaxhosts",
    }
)
"""Options (lower case) that say how servers are reached; the others say who speaks, or how."""


def without_credentials(connection_string: str) -> str:
    """Return the hosts of a connection string and how they are reached, without user, password and database.

    Raises:
        ConfigurationError: it is not a connection string of MongoDB. The detail repeats nothing of it.
    """
    scheme = next((scheme for scheme in SCHEMES if connection_string.startswith(scheme)), None)
    if scheme is None:
        raise ConfigurationError(f"a connection string begins with {' or '.join(SCHEMES)}")
    if any(character.isspace() or not character.isprintable() for character in connection_string):
        raise ConfigurationError("the connection string has a space or a line break in it")
    rest, _, options = connection_string.removeprefix(scheme).partition("?")
    hosts = rest.rpartition("@")[2].partition("/")[0]
    if not hosts:
        raise ConfigurationError("the connection string names no host")
    kept = [(name, value) for name, value in parse_qsl(options) if name.lower() in _REACHING]
    return f"{scheme}{hosts}/" + (f"?{urlencode(kept)}" if kept else "")


def hosts_of(connection_string: str) -> frozenset[str]:
    """Return the hosts and ports of a connection string as it spells them, in lower case.

    Raises:
        ConfigurationError: as ``without_credentials``.
    """
    address = without_credentials(connection_string).partition("://")[2].partition("/")[0]
    return frozenset(host if ":" in host else f"{host}:27017" for host in address.lower().split(","))


_NOT_OF_PYMONGO: Final = frozenset(
    {
        "autoselectfamily",
        "autoselectfamilyattempttimeout",
        "mindhsize",
        "monitorcommands",
        "nodelay",
        "proxyhost",
        "proxypassword",
        "proxyport",
        "proxyusername",
        "tlscrlfile",
    }
)
"""Options (lower case) that only the server's own driver has (``connection_string.js``, ``OPTIONS``)."""


def doubtful_options(connection_string: str) -> tuple[str, ...]:
    """Return the names of the options that no driver would take: the server starts with them, and every call fails."""
    options = connection_string.partition("?")[2]
    given = [(name, value) for name, value in parse_qsl(options, keep_blank_values=True) if not _of_srv(name)]
    asked = [(name, value) for name, value in given if name.lower() not in _NOT_OF_PYMONGO]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parse_uri(f"mongodb://host/?{urlencode(asked)}", validate=True, warn=True)
        except (PyMongoError, ValueError, OSError) as error:
            told = [str(error)]
        else:
            told = []
    text = " ".join([*told, *(str(one.message).partition(". Did")[0] for one in caught)]).lower()
    words, letters = set(_WORD.findall(text)), text.replace(" ", "")
    named = (name for name, _ in asked if name.lower() in words or (len(name) > _SHORT and name.lower() in letters))
    return tuple(dict.fromkeys(named))


def _of_srv(name: str) -> bool:
    return name.lower().startswith("srv") or name.lower() == "loadbalanced"


_WORD: Final = re.compile(r"[a-z0-9]+")
_SHORT: Final = 4
"""A shorter name occurs in other words; PyMongo writes some names apart ("read preference")."""


class Databases:
    """Pings the databases of servers by the servers' names.

    Args:
        connection_strings: by name; those with the same hosts are pinged once.
        renewed: by name, what reads a connection string again; new hosts are pinged instead of the old ones.

    Raises:
        ConfigurationError: one is not usable.
    """

    def __init__(
        self, connection_strings: Mapping[str, str], renewed: Mapping[str, Callable[[], str]] | None = None
    ) -> None:
        self._of = {name: without_credentials(text) for name, text in connection_strings.items()}
        self._renewed = dict(renewed or {})
        self._clients: dict[str, AsyncMongoClient[dict[str, object]]] = {}
        self._outages: dict[str, Outage] = {}
        self._know()

    def _know(self) -> list[AsyncMongoClient[dict[str, object]]]:
        """Have a client for each address, and return those of addresses that no server has any more."""
        for bare in set(self._of.values()) - self._clients.keys():
            self._clients[bare] = _client(bare)
            names = ", ".join(name for name, other in self._of.items() if other == bare)
            what = f"the database of {names}"
            self._outages[bare] = Outage(_LOG, what, lost="does not answer", found="answers again")
        old = self._clients.keys() - set(self._of.values())
        for bare in old:
            del self._outages[bare]
        return [self._clients.pop(bare) for bare in old]

    @property
    def silent(self) -> tuple[str, ...]:
        """The servers whose database did not answer the last ping."""
        return tuple(name for name, bare in self._of.items() if not self._outages[bare].there)

    async def look(self) -> None:
        """Ping each database; what changed is logged once."""
        for name, renewed in self._renewed.items():
            with contextlib.suppress(ConfigurationError):  # the upstream tells what is wrong with it
                self._of[name] = without_credentials(await asyncio.to_thread(renewed))
        for client in self._know():
            await client.close()
        await asyncio.gather(*(self._ping(bare, client) for bare, client in self._clients.items()))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _ping(self, bare: str, client: AsyncMongoClient[dict[str, object]]) -> None:
        try:
            async with asyncio.timeout(2 * PING_S):
                await client.admin.command("ping")
        except (PyMongoError, OSError) as error:  # TimeoutError is an OSError
            self._outages[bare].begins(type(error).__name__)
        else:
            self._outages[bare].ends()


def _client(bare: str) -> AsyncMongoClient[dict[str, object]]:
    milliseconds = int(PING_S * 1000)
    try:
        return AsyncMongoClient(
            bare,
            appname=APP_NAME,
            maxPoolSize=1,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        )
    except (PyMongoError, ValueError, OSError) as error:
        raise ConfigurationError(f"the connection string cannot be used ({type(error).__name__})") from None
