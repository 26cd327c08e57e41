"""Attacks on the revision without a handshake, of several requests each. What counts is what reached a server.

Single requests, and the near misses beside them, are rows of ``tests/ledger/wire.json``; here is what takes several.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from tests.attacks.attacker import HEADERS, ORDERS, SALARIES, Attacker, Reply, rpc

REVISION = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
CLIENT_KEY = "io.modelcontextprotocol/clientInfo"
META: dict[str, Any] = {VERSION_KEY: REVISION, CAPABILITIES_KEY: {}, CLIENT_KEY: {"name": "attacker", "version": "1"}}
FIND: dict[str, Any] = {"name": "find", "arguments": {**ORDERS, "limit": 1}}
MIRROR = {"MCP-Protocol-Version": REVISION, "Mcp-Method": "tools/call", "Mcp-Name": "find"}
HTTP_HEADERS = dict[str, str | None]


def body(method: str = "tools/call", params: Any = FIND, meta: Any = META, request_id: Any = 1) -> dict[str, Any]:
    return rpc(method, {**params, "_meta": meta}, request_id)


def send(attacker: Attacker, message: object, changes: HTTP_HEADERS | None = None, who: Any = ANALYST) -> Reply:
    """Send one request with the usual mirrored headers but for these; None leaves one out."""
    headers = {name: value for name, value in {**MIRROR, **(changes or {})}.items() if value is not None}
    return attacker.send(who, message, **{name.replace("-", "_"): value for name, value in headers.items()})


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_other_leg(attacker: Attacker, method: str) -> None:
    session = attacker.open(ANALYST)
    for named in (None, session):
        reply = attacker.send(ANALYST, method=method, session=named, MCP_Protocol_Version=REVISION, Accept="*/*")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert not attacker.call(ANALYST, session, "find", ORDERS).code, "the session is untouched"


@pytest.mark.parametrize("method", ["notifications/cancelled", "notifications/initialized", "notifications/whatever"])
def test_a_notification_is_taken_in_and_acts_on_nothing(attacker: Attacker, method: str) -> None:
    reply = send(
        attacker,
        {"jsonrpc": "2.0", "method": method, "params": {"requestId": 1}},
        {"Mcp-Method": None, "Mcp-Name": None},
    )
    assert (reply.status, reply.body) == (202, b"")


def test_nothing_of_one_request_counts_for_another(attacker: Attacker) -> None:
    """No handshake opens anything here, and a session gives a stateless request nothing."""
    session = attacker.open(ANALYST)
    before = attacker.reached()
    assert send(attacker, rpc("tools/call", FIND), {"Mcp-Session-Id": session}).status == 400
    assert attacker.send(ANALYST, body(), session=session).status == 400, "an envelope within a session"
    assert attacker.send(None, body(), session=session).status == 401
    assert send(attacker, body(), {"Mcp-Session-Id": session}, who=None).status == 401
    assert attacker.reached() == before


def test_policy_is_asked_about_the_body_and_the_token_counts_on_each_request(attacker: Attacker) -> None:
    before = attacker.reached()
    denied = send(attacker, body(params={"name": "find", "arguments": SALARIES}))
    assert (denied.status, denied.code) == (200, "not_granted")
    assert denied.json["result"]["resultType"] == "complete"
    assert denied.json["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-sidecar"
    hidden = send(attacker, body(), who=STRANGER)
    assert (hidden.status, hidden.json["error"]["message"]) == (200, "Unknown tool.")
    lacking = send(
        attacker,
        body(params={"name": "insert-many", "arguments": {**ORDERS, "database": "staging", "documents": [{}]}}),
        {"Mcp-Name": "insert-many"},
        who=attacker.deployment.token(READER),
    )
    assert lacking.status == 403
    assert 'error="insufficient_scope"' in lacking.headers["www-authenticate"]
    assert lacking.json["id"] == 1
    assert attacker.reached() == before


READER = type(LOADER)(user=LOADER.user, agent=LOADER.agent, groups=LOADER.groups, scopes=("mongodb:read",))


def test_a_tool_that_is_hidden_from_a_caller_is_answered_as_one_that_does_not_exist(attacker: Attacker) -> None:
    before = attacker.reached()
    unknown = send(attacker, body(params={"name": "no-such-tool"}), {"Mcp-Name": "no-such-tool"}, who=STRANGER)
    for tool in CATALOG:
        reply = send(attacker, body(params={"name": tool, "arguments": ORDERS}), {"Mcp-Name": tool}, who=STRANGER)
        assert (reply.status, reply.body) == (unknown.status, unknown.body), tool
    assert attacker.reached() == before


def test_two_clients_of_one_identity_may_use_the_same_id_at_once(attacker: Attacker) -> None:
    before = attacker.reached()
    with ThreadPoolExecutor(max_workers=8) as pool:
        replies = list(pool.map(lambda _: send(attacker, body(request_id=7)), range(8)))
    assert {(reply.status, reply.json["id"], "result" in reply.json) for reply in replies} == {(200, 7, True)}
    assert attacker.reached() == before + 8


def test_lists_are_the_callers_own_in_both_eras_alike(attacker: Attacker) -> None:
    listed = send(attacker, body("tools/list", {}), {"Mcp-Method": "tools/list", "Mcp-Name": None}).json["result"]
    session = attacker.open(ANALYST)
    known = attacker.send(ANALYST, rpc("tools/list", {}), session=session).json["result"]
    assert listed["tools"] == known["tools"]
    assert (listed["cacheScope"], listed["resultType"]) == ("private", "complete")
    assert 0 <= listed["ttlMs"] <= 60_000, "policy may change the list at any time"
    assert known.keys() == {"tools"}
    strangers = send(
        attacker, body("tools/list", {}), {"Mcp-Method": "tools/list", "Mcp-Name": None}, who=STRANGER
    ).json["result"]
    assert strangers["tools"] == []


def test_headers_of_a_request_within_a_session_mean_nothing(attacker: Attacker) -> None:
    session, before = attacker.open(ANALYST), attacker.reached()
    assert HEADERS
    sent = {"Mcp_Method": "tools/list", "Mcp_Name": "count", "Mcp_Param_Database": "hr"}
    reply = attacker.send(ANALYST, rpc("tools/call", FIND), session=session, **sent)
    assert not reply.json["result"].get("isError")
    assert attacker.reached() == before + 1
