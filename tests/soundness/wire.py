"""A recording proxy for the MongoDB wire protocol, and what a command on the wire touches.

The proxy stands between the real MongoDB MCP server and the database. Bytes pass unchanged; what cannot be read is not
passed. ``touched`` says from the command alone what it touches; it shares no code and no idea with
``sidecar.commands``, which starts from the arguments of a tool and walks pipelines by a table of stages: here, nested
pipelines are found by looking for the few operators that name another namespace, wherever they stand.

Sources: MongoDB Wire Protocol (OP_MSG with document sequences, OP_QUERY as the legacy hello); MongoDB manual 8.x,
"Database Commands"; reference, sections 1.1 and 2.2.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef
from typing_extensions import override

from tests.patience import HANG_S

Document = Mapping[str, Any]


class Unreadable(Exception):
    """Bytes that are not a wire message as a driver sends it, or not one that can be judged."""


# --- messages ---------------------------------------------------------------------------------------------------------

_HEADER: Final = struct.Struct("<iiii")
_OP_REPLY: Final = 1
_OP_QUERY: Final = 2004
_OP_COMPRESSED: Final = 2012
_OP_MSG: Final = 2013
_CHECKSUM_PRESENT: Final = 1
_MORE_TO_COME: Final = 2
_KNOWN_FLAGS: Final = _CHECKSUM_PRESENT | _MORE_TO_COME | 1 << 16
_MAX_MESSAGE_BYTES: Final = 48_000_000
"""``maxMessageSizeBytes`` of mongod."""


class _OnceEach(dict[str, Any]):
    """A document in which no key stands twice: two readers could take different ones."""

    @override
    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            raise Unreadable(f"the key {key!r} stands twice")
        super().__setitem__(key, value)


_CODEC: Final[CodecOptions[Any]] = CodecOptions(
    document_class=_OnceEach, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of either direction."""

    request: int
    answers: int
    """The request that this one answers; 0 from a client."""
    body: Document
    last: bool = True
    """No further message of this side belongs to it; on a request: it wants an answer."""


