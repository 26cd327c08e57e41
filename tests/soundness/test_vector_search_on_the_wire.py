"""What the real MongoDB MCP server hands on of a ``$vectorSearch``: all of it where it passes here.

Its own schema of the stage takes options away that it does not know, in some places and not in others. A filter that
vanishes on the way would have been part of what was authorised.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import bson
import pytest
import pytest_asyncio
from bson import json_util

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable
from sidecar.model import ToolCall
from tests.soundness.calls import on
from tests.soundness.test_wire import Session, recorded

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

BINARY: Final = {"$binary": {"base64": "JwAAAIA/AAAAQA==", "subType": "09"}}
OPTIONS: Final[dict[str, Any]] = {
    "searchNodePreference": {"key": "a"},
    "parentFilter": {"ssn": {"$eq": {"$numberLong": "1"}}},
    "returnStoredSource": True,
    "explainOptions": {"traceDocumentIds": [{"$oid": "0" * 24}]},
    "nestedOptions": {"scoreMode": "max"},
    "filter": {"ssn": {"$gt": {"$date": "2026-01-01T00:00:00Z"}}},
    "exact": True,
}


def stage(vector: Any, **more: Any) -> dict[str, Any]:
    return {"$vectorSearch": {"index": "i", "path": "e", **vector, "limit": 5, **more}}


VECTORS: Final[dict[str, dict[str, Any]]] = {
    "binary": {"queryVector": BINARY},
    "numbers": {"queryVector": [0.5, 0.25], "numCandidates": 10},
    "text": {"query": {"text": "x"}, "numCandidates": 10},
}


def pipelines(vector: str, option: str) -> Iterator[list[Any]]:
    inner = stage(VECTORS[vector], **{option: OPTIONS[option]})
    yield [inner]
    yield [{"$rankFusion": {"input": {"pipelines": {"v": [inner]}}}}]
    yield [{"$unionWith": {"coll": "people", "pipeline": [inner]}}]
    yield [{"$lookup": {"from": "people", "as": "j", "pipeline": [inner]}}]


def called(tool: str, pipeline: list[Any]) -> ToolCall:
    if tool == "aggregate":
        return ToolCall(name=tool, arguments=on(pipeline=pipeline))
    wrapped = [{"name": "aggregate", "arguments": {"pipeline": pipeline}}]
    if tool == "explain":
        return ToolCall(name=tool, arguments=on(method=wrapped))
    return ToolCall(name=tool, arguments=on(exportTarget=wrapped, exportTitle="t", jsonExportFormat="relaxed"))


ADDED: Final = ("exact", bson.encode({"v": False}))
"""What the server writes out where it reads the stage by its schema; MongoDB's own default."""


def sent(value: Any, found: list[dict[str, bytes]]) -> list[dict[str, bytes]]:
    """The options of every ``$vectorSearch`` in a command, as BSON; their order means nothing."""
    if isinstance(value, list):
        for item in value:
            sent(item, found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "$vectorSearch":
                found.append({name: bson.encode({"v": part}) for name, part in item.items()})
            sent(item, found)
    return found


def refusal(call: ToolCall) -> str:
    try:
        derive(call)
    except CommandNotDerivable as refused:
        return refused.reason
    return ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(database, mcp_server_command) -> AsyncIterator[Session]:
    async with recorded(database, mcp_server_command) as running:
        yield running


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("tool", ["aggregate", "explain", "export"])
async def test_what_passes_reaches_the_database_whole_and_what_would_not_is_refused(session, tool, vector) -> None:
    passed, dropped = 0, 0
    for option in OPTIONS:
        for pipeline in pipelines(vector, option):
            call = called(tool, pipeline)
            watched = await session.watch(call)
            [meant] = sent(json_util.loads(json_util.dumps(pipeline)), [])
            kept = [one for command in watched.asked_for() for one in sent(command.body, [])]
            whole = bool(kept) and all(one == meant or one == dict([ADDED]) | meant for one in kept)
            reason = refusal(call)
            assert reason in ("", "option_dropped")
            assert whole == (reason == ""), f"{option}: {reason or 'passes'}, and what was sent is {kept} of {pipeline}"
            passed += whole
            dropped += not whole
    assert passed
    assert dropped or vector == "binary"
