"""What leaves: compact, strict, and never two messages where one was meant."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.jsonrpc import encode, encode_batch, encode_error, encode_notification, encode_result


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], "\ud800", {"\udfff": 1}])
def test_what_decode_would_refuse_is_not_encoded(value):
    with pytest.raises(ValueError):
        encode(value)


def test_encoding_is_compact_utf8():
    assert encode({"a": ["ü", 1.0, -0.0, None, True]}) == '{"a":["ü",1.0,-0.0,null,true]}'.encode()


def test_a_result_is_spliced_in_as_it_is():
    assert encode_result('a"b', b'{"n":1.50}') == b'{"jsonrpc":"2.0","id":"a\\"b","result":{"n":1.50}}'


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.text("\r\n%\u2028x")))
def test_a_result_on_several_lines_becomes_one_line_and_means_the_same(value):
    pretty = json.dumps(value, indent=2).replace("\n", "\r\n").encode()
    spliced = encode_result(1, pretty)
    assert b"\n" not in spliced
    assert b"\r" not in spliced
    assert json.JSONDecoder().decode(spliced.decode()) == {"jsonrpc": "2.0", "id": 1, "result": value}


@pytest.mark.parametrize("result", [b"", b"[]", b"1", b'{"a":1},"id":2', b" {}"])
def test_a_result_that_is_no_object_is_a_mistake_of_ours(result):
    with pytest.raises(ValueError):
        encode_result(1, result)


def test_an_error_without_a_readable_id_has_a_null_id():
    assert encode_error(None, -32700, "no") == b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}'


def test_an_error_carries_data_only_where_there_is_some():
    assert encode_error(1, 5, "no", {}) == b'{"jsonrpc":"2.0","id":1,"error":{"code":5,"message":"no","data":{}}}'


def test_a_notification_leaves_out_empty_params():
    assert encode_notification("n", {}) == b'{"jsonrpc":"2.0","method":"n"}'
    assert encode_notification("n", {"a": 1}) == b'{"jsonrpc":"2.0","method":"n","params":{"a":1}}'


def test_a_batch_is_an_array_and_never_empty():
    assert encode_batch([b"{}", b"{}"]) == b"[{},{}]"
    with pytest.raises(ValueError):
        encode_batch([])
