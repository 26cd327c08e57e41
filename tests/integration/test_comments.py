"""From what the database saw back to the record: the trace id in a ``$comment``, through the real server."""

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from pymongo.uri_parser import parse_uri

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests.integration.deployment import deployed
from tests.soundness.wire import Recorder

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
CALLS = (
    ("find", {**ORDERS, "filter": {"status": "open", "$comment": "mcp-sidecar trace 0"}, "limit": 1}),
    ("count", {**ORDERS, "query": {}}),
    ("aggregate", {**ORDERS, "pipeline": [{"$group": {"_id": "$status"}}]}),
)


def comment(body) -> str:
    query = body.get("filter") if "filter" in body else body["pipeline"][0]["$match"]
    return str(query["$comment"])


async def test_what_the_database_saw_leads_back_to_the_record_of_the_call(tmp_path, database):
    parsed = parse_uri(database)
    host, port = parsed["nodelist"][0]
    user, at, _ = urlsplit(database).netloc.rpartition("@")
    await demo_database.seed(database)
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(Recorder(host, port))
        options = "directConnection=true&compressors=none" + ("&authSource=admin" if at else "")
        uri = f"mongodb://{user}{at}{recorder.address}/?{options}"
        starting = deployed(tmp_path, uri, environment={"SIDECAR_AUDIT__COMMENTS": "true"})
        running = await asyncio.to_thread(starting.__enter__)
        stack.push_async_callback(asyncio.to_thread, starting.__exit__, None, None, None)
        async with running.client(ANALYST) as client:
            for name, arguments in CALLS:
                result = await client.call_tool(name, arguments)
                assert not result.is_error, result
        seen = [
            command.body
            for command in recorder.commands
            if command.collection == "orders"
            and command.name in {"find", "aggregate"}
            and "mcp-sidecar" in str(command.body)
        ]
        assert recorder.faults == []
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    records = [json.loads(line) for line in lines]  # noqa: TID251 - our own records
    traces = {record["trace_id"]: record["tool"] for record in records if record["event"] == "intent"}
    found = [traces[comment(body).removeprefix("mcp-sidecar trace ")] for body in seen]
    assert [*dict.fromkeys(found)] == ["find", "count", "aggregate"]
