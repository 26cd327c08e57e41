"""Parameters of the three methods the sidecar serves, and the results it makes itself."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, InitializeResult, ListToolsResult

from sidecar.errors import InvalidParams
from sidecar.mcp.denials import DECISION_KEY, denial
from sidecar.mcp.revision import McpRevision
from sidecar.mcp.tools import (
    check_list_params,
    initialize_result,
    parse_call,
    parse_initialize,
    parse_level,
    progress_token,
    tools_list_result,
    traceparent,
)
from sidecar.model import JsonObject, ToolCall

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_call_is_its_name_and_arguments_and_nothing_else():
    params: JsonObject = {"name": "find", "arguments": {"a": 1}, "_meta": {"progressToken": 1, "x/y": 2}}
    assert parse_call(params) == ToolCall(name="find", arguments={"a": 1})


@pytest.mark.parametrize("params", [{}, {"arguments": None}, {"arguments": None, "_meta": None}])
def test_absent_arguments_are_empty_arguments(params):
    assert parse_call({"name": "list-databases", **params}).arguments == {}


WRONG_CALLS = {
    "no name": {},
    "empty name": {"name": ""},
    "name as a number": {"name": 1},
    "name as a list": {"name": ["find"]},
    "name null": {"name": None},
    "name too long": {"name": "n" * 129},
    "arguments as an array": {"name": "find", "arguments": []},
    "arguments false": {"name": "find", "arguments": False},
    "arguments as text": {"name": "find", "arguments": "{}"},
    "meta as an array": {"name": "find", "_meta": []},
    "meta as an empty text": {"name": "find", "_meta": ""},
    "task": {"name": "find", "task": {"ttl": 1}},
    "input responses": {"name": "find", "inputResponses": {}},
    "request state": {"name": "find", "requestState": "x"},
    "capitals": {"Name": "find"},
    "a second name": {"name": "find", "NAME": "drop-database"},
    "a name with NUL": {"name": "find", "name\x00": "drop-database"},
    "prototype": {"name": "find", "__proto__": {}},
}


@pytest.mark.parametrize("params", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_call_of_another_form_is_refused(params):
    with pytest.raises(InvalidParams):
        parse_call(params)


@pytest.mark.parametrize("value", [PARENT, PARENT.replace("00-", "cc-", 1), PARENT[:-2] + "ff"])
def test_a_well_formed_traceparent_is_taken(value):
    assert traceparent({"name": "find", "_meta": {"traceparent": value}}) == value
    assert traceparent({"_meta": {"traceparent": value}}) == value


BAD_PARENTS = [
    "",
    PARENT.upper(),
    PARENT + "-x",
    PARENT + "\n",
    " " + PARENT,
    PARENT.replace("00-", "ff-", 1),
    "00-" + "0" * 32 + "-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    PARENT[:-1],
    1,
    None,
    [PARENT],
]


@pytest.mark.parametrize("value", BAD_PARENTS)
def test_a_malformed_traceparent_counts_as_none(value):
    params: JsonObject = {"name": "find", "_meta": {"traceparent": value}}
    assert traceparent(params) is None
    assert parse_call(params).name == "find"


@given(st.recursive(st.none() | st.text(), lambda n: st.dictionaries(st.sampled_from(["_meta", "traceparent"]), n)))
def test_looking_for_a_trace_never_raises(params):
    assert traceparent(params if isinstance(params, dict) else {"_meta": params}) is None


@pytest.mark.parametrize(
    "params", [{"cursor": "x"}, {"cursor": ""}, {"cursor": 0}, {"cursor": []}, {"extra": 1}, {"_meta": 1}]
)
def test_a_list_takes_no_cursor_and_no_unknown_key(params):
    with pytest.raises(InvalidParams):
        check_list_params(params)


@pytest.mark.parametrize(
    "params", [{}, {"_meta": {}}, {"_meta": {"progressToken": 1}}, {"cursor": None}, {"cursor": None, "_meta": None}]
)
def test_a_list_without_parameters_is_fine(params):
    check_list_params(params)


HELLO: JsonObject = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "Probe ü", "version": "1.0"},
}


def test_initialize_gives_the_requested_revision_and_the_clients_name():
    assert parse_initialize(HELLO | {"trace": "off"}) == ("2025-11-25", "Probe ü")


@pytest.mark.parametrize(
    "change",
    [
        {"clientInfo": None},
        {"clientInfo": "x"},
        {"capabilities": None},
        {"capabilities": []},
    ],
)
def test_a_handshake_of_another_form_is_refused(change):
    with pytest.raises(InvalidParams):
        parse_initialize(HELLO | change)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", ""),
        (None, ""),
        (1, ""),
        ("Probe ü", "Probe ü"),
        ("a\u00a0b", "a b"),
        ("robot \U0001f916", "robot \U0001f916"),
        ("x\n{}\r", "x {}"),
        ("\x1b[31m", "[31m"),
        ("a\u202eb\u2028\u0085\u009b", "a b"),
        ("x" * 5_000, "x" * 128),
        ("\u200b", ""),
    ],
)
def test_a_clients_name_is_cleaned_and_never_refused(said, shown):
    assert parse_initialize(HELLO | {"clientInfo": {"name": said, "version": "1"}})[1] == shown
    assert parse_initialize(HELLO | {"clientInfo": {"name": said}})[1] == shown


def test_only_tools_and_log_messages_of_calls_are_offered():
    result = initialize_result(McpRevision.V2025_06_18, "0.1.0", "Ask first.")
    assert result["capabilities"] == {"tools": {"listChanged": True}, "logging": {}}
    assert InitializeResult.model_validate(result).instructions == "Ask first."
    assert "instructions" not in initialize_result(McpRevision.V2025_06_18, "0.1.0", None)


@pytest.mark.parametrize("token", [0, -1, 2**53 - 1, "", "t", "t" * 256])
def test_a_progress_token_is_a_string_or_an_integer(token):
    assert progress_token({"_meta": {"progressToken": token}}) == token


@pytest.mark.parametrize("token", [None, True, 1.0, [], {}, "t" * 257])
def test_a_wish_for_progress_of_another_form_is_none(token):
    assert progress_token({"_meta": {"progressToken": token}}) is None
    assert progress_token({"_meta": token}) is None
    assert progress_token({"progressToken": "t"}) is None


@pytest.mark.parametrize(
    "params",
    [{}, {"level": None}, {"level": "loud"}, {"level": "INFO"}, {"level": ["info"]}, {"level": "info", "x": 1}],
)
def test_a_level_is_one_of_eight(params):
    with pytest.raises(InvalidParams):
        parse_level(params)
    assert parse_level({"level": "info", "_meta": {}}) == "info"


def test_a_list_keeps_the_servers_order():
    tools: list[JsonObject] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("b", "a")]
    assert [tool.name for tool in ListToolsResult.model_validate_json(tools_list_result(tools)).tools] == ["b", "a"]


def test_a_denial_is_a_tool_result_that_failed():
    result = json.JSONDecoder().decode(denial("Refused: x.", {DECISION_KEY: {"allow": False}}).decode())
    assert result == {
        "content": [{"type": "text", "text": "Refused: x."}],
        "isError": True,
        "_meta": {"mcp-sidecar/decision": {"allow": False}},
    }
    assert CallToolResult.model_validate(result).is_error


def test_the_decision_key_is_valid_and_not_reserved():
    """MCP 2025-11-25 (and 2025-06-18), basic, _meta: labels, then a name; no label may be one of MCP's own."""
    prefix, name = DECISION_KEY.split("/")
    labels = prefix.split(".")
    assert all(re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?", label) for label in labels)
    assert re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", name)
    assert not {"mcp", "modelcontextprotocol"} & set(labels)
