"""``mcp-sidecar stdio``: what a client launches decides as the one over HTTP does, and knows who calls by a token."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER, Person
from tests.integration.deployment import HR_ADMIN, wait_until
from tests.integration.launched import INITIALIZE, ORDERS, Launched, call, launchable

SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}
NAMELESS = Person(user="alice", agent="", groups=ANALYST.groups, scopes=ANALYST.scopes)
"""A token without an agent."""


@pytest.fixture
def front(tmp_path: Path, database: str) -> Launched:
    asyncio.run(demo_database.seed(database))
    ready = launchable(tmp_path, database)
    ready.present(ANALYST)
    return ready


@pytest.fixture
def open_front(front: Launched) -> Iterator[Launched]:
    with front.running() as running:
        assert running.open()["result"]["protocolVersion"] == "2025-11-25"
        yield running


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def test_a_session_calls_is_refused_and_leaves_evidence(open_front: Launched) -> None:
    listed = open_front.ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert "find" in {tool["name"] for tool in listed["result"]["tools"]}
    assert "isError" not in open_front.ask(call(2, "count", ORDERS))["result"]
    refused = open_front.ask(call(3, "find", SALARIES))
    assert refused["result"]["isError"] is True
    assert text_of(refused).startswith("Refused:")
    assert [one["name"] for one in open_front.deployment.all_reached()] == ["count"]
    status, rest = open_front.end()
    assert (status, rest) == (0, b"")
    records = open_front.deployment.records()
    assert [one["event"] for one in records] == ["intent", "outcome", "refusal"]
    assert {(one["subject"]["id"], one["actor"]["id"]) for one in records} == {(ANALYST.user, ANALYST.agent)}


def test_a_token_that_expires_is_refused_until_its_file_has_another(front: Launched) -> None:
    with front.running() as running:
        running.open()
        running.present(ANALYST, seconds=2)
        wait_until(lambda: "error" in running.ask(call(1, "count", ORDERS)), "the token to expire", running.process)
        before = len(running.deployment.all_reached())
        expired = running.ask(call(2, "count", ORDERS))
        assert expired["error"]["message"] == "The bearer token is not valid for this resource."
        running.present(ANALYST)
        assert "isError" not in running.ask(call(3, "count", ORDERS))["result"], "the session goes on"
        assert len(running.deployment.all_reached()) == before + 1


def test_a_file_that_is_gone_is_no_token_and_another_users_token_no_session(open_front: Launched) -> None:
    open_front.token_file.unlink()
    assert open_front.ask(call(1, "count", ORDERS))["error"]["code"] == 1401
    open_front.present(HR_ADMIN)
    assert "session" in open_front.ask(call(2, "count", ORDERS))["error"]["message"]
    open_front.open()
    assert "isError" not in open_front.ask(call(3, "count", SALARIES))["result"]
    assert open_front.deployment.records()[-1]["subject"]["id"] == HR_ADMIN.user


def test_no_process_has_the_token_in_its_environment(front: Launched) -> None:
    token = front.token(ANALYST)
    with front.running("--agent", "lines", environment={"SIDECAR_STDIO__TOKEN": token}) as running:
        running.open()
        assert "isError" not in running.ask(call(1, "count", ORDERS))["result"]
        assert running.process is not None
        children = psutil.Process(running.process.pid).children(recursive=True)
        found = {child.pid: child.environ() for child in children}
    assert len(found) >= 3, "two MCP servers and an OPA"
    assert [pid for pid, environment in found.items() if token in "\0".join(environment.values())] == []
    assert token not in running.log


@pytest.mark.parametrize(("options", "agent"), [(("--agent", "desk"), "desk"), ((), None)], ids=["named", "nameless"])
def test_the_agent_comes_from_the_command_line_where_the_token_names_none(
    front: Launched, options: tuple[str, ...], agent: str | None
) -> None:
    front.present(NAMELESS)
    with front.running("--token-file", str(front.token_file), *options) as running:
        opened = running.ask(INITIALIZE)
    assert ("result" in opened) is (agent is not None)
    assert "lines" not in {(one["actor"] or {"id": None})["id"] for one in running.deployment.records()}


def test_the_agent_of_a_token_wins_over_the_command_line(front: Launched) -> None:
    with front.running("--token-file", str(front.token_file), "--agent", "nightly-loader") as running:
        running.open()
        running.ask(call(1, "count", ORDERS))
    assert {one["actor"]["id"] for one in running.deployment.records()} == {ANALYST.agent}


def test_the_user_of_the_operating_system_is_a_caller_that_says_what_it_is(front: Launched) -> None:
    with front.running("--as-os-user", "--agent", "desk") as running:
        running.open()
        refused = running.ask(call(1, "count", ORDERS))
        assert refused["error"]["message"] == "Unknown tool." or refused["result"]["isError"] is True
    assert "this protects from slips of an agent" in running.log
    assert {one["subject"]["issuer"] for one in running.deployment.records()} == {"urn:mcp-sidecar:os-user"}


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ("production", ("--as-os-user", "--agent", "desk"), "stdio.as_os_user is refused"),
        ("test", ("--as-os-user",), "mcp-sidecar: stdio.as_os_user needs stdio.agent"),
        ("test", ("--as-os-user", "--agent", "desk", "--token-file", "x"), "give one of"),
        ("test", ("--agent", "desk"), "nothing says who calls"),
    ],
    ids=["in production", "without an agent", "two identities", "nobody"],
)
def test_a_caller_that_is_not_clear_is_refused_at_the_start(
    tmp_path: Path, environment: str, options: tuple[str, ...], said: str
) -> None:
    ready = launchable(tmp_path, "mongodb://127.0.0.1:1/", environment=environment)
    with ready.running(*options) as running:
        status, rest = running.end()
    assert (status, rest) == (78, b"")
    assert said in running.log


def test_calls_under_way_are_finished_when_the_client_closes_its_end(open_front: Launched) -> None:
    open_front.say(*(call(number, "count", ORDERS) for number in range(1, 9)))
    status, rest = open_front.end()
    assert status == 0
    assert rest.count(b"\n") == 8
    assert b'"error"' not in rest


def test_a_signal_ends_it_and_what_is_under_way_is_answered(open_front: Launched) -> None:
    assert open_front.process is not None
    open_front.say(*(call(number, "count", ORDERS) for number in range(1, 9)))
    assert open_front.next()["id"] in range(1, 9)
    open_front.process.send_signal(signal.SIGTERM)
    status, rest = open_front.end()
    assert status == 0
    assert rest.count(b"\n") == 7, "each has an answer, a result or an error"


HOSTILE: dict[str, tuple[bytes, int | None]] = {
    "no JSON": (b"{", -32700),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":7,"method":"\xff"}', -32700),
    "a batch": (b'[{"jsonrpc":"2.0","id":7,"method":"ping"}]', -32600),
    "a key twice": (b'{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}', -32700),
    "NaN": (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":NaN}}', -32700),
    "a lone surrogate": (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\\ud800"}}', -32700),
    "a method in other letters": (b'{"jsonrpc":"2.0","id":7,"METHOD":"ping"}', -32600),
    "a method that is none": (b'{"jsonrpc":"2.0","id":7,"method":"tools/forget"}', -32601),
    "an id that is null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    "a header for a message": (b"Content-Length: 12", -32700),
    "a call that is a notification": (
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"count","arguments":{}}}',
        None,
    ),
    "a response that nobody asked for": (b'{"jsonrpc":"2.0","id":7,"result":{}}', None),
}


def test_hostile_lines_are_refused_and_the_session_goes_on(open_front: Launched) -> None:
    found = {}
    for number, (name, (line, _)) in enumerate(HOSTILE.items()):
        open_front.others.clear()
        open_front.say(line)
        assert open_front.ask({"jsonrpc": "2.0", "id": f"p{number}", "method": "ping"})["result"] == {}
        found[name] = open_front.others[0]["error"]["code"] if open_front.others else None
    assert found == {name: code for name, (_, code) in HOSTILE.items()}
    assert open_front.deployment.all_reached() == []


def test_hostile_lines_before_a_session_are_refused_like_later_ones(front: Launched) -> None:
    deep = b'{"jsonrpc":"2.0","id":7,"method":"ping","more":%b1%b}' % (b'{"a":' * 5000, b"}" * 5000)
    with front.running() as running:
        for line in (HOSTILE["not UTF-8"][0], deep):
            running.say(line)
            assert running.next()["error"]["code"] in {-32700, -32600}
        assert "result" in running.open()
        assert "Traceback" not in running.log


def test_a_line_over_the_limit_is_refused_for_its_request_and_held_by_nobody(open_front: Launched) -> None:
    assert open_front.process is not None
    process = psutil.Process(open_front.process.pid)
    before = process.memory_info().rss
    large = call("large", "find", {**ORDERS, "filter": {"text": "x" * 40_000_000}})
    assert open_front.ask(large)["result"]["isError"] is True
    assert process.memory_info().rss - before < 30_000_000
    assert "isError" not in open_front.ask(call(2, "count", ORDERS))["result"]
    assert [one["name"] for one in open_front.deployment.all_reached()] == ["count"]


def test_a_call_is_cancelled_by_its_id(open_front: Launched) -> None:
    slow = {**ORDERS, "pipeline": [{"$match": {"total": {"$gt": 0}}}]}
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "slow"}}
    open_front.say(call("slow", "aggregate", slow), cancel)
    assert open_front.answer("slow")["id"] == "slow"
    assert open_front.ask({"jsonrpc": "2.0", "id": 9, "method": "ping"})["result"] == {}


STATELESS = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def stateless(number: int | str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    message = call(number, name, arguments)
    return {**message, "params": {**message["params"], "_meta": STATELESS}}


def test_a_client_of_the_stateless_revision_needs_no_handshake(front: Launched) -> None:
    with front.running() as running:
        discover = {"jsonrpc": "2.0", "id": 0, "method": "server/discover", "params": {"_meta": STATELESS}}
        assert "2026-07-28" in running.ask(discover)["result"]["supportedVersions"]
        running.say(*(stateless(number, "count", ORDERS) for number in range(1, 5)))
        answers = [running.next() for _ in range(4)]
        assert {one["id"]: one["result"]["resultType"] for one in answers} == dict.fromkeys(range(1, 5), "complete")
        refused = running.ask(stateless(5, "find", SALARIES))
        assert refused["result"]["isError"] is True
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "slow"}}
        running.say(stateless("slow", "count", ORDERS), cancel)
        assert running.ask(stateless(6, "count", ORDERS))["result"]["resultType"] == "complete"
    assert {one["session"] for one in running.deployment.records()} == {None}
    assert "session_required" not in {(one["outcome"] or {}).get("error") for one in running.deployment.records()}


def test_a_second_handshake_ends_the_first_session(open_front: Launched) -> None:
    assert "result" in open_front.open()
    assert "isError" not in open_front.ask(call(1, "count", ORDERS))["result"]
    records = open_front.deployment.records()
    assert [one["event"] for one in records] == ["intent", "outcome"], "nothing of the first session was refused"
    assert len({one["session"] for one in records}) == 1


def test_nothing_but_messages_is_on_standard_output_and_nothing_listens(open_front: Launched) -> None:
    assert open_front.process is not None
    process = psutil.Process(open_front.process.pid)
    listening = [one.laddr for one in process.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
    assert listening == []
    output = Path(f"/proc/{process.pid}/fd/1").readlink()
    assert output == open_front.deployment.log_file


def test_two_callers_one_after_the_other_do_not_share_what_they_may(front: Launched) -> None:
    with front.running() as running:
        running.open()
        running.present(LOADER)
        running.open()
        refused = running.ask(call(1, "count", ORDERS))
        assert "error" in refused or refused["result"]["isError"] is True
