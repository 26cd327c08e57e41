"""The child misbehaves; whatever it does, every call ends, with its own answer or with an error of the taxonomy."""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from sidecar.errors import (
    ConfigurationError,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from sidecar.upstream.pool import StdioPool
from sidecar.upstream.process import StdioUpstream
from tests.patience import HANG_S
from tests.starting import start_and_stop

FAULT_SERVER = Path(__file__).with_name("fault_server.py")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def mode(path: str) -> int | None:
    """The permissions of a directory; None where there is none."""
    return Path(path).stat().st_mode & 0o777 if Path(path).is_dir() else None


async def lines_seen_by(upstream, permit, structured) -> list[dict]:
    seen = structured(await upstream.forward(permit("received")))["lines"]
    return [msgspec.json.decode(line) for line in seen]


async def test_exactly_the_permitted_call_is_sent_and_nothing_beside_it(double, permit, structured):
    upstream = await double()
    await upstream.forward(permit("echo", x=1.5, name="ü\n\u2028", nested={"$match": {"a": [True, None]}}))
    assert (await lines_seen_by(upstream, permit, structured))[2] == {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"x": 1.5, "name": "ü\n\u2028", "nested": {"$match": {"a": [True, None]}}},
        },
    }


async def test_the_trace_context_travels_in_meta_when_there_is_one(double, permit, structured):
    upstream = await double()
    await upstream.forward(permit("echo", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    params = (await lines_seen_by(upstream, permit, structured))[2]["params"]
    assert params["_meta"] == {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


async def test_the_handshake_declares_no_capability(double, permit, structured):
    upstream = await double()
    first, second, _ = await lines_seen_by(upstream, permit, structured)
    assert first["method"] == "initialize"
    assert first["params"]["protocolVersion"] == "2025-11-25"
    assert first["params"]["capabilities"] == {}
    assert second == {"jsonrpc": "2.0", "method": "notifications/initialized"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", 1j], ids=repr)
async def test_a_value_without_json_form_is_refused_and_nothing_is_sent(double, permit, structured, value):
    upstream = await double()
    with pytest.raises(UpstreamRefused):
        await upstream.forward(permit("echo", x=value))
    assert [line["method"] for line in await lines_seen_by(upstream, permit, structured)] == [
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]


async def test_a_permit_for_another_server_is_refused(double, permit, structured):
    upstream = await double()
    with pytest.raises(UpstreamRefused):
        await upstream.forward(permit("echo", server="other"))
    assert len(await lines_seen_by(upstream, permit, structured)) == 3


async def test_answers_out_of_order_reach_their_own_callers(double, permit, structured):
    upstream = await double()
    held = [asyncio.create_task(upstream.forward(permit("hold"))) for _ in range(20)]
    while len(await lines_seen_by(upstream, permit, structured)) < 22:
        pass
    await upstream.forward(permit("release"))
    numbers = [structured(result)["held"] for result in await asyncio.gather(*held)]
    assert numbers == sorted(set(numbers))


async def test_a_json_rpc_error_is_a_refusal(double, permit):
    upstream = await double()
    with pytest.raises(UpstreamRefused, match="-32602"):
        await upstream.forward(permit("no-such-tool"))
    assert upstream.healthy


async def test_calls_in_flight_fail_at_once_when_the_child_is_killed_and_the_next_call_works(double, permit, until):
    upstream = await double(timeout_s=60)
    calls = [asyncio.create_task(upstream.forward(permit("hold", n=n))) for n in range(10)]
    await upstream.forward(permit("echo"))
    first = upstream.pid
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(HANG_S):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UpstreamUnreachable}
    assert not (await upstream.forward(permit("echo"))).failed
    assert upstream.pid != first
    assert upstream.healthy


async def test_an_answer_written_just_before_death_is_delivered(double, permit):
    upstream = await double()
    assert not (await upstream.forward(permit("answer-and-die"))).failed


async def test_a_child_that_closes_its_output_is_replaced(double, permit):
    upstream = await double(timeout_s=30)
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("close-stdout"))
    assert not (await upstream.forward(permit("echo"))).failed


async def test_calls_during_the_back_off_fail_fast(double, permit):
    upstream = await double(ready_wait_s=0.01, timeout_s=60)
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("die"))
    assert not upstream.healthy
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("echo"))