class Splitter:
    """Bytes in, messages out; keeps what is not complete yet."""

    def __init__(self, read: Callable[[bytes], Message]) -> None:
        self._buffer = bytearray()
        self._read = read

    def feed(self, data: bytes) -> Iterator[Message]:
        """Return every message that is complete now.

        Raises:
            Unreadable: the bytes are not of the protocol.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            [length, *_] = _HEADER.unpack_from(self._buffer)
            if not _HEADER.size < length <= _MAX_MESSAGE_BYTES:
                raise Unreadable(f"a message of {length} bytes")
            if len(self._buffer) < length:
                return
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            try:
                yield self._read(message)
            except (struct.error, UnicodeDecodeError) as error:
                raise Unreadable(str(error)) from error


def read_request(message: bytes) -> Message:
    """Read one message of a client, whole.

    Raises:
        Unreadable: anything but OP_MSG, and OP_QUERY on ``<database>.$cmd``.
    """
    _, request, answers, code = _HEADER.unpack_from(message)
    if code == _OP_MSG:
        body, flags = _read_op_msg(message)
    elif code == _OP_QUERY:
        body, flags = _read_op_query(message), 0
    else:
        raise Unreadable(f"the operation {code}" + (" (compressed)" if code == _OP_COMPRESSED else ""))
    if not body or "$db" not in body:
        raise Unreadable("a command without a name or a database")
    return Message(request=request, answers=answers, body=body, last=not flags & _MORE_TO_COME)


def read_answer(message: bytes) -> Message:
    """Read one message of a database; its content is nobody's concern here.

    Raises:
        Unreadable: anything but OP_MSG and OP_REPLY.
    """
    _, request, answers, code = _HEADER.unpack_from(message)
    if code not in (_OP_MSG, _OP_REPLY):
        raise Unreadable(f"the answer {code}")
    more = code == _OP_MSG and struct.unpack_from("<I", message, _HEADER.size)[0] & _MORE_TO_COME
    return Message(request=request, answers=answers, body={}, last=not more)


def _read_op_msg(message: bytes) -> tuple[Document, int]:
    [flags] = struct.unpack_from("<I", message, _HEADER.size)
    if flags & ~_KNOWN_FLAGS:
        raise Unreadable(f"the flags {flags:#x}")
    end = len(message) - (4 if flags & _CHECKSUM_PRESENT else 0)
    at = _HEADER.size + 4
    body: dict[str, Any] | None = None
    sequences: dict[str, Any] = _OnceEach()
    while at < end:
        kind = message[at]
        section = message[at + 1 : at + 1 + _int32(message, at + 1)]
        at += 1 + len(section)
        if kind == 0 and body is None:
            body = _decode(section)
        elif kind == 1:
            identifier, _, documents = section[4:].partition(b"\0")
            sequences[identifier.decode()] = list(_decode_all(documents))
        else:
            raise Unreadable(f"a section of kind {kind}")
    if body is None or at != end:
        raise Unreadable("an OP_MSG without exactly one body")
    for name, values in sequences.items():
        body[name] = values
    return body, flags


def _read_op_query(message: bytes) -> Document:
    name, _, rest = message[_HEADER.size + 4 :].partition(b"\0")
    database, dollar, nothing = name.decode().partition(".$cmd")
    if not dollar or nothing or _int32(rest, 8) != len(rest) - 8:
        raise Unreadable(f"an OP_QUERY on {name!r}")
    body = _decode(rest[8:])
    body.setdefault("$db", database)
    return body


def _decode(data: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = bson.decode(data, codec_options=_CODEC)
    except bson.errors.BSONError as error:
        raise Unreadable(str(error)) from error
    return document


def _decode_all(data: bytes) -> Iterator[dict[str, Any]]:
    at = 0
    while at < len(data):
        length = _int32(data, at)
        yield _decode(data[at : at + length])
        at += length


def _int32(data: bytes, at: int) -> int:
    """Read a length; at least that of an empty document, so that reading always gets on."""
    if at + 4 > len(data):
        raise Unreadable("a length is cut off")
    [value] = struct.unpack_from("<i", data, at)
    if not 5 <= value <= len(data) - at:
        raise Unreadable(f"a length of {value} bytes")
    return int(value)


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WireCommand:
    """One command as it was sent."""

    body: Document

    @property
    def name(self) -> str:
        """The command's name: its first key (MongoDB manual, "Database Commands")."""
        return next(iter(self.body))

    @property
    def database(self) -> str:
        """The database that the command is sent to."""
        return str(self.body["$db"])

    @property
    def collection(self) -> str | None:
        """The value of the first key where that is a string, which in most commands is the collection."""
        value = self.body[self.name]
        return value if isinstance(value, str) else None


class Kind(StrEnum):
    """What a command does to a namespace. All but the first four are writes."""

    READ = "read"
    METADATA = "metadata"
    ADMIN = "admin"
    EXTERNAL = "external"
    """Data leaves the deployment; it has no namespace here."""
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    CREATE = "create"
    DROP = "drop"
    INDEX = "index"

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self not in (Kind.READ, Kind.METADATA, Kind.ADMIN, Kind.EXTERNAL)


class Touch(NamedTuple):
    """One use of one namespace. No collection: the database itself; no database: the deployment."""

    database: str
    collection: str
    kind: Kind


class UnknownCommand(Exception):
    """A command that the table does not know; nothing can be said of it."""


def touched(command: Document) -> set[Touch]:
    """Return what a command touches.

    Args:
        command: the document on the wire, with ``$db`` and its document sequences.

    Raises:
        UnknownCommand: not in the table, or of a form that the table does not foresee.
    """
    name = next(iter(command))
    rule = _COMMANDS.get(name)
    if rule is None:
        raise UnknownCommand(name)
    database = command.get("$db")
    if not isinstance(database, str) or not database:
        raise UnknownCommand(f"{name} without a database")
    found = set(rule(command, database))
    return found | {
        Touch(database, collection, Kind.ADMIN) for database, collection, _ in found if _own(database, collection)
    }


def _own(database: str, collection: str) -> bool:
    """MongoDB's own namespaces (reference, section 2.3)."""
    own = ("system.", "enxcol_.")
    return (
        database in ("admin", "local", "config")
        or collection.startswith(own)
        or collection in ("fs.files", "fs.chunks")
    )


