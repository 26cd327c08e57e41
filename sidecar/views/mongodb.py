"""Views as the database lists them: ``listCollections`` through PyMongo, over the sidecar's own connection.

The MongoDB MCP server cannot be asked: its ``list-collections`` leaves out what is a view (reference, section 2.3).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from bson import json_util
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import OperationFailure, PyMongoError

from sidecar.bounded import BoundedMemory
from sidecar.commands import View, ViewDefinitions
from sidecar.enforcement import Budget
from sidecar.errors import ConfigurationError, ViewsUnavailable
from sidecar.model import JsonValue, Namespace
from sidecar.ports import Clock
from sidecar.system import Outage, Retired

_LOG = logging.getLogger(__name__)

APP_NAME: Final = "mcp-sidecar-views"
"""What the database's own log and profiler call this connection."""

MAX_DATABASES: Final = 1024
"""Databases whose views are kept; callers name databases, so the memory of them is bounded."""

MAX_VIEWS: Final = 10_000
"""Views of one database; with more, the answer is refused."""

MAX_DATABASES_ASKED: Final = 64
"""Databases that are kept on behalf of one asker."""

_CONNECTIONS: Final = 4

_OPTIONS: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""Wins over the connection string, so that every value in a definition can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """The views of one database, and when they were asked for (monotonic seconds)."""

    at: float
    views: ViewDefinitions
    asker: Hashable


