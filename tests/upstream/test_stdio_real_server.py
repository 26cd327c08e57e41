"""The real MongoDB MCP server as our child, on a real database."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from sidecar.commands.catalog import CATALOG
from sidecar.commands.tool_groups import ToolGroup, groups_off
from sidecar.errors import UpstreamRefused, UpstreamUnreachable
from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.renewal import Renewal
from tests.patience import HANG_S

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

CONNECTION = "preconfigured"


def command_lines(pid: int | None) -> str:
    """What anybody on the machine can read of a process and of those that it started."""
    lines = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            lines += process.cmdline()
    return " ".join(lines)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(database, mcp_server_command) -> AsyncIterator[StdioUpstream]:
    environment = mongodb_environment(database, read_only=False)
    upstream = StdioUpstream(
        "double", mcp_server_command, environment, timeout_s=60, start_timeout_s=HANG_S, ready_wait_s=HANG_S
    )
    await upstream.start()
    yield upstream
    await upstream.stop()


async def test_find_count_and_insert_do_what_they_say(server, permit, structured, database, database_name):
    target = {"connectionId": CONNECTION, "database": database_name, "collection": "orders"}
    inserted = await server.forward(permit("insert-many", **target, documents=[{"n": n} for n in range(3)]))
    assert (inserted.failed, inserted.documents) == (False, 3)
    found = await server.forward(permit("find", **target, filter={"n": {"$gte": 1}}, projection={"_id": 0}))
    assert found.documents == 2
    assert structured(found)["documents"] == [{"n": 1}, {"n": 2}]
    counted = await server.forward(permit("count", **target, query={}))
    assert (counted.documents, structured(counted)) == (3, {"count": 3})
    updated = await server.forward(permit("update-many", **target, filter={"n": 0}, update={"$set": {"n": 9}}))
    assert updated.documents == 1
    deleted = await server.forward(permit("delete-many", **target, filter={"n": 9}))
    assert deleted.documents == 1
    async with AsyncMongoClient[dict[str, int]](database) as client:
        assert sorted([row["n"] async for row in client[database_name]["orders"].find()]) == [1, 2]


async def test_fifty_calls_of_one_shape_each_get_their_own_answer(server, permit, structured, database_name):
    target = {"connectionId": CONNECTION, "database": database_name, "collection": "own"}
    await server.forward(permit("insert-many", **target, documents=[{"n": n} for n in range(50)]))
    calls = [server.forward(permit("find", **target, filter={"n": n}, projection={"_id": 0})) for n in range(50)]
    answers = await asyncio.gather(*calls)
    assert [structured(answer)["documents"] for answer in answers] == [[{"n": n}] for n in range(50)]


async def test_a_tool_error_is_a_result_and_an_unknown_or_disabled_tool_a_refusal(server, permit):
    target = {"connectionId": CONNECTION, "database": "a.b", "collection": "c"}
    assert (await server.forward(permit("count", **target))).failed
    for tool in ("no-such-tool", "connect", "export"):
        with pytest.raises(UpstreamRefused):
            await server.forward(permit(tool, connectionString="mongodb://127.0.0.1:1/"))


async def test_the_tools_are_those_that_are_not_disabled(server):
    names = {tool["name"] for tool in await server.tools()}
    assert {"find", "count", "aggregate", "insert-many", "drop-collection"} <= names
    assert not {"connect", "disconnect", "export", "search-knowledge"} & names


async def test_killing_the_server_fails_calls_in_flight_and_the_next_ones_work(server, permit, database_name):
    target = {"connectionId": CONNECTION, "database": database_name, "collection": "c"}
    pid = server.pid
    # A stopped process keeps its calls in flight for certain until it is killed.
    os.kill(pid, signal.SIGSTOP)
    calls = [asyncio.create_task(server.forward(permit("count", **target))) for _ in range(20)]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UpstreamUnreachable}
    assert not (await server.forward(permit("count", **target))).failed
    assert server.pid != pid


async def test_a_read_only_server_has_no_tool_that_writes(database, mcp_server_command):
    environment = mongodb_environment(database, read_only=True, max_time_ms=5000)
    upstream = StdioUpstream("ro", mcp_server_command, environment, timeout_s=60, start_timeout_s=HANG_S)
    await upstream.start()
    try:
        names = {str(tool["name"]) for tool in await upstream.tools()}
    finally:
        await upstream.stop()
    assert "find" in names
    assert not [name for name in names if name.startswith(("insert", "update", "delete", "drop", "create", "rename"))]


async def test_the_secret_is_in_no_command_line_and_in_no_log(mcp_server_command, permit, caplog, free_port):
    caplog.set_level(logging.DEBUG)
    uri = f"mongodb://alice:p%40ssCANARY@127.0.0.1:{free_port}/?serverSelectionTimeoutMS=300"
    upstream = StdioUpstream(
        "double", mcp_server_command, mongodb_environment(uri, read_only=True), timeout_s=60, start_timeout_s=HANG_S
    )
    await upstream.start()
    try:
        lines = command_lines(upstream.pid)
        target = {"connectionId": CONNECTION, "database": "d", "collection": "c"}
        answer = await upstream.forward(permit("count", **target))
    finally:
        await upstream.stop()
    assert answer.failed
    assert any(record.name == "sidecar.upstream.double" for record in caplog.records)
    assert "CANARY" not in caplog.text
    assert "mongodb-mcp-server" in lines
    assert "CANARY" not in lines
    assert b"CANARY" not in answer.result


async def test_stopping_is_graceful(database, mcp_server_command):
    upstream = StdioUpstream(
        "double",
        mcp_server_command,
        mongodb_environment(database, read_only=True),
        timeout_s=60,
        start_timeout_s=HANG_S,
        stop_grace_s=30,
    )
    await upstream.start()
    process = psutil.Process(upstream.pid)
    async with asyncio.timeout(HANG_S):
        await upstream.stop()
    assert not process.is_running()


@pytest.mark.parametrize("on", [(), *[(group,) for group in ToolGroup], tuple(ToolGroup)], ids=str)
async def test_a_child_has_exactly_the_tools_of_the_groups_that_are_on(database, mcp_server_command, on):
    """Atlas Local is left out where no Docker answers."""
    atlas = ("mdb_sa_id_1", "mdb_sa_sk_s3cret") if ToolGroup.ATLAS in on else None
    environment = mongodb_environment(database, read_only=False, tool_groups=on, atlas=atlas)
    server = StdioUpstream(
        "double", mcp_server_command, environment, timeout_s=60, start_timeout_s=HANG_S, ready_wait_s=HANG_S
    )
    await server.start()
    try:
        live = {str(tool["name"]) for tool in await server.tools()}
        pid = server.pid
        assert "mdb_sa" not in command_lines(pid)
    finally:
        await server.stop()
    there = {name for name in CATALOG if not groups_off(name, on)}
    assert live - {name for name in live if name.startswith("atlas-local")} == {
        name for name in there if not name.startswith("atlas-local")
    }
    assert live <= there


async def test_a_new_connection_string_takes_over_under_load_and_no_call_fails(
    database, mcp_server_command, permit, database_name, tmp_path, until
):
    secret = tmp_path / "uri"
    secret.write_text(database)

    def environment() -> dict[str, str]:
        return mongodb_environment(secret.read_text(), read_only=False)

    renewal = Renewal(environment=environment, files=[secret], look_s=0.1)
    upstream = StdioUpstream("double", mcp_server_command, environment(), timeout_s=HANG_S, renewal=renewal)
    await upstream.start()
    answered, going = [], True

    async def load() -> None:
        while going:
            target = {"connectionId": "preconfigured", "database": database_name, "collection": "c"}
            answered.append(await upstream.forward(permit("count", **target)))

    try:
        workers = [asyncio.create_task(load()) for _ in range(4)]
        old = upstream.pid or 0
        await until(lambda: len(answered) > 20, HANG_S)
        beside = tmp_path / "beside"
        separator = "&" if "?" in database else "?"
        beside.write_text(f"{database}{separator}appName=renewed")
        beside.replace(secret)
        await until(lambda: upstream.pid not in {old, None}, HANG_S)
        before = len(answered)
        await until(lambda: len(answered) > before + 20, HANG_S)
        going = False
        await asyncio.gather(*workers)
        assert not [answer for answer in answered if answer.failed]
        await until(lambda: not psutil.pid_exists(old), HANG_S)
    finally:
        going = False
        await upstream.stop()