Rule = Callable[[Document, str], Iterator[Touch]]


def _text(command: Document, key: str) -> str:
    value = command.get(key)
    if not isinstance(value, str) or not value:
        raise UnknownCommand(f"{key} is {value!r}")
    return value


def _on_collection(*kinds: Kind) -> Rule:
    def rule(command: Document, database: str) -> Iterator[Touch]:
        collection = _text(command, next(iter(command)))
        for kind in kinds:
            yield Touch(database, collection, kind)

    return rule


def _on_database(kind: Kind) -> Rule:
    def rule(_command: Document, database: str) -> Iterator[Touch]:
        yield Touch(database, "", kind)

    return rule


def _on_deployment(kind: Kind) -> Rule:
    def rule(_command: Document, _database: str) -> Iterator[Touch]:
        yield Touch("", "", kind)

    return rule


def _update(command: Document, database: str) -> Iterator[Touch]:
    collection = _text(command, "update")
    yield Touch(database, collection, Kind.UPDATE)
    if any(update.get("upsert") for update in command["updates"]):
        yield Touch(database, collection, Kind.INSERT)
    for update in command["updates"]:
        if isinstance(update["u"], list):
            yield from _pipeline(update["u"], database, collection)


def _rename(command: Document, _database: str) -> Iterator[Touch]:
    """A database's name has no dot, so the first one ends it. The documents show under the new name: a read."""
    source, _, old = _text(command, "renameCollection").partition(".")
    target, _, new = _text(command, "to").partition(".")
    yield Touch(source, old, Kind.READ)
    yield Touch(source, old, Kind.DROP)
    yield Touch(target, new, Kind.CREATE)
    if command.get("dropTarget"):
        yield Touch(target, new, Kind.DROP)


def _search_indexes(command: Document, database: str) -> Iterator[Touch]:
    yield Touch(database, _text(command, "createSearchIndexes"), Kind.INDEX)
    for index in command["indexes"]:
        for synonym in index.get("definition", {}).get("synonyms", ()):
            yield Touch(database, _text(synonym["source"], "collection"), Kind.READ)
        if any(part.get("type") == "autoEmbed" for part in index.get("definition", {}).get("fields", ())):
            yield _AWAY


def _get_more(command: Document, database: str) -> Iterator[Touch]:
    """A cursor over a collection; those over ``$cmd`` give what the command that opened them was judged by."""
    collection = _text(command, "collection")
    if not collection.startswith("$cmd."):
        yield Touch(database, collection, Kind.READ)


def _explain(command: Document, database: str) -> Iterator[Touch]:
    """What the explained command touches; its own ``$db``, where it has one, wins."""
    yield from touched({**command["explain"], "$db": command["explain"].get("$db", database)})


_ABOUT_COLLECTION: Final = frozenset({"$collStats", "$indexStats", "$planCacheStats", "$listSearchIndexes"})
_ABOUT_DEPLOYMENT: Final = frozenset(
    {
        "$currentOp",
        "$listLocalSessions",
        "$listSessions",
        "$queryStats",
        "$listSampledQueries",
        "$shardedDataDistribution",
        "$listCatalog",
        "$listClusterCatalog",
        "$querySettings",
        "$backupCursor",
        "$backupCursorExtend",
    }
)


_CLOSED: Final = (
    _ABOUT_COLLECTION
    | _ABOUT_DEPLOYMENT
    | {
        "$match",
        "$sort",
        "sortBy",
        "$bucket",
        "$bucketAuto",
    }
)
"""Where nothing but data, options and expressions can stand: what looks like a stage there is not run as one."""


def _aggregate(command: Document, database: str) -> Iterator[Touch]:
    pipeline = command["pipeline"]
    target = command["aggregate"]
    first = next(iter(pipeline[0]), "") if pipeline else ""
    if isinstance(target, str):
        collection = _text(command, "aggregate")
        if first not in _ABOUT_COLLECTION | _ABOUT_DEPLOYMENT:
            yield Touch(database, collection, Kind.READ)
    elif target == 1:
        collection = ""
    else:
        raise UnknownCommand(f"aggregate is {target!r}")
    yield from _pipeline(pipeline, database, collection)