async def test_garbage_on_standard_output_is_dropped_and_the_answer_still_arrives(double, permit, structured):
    upstream = await double()
    assert structured(await upstream.forward(permit("garbage"))) == {"honest": True}


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\x00\n", b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"\n", b"\r\n\n"]
)
async def test_bytes_that_are_no_message_are_dropped(double, permit, structured, junk):
    upstream = await double()
    assert structured(await upstream.forward(permit("bytes", hex=junk.hex()))) == {"honest": True}


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc":"2.0","id":ID}',
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[]},"error":{"code":1,"message":"m"}}',
        '{"jsonrpc":"2.0","id":ID,"error":"text"}',
        '{"jsonrpc":"2.0","id":ID,"result":[]}',
        '{"jsonrpc":"2.0","id":ID,"result":null}',
        '{"jsonrpc":"2.0","id":ID,"result":{}}',
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"isError":"no"}}',
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"isError":null}}',
        '{"jsonrpc":"1.0","result":{"content":[]},"id":ID}',
        '{"result":{"content":[]},"id":ID}',
        '{"jsonrpc":"2.0","result":{"content":[' + "[" * 5000 + "]" * 5000 + ']},"id":ID}',
    ],
    ids=lambda line: line[:70],
)
async def test_an_answer_that_is_not_mcp_is_a_protocol_violation_of_that_call_only(double, permit, line):
    upstream = await double()
    with pytest.raises(UpstreamProtocolViolation):
        await upstream.forward(permit("raw", line=line))
    assert not (await upstream.forward(permit("echo"))).failed


async def test_an_answer_over_the_limit_fails_its_own_call_and_no_other(double, permit, structured):
    upstream = await double(timeout_s=60)
    pid = upstream.pid
    held = asyncio.create_task(upstream.forward(permit("hold")))
    with pytest.raises(UpstreamProtocolViolation, match="limit"):
        await upstream.forward(permit("oversize"))
    await upstream.forward(permit("release"))
    assert "held" in structured(await held)
    assert upstream.pid == pid


async def test_only_the_first_of_two_answers_counts(double, permit, structured):
    upstream = await double()
    assert structured(await upstream.forward(permit("duplicate"))) == {"first": True}
    assert structured(await upstream.forward(permit("echo", a=1))) == {"arguments": {"a": 1}}


async def test_answers_to_ids_that_were_never_sent_are_dropped(double, permit, structured):
    upstream = await double()
    assert structured(await upstream.forward(permit("unknown-id"))) == {"honest": True}


async def test_an_answer_under_another_id_is_no_answer(double, permit):
    upstream = await double(timeout_s=0.5)
    with pytest.raises(UpstreamTimedOut):
        await upstream.forward(permit("other-id"))


async def test_the_server_may_ask_for_a_ping_and_for_nothing_else(double, permit, structured):
    upstream = await double()
    ping, *others = structured(await upstream.forward(permit("asks")))["replies"]
    assert ping == {"jsonrpc": "2.0", "id": "q0", "result": {}}
    assert [(reply["id"], reply["error"]["code"]) for reply in others] == [(f"q{n}", -32601) for n in range(1, 5)]


async def test_a_child_that_asks_without_end_and_does_not_read_is_replaced(double, permit, until):
    upstream = await double(timeout_s=60)
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("ask-forever"))
    await until(lambda: upstream.healthy)
    assert not (await upstream.forward(permit("echo"))).failed


async def test_a_late_call_is_cancelled_at_the_server_and_its_late_answer_dropped(double, permit, structured):
    upstream = await double(timeout_s=2.0)
    with pytest.raises(UpstreamTimedOut):
        await upstream.forward(permit("hold"))
    cancelled = [line for line in await lines_seen_by(upstream, permit, structured) if "cancelled" in line["method"]]
    assert [line["params"] for line in cancelled] == [{"requestId": 2}]
    await upstream.forward(permit("release"))
    assert structured(await upstream.forward(permit("echo", a=2))) == {"arguments": {"a": 2}}


async def test_a_cancelled_call_is_cancelled_at_the_server(double, permit, structured):
    upstream = await double()
    call = asyncio.create_task(upstream.forward(permit("hold")))
    while len(await lines_seen_by(upstream, permit, structured)) < 4:
        pass
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    cancelled = [line for line in await lines_seen_by(upstream, permit, structured) if "cancelled" in line["method"]]
    assert len(cancelled) == 1


async def test_health_comes_back_by_itself_after_one_slow_call(double, permit, until):
    upstream = await double(timeout_s=2.0)
    pid = upstream.pid
    call = asyncio.create_task(upstream.forward(permit("hold")))
    await until(lambda: upstream._child._pending)
    upstream._timeout_s = HANG_S  # for the ping, which a busy machine answers late
    with pytest.raises(UpstreamTimedOut):
        await call
    await until(lambda: upstream.healthy)
    assert upstream.pid == pid


