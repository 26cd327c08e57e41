"""Whatever the real MongoDB MCP server sends to the database for a call, ``derive`` has said before.

Calls go to the server directly, past policy, one at a time; a recorder stands between it and the database. The
direction is wire → derivation: an access that is derived and not seen is caution, a touch that is seen and not derived
is a hole.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from sidecar.commands.derive import derive
from sidecar.commands.tool_groups import ToolGroup
from sidecar.errors import SidecarError
from sidecar.model import Access, AccessKind, Command, Namespace, Permit, ToolCall
from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.process import StdioUpstream
from tests.patience import HANG_S
from tests.soundness.calls import (
    AWAY,
    COLLECTIONS,
    DATABASES,
    EQUALITY,
    HOME,
    MUTABLE,
    THIRD,
    TOOLS,
    calls,
    mutated,
    on,
)
from tests.soundness.wire import HOUSEKEEPING, Recorder, Touch, WireCommand, touched

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

SEED: Final = 4
LEAST_ACCEPTED: Final = 0.5
"""Of each tool's calls. A generator that ``derive`` refuses altogether would show nothing."""

MUTATIONS: Final = 3
"""Changed versions of each call."""

LEAST_MUTATIONS: Final = 300
"""Most changes to a call make it one that is refused; this many have to get through to mean anything."""

SENDS: Final[Mapping[str, frozenset[str]]] = {
    "list-databases": frozenset({"listDatabases"}),
    "list-collections": frozenset({"listCollections"}),
    "db-stats": frozenset({"dbStats"}),
    "collection-indexes": frozenset({"listIndexes"}),
    "collection-storage-size": frozenset({"aggregate"}),
    "collection-schema": frozenset({"aggregate"}),
    "mongodb-logs": frozenset({"getLog"}),
    "find": frozenset({"find", "aggregate"}),
    "count": frozenset({"aggregate"}),
    "aggregate": frozenset({"aggregate"}),
    "aggregate-db": frozenset({"aggregate"}),
    "explain": frozenset({"explain"}),
    "export": frozenset({"find", "aggregate"}),
    "insert-many": frozenset({"insert"}),
    "update-many": frozenset({"update"}),
    "delete-many": frozenset({"delete"}),
    "create-collection": frozenset({"create"}),
    "create-index": frozenset({"createIndexes", "createSearchIndexes"}),
    "rename-collection": frozenset({"renameCollection"}),
    "drop-collection": frozenset({"drop"}),
    "drop-database": frozenset({"dropDatabase"}),
    "drop-index": frozenset({"dropIndexes"}),
    "connect": frozenset(),
    "disconnect": frozenset(),
    "list-connections": frozenset(),
}
"""The commands that each tool is known to send (reference, section 1.1); not seeing them means not having looked."""


# --- the server's own side reads --------------------------------------------------------------------------------------

LIST_SEARCH_INDEXES: Final = "$listSearchIndexes"


def _is_probe_of_databases(command: WireCommand, _call: ToolCall) -> bool:
    return command.name == "listDatabases"


def _only_lists_search_indexes(command: WireCommand) -> bool:
    pipeline = command.body.get("pipeline", ())
    return command.name == "aggregate" and len(pipeline) == 1 and list(pipeline[0]) == [LIST_SEARCH_INDEXES]


def _is_probe_of_search(command: WireCommand, _call: ToolCall) -> bool:
    return _only_lists_search_indexes(command) and command.collection == "test"


def _is_look_at_own_search_indexes(command: WireCommand, call: ToolCall) -> bool:
    place = (call.arguments.get("database"), call.arguments.get("collection"))
    return _only_lists_search_indexes(command) and (command.database, command.collection) == place


class SideRead(NamedTuple):
    """Something that the server reads of its own accord, not because of what the caller asked for."""

    name: str
    tools: frozenset[str]
    matches: Callable[[WireCommand, ToolCall], bool]
    source: str


PROBING: Final = frozenset({"aggregate", "collection-indexes", "create-index", "drop-index"})
PROBE_SOURCE: Final = "reference, section 1.1, server-initiated side reads: search probe on a connection's first use"

SIDE_READS: Final = (
    SideRead("search probe: listDatabases", PROBING, _is_probe_of_databases, PROBE_SOURCE),
    SideRead("search probe: $listSearchIndexes on <database>.test", PROBING, _is_probe_of_search, PROBE_SOURCE),
    SideRead(
        "$listSearchIndexes on the call's own collection",
        frozenset({"aggregate", "drop-index"}),
        _is_look_at_own_search_indexes,
        "reference, section 1.1, rows aggregate and drop-index",
    ),
)
"""The only commands besides ``HOUSEKEEPING`` that need no derived access. All of them read metadata, none documents."""


