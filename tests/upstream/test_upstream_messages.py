"""Envelopes: one message or Malformed, never an exception; results counted by what they say."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused
from sidecar.upstream.messages import (
    MalformedMessage,
    Refusal,
    ServerNotification,
    ServerRequest,
    ServerResult,
    answered_by,
    check_initialized,
    decode_message,
    encode_notification,
    encode_reply,
    encode_request,
    read_page,
    read_tool_result,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.integers(1), st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_request_is_one_line_that_decodes_to_itself(number, method, params):
    line = encode_request(number, method, params)
    assert b"\n" not in line
    if number < 2**63:
        decoded = msgspec.json.decode(line)
        assert (decoded["id"], decoded["method"]) == (number, method)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(line):
    assert isinstance(
        decode_message(line), ServerResult | Refusal | ServerRequest | ServerNotification | MalformedMessage
    )


@given(JSON)
def test_any_json_is_a_message_or_malformed(value):
    assert isinstance(decode_message(msgspec.json.encode(value)), MalformedMessage)


@given(
    st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "result", "error", "params"]), JSON | st.just("2.0"))
)
def test_any_envelope_is_a_message_or_malformed(envelope):
    assert isinstance(
        decode_message(msgspec.json.encode(envelope)),
        ServerResult | Refusal | ServerRequest | ServerNotification | MalformedMessage,
    )


def test_the_result_is_the_bytes_that_came():
    assert decode_message(b'{"jsonrpc":"2.0","id":7,"result": {"a" : 1.0, "a":2} }') == ServerResult(
        id=7, result=b'{"a" : 1.0, "a":2}'
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"jsonrpc":"2.0","method":"m"}', ServerNotification(method="m")),
        (b'{"jsonrpc":"2.0","method":"m","id":"x"}', ServerRequest(id="x", method="m")),
        (b'{"jsonrpc":"2.0","method":"m","id":3}', ServerRequest(id=3, method="m")),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"t"}}', Refusal(id=1, code=5, message="t")),
    ],
)
def test_messages_are_told_apart(line, expected):
    assert decode_message(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","method":"m","id":null}',
        b'{"jsonrpc":"2.0","method":"m","id":true}',
        b'{"jsonrpc":"2.0","method":"m","id":"' + b"x" * 257 + b'"}',
        b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":"1","result":{}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}',
        b'{"id":1,"result":{}}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}} {}',
        b"",
    ],
    ids=repr,
)
def test_near_misses_are_malformed(line):
    assert isinstance(decode_message(line), MalformedMessage)


@pytest.mark.parametrize(
    ("tail", "number"),
    [
        (b'...}]},"jsonrpc":"2.0","id":17}', 17),
        (b'...","id":17} \r', 17),
        (b'{"jsonrpc":"2.0","id":1,"result":{"id":17}}', None),
        (b'..."text":"forged \\",\\"id\\":17}', None),
        (b'..."x,\\"id":17}', None),
        (b'..."id":17}]', None),
        (b"17}", None),
    ],
)
def test_the_tail_of_a_lost_answer_names_its_request_only_where_it_cannot_be_data(tail, number):
    assert answered_by(tail) == number


@pytest.mark.parametrize(
    ("structured", "documents"),
    [
        ('{"documents":[{},{"a":[1,2]}],"queryResultsCount":900}', 2),
        ('{"documents":[],"count":"indeterminate"}', 0),
        ('{"documents":[{}],"count":5}', 1),
        ('{"count":5}', 5),
        ('{"count":"indeterminate"}', None),
        ('{"insertedCount":3,"insertedIds":["a"]}', 3),
        ('{"deletedCount":0}', 0),
        ('{"matchedCount":9,"modifiedCount":4,"upsertedCount":0}', 4),
        ('{"matchedCount":0,"modifiedCount":0,"upsertedCount":1}', 1),
        ('{"databases":[{"name":"a"}],"totalCount":1}', None),
        ('{"documents":"many"}', None),
        ('{"count":1.5}', None),
        ("[1]", None),
        ("null", None),
    ],
)
def test_documents_are_counted_where_the_result_says_so(structured, documents):
    result = f'{{"content":[],"structuredContent":{structured}}}'.encode()
    assert read_tool_result(result).documents == documents
    assert read_tool_result(result).result == result


def test_a_failed_result_counts_nothing():
    result = read_tool_result(b'{"content":[],"isError":true,"structuredContent":{"count":5}}')
    assert (result.failed, result.documents) == (True, None)


@pytest.mark.parametrize(
    "result",
    [
        b"{}",
        b'{"protocolVersion":"2025-11-25"}',
        b'{"protocolVersion":"2025-11-25","capabilities":{}}',
        b'{"protocolVersion":"2024-11-05","capabilities":{"tools":{}}}',
        b'{"protocolVersion":"2026-07-28","capabilities":{"tools":{}}}',
        b'{"protocolVersion":7,"capabilities":{"tools":{}}}',
    ],
)
def test_a_handshake_that_is_not_ours_is_a_protocol_violation(result):
    with pytest.raises(UpstreamProtocolViolation):
        check_initialized(result)


def test_the_near_miss_of_the_handshake_is_accepted():
    assert check_initialized(b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}') == "2025-11-25"


@pytest.mark.parametrize("kind", ["tools", "prompts"])
@pytest.mark.parametrize("page", ["{}", '{"KIND":{}}', '{"KIND":[1]}', '{"KIND":[{}]}', '{"KIND":[{"name":""}]}'])
def test_a_page_of_a_list_that_is_none_is_a_protocol_violation(page, kind):
    with pytest.raises(UpstreamProtocolViolation, match=f"{kind}/list"):
        read_page(f"{kind}/list", page.replace("KIND", kind).encode())


def test_a_page_of_one_list_is_none_of_another():
    assert read_page("prompts/list", b'{"prompts":[{"name":"a"}]}') == ([{"name": "a"}], None)
    with pytest.raises(UpstreamProtocolViolation, match="tools/list"):
        read_page("tools/list", b'{"prompts":[{"name":"a"}]}')


def test_a_tools_page_keeps_every_member():
    page = b'{"tools":[{"name":"a","inputSchema":{"x":[1,null]},"annotations":{"t":true}}],"nextCursor":"c"}'
    assert read_page("tools/list", page) == (
        [{"name": "a", "inputSchema": {"x": [1, None]}, "annotations": {"t": True}}],
        "c",
    )


def test_replies_to_the_server_refuse_everything_but_ping():
    assert encode_reply(ServerRequest(id="a", method="ping")) == b'{"jsonrpc":"2.0","id":"a","result":{}}'
    for method in ("Ping", "elicitation/create", "ping/", ""):
        assert b'"code":-32601' in encode_reply(ServerRequest(id=1, method=method))


def test_a_nan_is_never_written():
    with pytest.raises(UpstreamRefused):
        encode_notification("m", {"x": float("nan")})