class MongoViews:
    """The views of all configured connections together.

    Which deployment a call goes to is policy's answer, and comes later. So a namespace counts as a view if any of the
    connections says so, with every definition that one of them gives. That asks for more than the call touches, never
    for less, which is the sound side: too many accesses can refuse a call, too few could allow one.

    A definition that is younger than ``refresh_s`` is used as it is; up to twice that age it is used while a new one is
    fetched; beyond that it is never used. One fetch per database is under way at a time.
    """

    def __init__(
        self,
        connection_strings: Sequence[str],
        clock: Clock,
        *,
        refresh_s: float,
        timeout_s: float,
        max_databases: int = MAX_DATABASES,
        max_asked: int = MAX_DATABASES_ASKED,
    ) -> None:
        """Prepare the connections; none is opened before it is needed.

        Raises:
            ConfigurationError: a connection string is not usable, or there is none.
        """
        if not connection_strings:
            raise ConfigurationError("views_connection_string: no server has one")
        self._clock = clock
        self._refresh_s = refresh_s
        self._timeout_s = timeout_s
        self._max_databases = max_databases
        self._max_asked = max_asked
        self._clients = {text: _client(text, timeout_s) for text in connection_strings}
        self._learned: dict[str, _Learned] = {}
        self._flights: dict[str, asyncio.Task[ViewDefinitions]] = {}
        self._retired = Retired(2 * timeout_s, "views")
        what = "a database that views are listed from"
        self._outage = Outage(_LOG, what, lost="does not answer", found="answers again")
        self._refused: BoundedMemory[str, str] = BoundedMemory(max_databases)
        self._refusals_told = Budget()

    def knows(self, databases: Collection[str]) -> bool:
        """Return whether all of these databases were looked at lately enough."""
        now = self._clock.monotonic()
        found = (self._learned.get(database) for database in databases)
        return all(learned is not None and now - learned.at < 2 * self._refresh_s for learned in found)

    async def views(self, databases: Collection[str], asker: Hashable) -> ViewDefinitions:
        """Return every view of these databases, with all its definitions.

        Raises:
            ViewsUnavailable: they are not known, or not freshly enough.
        """
        found: dict[Namespace, Sequence[View]] = {}
        for views in await asyncio.gather(*(self._of(database, asker) for database in sorted(set(databases)))):
            found |= views
        return found

    async def close(self) -> None:
        """End what is under way and close the connections."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._retired.close()
        for client in self._clients.values():
            await client.close()

    async def renew(self, connection_strings: Sequence[str]) -> None:
        """Go over to other connections, once each new one has listed views; those that are gone are closed after that.

        Raises:
            ConfigurationError: one is not usable, or lists no views. Then those before are used on.
        """
        fresh = {text: _client(text, self._timeout_s) for text in connection_strings if text not in self._clients}
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*map(self._tried, fresh.values()))
        except (PyMongoError, BSONError, TimeoutError, OSError, ViewsUnavailable) as error:
            await asyncio.gather(*(client.close() for client in fresh.values()))
            code = f" {error.code}" if isinstance(error, OperationFailure) else ""
            raise ConfigurationError(f"the database lists no views for it ({type(error).__name__}{code})") from None
        before = self._clients
        self._clients = {text: fresh.get(text) or before[text] for text in connection_strings}
        for text in before.keys() - self._clients.keys():
            self._retired.put(before[text].close)

    async def _tried(self, client: "AsyncMongoClient[dict[str, Any]]") -> None:
        """Ask a new connection as it will be asked: for the database that was learned last, if there was one."""
        learned = next(reversed(self._learned), None)
        if learned is not None:
            await _list(client, learned)
        else:
            await client.admin.command("ping")  # a new connection logs in

    async def _of(self, database: str, asker: Hashable) -> ViewDefinitions:
        learned = self._learned.get(database)
        age = self._clock.monotonic() - learned.at if learned is not None else None
        if learned is not None and age is not None and age < self._refresh_s:
            return learned.views
        flight = self._flights.get(database) or self._begin(database, asker)
        if learned is not None and age is not None and age < 2 * self._refresh_s:
            return learned.views
        return await asyncio.shield(flight)  # a caller that gives up must not cancel the others

    def _begin(self, database: str, asker: Hashable) -> asyncio.Task[ViewDefinitions]:
        flight = asyncio.create_task(self._fetch(database, asker), name="views")
        self._flights[database] = flight

        def landed(done: asyncio.Task[ViewDefinitions]) -> None:
            del self._flights[database]
            if not done.cancelled():
                done.exception()  # seen, so that asyncio does not report it as lost

        flight.add_done_callback(landed)
        return flight

    async def _fetch(self, database: str, asker: Hashable) -> ViewDefinitions:
        """Ask every connection; if one does not answer, there is no answer."""
        at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                lists = await asyncio.gather(*(_list(client, database) for client in self._clients.values()))
        except (PyMongoError, BSONError, TimeoutError, OSError) as error:
            raise self._unavailable(database, error) from None
        except ViewsUnavailable as error:
            self._refuse(database, error.detail)
            raise
        self._outage.ends()
        self._refused.drop(database)
        views: dict[Namespace, tuple[View, ...]] = {}
        for view in (view for found in lists for view in found):
            others = views.get(view.namespace, ())
            views[view.namespace] = others if view in others else (*others, view)
        known = self._learned.pop(database, None)
        self._make_room(asker)
        # It stays with the first asker: a refresh on behalf of another caller is no reason to forget it with theirs.
        self._learned[database] = _Learned(at=at, views=views, asker=known.asker if known is not None else asker)
        return views

    def _unavailable(self, database: str, error: Exception) -> ViewsUnavailable:
        """Say once that a database is away, and of each database once that it does not list its views."""
        if isinstance(error, OperationFailure):
            unavailable = ViewsUnavailable(f"listCollections: {type(error).__name__} {error.code}")
            self._refuse(database, unavailable.detail)
        else:
            unavailable = ViewsUnavailable(f"listCollections: {type(error).__name__}")
            self._outage.begins(unavailable.detail)
        return unavailable

    def _refuse(self, database: str, why: str) -> None:
        if self._refused.get(database) == why:
            return
        self._refused.put(database, why)
        others = self._refusals_told.admit(why, self._clock.monotonic())
        if others is not None:
            more = f" ({others} more like it)" if others else ""
            _LOG.warning("the views of a database cannot be listed: %s%s", why, more)

    def _make_room(self, asker: Hashable) -> None:
        """Forget the oldest of an asker who has the most that one may have; else of the one who has the most of all."""
        counts = Counter(learned.asker for learned in self._learned.values())
        if counts[asker] < self._max_asked:
            if len(self._learned) < self._max_databases:
                return
            [(asker, _)] = counts.most_common(1)
        del self._learned[next(name for name, learned in self._learned.items() if learned.asker == asker)]


def _client(connection_string: str, timeout_s: float) -> "AsyncMongoClient[dict[str, Any]]":
    """Return an unconnected client; credentials and TLS are those of the connection string."""
    if not connection_string.startswith(("mongodb://", "mongodb+srv://")):
        raise ConfigurationError("views_connection_string: it must begin with mongodb:// or mongodb+srv://")
    milliseconds = max(1, round(timeout_s * 1000))
    try:
        return AsyncMongoClient(
            connection_string,
            appname=APP_NAME,
            maxPoolSize=_CONNECTIONS,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
        )
    except (PyMongoError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"views_connection_string: PyMongo does not accept it ({type(error).__name__})"
        ) from None


async def _list(client: "AsyncMongoClient[dict[str, Any]]", database: str) -> list[View]:
    """Ask one connection. A secondary may answer where there is no primary: ``refresh_s`` bounds more than its lag."""
    cursor = await client[database].cursor_command(
        "listCollections",
        filter={"type": "view"},
        read_preference=ReadPreference.PRIMARY_PREFERRED,
        codec_options=_OPTIONS,
    )
    found: list[View] = []
    async with cursor:
        async for document in cursor:
            if document.get("type") != "view":
                continue
            if len(found) == MAX_VIEWS:
                raise ViewsUnavailable(f"more than {MAX_VIEWS} views")
            found.append(_view(database, document))
    return found


def _view(database: str, document: Mapping[str, Any]) -> View:
    """Read one entry. One without a usable definition is still a view, and a call that reads it is refused."""
    options = document.get("options")
    options = options if isinstance(options, dict) else {}
    source = options.get("viewOn")
    return View(
        namespace=Namespace(database=database, collection=str(document.get("name", ""))),
        source=Namespace(database=database, collection=source if isinstance(source, str) else ""),
        pipeline=_json(options.get("pipeline", [])),
    )


def _json(pipeline: object) -> JsonValue:
    """Return BSON values as the Extended JSON that the walker reads; null where they have none."""
    try:
        text = json_util.dumps(pipeline, json_options=json_util.RELAXED_JSON_OPTIONS)
        value: JsonValue = msgspec.json.decode(text)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return value