# --- judging one call -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A call that the server has answered, and every command that it sent meanwhile."""

    call: ToolCall
    failed: bool
    commands: tuple[WireCommand, ...]

    def asked_for(self) -> tuple[WireCommand, ...]:
        """The commands that are neither housekeeping nor a side read."""
        return tuple(
            command
            for command in self.commands
            if command.name not in HOUSEKEEPING and _side_read(command, self.call) is None
        )

    def touches(self) -> set[Touch]:
        """What they touched."""
        return {touch for command in self.asked_for() for touch in touched(command.body)}

    def side_reads(self) -> list[str]:
        """Names of the side reads among the commands."""
        found = (_side_read(command, self.call) for command in self.commands)
        return [name for name in found if name is not None]


def _side_read(command: WireCommand, call: ToolCall) -> str | None:
    rows = (row for row in SIDE_READS if call.name in row.tools and row.matches(command, call))
    return next((row.name for row in rows), None)


def uncovered(accesses: Iterable[Access], touches: Iterable[Touch]) -> set[Touch]:
    """What was touched without an access of exactly that kind on exactly that namespace."""
    derived = {(access.namespace.database, access.namespace.collection, str(access.kind)) for access in accesses}
    return {touch for touch in touches if (touch.database, touch.collection, str(touch.kind)) not in derived}


# --- the parts --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Session:
    """The real server on the recorded connection."""

    upstream: StdioUpstream
    recorder: Recorder
    _seen: int = 0

    async def send(self, call: ToolCall) -> bool:
        """Send a call past policy; says whether the tool failed."""
        arguments = json.loads(json.dumps(call.arguments).replace("RECORDER", self.recorder.address))  # noqa: TID251 - our own text
        permit = Permit(server="real", call=ToolCall(name=call.name, arguments=arguments), request_id="r", audit_id="a")
        return (await self.upstream.forward(permit)).failed

    async def watch(self, call: ToolCall) -> Watched:
        """Send a call alone. Every command since the last watched call is this one's: none can get lost."""
        failed = await self.send(call)
        if call.name == "export" and not failed:
            # The answer comes first, the reading afterwards (the server's exportsManager.startExport).
            await self.recorder.until(lambda: any(command.name in SENDS["export"] for command in self._new()))
        await self.recorder.quiet()
        commands = tuple(self._new())
        self._seen += len(commands)
        return Watched(call=call, failed=failed, commands=commands)

    def _new(self) -> list[WireCommand]:
        return self.recorder.commands[self._seen :]


@asynccontextmanager
async def recorded(database: str, command: list[str]) -> AsyncIterator[Session]:
    """The server as a child of its own, with every MongoDB tool, on a recorded connection."""
    parsed = parse_uri(database)
    assert not parsed["options"].get("tls"), "the recorder cannot read an encrypted connection"
    host, port = parsed["nodelist"][0]
    async with Recorder(host, port) as recorder:
        user, at, _ = urlsplit(database).netloc.rpartition("@")
        # One node, nothing compressed: the recorder refuses what it cannot read.
        options = "directConnection=true&compressors=none" + ("&authSource=admin" if at else "")
        uri = f"mongodb://{user}{at}{recorder.address}/?{options}"
        environment = mongodb_environment(uri, read_only=False, tool_groups={ToolGroup.CONNECT, ToolGroup.EXPORT})
        upstream = StdioUpstream(
            "real", command, environment, timeout_s=60, start_timeout_s=HANG_S, ready_wait_s=HANG_S
        )
        await upstream.start()
        try:
            yield Session(upstream=upstream, recorder=recorder)
        finally:
            await upstream.stop()
        assert recorder.faults == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(database, mcp_server_command) -> AsyncIterator[Session]:
    async with recorded(database, mcp_server_command) as running:
        yield running


@pytest.fixture(scope="module")
def client(database):
    with MongoClient[dict[str, Any]](database) as direct:
        yield direct
        for name in DATABASES:
            direct.drop_database(name)


