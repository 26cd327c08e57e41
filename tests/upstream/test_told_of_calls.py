"""What a server says of a call before its answer reaches that call, and no other one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import JsonObject, Permit, ToolCall
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.relayed import MAX_RELAYED_BYTES, of_call, read_log, read_progress, read_question
from tests import parts
from tests.patience import HANG_S

SERVER = Path(__file__).with_name("telling_server.py")
Told = list[tuple[str, JsonObject]]


def call(told: Told | None, tool: str, **arguments: object) -> Permit:
    heard = None if told is None else lambda method, params: told.append((method, params))
    return Permit(
        server="telling",
        call=ToolCall(name=tool, arguments=arguments),  # type: ignore[arg-type]
        request_id="r",
        audit_id="a",
        tell=heard,
    )


def progress(told: Told) -> list[object]:
    return [params["progress"] for method, params in told if method == "notifications/progress"]


@pytest_asyncio.fixture(params=["stdio", "http"])
async def telling(request) -> AsyncIterator[StdioUpstream | HttpUpstream]:
    if request.param == "stdio":
        upstream: StdioUpstream | HttpUpstream = StdioUpstream(
            "telling", [sys.executable, str(SERVER)], {}, timeout_s=30.0
        )
        await upstream.start()
        yield upstream
        await upstream.stop()
        return
    port = parts.free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), str(port), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(parts.START_DEADLINE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        upstream = HttpUpstream("telling", f"http://127.0.0.1:{port}/mcp", {}, timeout_s=30.0)
        await upstream.start()
        yield upstream
        await upstream.stop()
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.real
async def test_each_of_many_calls_hears_its_own_progress_and_no_other_ones(telling):
    heard: list[Told] = [[] for _ in range(8)]
    await asyncio.gather(*(telling.forward(call(heard[n], "count_up", steps=n)) for n in range(8)))
    assert [progress(told) for told in heard] == [list(range(1, n + 1)) for n in range(8)]
    assert heard[2][0] == ("notifications/progress", {"progress": 1.0, "total": 2.0, "message": "step 1 of 2"})


@pytest.mark.real
async def test_a_call_that_nobody_listens_to_is_not_asked_to_report(telling):
    listened: Told = []
    silent, _ = await asyncio.gather(
        telling.forward(call(None, "count_up", steps=3)), telling.forward(call(listened, "count_up", steps=1))
    )
    assert b"counted to 3" in silent.result
    assert progress(listened) == [1]


@pytest.mark.real
async def test_log_messages_reach_the_call_on_whose_stream_they_came_and_nobody_where_no_stream_says_whose(telling):
    told: Told = []
    other: Told = []
    await asyncio.gather(
        telling.forward(call(told, "speak", words=["a", "b"])), telling.forward(call(other, "count_up", steps=1))
    )
    said = [params["data"] for method, params in told if method == "notifications/message"]
    assert said == (["a", "b"] if isinstance(telling, HttpUpstream) else [])
    assert all(method == "notifications/progress" for method, _ in other)


async def test_progress_of_an_unknown_finished_or_foreign_token_is_dropped(double):
    upstream = await double()
    told: Told = []

    def report(token: object, **more: object) -> str:
        params = f'{{"progressToken":{token},"progress":1}}'
        return f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}'

    ours = Permit(
        server="double",
        call=ToolCall(name="raw", arguments={"line": report("ID")}),
        request_id="r",
        audit_id="a",
        tell=lambda method, params: told.append((method, params)),
    )
    waiting = asyncio.create_task(upstream.forward(ours))
    async with asyncio.timeout(HANG_S):
        while not told:  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.01)
    assert told == [("notifications/progress", {"progress": 1})]
    child = upstream._child
    for line in (
        report('"ID"'),  # a string is another token than the number
        report("ID0"),
        report("-1"),
        report("true"),
        report("ID").replace('"id"', '"x"').replace('"progress":1', '"progress":"1"'),
        report("ID").replace("notifications/progress", "notifications/message"),
        report("ID").replace("notifications/progress", "notifications/resources/list_changed"),
    ):
        before = child.strays
        quiet = Permit(
            server="double",
            call=ToolCall(name="raw-then-answer", arguments={"line": line}),
            request_id="r",
            audit_id="a",
        )
        await upstream.forward(quiet)
        assert child.strays == before + 1, line
    assert len(told) == 1
    waiting.cancel()
    await asyncio.wait({waiting})
    assert not child._telling
    assert not child._pending


@given(st.binary(max_size=200) | st.builds(str.encode, st.text()))
def test_no_bytes_are_taken_for_progress_or_a_log_message_that_are_none(params):
    report = read_progress(params)
    assert report is None or isinstance(report[1]["progress"], int | float)
    entry = read_log(params)
    assert entry is None or "data" in entry
    assert of_call("notifications/cancelled", params, 1) is None


def test_a_report_has_finite_numbers_and_a_bounded_size():
    fine = b'{"progressToken":7,"progress":0.5,"total":1}'
    assert read_progress(fine) == (7, {"progress": 0.5, "total": 1})
    assert of_call("notifications/progress", fine, 7) == {"progress": 0.5, "total": 1}
    assert of_call("notifications/progress", fine, 8) is None
    assert read_progress(fine.replace(b"0.5", b"1e999")) is None
    assert read_progress(fine.replace(b"0.5", b"NaN")) is None
    assert read_progress(fine.replace(b"0.5", b"9" * 400)) is None, "no float is so large"
    assert read_progress(fine.replace(b"0.5", b"9" * 30)) is not None
    long = b'{"progressToken":7,"progress":1,"message":"%b"}'
    assert read_progress(long % (b"x" * 100)) is not None
    assert read_progress(long % (b"x" * MAX_RELAYED_BYTES)) is None
    spoken = b'{"level":"info","data":{"n":[1]},"logger":"l"}'
    assert read_log(spoken) == {"level": "info", "data": {"n": [1]}, "logger": "l"}
    assert read_log(spoken.replace(b"info", b"loud")) is None
    assert read_log(b'{"level":"info","data":"%b"}' % (b"x" * MAX_RELAYED_BYTES)) is None


@given(st.binary(max_size=100))
def test_no_bytes_are_taken_for_a_question_that_are_none(params):
    asked = read_question(params)
    assert asked is None or set(asked) == {"message", "requestedSchema"}
