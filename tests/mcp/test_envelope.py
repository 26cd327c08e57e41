"""The id of a body that is refused as a whole: read where it is certain, and nowhere else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.envelope import Envelope, read_envelope
from sidecar.mcp.jsonrpc import MAX_INTEGER

CALL = b'{"method":"tools/call","params":{"name":"find","arguments":%b},"jsonrpc":"2.0","id":%b}'

REFUSED_CONTENTS = {
    "a number beyond a double": b'{"n":725653563933458432}',
    "a number that overflows": b'{"n":1e999}',
    "nesting": b"[" * 120 + b"]" * 120,
    "deep nesting": b'{"a":' * 500 + b"1" + b"}" * 500,
    "a repeated key below": b'{"a":1,"a":2}',
    "size": b'["' + b"x" * 1_200_000 + b'"]',
    "an id below": b'{"id":9,"method":"ping"}',
    "a text that looks like the end": rb'{"a":"\"},\"id\":7}"}',
    "half a surrogate pair": rb'{"a":"\ud800","b":"\\ud800","c":"\uDFFF"}',
    "text that is not UTF-8": b'{"a":"\xff"}',
}


@pytest.mark.parametrize("content", REFUSED_CONTENTS)
@pytest.mark.parametrize(("written", "read"), [(b"7", 7), (b"-1", -1), (b'"a-7"', "a-7"), ('"é"'.encode(), "é")])
def test_the_id_is_read_whatever_the_arguments_hold(content: str, written: bytes, read: int | str) -> None:
    assert read_envelope(CALL % (REFUSED_CONTENTS[content], written)) == Envelope(read, "tools/call")


def test_an_id_may_be_written_with_escapes() -> None:
    assert read_envelope(CALL % (b"[1e999]", rb'"\u00e9\ud83e\udd16"')) == Envelope("é\U0001f916", "tools/call")


def test_white_space_between_the_members_changes_nothing() -> None:
    assert read_envelope(b' {\n"id" :\t1 ,"method": "ping" , "params":{ "a" : [ 1 , 2 ] } }\r\n') == Envelope(1, "ping")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'[{"id":1,"method":"ping"}]',
        b'{"id":1,"method":"ping"',
        b'{"id":1,"method":"ping"}{}',
        b'{"id":1,"method":"ping"} x',
        b'\xef\xbb\xbf{"id":1,"method":"ping"}',
        b'{"id":1,"id":1,"method":"ping"}',
        b'{"id":1,"method":"ping","id":2}',
        b'{"id":1,"method":"ping","method":"tools/call"}',
        b'{"id":1,"method":"ping","params":{},"params":{}}',
        rb'{"\u0069d":1,"method":"ping"}',
        rb'{"id":1,"\u0069d":2,"method":"ping"}',
        b'{"id":null,"method":"ping"}',
        b'{"id":true,"method":"ping"}',
        b'{"id":1.0,"method":"ping"}',
        b'{"id":1e0,"method":"ping"}',
        b'{"id":[1],"method":"ping"}',
        b'{"id":{},"method":"ping"}',
        b'{"id":%d,"method":"ping"}' % (MAX_INTEGER + 1),
        b'{"id":"%b","method":"ping"}' % (b"x" * 257),
        rb'{"id":"\ud800","method":"ping"}',
        rb'{"id":"\ud83e\udd16","method":"ping","params":"\ud800"}',
        rb'{"id":1,"method":"\ud83e\udd16","params":"\ud800"}',
        b'{"id":"\xff","method":"ping"}',
        b'{"id":1,"method":1}',
        b'{"id":1,"method":""}',
        b'{"id":1}',
        b'{"ID":1,"method":"ping"',
        b'{"id":1,"method":"ping",%b}' % b",".join(b'"k%d":1' % n for n in range(20)),
    ],
)
def test_where_it_is_not_certain_there_is_no_id(body: bytes) -> None:
    assert read_envelope(body) is None


@pytest.mark.parametrize(
    ("body", "envelope"),
    [
        (b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"n":1e999}}', "notifications/progress"),
        (b'{"jsonrpc":"2.0","id":4,"result":{"n":1e999}}', ""),
        (b'{"jsonrpc":"2.0","id":4,"error":{"code":725653563933458432}}', ""),
    ],
)
def test_a_notification_and_a_response_expect_no_answer(body: bytes, envelope: str) -> None:
    assert read_envelope(body) == Envelope(None, envelope)


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.lists(
    st.tuples(st.sampled_from(["id", "method", "params", "jsonrpc", "extra", "i d"]), VALUES | st.integers(0, 9)),
    max_size=6,
)


@given(MEMBERS, st.booleans(), st.sampled_from([None, 1]))
def test_an_id_is_what_every_reader_of_the_body_reads(
    members: list[tuple[str, Any]], escaped: bool, indent: int | None
) -> None:
    spelt = ",".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=escaped, indent=indent)}" for k, v in members)
    body = ("{" + spelt + "}").encode("utf-8", "surrogatepass")
    found = read_envelope(body)
    names = [name for name, _ in members]
    if found is not None:
        assert len(set(names)) == len(names)
        if found.request_id is not None:
            assert type(found.request_id) is type(dict(members)["id"])
            assert (found.request_id, found.method) == (dict(members)["id"], dict(members)["method"])


@given(st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(max_size=40), VALUES)
def test_every_id_that_a_client_may_send_is_found(request_id: int | str, arguments: Any) -> None:
    body = json.dumps({"method": "tools/call", "params": arguments, "jsonrpc": "2.0", "id": request_id})
    assert read_envelope(body.encode()) == Envelope(request_id, "tools/call")
