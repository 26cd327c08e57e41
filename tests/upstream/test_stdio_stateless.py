"""A child that speaks MCP 2026-07-28, without a handshake: how it is found out, and what is different with it."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest

from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused, UpstreamTimedOut
from sidecar.model import Permit, ToolCall
from sidecar.upstream.agreeing import LIST_AGE_S, Opening
from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.process import StdioUpstream
from tests.patience import HANG_S
from tests.starting import start_and_stop

TELLING = Path(__file__).with_name("telling_server.py")
FAULTS = Path(__file__).with_name("fault_server.py")
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def sent(lines: object) -> list[dict]:
    assert isinstance(lines, list)
    return [json.loads(line) for line in lines]  # noqa: TID251 - what the double was sent


async def received(upstream, permit, structured) -> list[dict]:
    return sent(structured(await upstream.forward(permit("received")))["lines"])


@pytest.mark.parametrize("code", ["-32601", "-32602", "-32022", "-32600", "-32000", "1"])
async def test_a_child_that_refuses_the_handshake_with_any_error_is_asked_what_it_speaks(
    double, permit, structured, code
):
    upstream = await double(f"--no-handshake={code}", "--stateless")
    messages = await received(upstream, permit, structured)
    assert [message["method"] for message in messages] == [
        "initialize",
        "server/discover",
        "subscriptions/listen",
        "tools/call",
    ]
    for message in messages[1:]:
        assert ENVELOPE.items() <= message["params"]["_meta"].items()
    assert messages[-1]["params"]["name"] == "received"


@pytest.mark.parametrize("code", ["-32601", "-32602", "-32600", "-32000", "-32002", "1"])
async def test_a_child_that_knows_no_discovery_by_whatever_error_gets_a_handshake(double, permit, structured, code):
    upstream = await double(f"--no-discovery={code}", opening=Opening.DISCOVERY)
    messages = await received(upstream, permit, structured)
    assert [message["method"] for message in messages] == [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    assert "_meta" not in messages[-1]["params"], "and nothing of the other era comes after it"


async def test_a_child_that_does_not_answer_what_it_does_not_know_gets_a_handshake(double, permit, structured):
    upstream = await double(opening=Opening.DISCOVERY, start_timeout_s=4.0)
    messages = await received(upstream, permit, structured)
    assert [message["method"] for message in messages] == [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ], "a question that opens nothing is not cancelled either"


async def test_a_child_of_another_revision_without_a_handshake_gets_none():
    options = ["--revisions=2027-01-01", "--no-handshake=-32601"]
    upstream = StdioUpstream(
        "double", [sys.executable, str(FAULTS), *options], {}, timeout_s=HANG_S, opening=Opening.DISCOVERY
    )
    with pytest.raises(UpstreamRefused, match=r"-32022.*another one"):
        await start_and_stop(upstream)


async def test_one_that_names_a_revision_with_a_handshake_gets_that(double, permit, structured):
    upstream = await double("--revisions=2027-01-01,2025-11-25", opening=Opening.DISCOVERY)
    messages = await received(upstream, permit, structured)
    assert [message["method"] for message in messages][:2] == ["server/discover", "initialize"]


async def test_a_child_that_refuses_both_fails_the_start_with_what_it_said_first():
    options = ["--no-handshake=-32001", "--no-discovery=-32601"]
    upstream = StdioUpstream("double", [sys.executable, str(FAULTS), *options], {}, timeout_s=HANG_S)
    with pytest.raises(UpstreamRefused, match="-32001"):
        await start_and_stop(upstream)


async def test_a_child_that_is_to_ask_questions_gets_a_handshake_or_nothing():
    """Without a handshake its questions come another way; unasked it must carry out nothing."""
    options = ["--no-handshake=-32601", "--stateless"]
    upstream = StdioUpstream(
        "double", [sys.executable, str(FAULTS), *options], {}, timeout_s=HANG_S, opening=Opening.ASKING
    )
    with pytest.raises(UpstreamRefused, match="no handshake"):
        await start_and_stop(upstream)


async def test_a_handshake_that_is_given_up_is_not_cancelled(tmp_path):
    """MCP 2025-11-25, cancellation: a client must not cancel initialize."""
    heard = tmp_path / "heard"
    program = f"import sys\nwith open({str(heard)!r}, 'w') as file:\n    file.write(sys.stdin.read())"
    upstream = StdioUpstream("double", [sys.executable, "-c", program], {}, timeout_s=HANG_S, start_timeout_s=0.5)
    with pytest.raises(UpstreamTimedOut):
        await start_and_stop(upstream)
    assert [message["method"] for message in sent(heard.read_text().splitlines())] == ["initialize"]


@pytest.fixture
async def stateless(double):
    return await double("--no-handshake=-32601", "--stateless")


@pytest.mark.parametrize("kind", ["input_required", "task", "Complete", ""])
async def test_a_result_that_is_not_complete_is_a_violation_of_that_call_only(stateless, permit, structured, kind):
    line = f'{{"jsonrpc":"2.0","id":ID,"result":{{"content":[],"resultType":"{kind}"}}}}'
    with pytest.raises(UpstreamProtocolViolation, match="not complete"):
        await stateless.forward(permit("raw", line=line))
    whole = line.replace(f'"{kind}"', '"complete"')
    assert not (await stateless.forward(permit("raw", line=whole))).failed
    assert structured(await stateless.forward(permit("echo", a=1)))["arguments"] == {"a": 1}


@pytest.mark.parametrize("method", ["ping", "elicitation/create", "sampling/createMessage", "roots/list", "x"])
async def test_what_it_asks_is_not_answered(stateless, permit, structured, method):
    """MCP 2026-07-28, stdio: a server sends no requests, a client no responses."""
    asked = json.dumps({"jsonrpc": "2.0", "id": "q", "method": method, "params": {}})
    await stateless.forward(permit("raw-then-answer", line=asked))
    assert all("method" in message for message in await received(stateless, permit, structured))


async def test_a_change_of_tools_counts_when_it_names_the_request_to_listen(stateless, permit):
    changes: list[int] = []
    stateless.on_tools_changed(lambda: changes.append(1))
    assert len(await stateless.tools()) == 1
    for wrong in ({"subscription": 10**6}, {"subscription": "3"}, {"subscription": -1}, {"named": False}):
        await stateless.forward(permit("grow", **wrong))
        assert len(await stateless.tools()) == 1, wrong
    await stateless.forward(permit("grow"))
    assert len(await stateless.tools()) == 6
    assert len(changes) == 1


async def test_a_list_of_a_child_that_tells_no_changes_any_more_gets_old(stateless, permit, structured, monkeypatch):
    await stateless.tools()
    await stateless.forward(permit("end-listening"))
    await stateless.tools()
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(stateless._tools, "_fetched_at", now - LIST_AGE_S - 1)
    await stateless.tools()
    messages = await received(stateless, permit, structured)
    assert [message["method"] for message in messages].count("tools/list") == 2
    assert stateless.healthy


async def test_a_child_that_hangs_is_asked_what_it_speaks_and_replaced(double, permit, until):
    upstream = await double("--no-handshake=-32601", "--stateless", timeout_s=0.5)
    first = upstream.pid
    with pytest.raises(UpstreamTimedOut):
        await upstream.forward(permit("deaf"))
    await until(lambda: upstream.healthy and upstream.pid != first)


async def test_a_child_that_answers_one_call_late_is_not_replaced(double, permit, until):
    upstream = await double("--no-handshake=-32601", "--stateless", timeout_s=1.0)
    first = upstream.pid
    call = asyncio.create_task(upstream.forward(permit("hold")))
    await until(lambda: len(upstream._child._pending) == 2)
    upstream._timeout_s = HANG_S  # for the question whether it lives, which a busy machine answers late
    with pytest.raises(UpstreamTimedOut):
        await call
    await until(lambda: upstream.healthy)
    assert upstream.pid == first


async def test_a_late_call_is_cancelled_by_its_id(stateless, permit, structured, until):
    call = asyncio.create_task(stateless.forward(permit("hold")))
    await until(lambda: len(stateless._child._pending) == 2)
    call.cancel()
    await asyncio.wait({call})
    messages = await received(stateless, permit, structured)
    [held] = [message["id"] for message in messages if message.get("params", {}).get("name") == "hold"]
    assert [message["params"] for message in messages if message["method"] == "notifications/cancelled"] == [
        {"requestId": held}
    ]


# --- real servers -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def telling():
    upstream = StdioUpstream("telling", [sys.executable, str(TELLING)], {}, timeout_s=HANG_S, opening=Opening.DISCOVERY)
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.mark.real
async def test_the_official_package_is_called_told_of_and_heard_without_a_handshake(telling, until, caplog):
    caplog.set_level(logging.DEBUG)
    child = telling._child
    assert child is not None
    assert child.stateless
    told: list[dict] = []

    def call(tool: str, **arguments: object) -> Permit:
        return Permit(
            server="telling",
            call=ToolCall(name=tool, arguments=arguments),  # type: ignore[arg-type]
            request_id="r",
            audit_id="a",
            tell=lambda _, params: told.append(params),
        )

    assert b"counted to 2" in (await telling.forward(call("count_up", steps=2))).result
    assert [report["progress"] for report in told] == [1, 2]
    before = await telling.tools()
    await telling.forward(call("grow"))
    await until(lambda: not telling._tools.known)
    assert len(await telling.tools()) == len(before) + 1
    waiting = asyncio.create_task(telling.forward(call("wait_for_ever")))
    await until(lambda: len(told) == 3)
    waiting.cancel()
    await asyncio.wait({waiting})
    await until(lambda: "was cancelled" in caplog.text)
    assert child is telling._child
    assert b"counted to 1" in (await telling.forward(call("count_up", steps=1))).result


@pytest.mark.real
async def test_the_real_server_serves_without_a_handshake_and_has_the_tools_it_has_with_one(
    database, mcp_server_command, permit, database_name, until
):
    environment = mongodb_environment(database, read_only=False)
    with_, without = (
        StdioUpstream(
            "double", mcp_server_command, environment, timeout_s=HANG_S, start_timeout_s=HANG_S, opening=opening
        )
        for opening in (Opening.HANDSHAKE, Opening.DISCOVERY)
    )
    try:
        await asyncio.gather(with_.start(), without.start())
        children = with_._child, without._child
        assert [child is not None and child.stateless for child in children] == [False, True]
        assert json.dumps(await with_.tools()) == json.dumps(await without.tools())
        target = {"connectionId": "preconfigured", "database": database_name, "collection": "orders"}
        inserted = await without.forward(permit("insert-many", **target, documents=[{"n": n} for n in range(3)]))
        assert (inserted.failed, inserted.documents) == (False, 3)
        assert (await with_.forward(permit("count", **target, query={}))).documents == 3
    finally:
        await asyncio.gather(with_.stop(), without.stop())