async def test_a_child_that_hangs_is_replaced(double, permit, until):
    upstream = await double(timeout_s=2.0)
    pid = upstream.pid
    with pytest.raises(UpstreamTimedOut):
        await upstream.forward(permit("deaf"))
    assert not upstream.healthy
    await until(lambda: upstream.healthy)
    assert upstream.pid != pid
    assert not (await upstream.forward(permit("echo"))).failed


async def test_calls_to_a_child_that_hangs_are_refused_at_once_until_it_answers(double, permit, until, caplog):
    caplog.set_level(logging.INFO)
    upstream = await double(timeout_s=3.0)
    pid = upstream.pid
    await upstream.tools()
    hung = asyncio.create_task(upstream.forward(permit("hold")))
    await until(lambda: upstream._child._pending)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(UpstreamTimedOut):
            await hung
        upstream._timeout_s = HANG_S  # so that it is not ended meanwhile
        assert not StdioPool([upstream, await double()]).refusing, "the other one answers"
        await until(lambda: upstream.refusing)
        assert StdioPool([upstream]).refusing
        sent = upstream._child._last_id
        for _ in range(20):
            with pytest.raises(UpstreamUnreachable, match="not sent"):
                await upstream.forward(permit("echo"))
        assert upstream._child._last_id == sent
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: upstream.healthy)
    assert not upstream.refusing
    assert not (await upstream.forward(permit("echo"))).failed
    assert upstream.pid == pid
    assert "does not answer: calls are refused" in caplog.text
    assert "answers again" in caplog.text


async def test_callers_with_large_calls_time_out_and_do_not_deadlock_on_a_child_that_does_not_read(
    double, permit, until
):
    upstream = await double(timeout_s=2.0)
    calls = [upstream.forward(permit("deaf", pad="x" * 900_000)) for _ in range(20)]
    async with asyncio.timeout(HANG_S):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {UpstreamTimedOut, UpstreamUnreachable}
    await until(lambda: upstream.healthy)


async def test_large_calls_and_large_answers_pass_one_another(double, permit, structured):
    upstream = await double(timeout_s=60)
    calls = [upstream.forward(permit("echo", n=n, pad="x" * 500_000)) for n in range(30)]
    results = await asyncio.gather(*calls)
    assert [structured(result)["arguments"]["n"] for result in results] == list(range(30))


async def test_no_more_calls_are_in_flight_than_the_limit(double, permit, structured):
    upstream = await double(max_in_flight=3, timeout_s=60, ready_wait_s=HANG_S)
    calls = [asyncio.create_task(upstream.forward(permit("hold"))) for _ in range(5)]
    await asyncio.sleep(0)
    os.kill(upstream.pid, signal.SIGKILL)
    sent = await asyncio.gather(*calls[:3], return_exceptions=True)
    assert {type(outcome) for outcome in sent} == {UpstreamUnreachable}
    # Had the other two been sent to the first child, they would have failed with it.
    lines = await lines_seen_by(upstream, permit, structured)
    assert [line["params"]["name"] for line in lines[2:]] == ["hold", "hold", "received"]
    await upstream.forward(permit("release"))
    assert len(await asyncio.gather(*calls[3:])) == 2


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--silent", UpstreamTimedOut),
        ("--exit", UpstreamUnreachable),
        ("--old", UpstreamProtocolViolation),
        ("--no-tools", UpstreamProtocolViolation),
    ],
)
async def test_a_child_that_does_not_initialise_fails_the_start_and_is_not_left_behind(double, permit, option, error):
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(error):
        # Short only for the one that never answers: on a busy machine a process needs seconds to end by itself.
        await double(option, start_timeout_s=1.0 if error is UpstreamTimedOut else 60.0)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o600, "Permission denied"),
        ("#!/nonexistent/interpreter\n", 0o700, "No such file or directory"),
        ("no program", 0o700, "Exec format error"),
    ],
    ids=["missing", "not executable", "without its interpreter", "no program"],
)
async def test_a_command_that_cannot_be_executed_is_a_configuration_error(tmp_path, content, mode, why):
    command = tmp_path / "server"
    if content is not None:
        command.write_text(content)
        command.chmod(mode)
    before = set(psutil.Process().children(recursive=True))
    upstream = StdioUpstream("double", [str(command)], {}, timeout_s=1)
    with pytest.raises(ConfigurationError) as caught:
        await start_and_stop(upstream)
    assert str(caught.value) == f"command: {str(command)!r} cannot be executed: {why}"
    with pytest.raises(UpstreamUnreachable):
        await upstream.tools()
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_a_command_without_a_slash_is_looked_for_where_the_child_looks(tmp_path, monkeypatch, permit, structured):
    (tmp_path / "the-server").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["the-server", str(FAULT_SERVER)]
    with pytest.raises(ConfigurationError, match="'the-server' cannot be executed"):
        await start_and_stop(StdioUpstream("double", command, {}, timeout_s=1))
    upstream = StdioUpstream("double", command, {"PATH": str(tmp_path)}, timeout_s=10)
    await upstream.start()
    try:
        assert structured(await upstream.forward(permit("environment")))["environ"]["PATH"] == str(tmp_path)
    finally:
        await upstream.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_child_gains_no_privileges_and_leaves_no_core(double):
    upstream = await double()
    proc = Path("/proc") / str(upstream.pid)
    assert "NoNewPrivs:\t1" in (proc / "status").read_text()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max data size"] == ["unlimited", "unlimited"]