@pytest.fixture
def samples(client):
    """Documents in our databases, the same before every test."""
    for name in DATABASES:
        client.drop_database(name)
        for collection in COLLECTIONS[:4]:
            rows = [{"_id": n, "n": n, "who": n % 3, "boss": n - 1, "name": "ab", "tags": ["x"]} for n in range(6)]
            client[name][collection].insert_many(rows)


# --- tests ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What one test has looked at."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    touches: set[Touch] = field(default_factory=set)
    side_reads: int = 0
    judged: int = 0

    def add(self, watched: Watched) -> None:
        """Count one call."""
        self.accepted += 1
        self.failed += watched.failed
        self.commands.update(command.name for command in watched.asked_for())
        touches = watched.touches()
        self.touches |= touches
        self.judged += len(touches)
        self.side_reads += len(watched.side_reads())

    def summary(self) -> dict[str, int]:
        """Numbers for the report of the run."""
        return {
            "calls": self.accepted,
            "refused by derive": self.refused,
            "failed in the server": self.failed,
            "commands": self.commands.total(),
            "touches": self.judged,
            "distinct writes": sum(touch.kind.writes for touch in self.touches),
            "namespaces": len({touch[:2] for touch in self.touches}),
            "side reads": self.side_reads,
        }


def derived(call: ToolCall) -> Command | None:
    """What ``derive`` says, or None where it refuses: then the call is not sent."""
    try:
        return derive(call).command
    except SidecarError:
        return None


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("tool", TOOLS)
async def test_every_touch_on_the_wire_was_derived_from_the_call(tool, session, record_property):
    tally = Tally()
    holes = []
    for call in calls(tool, SEED):
        command = derived(call)
        if command is None:
            tally.refused += 1
            continue
        watched = await session.watch(call)
        tally.add(watched)
        if missing := uncovered(command.accesses, watched.touches()):
            holes.append((call, sorted(missing)))
        assert watched.failed or not SENDS[tool] or watched.asked_for(), f"nothing was recorded of {call}"
    record_property("soundness", tally.summary())
    assert holes == []
    assert tally.commands.keys() >= SENDS[tool], "not every command that this tool is known to send was seen"
    assert tally.accepted >= LEAST_ACCEPTED * (tally.accepted + tally.refused)
    assert session.recorder.faults == []


def _aggregate(*stages: Any) -> ToolCall:
    return ToolCall(name="aggregate", arguments=on(pipeline=list(stages)))


EVERY_ACCESS_SHOWS: Final[Mapping[str, ToolCall]] = {
    "nested lookup": _aggregate(
        {"$facet": {"f": [{"$lookup": {"from": "people", "pipeline": [{"$unionWith": "items.archive"}], "as": "j"}}]}}
    ),
    "lookup in another database": _aggregate({"$lookup": {"from": {"db": AWAY, "coll": "people"}, **EQUALITY}}),
    "merge into another database": _aggregate({"$merge": {"into": {"db": AWAY, "coll": "people"}}}),
    "out in another database": _aggregate({"$out": {"db": AWAY, "coll": "made"}}),
    "write inside a join": _aggregate({"$unionWith": {"coll": "people", "pipeline": [{"$out": "nested"}]}}),
    "explain": ToolCall(
        name="explain",
        arguments=on(method=[{"name": "aggregate", "arguments": {"pipeline": [{"$unionWith": "people"}]}}]),
    ),
    "explain of a write": ToolCall(
        name="explain",
        arguments=on(method=[{"name": "aggregate", "arguments": {"pipeline": [{"$merge": "people"}]}}]),
    ),
    "rename": ToolCall(name="rename-collection", arguments=on(newName="renamed")),
    "rename that drops": ToolCall(name="rename-collection", arguments=on(newName="people", dropTarget=True)),
    "upsert": ToolCall(name="update-many", arguments=on(filter={"n": 77}, update={"$set": {"n": 1}}, upsert=True)),
    "search index with synonyms": ToolCall(
        name="create-index",
        arguments=on(
            definition=[
                {
                    "type": "search",
                    "mappings": {"dynamic": True},
                    "synonyms": [{"name": "s", "analyzer": "lucene.standard", "source": {"collection": "people"}}],
                }
            ]
        ),
    ),
    "text to a model": _aggregate(
        {"$vectorSearch": {"index": "v", "path": "p", "query": {"text": "x"}, "numCandidates": 5, "limit": 2}}
    ),
    "logs": ToolCall(name="mongodb-logs", arguments={"connectionId": "preconfigured"}),
    "system namespace": ToolCall(name="find", arguments=on("admin", "system.users")),
}


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("call", EVERY_ACCESS_SHOWS.values(), ids=EVERY_ACCESS_SHOWS.keys())
async def test_leaving_out_any_one_access_is_noticed(call, session):
    accesses = derive(call).command.accesses
    touches = (await session.watch(call)).touches()
    assert uncovered(accesses, touches) == set()
    for left_out in accesses:
        rest = [access for access in accesses if access is not left_out]
        place = left_out.namespace
        assert {(touch.database, touch.collection, str(touch.kind)) for touch in uncovered(rest, touches)} == {
            (place.database, place.collection, str(left_out.kind))
        }