def _pipeline(value: Any, database: str, collection: str) -> Iterator[Touch]:
    """Look for what reaches elsewhere in every object at any depth, whether or not a stage could stand there."""
    if isinstance(value, DBRef):
        value = value.as_doc()  # bson makes one of any object with $ref and $id, whatever else is in it
    if isinstance(value, list):
        for item in value:
            yield from _pipeline(item, database, collection)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key in _ABOUT_DEPLOYMENT:
                yield Touch("", "", Kind.ADMIN)
            elif key in _ABOUT_COLLECTION:
                yield Touch(database, collection, Kind.METADATA)
            reach = _REACHES.get(key)
            if reach is not None:
                yield from reach(item, database, collection)
            elif key not in _CLOSED:
                yield from _pipeline(item, database, collection)


def _named(value: Any, database: str) -> tuple[str, str]:
    """A collection in ``database``, or ``{db, coll}``."""
    if isinstance(value, str) and value:
        return database, value
    if isinstance(value, Mapping) and isinstance(value.get("coll"), str) and value["coll"]:
        return str(value.get("db", database)), value["coll"]
    raise UnknownCommand(f"a namespace like {value!r}")


def _object(value: Any) -> Document:
    if not isinstance(value, Mapping):
        raise UnknownCommand(f"an object like {value!r}")
    return value


def _from_elsewhere(spec: Any, database: str, _collection: str) -> Iterator[Touch]:
    """``$lookup`` and ``$graphLookup``; without ``from`` the nested pipeline brings its own documents."""
    spec = _object(spec)
    other = (database, "")
    if "from" in spec:
        other = _named(spec["from"], database)
        yield Touch(*other, Kind.READ)
    for key, item in spec.items():
        if key != "from":
            yield from _pipeline(item, *other)


def _union(spec: Any, database: str, _collection: str) -> Iterator[Touch]:
    spec = {"coll": spec} if isinstance(spec, str) else _object(spec)
    other = (database, "")
    if "coll" in spec or "db" in spec:
        other = _named(spec, database)
        yield Touch(*other, Kind.READ)
    yield from _pipeline(spec.get("pipeline", []), *other)


def _leaves(value: Any) -> bool:
    """Whether a target is outside the deployment (Atlas Data Federation)."""
    return isinstance(value, Mapping) and bool({"s3", "azure", "gcs", "atlas"} & value.keys())


_AWAY: Final = Touch("", "", Kind.EXTERNAL)


def _out(spec: Any, database: str, _collection: str) -> Iterator[Touch]:
    if _leaves(spec):
        yield _AWAY
        return
    for kind in (Kind.DELETE, Kind.CREATE, Kind.INSERT):
        yield Touch(*_named(spec, database), kind)


def _merge(spec: Any, database: str, _collection: str) -> Iterator[Touch]:
    spec = {"into": spec} if isinstance(spec, str) else _object(spec)
    if _leaves(spec.get("into")):
        yield _AWAY
        yield from _pipeline(spec.get("whenMatched"), database, "")
        return
    target = _named(spec.get("into"), database)
    if spec.get("whenNotMatched", "insert") == "insert":
        yield Touch(*target, Kind.INSERT)
    if spec.get("whenMatched", "merge") not in ("keepExisting", "fail"):
        yield Touch(*target, Kind.UPDATE)
    yield from _pipeline(spec.get("whenMatched"), *target)


def _changes(spec: Any, database: str, collection: str) -> Iterator[Touch]:
    """Of the collection, of the database where there is none, of everything if asked for."""
    yield (
        Touch("", "", Kind.READ)
        if _object(spec).get("allChangesForCluster")
        else Touch(database, collection, Kind.READ)
    )


def _vectors(spec: Any, _database: str, _collection: str) -> Iterator[Touch]:
    """Text is made a vector by a service outside; a vector is not."""
    if "query" in _object(spec) or "model" in spec:
        yield _AWAY


def _search(spec: Any, _database: str, _collection: str) -> Iterator[Touch]:
    """Of its own collection; a vector search inside it may bring text instead of a vector."""
    if isinstance(spec, Mapping):
        if "query" in spec.get("vectorSearch", ()):
            yield _AWAY
        spec = list(spec.values())
    for item in spec if isinstance(spec, list) else ():
        yield from _search(item, "", "")