async def test_a_call_before_the_start_and_after_the_stop_is_refused_at_once(double, permit):
    upstream = await double()
    await upstream.stop()
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("echo"))
    assert not upstream.healthy
    await upstream.stop()


async def test_stop_fails_the_calls_in_flight_and_leaves_nothing(double, permit, structured):
    upstream = await double("--stubborn", timeout_s=60, stop_grace_s=0.2)
    pid = upstream.pid
    home = structured(await upstream.forward(permit("environment")))["cwd"]
    call = asyncio.create_task(upstream.forward(permit("hold")))
    await upstream.forward(permit("echo"))
    assert mode(home) == 0o700
    await upstream.stop()
    with pytest.raises(UpstreamUnreachable):
        await call
    assert gone(pid)
    assert mode(home) is None


@pytest.mark.parametrize("fault", ["stop", "die"])
async def test_processes_that_the_child_started_end_with_it(double, permit, structured, until, fault):
    upstream = await double()
    pid = structured(await upstream.forward(permit("grandchild")))["pid"]
    if fault == "stop":
        await upstream.stop()
    else:
        with pytest.raises(UpstreamUnreachable):
            await upstream.forward(permit("die"))
    await until(lambda: gone(pid))


async def test_the_tool_list_is_read_to_its_last_page_and_cached_until_it_changes(double, permit, structured):
    upstream = await double()
    told = []
    upstream.on_tools_changed(lambda: told.append(True))
    await upstream.forward(permit("change-tools"))
    first = await upstream.tools()
    assert [tool["name"] for tool in first] == ["echo", "tool-1"]
    assert await upstream.tools() is first, "the same object says that nothing changed"
    lists = [line for line in await lines_seen_by(upstream, permit, structured) if line["method"] == "tools/list"]
    assert len(lists) == 2
    await upstream.forward(permit("change-tools"))
    assert [tool["name"] for tool in await upstream.tools()] == ["echo", "tool-1", "tool-2"]
    assert told == [True, True]


async def test_a_new_child_means_a_new_tool_list(double, permit):
    upstream = await double()
    told = []
    upstream.on_tools_changed(lambda: told.append(True))
    await upstream.forward(permit("change-tools"))
    assert len(await upstream.tools()) == 2
    with pytest.raises(UpstreamUnreachable):
        await upstream.forward(permit("die"))
    assert [tool["name"] for tool in await upstream.tools()] == ["echo"]
    assert told == [True, True]


async def test_a_tool_list_without_end_is_a_protocol_violation(double):
    upstream = await double("--endless-pages")
    with pytest.raises(UpstreamProtocolViolation):
        await upstream.tools()


async def test_the_child_sees_what_is_passed_and_a_minimal_base_and_nothing_of_ours(
    double, permit, structured, monkeypatch
):
    monkeypatch.setenv("SIDECAR_TEST_CANARY", "must-not-travel")
    upstream = await double(environment={"MDB_MCP_CONNECTION_STRING": "mongodb://u:p4ssw0rd@h/"})
    seen = structured(await upstream.forward(permit("environment")))
    home = seen["cwd"]
    assert seen["environ"] | {"LC_CTYPE": ""} == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "LC_CTYPE": "",
        "NODE_ENV": "production",
        "DO_NOT_TRACK": "1",
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_LOGGERS": "stderr",
        "MDB_MCP_CONNECTION_STRING": "mongodb://u:p4ssw0rd@h/",
        "HOME": home,
        "TMPDIR": home,
        "MDB_MCP_EXPORTS_PATH": f"{home}/exports/1",
    }
    assert mode(home) == 0o700
    assert seen["umask"] == 0o077
    assert seen["group"] == upstream.pid
    assert psutil.Process(upstream.pid).cmdline() == [sys.executable, str(FAULT_SERVER)]


