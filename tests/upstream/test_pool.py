"""Several children of one server: who gets a call, and what the end or the change of one child does to the others."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from sidecar.errors import ConfigurationError, UpstreamUnreachable
from sidecar.model import Permit, ToolCall
from sidecar.upstream.pool import StdioPool
from sidecar.upstream.process import StdioUpstream
from tests.patience import HANG_S
from tests.starting import start_and_stop

FAULT_SERVER = Path(__file__).with_name("fault_server.py")


def member(*options: str, program: Path = FAULT_SERVER, **limits: Any) -> StdioUpstream:
    command = [sys.executable, str(program), *options]
    return StdioUpstream("double", command, {}, **{"timeout_s": 10.0, "stop_grace_s": 1.0, **limits})


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., object]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(*members: StdioUpstream, **more: Any) -> StdioPool:
            one = StdioPool(members or [member() for _ in range(3)], **more)
            stack.push_async_callback(one.stop)
            await one.start()
            return one

        yield start


async def pids_of(one: StdioPool, permit, structured, calls: int) -> list[int]:
    answers = await asyncio.gather(*(one.forward(permit("slow", seconds=0.2)) for _ in range(calls)))
    return [structured(answer)["pid"] for answer in answers]


async def test_calls_at_a_time_are_shared_by_all_children(pool, permit, structured):
    one = await pool()
    served = await pids_of(one, permit, structured, 9)
    assert set(served) == set(one.pids)
    assert sorted(map(served.count, set(served))) == [3, 3, 3]


def callers_call(permit: Callable[..., Permit], caller: str) -> Permit:
    return replace(permit("slow", seconds=0.05), caller=("https://idp.example", caller, "agent", ""))


async def test_what_a_child_remembers_is_asked_of_one_child_for_each_caller(pool, permit, structured):
    one = await pool(remembered=lambda _: True)
    homes: dict[str, set[int]] = {}
    for _ in range(3):
        callers = [f"user {number}" for number in range(24)]
        answers = await asyncio.gather(*(one.forward(callers_call(permit, caller)) for caller in callers))
        for caller, answer in zip(callers, answers, strict=True):
            homes.setdefault(caller, set()).add(structured(answer)["pid"])
    assert {len(found) for found in homes.values()} == {1}
    assert set.union(*homes.values()) == set(one.pids), "and the callers are shared among them"


async def test_only_what_is_remembered_keeps_to_one_child(pool, permit, structured):
    one = await pool(remembered=lambda call: call.call.name == "echo")
    calls = [callers_call(permit, "user") for _ in range(9)]
    served = [structured(answer)["pid"] for answer in await asyncio.gather(*map(one.forward, calls))]
    assert sorted(map(served.count, set(served))) == [3, 3, 3]


async def test_where_the_child_of_a_caller_is_away_another_one_serves(pool, permit, structured, until):
    one = await pool(remembered=lambda _: True)
    first = structured(await one.forward(callers_call(permit, "user")))["pid"]
    psutil.Process(first).kill()
    await until(lambda: first not in one.pids)
    second = structured(await one.forward(callers_call(permit, "user")))["pid"]
    assert second != first


async def test_what_another_child_made_while_the_callers_own_was_away_is_found_there(
    pool, permit, structured, until, monkeypatch
):
    """And what is not known to be of any child is looked for at the caller's own."""
    gone, back = asyncio.Event(), asyncio.Event()
    really = StdioUpstream._spawn

    async def spawned(child: StdioUpstream, *given: Any) -> Any:
        if gone.is_set():
            await back.wait()
        return await really(child, *given)

    monkeypatch.setattr(StdioUpstream, "_spawn", spawned)
    one = await pool(remembered=lambda _: True)
    own = structured(await one.forward(callers_call(permit, "user")))["pid"]
    gone.set()
    psutil.Process(own).kill()
    await until(lambda: own not in one.pids)
    made = structured(
        await one.forward(replace(callers_call(permit, "user"), call=ToolCall(name="link", arguments={})))
    )
    back.set()
    await until(lambda: len(one.pids) == 3 and all(child.healthy for child in one._members))

    async def read_at(uri: str) -> int:
        call = ToolCall(name="export", arguments={"uri": uri})
        answer = await one.forward(replace(callers_call(permit, "user"), call=call, method="resources/read"))
        found: int = msgspec.json.decode(answer.result)["pid"]
        return found

    uri = str(made["uri"])
    maker = int(uri.removeprefix("exported-data://").removesuffix(".json"), 16)
    home = structured(await one.forward(callers_call(permit, "user")))["pid"]
    assert home != maker
    assert await read_at(uri) == maker
    assert await read_at("exported-data://6a0000000000000000000009.json") == home
    one.discard(uri)
    assert await read_at(uri) == home, "nothing is kept of what nobody can read"


