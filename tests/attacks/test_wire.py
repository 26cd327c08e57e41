"""Attacks on the way in, of several requests each: tokens, batches, sessions. What counts is what reached the server.

Single requests are rows of ``tests/ledger/wire.json``.
"""

import base64
import hashlib
import hmac
import json
import threading

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.demo.identities import ANALYST, LOADER, STRANGER, Person
from tests.attacks.attacker import ORDERS, SALARIES, STAGING, head, rpc
from tests.integration.deployment import HR_ADMIN
from tests.patience import HANG_S

CALL = json.dumps(rpc("tools/call", {"name": "find", "arguments": ORDERS})).encode()
LENGTH = f"Content-Length: {len(CALL)}"

ANOTHER_ANALYST = Person(user="anna", agent="claude-desktop", groups=("analysts",), scopes=("mongodb:read",))
ANOTHER_AGENT = Person(user="alice", agent="other-agent", groups=("analysts",), scopes=("mongodb:read",))


def test_an_expectation_is_answered_only_to_a_caller_who_is_known(attacker):
    line = "POST /mcp HTTP/1.1"
    strange = attacker.raw(head(line, LENGTH, "Expect: <canary>", host="evil") + CALL)
    nobody = attacker.raw(head(line, LENGTH, "Expect: 100-continue"))
    session, token = attacker.open(ANALYST), attacker.deployment.token(ANALYST)
    asked = head(line, LENGTH, "Expect: 100-continue", "Connection: close", f"Mcp-Session-Id: {session}", token=token)
    known = attacker.raw(asked, then=CALL, silence_s=HANG_S)
    hasty = attacker.raw(asked + CALL, silence_s=HANG_S)
    assert b"canary" not in strange
    assert b" 100 " not in nobody
    assert nobody.startswith(b"HTTP/1.1 401 ")
    assert known.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert b"HTTP/1.1 200 " in hasty, "whether it is told to go on is free (RFC 9110 section 10.1.1)"


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_forged_token_is_nobody_and_is_never_written_down(attacker):
    genuine = attacker.deployment.token(ANALYST)
    header, payload, signature = genuine.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))  # noqa: TID251 - our own token
    more = segment({**claims, "groups": ["hr-admins"]})
    public = (attacker.deployment.folder / "jwks.json").read_bytes()
    shared = segment({"alg": "HS256", "typ": "at+jwt", "kid": "demo"}) + "." + payload
    mac = base64.urlsafe_b64encode(hmac.new(public, shared.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    forged = [
        f"{segment({'alg': 'none', 'typ': 'at+jwt'})}.{more}.AA",
        f"{shared}.{mac}",
        f"{header}.{more}.{signature}",
        f"{segment({'alg': 'ES256', 'typ': 'at+jwt', 'kid': '../../dev/null'})}.{payload}.{signature}",
        f"{segment({'alg': 'ES256', 'typ': 'at+jwt', 'kid': 'demo', 'jwk': {}})}.{payload}.{signature}",
        f"{header}.{payload}.{base64.urlsafe_b64encode(bytes(64)).rstrip(b'=').decode()}",
        f"{genuine}=",
        attacker.deployment.token(ANALYST, audience="https://other.example/mcp"),
    ]
    for token in forged:
        assert attacker.send(token, rpc("ping", {})).status == 401
    written = attacker.deployment.audit_file.read_text() + attacker.deployment.log_file.read_text()
    assert not [token for token in forged if token.split(".")[1][:40] in written]


def test_a_batch_is_decided_member_by_member(attacker):
    session, before = attacker.open(ANALYST, "2025-03-26"), attacker.reached()
    members = [
        rpc("tools/call", {"name": "find", "arguments": {**ORDERS, "limit": 1}}, 1),
        rpc("tools/call", {"name": "find", "arguments": SALARIES}, "1"),
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "find", "arguments": ORDERS}},
        rpc("tools/call", {"name": "drop-database", "arguments": {"database": "sales"}}, 2),
        {"jsonrpc": "2.0", "id": 9, "result": {}},
    ]
    allowed, denied, hidden = attacker.send(ANALYST, members, session=session).json
    assert not allowed["result"].get("isError")
    assert denied["result"]["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "not_granted"
    assert hidden["error"]["message"] == "Unknown tool."
    assert attacker.reached() == before + 1


@pytest.mark.parametrize("thief", [ANOTHER_ANALYST, ANOTHER_AGENT, STRANGER], ids=lambda person: person.label)
def test_a_session_of_somebody_else_is_one_that_never_was(attacker, thief):
    session, before = attacker.open(ANALYST), attacker.reached()
    for method, body in (("POST", CALL), ("DELETE", None), ("GET", None)):
        stolen = attacker.send(thief, body, method=method, session=session)
        invented = attacker.send(thief, body, method=method, session="never-was")
        assert stolen.status == 404
        assert (stolen.status, stolen.body) == (invented.status, invented.body)
    assert attacker.reached() == before
    assert not attacker.call(ANALYST, session, "find", ORDERS).code, "the owner's session is untouched"


def test_to_a_stranger_every_tool_is_answered_as_one_that_does_not_exist(attacker):
    session, before = attacker.open(STRANGER), attacker.reached()
    wide = [{"$lookup": {"from": f"c{number}", "pipeline": [], "as": "x"}} for number in range(70)]
    unknown = attacker.call(STRANGER, session, "no-such-tool", {})
    for tool in CATALOG:
        for arguments in ({}, ORDERS, {"x": 1}, {**ORDERS, "pipeline": wide}):
            reply = attacker.call(STRANGER, session, tool, arguments)
            assert (reply.status, reply.body) == (unknown.status, unknown.body), tool
    assert attacker.reached() == before


def test_headers_that_speak_for_others_change_nothing(attacker):
    session = attacker.open(ANALYST)
    reply = attacker.send(
        ANALYST,
        rpc("tools/call", {"name": "find", "arguments": SALARIES}),
        session=session,
        X_Forwarded_User="hanna",
        X_Forwarded_For="10.9.8.7",
        X_Upstream_Authorization="Bearer x",
        X_HTTP_Method_Override="DELETE",
        X_MongoDB_MCP_Read_Only="false",
        Mcp_Method="ping",
        Mcp_Name="list-databases",
    )
    assert reply.code == "not_granted"
    record = attacker.deployment.records()[-1]
    assert (record["subject"]["id"], record["client"]["ip"]) == ("alice", "127.0.0.1")


def test_equal_request_ids_of_different_callers_never_cross(attacker):
    callers = [
        (ANALYST, ORDERS, "orders"),
        (ANOTHER_ANALYST, ORDERS, "orders"),
        (HR_ADMIN, SALARIES, "salaries"),
        (HR_ADMIN, SALARIES, "salaries"),
    ]
    wrong: list[object] = []

    def ask(who, arguments, wanted):
        session = attacker.open(who)
        for _ in range(10):
            reply = attacker.call(who, session, "find", {**arguments, "limit": 1}, request_id=1)
            if f'collection \\"{wanted}\\"'.encode() not in reply.body:
                wrong.append((who.user, reply))

    threads = [threading.Thread(target=ask, args=caller) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_request_id_that_is_in_flight_cannot_be_used_again(attacker):
    session, before = attacker.open(LOADER), attacker.reached()
    replies = []
    arguments = {**STAGING, "documents": [{"note": "twice"}] * 2_000}
    threads = [
        threading.Thread(target=lambda: replies.append(attacker.call(LOADER, session, "insert-many", arguments, 7)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = [reply for reply in replies if "result" in reply.json]
    assert {reply.status for reply in replies} == {200}
    assert {reply.json["error"]["code"] for reply in replies if reply not in accepted} <= {-32600}
    assert attacker.reached() - before == len(accepted)
