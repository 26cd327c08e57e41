"""Attacks on the way in: framings, targets, tokens, messages, sessions. What counts is what reached the MCP server."""

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

CALL = json.dumps(rpc("tools/call", {"name": "find", "arguments": ORDERS})).encode()
LENGTH = f"Content-Length: {len(CALL)}"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CALL), CALL)

ANOTHER_ANALYST = Person(user="anna", agent="claude-desktop", groups=("analysts",), scopes=("mongodb:read",))
ANOTHER_AGENT = Person(user="alice", agent="other-agent", groups=("analysts",), scopes=("mongodb:read",))


SPELLINGS = [
    "*",
    "//mcp",
    "/%6dcp",
    "/mcp?x=1",
    "/mcp#x",
    "/MCP",
    "/./mcp",
    "/mcp;a",
    "/mcp%00",
    "mcp",
    "http://127.0.0.1/mcp",
    "http://evil/mcp",
    "http://[::1/mcp",
    "http://a:99999/mcp",
    "/metrics",
    "/readyz",
    "/mcp\xff",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_other_spelling_of_the_endpoint_is_the_endpoint(attacker, target):
    session, before = attacker.open(ANALYST), attacker.reached()
    token = attacker.deployment.token(ANALYST)
    sent = head(f"POST {target} HTTP/1.1", LENGTH, f"Mcp-Session-Id: {session}", token=token) + CALL
    status = attacker.raw(sent, silence_s=0.15).split()[1]
    assert status in {b"400", b"404"}
    assert attacker.reached() == before


FRAMINGS: dict[str, tuple[tuple[str, ...], bytes]] = {
    "both lengths": ((LENGTH, "Transfer-Encoding: chunked"), b"0\r\n\r\n" + CALL),
    "two lengths": ((LENGTH, LENGTH), CALL),
    "list of lengths": ((f"{LENGTH}, {len(CALL)}",), CALL),
    "signed length": ((f"Content-Length: +{len(CALL)}",), CALL),
    "unknown coding": (("Transfer-Encoding: xchunked",), CALL),
    "chunked not last": (("Transfer-Encoding: chunked, identity",), CHUNKED),
    "compressed chunks": (("Transfer-Encoding: gzip, chunked",), CHUNKED),
    "bare line feeds": (("Transfer-Encoding: chunked",), CHUNKED.replace(b"\r\n", b"\n")),
    "folded header": ((LENGTH, "X-Folded: a\r\n b"), CALL),
    "space in a name": ((LENGTH, "Origin : http://evil"), CALL),
    "second credential": ((LENGTH, "Authorization: Bearer x"), CALL),
}


@pytest.mark.parametrize(("headers", "body"), FRAMINGS.values(), ids=FRAMINGS.keys())
def test_a_framing_that_two_readers_see_differently_is_refused_once(attacker, headers, body):
    session, before = attacker.open(ANALYST), attacker.reached()
    token = attacker.deployment.token(ANALYST)
    received = attacker.raw(head("POST /mcp HTTP/1.1", f"Mcp-Session-Id: {session}", *headers, token=token) + body)
    assert received.split()[1] == b"400"
    assert attacker.reached() == before


def test_an_expectation_is_answered_only_to_a_caller_who_is_known(attacker):
    line = "POST /mcp HTTP/1.1"
    strange = attacker.raw(head(line, LENGTH, "Expect: <canary>", host="evil") + CALL)
    nobody = attacker.raw(head(line, LENGTH, "Expect: 100-continue"))
    session, token = attacker.open(ANALYST), attacker.deployment.token(ANALYST)
    known = attacker.raw(
        head(line, LENGTH, "Expect: 100-continue", "Connection: close", f"Mcp-Session-Id: {session}", token=token)
        + CALL,
        silence_s=5,
    )
    assert b"canary" not in strange
    assert b" 100 " not in nobody
    assert nobody.startswith(b"HTTP/1.1 401 ")
    assert known.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


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


ODD_MESSAGES = {
    "notification": {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "find", "arguments": ORDERS}},
    "null id": rpc("tools/call", {"name": "find", "arguments": ORDERS}, None),
    "float id": rpc("tools/call", {"name": "find", "arguments": ORDERS}, 1.0),
    "boolean id": rpc("tools/call", {"name": "find", "arguments": ORDERS}, request_id=True),
    "batch": [rpc("tools/call", {"name": "find", "arguments": ORDERS})],
    "case": rpc("tools/Call", {"name": "find", "arguments": ORDERS}),
    "second method": {**rpc("ping", {"name": "find", "arguments": ORDERS}), "METHOD": "tools/call"},
    "duplicate": CALL.replace(b'"method"', b'"method": "ping", "method"'),
    "escaped duplicate": CALL.replace(b'"method"', b'"m\\u0065thod": "ping", "method"'),
    "task": rpc("tools/call", {"name": "find", "arguments": ORDERS, "task": {}}),
    "answered question": rpc("tools/call", {"name": "find", "arguments": ORDERS, "inputResponses": {}}),
    "other era": rpc(
        "tools/call",
        {"name": "find", "arguments": ORDERS, "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}},
    ),
    "resource": rpc("resources/read", {"uri": "config://config"}),
    "export": rpc("resources/read", {"uri": "EXPORTED-DATA://%36"}),
    "trailing": CALL + b"\n" + CALL,
    "mark": b"\xef\xbb\xbf" + CALL,
    "wide": CALL.decode().encode("utf-16"),
    "surrogate": CALL.replace(b'"find"', b'"find\\ud800"'),
    "array name": rpc("tools/call", {"name": ["find"], "arguments": ORDERS}),
}


@pytest.mark.parametrize("message", ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
def test_no_odd_message_becomes_a_call(attacker, message):
    session, before = attacker.open(ANALYST), attacker.reached()
    reply = attacker.send(ANALYST, message, session=session)
    assert reply.status in {200, 400}
    assert "error" in reply.json or reply.json["result"]["isError"]
    assert attacker.reached() == before


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
