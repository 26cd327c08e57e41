"""Attacks on the revision without a handshake: envelopes, mirrored headers, legs. What counts is what reached a server.

Each row is one request that must not become a call, with the status and the JSON-RPC code that it gets; beside each
family stands the near miss that does become one.
"""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from tests.attacks.attacker import HEADERS, ORDERS, SALARIES, Attacker, Reply, head, rpc

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


def b64(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def send(attacker: Attacker, message: object, changes: HTTP_HEADERS | None = None, who: Any = ANALYST) -> Reply:
    """Send one request with the usual mirrored headers but for these; None leaves one out."""
    headers = {name: value for name, value in {**MIRROR, **(changes or {})}.items() if value is not None}
    return attacker.send(who, message, **{name.replace("-", "_"): value for name, value in headers.items()})


FINE: dict[str, tuple[Any, HTTP_HEADERS]] = {
    "plain": (body(), {}),
    "no client info": (body(meta={VERSION_KEY: REVISION, CAPABILITIES_KEY: {}}), {}),
    "odd client info": (body(meta={**META, CLIENT_KEY: 7}), {}),
    "string id": (body(request_id="1"), {}),
    "name in base64": (body(), {"Mcp-Name": b64("find")}),
    "white space around": (body(), {"Mcp-Name": "  find \t", "Mcp-Method": " tools/call "}),
    "a session that is not looked at": (body(), {"Mcp-Session-Id": "never-was"}),
    "an event id that is not looked at": (body(), {"Last-Event-ID": "9"}),
    "a parameter that nobody asked for": (body(), {"Mcp-Param-Database": "hr"}),
    "unknown keys of the envelope": (body(meta={**META, "example.com/x": {"a": [1]}, "progressToken": 7}), {}),
}


@pytest.mark.parametrize("title", FINE)
def test_what_is_a_call_becomes_one(attacker: Attacker, title: str) -> None:
    message, headers = FINE[title]
    before = attacker.reached()
    reply = send(attacker, message, headers)
    assert (reply.status, reply.json["id"]) == (200, message["id"])
    result = reply.json["result"]
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-sidecar"
    assert not result.get("isError")
    assert "mcp-session-id" not in reply.headers
    assert attacker.reached() == before + 1
    record = attacker.deployment.records()[-1]
    assert (record["session"], record["protocol"]) == (None, REVISION)


MISMATCH, PARAMS, INVALID, PARSE, METHOD, VERSION = -32020, -32602, -32600, -32700, -32601, -32022
DENIED = 0
"""A body that is refused as a whole: answered for its call, where its id is certain, with a result for the model."""
Row = tuple[Any, HTTP_HEADERS, int, int]
UNREAD = {"revision: two in one header", "revision: two alike in one header", "shape: no streams accepted"}
"""Refused before the body is read, so that no id is known."""

ENVELOPES: dict[str, Row] = {
    "no params": ({"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, {}, 400, PARAMS),
    "no meta": (rpc("tools/call", FIND), {}, 400, PARAMS),
    "null meta": (body(meta=None), {}, 400, PARAMS),
    "meta is a text": (body(meta=json.dumps(META)), {}, 400, PARAMS),
    "meta is a list": (body(meta=[META]), {}, 400, PARAMS),
    "empty meta": (body(meta={}), {}, 400, PARAMS),
    "no revision": (body(meta={CAPABILITIES_KEY: {}}), {}, 400, PARAMS),
    "no capabilities": (body(meta={VERSION_KEY: REVISION}), {}, 400, PARAMS),
    "capabilities are null": (body(meta={**META, CAPABILITIES_KEY: None}), {}, 400, PARAMS),
    "capabilities are a list": (body(meta={**META, CAPABILITIES_KEY: []}), {}, 400, PARAMS),
    "keys of another case": (body(meta={key.upper(): value for key, value in META.items()}), {}, 400, PARAMS),
    "keys without prefix": (body(meta={"protocolVersion": REVISION, "clientCapabilities": {}}), {}, 400, PARAMS),
    "a key with NUL": (body(meta={f"{VERSION_KEY}\x00": REVISION, CAPABILITIES_KEY: {}}), {}, 400, PARAMS),
    "a folded key": (
        body(meta={VERSION_KEY.replace("s", "\u017f"): REVISION, CAPABILITIES_KEY: {}}),
        {},
        400,
        PARAMS,
    ),
    "envelope outside of params": ({**rpc("tools/call", FIND), "_meta": META}, {}, 200, DENIED),
    "envelope among the arguments": (
        rpc("tools/call", {**FIND, "arguments": {**ORDERS, "_meta": META}}),
        {},
        400,
        PARAMS,
    ),
    "another key of the call": (body(params={**FIND, "task": {}}), {}, 400, PARAMS),
    "an answer that nobody asked for": (body(params={**FIND, "inputResponses": {"a": {}}}), {}, 400, PARAMS),
    "a state that nobody gave": (body(params={**FIND, "requestState": "abc"}), {}, 400, PARAMS),
    "a name that is a list": (body(params={**FIND, "name": ["find"]}), {}, 400, PARAMS),
    "no name": (body(params={"arguments": ORDERS}), {}, 400, PARAMS),
}

REVISIONS: dict[str, Row] = {
    "header of the handshake": (body(), {"MCP-Protocol-Version": "2025-11-25"}, 400, MISMATCH),
    "no header": (body(), {"MCP-Protocol-Version": None}, 400, MISMATCH),
    "header of no revision": (body(), {"MCP-Protocol-Version": "zzz"}, 400, MISMATCH),
    "header of a later one": (body(), {"MCP-Protocol-Version": "2027-01-01"}, 400, MISMATCH),
    "body of the handshake": (body(meta={**META, VERSION_KEY: "2025-11-25"}), {}, 400, MISMATCH),
    "body of no revision": (body(meta={**META, VERSION_KEY: "v999.0.0"}), {}, 400, MISMATCH),
    "body says null": (body(meta={**META, VERSION_KEY: None}), {}, 400, MISMATCH),
    "body says a number": (body(meta={**META, VERSION_KEY: 20260728}), {}, 400, MISMATCH),
    "body says a list": (body(meta={**META, VERSION_KEY: [REVISION]}), {}, 400, MISMATCH),
    "body with white space": (body(meta={**META, VERSION_KEY: f"{REVISION} "}), {}, 400, MISMATCH),
    "body with other digits": (body(meta={**META, VERSION_KEY: "2026-07-2\u0668"}), {}, 400, MISMATCH),
    "both of no revision": (
        body(meta={**META, VERSION_KEY: "2027-01-01"}),
        {"MCP-Protocol-Version": "2027-01-01"},
        400,
        VERSION,
    ),
    "both of the handshake": (
        body(meta={**META, VERSION_KEY: "2025-11-25"}),
        {"MCP-Protocol-Version": "2025-11-25"},
        200,
        PARAMS,
    ),
    "two in one header": (body(), {"MCP-Protocol-Version": f"{REVISION}, 2025-11-25"}, 400, INVALID),
    "two alike in one header": (body(), {"MCP-Protocol-Version": f"{REVISION}, {REVISION}"}, 400, INVALID),
    "an encoded header": (body(), {"MCP-Protocol-Version": b64(REVISION)}, 400, MISMATCH),
    "a quoted header": (body(), {"MCP-Protocol-Version": f'"{REVISION}"'}, 400, MISMATCH),
}

MIRRORED: dict[str, Row] = {
    "no method": (body(), {"Mcp-Method": None}, 400, MISMATCH),
    "another method": (body(), {"Mcp-Method": "tools/list"}, 400, MISMATCH),
    "a method of another case": (body(), {"Mcp-Method": "TOOLS/CALL"}, 400, MISMATCH),
    "an encoded method": (body(), {"Mcp-Method": b64("tools/call")}, 400, MISMATCH),
    "two methods in one header": (body(), {"Mcp-Method": "tools/call, tools/list"}, 400, MISMATCH),
    "an empty method": (body(), {"Mcp-Method": ""}, 400, MISMATCH),
    "no name": (body(), {"Mcp-Name": None}, 400, MISMATCH),
    "another name": (body(), {"Mcp-Name": "count"}, 400, MISMATCH),
    "a name of another case": (body(), {"Mcp-Name": "Find"}, 400, MISMATCH),
    "two names in one header": (body(), {"Mcp-Name": "find, find"}, 400, MISMATCH),
    "an empty name": (body(), {"Mcp-Name": ""}, 400, MISMATCH),
    "another name in base64": (body(), {"Mcp-Name": b64("count")}, 400, MISMATCH),
    "base64 without padding": (body(), {"Mcp-Name": "=?base64?ZmluZA?="}, 400, MISMATCH),
    "base64 with rubbish": (body(), {"Mcp-Name": "=?base64?Zm*luZA==?="}, 400, MISMATCH),
    "base64 that is not canonical": (body(), {"Mcp-Name": "=?base64?ZmluZB==?="}, 400, MISMATCH),
    "base64 of no text": (body(), {"Mcp-Name": "=?base64?/w==?="}, 400, MISMATCH),
    "markers of another case": (body(), {"Mcp-Name": "=?BASE64?ZmluZA==?="}, 400, MISMATCH),
    "no second marker": (body(), {"Mcp-Name": "=?base64?ZmluZA=="}, 400, MISMATCH),
    "base64 twice": (body(), {"Mcp-Name": b64(b64("find"))}, 400, MISMATCH),
    "percent encoding": (body(), {"Mcp-Name": "f%69nd"}, 400, MISMATCH),
    "a harmless name before a harmful one": (
        body(params={"name": "drop-database", "arguments": {"database": "sales"}}),
        {"Mcp-Name": "list-databases"},
        400,
        MISMATCH,
    ),
    "the name of a body that is a list": (
        rpc("tools/call", {"name": "drop-database", "arguments": {"database": "sales"}, "_meta": META}),
        {"Mcp-Name": "find"},
        400,
        MISMATCH,
    ),
}

REMOVED = ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe")
NOT_SERVED = (
    *REMOVED,
    "resources/list", "resources/read", "resources/templates/list", "prompts/list", "prompts/get",
    "completion/complete", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update",
    "sampling/createMessage", "elicitation/create", "roots/list", "notifications/cancelled", "tools/Call",
    "tools//call", "x", "rpc.discover",
)  # fmt: skip
METHODS: dict[str, Row] = {
    method: (
        body(method, {"name": "n", "uri": "n", "taskId": "n"}),
        {"Mcp-Method": method, "Mcp-Name": "n"},
        404,
        METHOD,
    )
    for method in NOT_SERVED
} | {"tools/call with a space": (body("tools/call "), {"Mcp-Method": "tools/call"}, 400, MISMATCH)}

SHAPES: dict[str, Row] = {
    "a batch": ([body()], {}, 400, INVALID),
    "a batch of two": ([body(), body(request_id=2)], {}, 400, INVALID),
    "an empty batch": ([], {}, 400, INVALID),
    "a batch in a batch": ([[body()]], {}, 400, INVALID),
    "a response": ({"jsonrpc": "2.0", "id": 1, "result": {}}, {}, 400, INVALID),
    "an error response": ({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "m"}}, {}, 400, INVALID),
    "a response with a method": ({**body(), "result": {}}, {}, 200, DENIED),
    "a call as a notification": ({key: value for key, value in body().items() if key != "id"}, {}, 404, METHOD),
    "null id": (body(request_id=None), {}, 400, INVALID),
    "a fraction as id": (body(request_id=1.5), {}, 400, INVALID),
    "a boolean as id": (body(request_id=True), {}, 400, INVALID),
    "a long id": (body(request_id="x" * 300), {}, 400, INVALID),
    "a list as id": (body(request_id=[1]), {}, 400, INVALID),
    "an object as id": (body(request_id={"a": 1}), {}, 400, INVALID),
    "a huge number as id": (
        json.dumps(body()).replace('"id": 1', '"id": 99999999999999999999').encode(),
        {},
        400,
        INVALID,
    ),
    "not JSON-RPC 2.0": ({**body(), "jsonrpc": "1.0"}, {}, 200, DENIED),
    "another member": ({**body(), "params2": {}}, {}, 200, DENIED),
    "params as a list": ({**body(), "params": [FIND]}, {}, 200, DENIED),
    "nothing": (b"", {}, 400, PARSE),
    "half of it": (json.dumps(body()).encode()[:-1], {}, 400, PARSE),
    "two of it": (json.dumps(body()).encode() * 2, {}, 400, PARSE),
    "a mark": (b"\xef\xbb\xbf" + json.dumps(body()).encode(), {}, 400, PARSE),
    "UTF-16": (json.dumps(body()).encode("utf-16"), {}, 400, PARSE),
    "a form": (b"name=find", {"Content-Type": "application/x-www-form-urlencoded"}, 415, INVALID),
    "compressed": (json.dumps(body()).encode(), {"Content-Encoding": "gzip"}, 415, INVALID),
    "no streams accepted": (body(), {"Accept": "application/json"}, 406, INVALID),
}

TWICE: dict[str, Row] = {
    "a method twice": (
        json.dumps(body()).replace('"method"', '"method": "ping", "method"').encode(), {}, 400, PARSE,
    ),
    "a name twice": (
        json.dumps(body()).replace('"name": "find"', '"name": "count", "name": "find"').encode(), {}, 200, DENIED,
    ),
    "a revision twice": (
        json.dumps(body()).replace(f'"{VERSION_KEY}"', f'"{VERSION_KEY}": "2025-11-25", "{VERSION_KEY}"').encode(),
        {}, 200, DENIED,
    ),
    "an escaped name": (
        json.dumps(body()).replace('"name": "find"', '"name": "count", "n\\u0061me": "find"').encode(), {}, 200, DENIED,
    ),
}  # fmt: skip

LEDGER: dict[str, Row] = {
    f"{family}: {title}": row
    for family, rows in {
        "envelope": ENVELOPES,
        "revision": REVISIONS,
        "mirrored": MIRRORED,
        "method": METHODS,
        "shape": SHAPES,
        "twice": TWICE,
    }.items()
    for title, row in rows.items()
}


def test_the_ledger_has_as_many_rows_as_it_should() -> None:
    assert len(LEDGER) >= 110


@pytest.mark.parametrize("title", LEDGER)
def test_what_is_no_call_becomes_none(attacker: Attacker, title: str) -> None:
    message, headers, status, code = LEDGER[title]
    before, recorded = attacker.reached(), len(attacker.deployment.records())
    reply = send(attacker, message, headers)
    assert attacker.reached() == before
    assert reply.status == status
    if code == DENIED:
        assert reply.json["result"]["isError"]
        assert reply.json["result"]["resultType"] == "complete"
    else:
        assert reply.json["error"]["code"] == code
    asked = isinstance(message, dict) and message.get("id") == 1 and message["id"] is not True and "method" in message
    if asked and title not in UNREAD:
        assert reply.json["id"] == 1, "every error names its request"
    assert len(attacker.deployment.records()) == recorded + 1, "and every refusal is evidence"


DUPLICATES = [
    ("MCP-Protocol-Version", "2025-11-25"),
    ("MCP-Protocol-Version", REVISION),
    ("mcp-protocol-version", "zzz"),
    ("Mcp-Method", "tools/list"),
    ("Mcp-Method", "tools/call"),
    ("MCP-METHOD", "ping"),
    ("Mcp-Name", "count"),
    ("Mcp-Name", "find"),
    ("mcp-name", b64("find")),
    ("Authorization", "Bearer x"),
    ("Content-Type", "application/json"),
]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(("name", "value"), DUPLICATES)
def test_a_header_that_decides_something_is_not_there_twice(
    attacker: Attacker, name: str, value: str, order: str
) -> None:
    before = attacker.reached()
    text = json.dumps(body()).encode()
    usual = [f"{known}: {said}" for known, said in MIRROR.items()]
    more = [f"{name}: {value}"]
    lines = [*more, *usual] if order == "before" else [*usual, *more]
    token = attacker.deployment.token(ANALYST)
    sent = head("POST /mcp HTTP/1.1", *lines, f"Content-Length: {len(text)}", "Connection: close", token=token) + text
    assert attacker.raw(sent).split()[1] == b"400"
    assert attacker.reached() == before


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