@pytest.mark.skipif(sys.platform != "linux", reason="counts what is in /proc")
async def test_no_descriptor_of_ours_reaches_the_child(double):
    theirs, ours = os.pipe()
    try:
        os.set_inheritable(theirs, True)
        os.set_inheritable(ours, True)
        upstream = await double()
        assert psutil.Process(upstream.pid).num_fds() == 3
    finally:
        os.close(theirs)
        os.close(ours)


async def test_a_flood_on_standard_error_blocks_nobody_and_is_not_logged_without_end(double, permit, caplog):
    caplog.set_level(logging.INFO, "sidecar.upstream.double")
    upstream = await double(timeout_s=60)
    await upstream.forward(permit("flood", lines=50_000))
    assert len(caplog.records) < 5_000
    assert sum(len(record.getMessage()) for record in caplog.records) < 10_000_000


async def test_secrets_on_standard_error_do_not_reach_the_log(double, permit, caplog, until):
    secret = "mongodb://alice:p%40ss%20w0rd@db.corp.example:27017/?tls=true"
    caplog.set_level(logging.DEBUG)
    upstream = await double(
        environment={"MDB_MCP_CONNECTION_STRING": secret, "MDB_MCP_API_CLIENT_SECRET": "zyx-987-zyx"}
    )
    said = [
        f"cannot connect to {secret}",
        "authentication failed for alice with p@ss w0rd",
        "authentication failed for alice with p%40ss%20w0rd",
        json.dumps({"uri": secret, "secret": "zyx-987-zyx"}),
        "connecting to mongodb+srv://bob:hunter2@elsewhere.example/x and MONGODB://eve:hunter3@h",
        "mongodb%3A%2F%2Fcarl:hunter4@h",
        "\x1b[31mred\x1b[0m and \u202e reversed",
        "x" * 9_000 + secret,
    ]
    for text in said:
        await upstream.forward(permit("say", text=text))
    await upstream.forward(permit("say", text="the end"))
    await until(lambda: "the end" in caplog.text)
    for forbidden in ("p%40ss", "p@ss", "zyx-987", "hunter", "db.corp.example", "\x1b", "\u202e"):
        assert forbidden not in caplog.text
    assert "authentication failed for alice with <redacted>" in caplog.text


async def test_the_text_of_an_error_reaches_the_detail_without_secrets(double, permit):
    upstream = await double(environment={"MDB_MCP_CONNECTION_STRING": "mongodb://u:p4ssw0rd@h/"})
    line = '{"jsonrpc":"2.0","id":ID,"error":{"code":-32603,"message":"failed: mongodb://u:p4ssw0rd@h/ p4ssw0rd"}}'
    with pytest.raises(UpstreamRefused) as caught:
        await upstream.forward(permit("raw", line=line))
    assert "p4ssw0rd" not in caught.value.detail


@pytest.mark.parametrize(
    "command",
    [
        [],
        [""],
        ["server", "mongodb://u:p@h/"],
        ["server", "--connectionString=mongodb+srv://u:p@h/"],
        ["server", "--apiClientSecret", "zyx-987-zyx"],
    ],
)
def test_a_command_line_that_carries_a_secret_or_nothing_is_refused(command):
    with pytest.raises(ConfigurationError) as caught:
        StdioUpstream("double", command, {"MDB_MCP_API_CLIENT_SECRET": "zyx-987-zyx"}, timeout_s=1)
    assert "zyx" not in str(caught.value)


@pytest.mark.parametrize("environment", [{"A=B": "x"}, {"": "x"}, {"A\0": "x"}, {"A": "x\0"}], ids=repr)
def test_an_environment_that_cannot_be_passed_is_refused(environment):
    with pytest.raises(ConfigurationError):
        StdioUpstream("double", ["server"], environment, timeout_s=1)


PARENT = """
import asyncio, sys
from sidecar.upstream.process import StdioUpstream
async def main():
    upstream = StdioUpstream("double", [sys.executable, *sys.argv[1:]], {}, timeout_s=5)
    await upstream.start()
    print(upstream.pid, flush=True)
    await asyncio.Event().wait()
if LOOP == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child ends because its standard input does")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_child_dies_with_us_even_if_we_are_killed(loop, until, tmp_path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"LOOP={loop!r}{PARENT}",
        str(FAULT_SERVER),
        "--stubborn",
        stdout=asyncio.subprocess.PIPE,
        env={"TMPDIR": str(tmp_path)},  # a killed parent tidies nothing
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    await parent.wait()
    await until(lambda: gone(child))