@pytest.mark.usefixtures("samples")
async def test_a_changed_call_that_is_still_accepted_touches_what_was_derived_from_the_changed_one(
    session, record_property
):
    """The server and ``derive`` read the same JSON; where they read it differently, this is what finds it."""
    tally = Tally()
    holes = []
    numbered = [numbered for tool in MUTABLE for numbered in enumerate(MUTATIONS * list(calls(tool, SEED)))]
    for index, call in numbered:
        changed = mutated(call, f"{SEED}/{call.name}/{index}")
        command = derived(changed)
        if command is None:
            tally.refused += 1
            continue
        watched = await session.watch(changed)
        tally.add(watched)
        if missing := uncovered(command.accesses, watched.touches()):
            holes.append((changed, sorted(missing)))
    record_property("soundness", tally.summary())
    assert holes == []
    assert tally.accepted >= LEAST_MUTATIONS


@pytest.mark.usefixtures("samples")
async def test_a_deriver_that_believes_the_arguments_alone_is_caught_again_and_again(session):
    caught = 0
    for call in calls("aggregate", SEED + 1):
        if derived(call) is None:
            continue
        database, collection = call.arguments["database"], call.arguments["collection"]
        place = Namespace(database=str(database), collection=str(collection))
        naive = (Access(kind=AccessKind.READ, namespace=place, via="/arguments/collection"),)
        caught += bool(uncovered(naive, (await session.watch(call)).touches()))
    assert caught >= 50


@pytest.mark.usefixtures("samples")
async def test_each_side_read_still_happens_and_is_excused_for_its_own_tools_only(session):
    """``disconnect`` makes the next call dial anew, and a new connection is probed."""
    seen: Counter[str] = Counter()
    for call in (_aggregate({"$match": {}}), ToolCall(name="find", arguments=on())):
        await session.watch(ToolCall(name="disconnect", arguments={"connectionId": "preconfigured"}))
        watched = await session.watch(call)
        seen.update(watched.side_reads())
        assert {touch[:2] for touch in watched.touches()} == {(HOME, "orders")}
        if call.name == "aggregate":
            as_find = Watched(call=ToolCall(name="find", arguments=on()), failed=False, commands=watched.commands)
            assert uncovered(derive(as_find.call).command.accesses, as_find.touches())
    assert seen.keys() == {row.name for row in SIDE_READS}


STREAMS: Final = {
    "collection": ToolCall(name="aggregate", arguments=on(pipeline=[{"$changeStream": {}}])),
    "database": ToolCall(name="aggregate-db", arguments=on(AWAY, None, pipeline=[{"$changeStream": {}}])),
    "deployment": ToolCall(
        name="aggregate-db", arguments=on("admin", None, pipeline=[{"$changeStream": {"allChangesForCluster": True}}])
    ),
    "stream and join": ToolCall(
        name="aggregate-db",
        arguments=on(
            THIRD,
            None,
            pipeline=[{"$changeStream": {}}, {"$lookup": {"from": {"db": AWAY, "coll": "people"}, **EQUALITY}}],
        ),
    ),
}


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("call", STREAMS.values(), ids=STREAMS.keys())
async def test_change_streams_touch_what_was_derived(database, mcp_server_command, call):
    """They never answer, so each is watched until it is on the wire, and given up; a child of its own for each, because
    a driver sends a stream again after it was given up."""
    async with recorded(database, mcp_server_command) as own:

        def streams() -> list[WireCommand]:
            return [c for c in own.recorder.commands if "$changeStream" in repr(c.body.get("pipeline"))]

        task = asyncio.create_task(own.send(call))
        await own.recorder.until(streams)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        touches = {touch for command in streams() for touch in touched(command.body)}
    assert touches
    assert uncovered(derive(call).command.accesses, touches) == set()