def _rerank(_spec: Any, _database: str, _collection: str) -> Iterator[Touch]:
    yield _AWAY


_REACHES: Final[Mapping[str, Callable[[Any, str, str], Iterator[Touch]]]] = {
    "$lookup": _from_elsewhere,
    "$graphLookup": _from_elsewhere,
    "$unionWith": _union,
    "$out": _out,
    "$merge": _merge,
    "$changeStream": _changes,
    "$vectorSearch": _vectors,
    "$search": _search,
    "$searchMeta": _search,
    "$rerank": _rerank,
}

_COMMANDS: Final[Mapping[str, Rule]] = {
    "aggregate": _aggregate,
    "find": _on_collection(Kind.READ),
    "count": _on_collection(Kind.READ),
    "distinct": _on_collection(Kind.READ),
    "getMore": _get_more,
    "explain": _explain,
    "insert": _on_collection(Kind.INSERT),
    "update": _update,
    "delete": _on_collection(Kind.DELETE),
    "create": _on_collection(Kind.CREATE),
    "drop": _on_collection(Kind.DROP),
    "dropDatabase": _on_database(Kind.DROP),
    "renameCollection": _rename,
    "createIndexes": _on_collection(Kind.INDEX),
    "dropIndexes": _on_collection(Kind.INDEX),
    "listIndexes": _on_collection(Kind.METADATA),
    "createSearchIndexes": _search_indexes,
    "dropSearchIndex": _on_collection(Kind.INDEX),
    "updateSearchIndex": _on_collection(Kind.INDEX),
    "listCollections": _on_database(Kind.METADATA),
    "dbStats": _on_database(Kind.METADATA),
    "collStats": _on_collection(Kind.METADATA),
    "listDatabases": _on_deployment(Kind.METADATA),
    "getLog": _on_deployment(Kind.ADMIN),
}
"""Closed: a command that is not here fails the test that sees it."""

HOUSEKEEPING: Final = frozenset(
    {
        "hello",
        "isMaster",
        "ismaster",
        "ping",
        "buildInfo",
        "buildinfo",
        "saslStart",
        "saslContinue",
        "endSessions",
        "killCursors",
    }
)
"""What a driver and the server's connection pool send of their own accord. It reads no namespace."""


# --- proxy ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Recorder:
    """A proxy on loopback; ``commands`` grows while it runs, in the order in which commands are passed on.

    Args:
        host: where the database is.
        port: where the database listens.
    """

    host: str
    port: int
    commands: list[WireCommand] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What could not be read; its connection was closed instead."""

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[tuple[int, int]] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        """Where a client finds the proxy, as ``host:port``."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def until(self, condition: Callable[[], object], seconds: float = HANG_S) -> None:
        """Wait until something is on record; the limit only ends a test that has failed."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: bool(condition()))

    async def quiet(self) -> None:
        """Wait until every command but the monitor's has its answer."""
        await self.until(lambda: not self._waiting)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            self._waiting = {entry for entry in self._waiting if entry[0] != id(writer)}
            await self._tell()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port)
        connection = id(writer)
        pumps = {
            asyncio.create_task(
                self._pump(reader, upstream_writer, Splitter(read_request), lambda said: self._asked(connection, said))
            ),
            asyncio.create_task(
                self._pump(
                    upstream_reader, writer, Splitter(read_answer), lambda said: self._answered(connection, said)
                )
            ),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            upstream_writer.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        splitter: Splitter,
        note: Callable[[Message], None],
    ) -> None:
        """Record first, then pass on: whoever has an answer finds its command on record."""
        try:
            while data := await reader.read(1 << 16):
                for message in splitter.feed(data):
                    note(message)
                writer.write(data)
                await writer.drain()
                await self._tell()
        except Unreadable as error:
            self.faults.append(str(error))
        except ConnectionError:
            return

    def _asked(self, connection: int, message: Message) -> None:
        command = WireCommand(message.body)
        self.commands.append(command)
        if message.last and command.name not in HOUSEKEEPING:
            self._waiting.add((connection, message.request))

    def _answered(self, connection: int, message: Message) -> None:
        if message.last:
            self._waiting.discard((connection, message.answers))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
