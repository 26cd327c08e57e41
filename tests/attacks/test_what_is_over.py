"""Attacks on sessions, streams and batches of several requests each: what is over, or another caller's, is nothing.

What counts is what reached a server. Single requests, and the near misses beside them, are rows of
``tests/ledger/wire.json``.
"""

from typing import Any

import pytest

from sidecar.demo.identities import ANALYST, LOADER
from tests.attacks.attacker import ORDERS, SALARIES, Attacker, rpc

FIND: dict[str, Any] = {"name": "find", "arguments": {**ORDERS, "limit": 1}}
EVENTS = "text/event-stream"


def find(number: Any) -> dict[str, Any]:
    return rpc("tools/call", FIND, number)


@pytest.mark.parametrize("after", ["the end", "another handshake with its id", "two ends"])
def test_a_session_that_is_over_does_nothing_on_any_leg(attacker: Attacker, after: str) -> None:
    over, kept = attacker.open(ANALYST, "2025-03-26"), attacker.open(ANALYST)
    assert attacker.send(ANALYST, method="DELETE", session=over).status == 204
    if after == "two ends":
        assert attacker.send(ANALYST, method="DELETE", session=over).status == 404
    if after == "another handshake with its id":
        client = {"name": "attacker", "version": "1"}
        hello = rpc("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": client})
        again = attacker.send(ANALYST, hello, session=over)
        assert again.headers["mcp-session-id"] not in {over, kept}
    before = attacker.reached()
    for body in (
        find(1),
        [find(1), find(2)],
        rpc("tools/list", {}),
        rpc("ping", {}),
        rpc("logging/setLevel", {"level": "debug"}),
        rpc("resources/unsubscribe", {"uri": "exported-data://x.json"}),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
        {"jsonrpc": "2.0", "id": "ask-1", "result": {"action": "accept", "content": {"confirmation": "Yes"}}},
        b"{",
    ):
        assert attacker.send(ANALYST, body, session=over).status in {400, 404}, body
        if body != b"{":
            assert attacker.send(ANALYST, body, session=over).status == 404, body
    for more in ({}, {"Last_Event_ID": f"{over}.1"}, {"Last_Event_ID": "0.0"}):
        assert attacker.send(ANALYST, method="GET", session=over, Accept=EVENTS, **more).status == 404
    assert attacker.reached() == before
    assert not attacker.call(ANALYST, kept, "find", ORDERS).code, "the other session of the same caller goes on"


@pytest.mark.parametrize(
    "headers",
    [
        {"MCP_Protocol_Version": "2026-07-28"},
        {"MCP_Protocol_Version": "2025-06-18"},
        {"X_HTTP_Method_Override": "DELETE"},
        {"Content_Type": "application/json", "Transfer_Encoding": "chunked"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_an_end_that_is_not_meant_so_ends_nothing(attacker: Attacker, headers: dict[str, str]) -> None:
    mine = attacker.open(ANALYST)
    method = "POST" if "X_HTTP_Method_Override" in headers else "DELETE"
    body = b"0\r\n\r\n" if "Transfer_Encoding" in headers else rpc("ping", {}) if method == "POST" else None
    assert attacker.send(ANALYST, body, method=method, session=mine, **headers).status in {200, 400, 405}
    assert attacker.send(LOADER, method="DELETE", session=mine).status == 404, "nor does that of another caller"
    assert attacker.send(None, method="DELETE", session=mine).status == 401
    assert not attacker.call(ANALYST, mine, "find", ORDERS).code


def test_a_batch_is_the_callers_own_and_each_member_stands_alone(attacker: Attacker) -> None:
    """No member lends another its id, its session, its era or its leave."""
    batches, single = attacker.open(ANALYST, "2025-03-26"), attacker.open(ANALYST, "2025-06-18")
    before = attacker.reached()
    stateless = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    answers = attacker.send(
        ANALYST,
        [
            find("a"),
            rpc("tools/call", {"name": "find", "arguments": {**SALARIES}}, "b"),
            rpc("tools/call", {**FIND, "_meta": stateless}, "c"),
            rpc("server/discover", {}, "d"),
            rpc("tools/call", {"name": "prompt/x", "arguments": {}}, "e"),
            {"jsonrpc": "2.0", "method": "tools/call", "params": FIND},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "f"}},
            {"jsonrpc": "2.0", "id": "a", "result": {"action": "accept"}},
            find("f"),
        ],
        session=batches,
    ).json
    told = {one["id"]: "error" in one or bool(one["result"].get("isError")) for one in answers}
    assert told == {"a": False, "b": True, "c": True, "d": True, "e": True, "f": False}
    assert attacker.reached() == before + 2, "the two that may be called, and nothing else"
    for who, session in ((ANALYST, single), (LOADER, batches)):
        assert attacker.send(who, [find(1)], session=session).status in {400, 404}
    assert attacker.send(ANALYST, [find(1)], session=batches, MCP_Protocol_Version="2026-07-28").status == 400
    assert attacker.send(ANALYST, [find(1), find(1)], session=batches).status == 400
    assert attacker.send(ANALYST, [find(n) for n in range(65)], session=batches).status == 400
    assert attacker.reached() == before + 2
