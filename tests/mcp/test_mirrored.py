"""Headers that repeat parts of the body: what counts as the same, held against the official SDK's own reading."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound as sdk

from sidecar.mcp.mirrored import MirroredHeaders, annotated, check_parameters, check_request, check_revision, decoded
from sidecar.mcp.revision import HeaderMismatch
from sidecar.model import JsonObject

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "inner": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}},
        "plain": {"type": "string"},
    },
}


def b64(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


DECODED = {
    "find": "find",
    "": "",
    b64("größe"): "größe",
    b64("find"): "find",
    "=?base64??=": "",
    "=?BASE64?ZmluZA==?=": "=?BASE64?ZmluZA==?=",  # the markers are exact: a literal value
    "=?base64?ZmluZA==": "=?base64?ZmluZA==",
    "ZmluZA==": "ZmluZA==",
    "=?base64?ZmluZA=?=": None,  # padding
    "=?base64?Zmlu ZA==?=": None,
    "=?base64?ZmluZB==?=": None,  # not canonical: a second text for one value
    "=?base64?_-8=?=": None,  # another alphabet
    "=?base64?/w==?=": None,  # not UTF-8
    "fi\u043dd": None,
    "f\x00ind": None,
}


@pytest.mark.parametrize(("value", "expected"), DECODED.items())
def test_a_value_is_decoded_as_the_specification_says_or_counts_as_malformed(value: str, expected: str | None) -> None:
    assert decoded(value) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_the_official_sdk_encodes_is_read_as_it_was(text: str) -> None:
    assert decoded(sdk.encode_header_value(text)) == text


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_anything_that_is_sent_is_read_as_the_official_sdk_reads_it(value: str) -> None:
    assert decoded(value) == sdk.decode_header_value(value)


def refused(check: Callable[..., None], *arguments: object) -> bool:
    """Whether a check refuses what it is given."""
    try:
        check(*arguments)
    except HeaderMismatch:
        return True
    return False


def test_the_revision_is_the_bodys() -> None:
    assert not refused(check_revision, "2026-07-28", "2026-07-28")
    others = [(None, None), (None, "x"), ("x", None), ("2026-07-28", "2026-07-2"), ("1", 1)]
    assert {refused(check_revision, header, claimed) for header, claimed in others} == {True}


FINE = [
    (MirroredHeaders(method="tools/call", name="find"), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call", name=b64("find")), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call"), "tools/call", {"name": 7}),  # refused for what the body says
    (MirroredHeaders(method="tools/list"), "tools/list", {}),
    (MirroredHeaders(method="tools/list", name="find"), "tools/list", {}),  # means nothing there
    (MirroredHeaders(method="resources/read", name="a://b"), "resources/read", {"uri": "a://b"}),
    (MirroredHeaders(method="tasks/get", name="t"), "tasks/get", {"taskId": "t"}),
]
REFUSED = [
    (MirroredHeaders(), "tools/list", {}),
    (MirroredHeaders(method="TOOLS/LIST"), "tools/list", {}),
    (MirroredHeaders(method=b64("tools/list")), "tools/list", {}),  # only names and parameters are encoded
    (MirroredHeaders(method="tools/list"), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call"), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call", name=""), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call", name="Find"), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call", name="count"), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="tools/call", name="=?base64?ZmluZB==?="), "tools/call", {"name": "find"}),
    (MirroredHeaders(method="resources/read", name="a://c"), "resources/read", {"uri": "a://b"}),
    (MirroredHeaders(method="tasks/get"), "tasks/get", {"taskId": "t"}),
]


@pytest.mark.parametrize(("headers", "method", "params"), FINE)
def test_headers_that_repeat_the_body_pass(headers: MirroredHeaders, method: str, params: JsonObject) -> None:
    assert not refused(check_request, headers, method, params)


@pytest.mark.parametrize(("headers", "method", "params"), REFUSED)
def test_headers_that_say_something_else_are_refused(headers: MirroredHeaders, method: str, params: JsonObject) -> None:
    assert refused(check_request, headers, method, params)


def test_every_header_that_the_official_client_sends_is_asked_for() -> None:
    assert dict(annotated(SCHEMA)) == sdk.x_mcp_header_map(SCHEMA)


PARAMETERS = {
    "all of them": ([("region", "eu"), ("count", "3"), ("dry", "true"), ("zone", "a")], True),
    "numbers are compared as numbers": ([("region", "eu"), ("count", "3.0"), ("dry", "true"), ("zone", "a")], True),
    "others are not looked at": ([("region", "eu"), ("count", "3"), ("dry", "true"), ("zone", "a"), ("x", "y")], True),
    "encoded": ([("region", b64("eu")), ("count", "3"), ("dry", "true"), ("zone", "a")], True),
    "one missing": ([("region", "eu"), ("count", "3"), ("dry", "true")], False),
    "another value": ([("region", "us"), ("count", "3"), ("dry", "true"), ("zone", "a")], False),
    "another case": ([("region", "EU"), ("count", "3"), ("dry", "true"), ("zone", "a")], False),
    "another number": ([("region", "eu"), ("count", "30"), ("dry", "true"), ("zone", "a")], False),
    "a number of another form": ([("region", "eu"), ("count", "0x3"), ("dry", "true"), ("zone", "a")], False),
    "another boolean": ([("region", "eu"), ("count", "3"), ("dry", "1"), ("zone", "a")], False),
    "twice": ([("region", "eu"), ("region", "eu"), ("count", "3"), ("dry", "true"), ("zone", "a")], False),
    "two values": ([("region", "eu"), ("region", "us"), ("count", "3"), ("dry", "true"), ("zone", "a")], False),
    "malformed": ([("region", "=?base64?e?="), ("count", "3"), ("dry", "true"), ("zone", "a")], False),
}
ARGUMENTS: JsonObject = {"region": "eu", "count": 3, "dry": True, "inner": {"zone": "a"}, "plain": "x"}


@pytest.mark.parametrize("title", PARAMETERS)
def test_headers_of_arguments_repeat_them_exactly(title: str) -> None:
    sent, fine = PARAMETERS[title]
    headers = MirroredHeaders(method="tools/call", name="t", parameters=tuple(sent))
    assert refused(check_parameters, headers, SCHEMA, ARGUMENTS) is not fine


def test_a_header_without_its_argument_is_refused_and_neither_is_nothing() -> None:
    sent = MirroredHeaders(parameters=(("region", "eu"),))
    empty: list[JsonObject] = [{}, {"region": None}, {"region": {}}, {"region": ["eu"]}]
    assert [refused(check_parameters, MirroredHeaders(), SCHEMA, arguments) for arguments in empty] == [False] * 4
    assert [refused(check_parameters, sent, SCHEMA, arguments) for arguments in empty] == [True] * 4


@pytest.mark.parametrize("schema", [None, True, [], {"properties": []}, {"x-mcp-header": "Root"}, {"items": SCHEMA}])
def test_a_schema_without_annotated_properties_asks_for_nothing(schema: object) -> None:
    assert not refused(check_parameters, MirroredHeaders(parameters=(("root", "x"),)), schema, ARGUMENTS)