async def test_a_child_that_ends_takes_only_its_own_calls_and_serves_again(pool, permit, structured, until):
    one = await pool()
    await one.tools()
    held = [asyncio.create_task(one.forward(permit("slow", seconds=1.0))) for _ in range(3)]
    await asyncio.sleep(0.2)
    victim = one.pids[0]
    psutil.Process(victim).kill()
    results = await asyncio.gather(*held, return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, BaseException)] == [UpstreamUnreachable]
    assert one.healthy
    assert len(set(await pids_of(one, permit, structured, 4))) >= 2, "the others go on at once"
    await until(lambda: len(one.pids) == 3 and victim not in one.pids)
    await until(lambda: all(child.healthy for child in one._members))
    assert set(await pids_of(one, permit, structured, 9)) == set(one.pids)


async def test_without_any_child_calls_fail_and_come_back(pool, permit, until):
    one = await pool(member(ready_wait_s=0.1), member(ready_wait_s=0.1))
    for pid in one.pids:
        psutil.Process(pid).kill()
    await until(lambda: not one.healthy)
    with pytest.raises(UpstreamUnreachable):
        await one.forward(permit("echo"))
    await until(lambda: one.healthy)
    await one.forward(permit("echo"))


async def test_a_child_with_other_tools_than_most_gets_no_call(pool, permit, structured, tmp_path):
    newer = tmp_path / "newer.py"
    newer.write_text(FAULT_SERVER.read_text().replace('"inputSchema": {"type": "object"}', '"inputSchema": {"x": 1}'))
    older = tmp_path / "older.py"
    older.write_text(
        FAULT_SERVER.read_text().replace('"inputSchema": {"type": "object"}', '"inputSchema": {"x": True}')
    )
    other = member(program=newer)
    one = await pool(other, member(program=older), member(program=older))
    [tool] = await one.tools()
    assert tool["inputSchema"] == {"x": True}
    assert other.pid not in await pids_of(one, permit, structured, 9)


async def test_the_same_list_is_returned_until_one_changes(pool, permit):
    one = await pool()
    changed: list[str] = []
    one.on_tools_changed(lambda: changed.append("changed"))
    first = await one.tools()
    assert await one.tools() is first
    await one.forward(permit("change-tools"))
    async with asyncio.timeout(HANG_S):
        while not changed:  # noqa: ASYNC110 - a callback of another process's message
            await asyncio.sleep(0.01)
    assert len(await one.tools()) == 1, "two of three have what they had"


async def test_a_child_that_does_not_start_fails_the_start_and_leaves_nothing():
    good, bad = member(), member("--exit")
    with pytest.raises(UpstreamUnreachable):
        await start_and_stop(StdioPool([good, bad]))
    assert good.pid is None
    missing = StdioUpstream("double", ["/nowhere/server"], {}, timeout_s=1.0)
    with pytest.raises(ConfigurationError):
        await start_and_stop(StdioPool([missing, member()]))
    assert not missing.healthy


async def test_stopping_leaves_nothing(pool, until):
    one = await pool()
    pids = one.pids
    await one.stop()
    assert not one.healthy
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
