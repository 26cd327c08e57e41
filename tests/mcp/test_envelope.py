"""The id of a body that is refused as a whole: read where it is certain, and nowhere else."""

import json
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sidecar.mcp.envelope import ENDS_BYTES, Ends, Envelope, read_ends, read_envelope
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


def cut(body: bytes, first: int, last: int) -> Ends:
    return Ends(body[:first], body[len(body) - last :] if last else b"")


SDK_ORDERS = {
    "Python and TypeScript": b'{"method":"tools/call","params":%b,"jsonrpc":"2.0","id":7}',
    "Go, Rust, Java": b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%b}',
    "id first, method last": b'{ "id" : 7, "params" : %b , "jsonrpc" : "2.0" , "method" : "tools/call" }\r\n',
}
HUGE = b'{"name":"find","arguments":{"a":"%b"}}' % (b"x" * 100_000)


@pytest.mark.parametrize("order", SDK_ORDERS)
def test_of_a_huge_body_the_ends_tell_whose_answer_it_is(order: str) -> None:
    assert read_ends(Ends.of(SDK_ORDERS[order] % HUGE)) == Envelope(7, "tools/call")


def test_a_huge_notification_expects_no_answer_and_another_message_without_an_id_is_not_known() -> None:
    body = b'{"method":"%b","params":%b,"jsonrpc":"2.0"}'
    assert read_ends(Ends.of(body % (b"notifications/progress", HUGE))) == Envelope(None, "notifications/progress")
    assert read_ends(Ends.of(body % (b"tools/call", HUGE))) is None
    assert read_ends(Ends.of(body.replace(b"2.0", b'2.0","id":null,"x":"') % (b"notifications/progress", HUGE))) is None


@pytest.mark.parametrize(
    "arguments",
    [
        rb'{"a":"\",\"id\":9}',
        rb'{"a":",\"id\":9}"}',
        rb'{"a":"x,\\"}',
        b'{"id":9,"method":"ping"}',
        b'[{"a":1,"id":9}]',
        b'{"a":"x, b","c":"d,e"}',
    ],
)
@pytest.mark.parametrize("order", SDK_ORDERS)
def test_no_text_in_the_arguments_passes_for_a_member(order: str, arguments: bytes) -> None:
    body = SDK_ORDERS[order] % arguments
    assert read_ends(Ends.of(body)) in {Envelope(7, "tools/call"), None}
    assert read_ends(cut(body, 20, len(body))) in {Envelope(7, "tools/call"), None}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'[{"id":1,"method":"ping","params":{}}]',
        b'{"id":1,"method":"ping","params":{"x":"',
        b'{"id":1,"method":"ping","params":{},"id":1}',
        b'{"id":1,"method":"ping","params":{},"id":2}',
        b'{"id":1,"method":"ping","params":{},"method":"ping"}',
        b'{"method":"ping","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"id":true,"method":"ping","params":{}}',
        b'{"id":1.5,"method":"ping","params":{}}',
        b'{"id":null,"method":"ping","params":{}}',
        b'{"id":%d,"method":"ping","params":{}}' % (MAX_INTEGER + 1),
        b'{"id":"\xff","method":"ping","params":{}}',
        rb'{"id":"\u0031","method":"ping","params":{}}',
        b'{"id":1,"method":"","params":{}}',
        b'{"id":1,"method":"%b","params":{}}' % (b"x" * 200),
        b'\xef\xbb\xbf{"id":1,"method":"ping","params":{}}',
    ],
)
def test_where_the_ends_do_not_tell_there_is_no_id(body: bytes) -> None:
    assert read_ends(Ends.of(body)) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["id", "method", "params", "jsonrpc", "extra"]), VALUES | st.integers(0, 9)),
        max_size=5,
        unique_by=lambda member: member[0],
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_the_ends_of_a_body_never_tell_another_id_than_the_whole(
    members: list[tuple[str, Any]], escaped: bool, indent: int | None, first: int, last: int
) -> None:
    body = json.dumps(dict(members), ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    found = read_ends(cut(body, first, min(last, len(body))))
    event("told" if found else "not told")
    asked = dict(members)
    assert found is None or (found.method == asked["method"] and same(found.request_id, asked.get("id")))


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


@given(st.lists(st.binary(max_size=3 * ENDS_BYTES), max_size=6))
def test_the_ends_are_those_of_all_that_came(pieces: list[bytes]) -> None:
    ends = Ends(b"", b"")
    for piece in pieces:
        ends = ends.followed_by(piece)
    assert ends == Ends.of(b"".join(pieces))
