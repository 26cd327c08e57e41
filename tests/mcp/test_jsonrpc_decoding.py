"""What ``decode`` lets in, and that it never fails in any way but its own two."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import InvalidRequest, MessageError, ParseError
from sidecar.mcp import jsonrpc
from sidecar.mcp.jsonrpc import (
    Batch,
    ClientMessage,
    InvalidMessage,
    MessageTooComplex,
    Notification,
    NumberRefused,
    Request,
    Response,
    decode,
    encode,
)
from sidecar.model import JsonValue
from tests.examples import examples

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.one_of(
    st.integers(-jsonrpc.MAX_INTEGER, jsonrpc.MAX_INTEGER), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda nested: st.one_of(st.lists(nested, max_size=4), st.dictionaries(texts, nested, max_size=4)),
    max_leaves=30,
)
params = st.dictionaries(texts, values, max_size=4)
method_names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=40)
ids = st.one_of(st.integers(-jsonrpc.MAX_INTEGER, jsonrpc.MAX_INTEGER), texts)
messages = st.one_of(
    st.builds(Request, ids, method_names, params),
    st.builds(Notification, method_names, params),
    st.builds(Response, ids, params | st.none()),
)


def wire(message: ClientMessage | Batch) -> JsonValue:
    """The message as a peer would send it."""
    match message:
        case Request():
            return {"jsonrpc": "2.0", "id": message.id, "method": message.method, "params": message.params}
        case Notification():
            return {"jsonrpc": "2.0", "method": message.method, "params": message.params}
        case Response():
            if message.result is None:
                return {"jsonrpc": "2.0", "id": message.id, "error": {"code": 1, "message": "no"}}
            return {"jsonrpc": "2.0", "id": message.id, "result": message.result}
        case Batch():
            return [wire(member) for member in message.members]


def call(arguments_text: str) -> bytes:
    return b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"a":%b}}' % arguments_text.encode()


def read(arguments_text: str) -> JsonValue:
    """What the argument is after decoding."""
    message = decode(call(arguments_text))
    assert isinstance(message, Request)
    return message.params["a"]


def nested(depth: int) -> bytes:
    """A message of exactly ``depth`` levels; the envelope and ``params`` are two of them."""
    return call("[" * (depth - 2) + "]" * (depth - 2))


def exactly(value: JsonValue, again: JsonValue) -> bool:
    """Equality that tells 1 from 1.0 and from true, and 0.0 from -0.0."""
    return json.dumps(value) == json.dumps(again)


@given(messages)
def test_a_message_that_was_encoded_is_decoded_to_itself(message):
    again = decode(encode(wire(message)))
    assert again == message
    assert exactly(wire(again), wire(message))


@given(st.lists(messages, min_size=1, max_size=5, unique_by=lambda m: getattr(m, "id", object())))
def test_a_batch_that_was_encoded_is_decoded_to_itself(members):
    batch = Batch(tuple(members))
    assert decode(encode(wire(batch))) == batch


@given(values)
def test_an_encoded_value_means_the_same_to_a_second_encoding(value):
    once = encode(value)
    assert encode(json.JSONDecoder().decode(once.decode())) == once


@settings(max_examples=examples(400))
@given(st.one_of(st.binary(max_size=200), texts.map(str.encode), values.map(encode)))
@example(b"")
@example(b"[" * 500_000)
@example(b'{"a":' * 100_000)
@example(b'"' * 100_001)
@example(b'"\\' + b'\\"' * 200_000)
@example(b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b"}")
@example(b'{"jsonrpc":"2.0","method":"\xed\xa0\x80"}')
def test_any_bytes_are_a_message_or_a_message_error(body):
    try:
        decoded = decode(body)
    except MessageError:
        return
    assert isinstance(decoded, Request | Notification | Response | Batch)


@given(messages.map(lambda m: encode(wire(m))), st.data())
def test_a_truncated_message_is_never_read_as_a_shorter_one(body, data):
    with pytest.raises(MessageError):
        decode(body[: data.draw(st.integers(0, len(body) - 1))])


@given(messages.map(lambda m: encode(wire(m))), st.binary(min_size=1, max_size=3), st.data())
def test_bytes_put_into_a_message_never_break_out_of_the_taxonomy(body, intruder, data):
    at = data.draw(st.integers(0, len(body)))
    try:
        decode(body[:at] + intruder + body[at:])
    except MessageError:
        return


NOT_STRICT_JSON = {
    "duplicate key on top": b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    "duplicate key in params": b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"b"}}',
    "duplicate key deep inside": call('[{"a":{"b":1,"b":1}}]'),
    "duplicate key spelled with an escape": call('{"name":"a","n\\u0061me":"b"}'),
    "NaN": call("NaN"),
    "Infinity": call("Infinity"),
    "minus Infinity": call("[-Infinity]"),
    "lone high surrogate": call('"\\ud800"'),
    "lone low surrogate": call('"\\uDFFF"'),
    "surrogates in the wrong order": call('"\\udc00\\ud800"'),
    "lone surrogate in a key": call('{"\\ud9ab":1}'),
    "surrogate encoded as UTF-8": call('"x"').replace(b"x", b"\xed\xa0\x80"),
    "overlong UTF-8": call('"x"').replace(b"x", b"\xc0\xaf"),
    "Latin-1": call('"x"').replace(b"x", b"\xe9"),
    "byte order mark": b"\xef\xbb\xbf" + call("1"),
    "UTF-16": call("1").decode().encode("utf-16"),
    "UTF-16 without a mark": call("1").decode().encode("utf-16-le"),
    "raw control character": call('"a\x01b"'),
    "raw newline in a string": call('"a\nb"'),
    "trailing comma": call("[1,]"),
    "comment": call("1/*x*/"),
    "single quotes": call("'a'"),
    "leading zero": call("01"),
    "leading plus": call("+1"),
    "bare fraction": call(".5"),
    "bare exponent": call("1e"),
    "hexadecimal": call("0x10"),
    "other digits": call("٣"),
    "two values": call("1") + call("1"),
    "trailing garbage": call("1") + b"x",
    "trailing NUL": call("1") + b"\x00",
    "form feed as white space": b"\x0c" + call("1"),
    "no-break space as white space": "\u00a0".encode() + call("1"),
    "nothing": b"",
    "white space only": b" \n",
    "unclosed": call("1")[:-1],
}


@pytest.mark.parametrize("body", NOT_STRICT_JSON.values(), ids=NOT_STRICT_JSON)
def test_what_is_not_strict_json_is_a_parse_error(body):
    with pytest.raises(ParseError):
        decode(body)


NEAR_MISSES = {
    "white space around": b" \t\r\n" + call("1") + b"\n",
    "same key in two objects": call('[{"a":1},{"a":1}]'),
    "key and its near twin": call('{"name":1,"Name":1,"name\\u0000":1,"key":1,"\u212aey":1}'),
    "prototype key": call('{"__proto__":{"a":1}}'),
    "surrogate pair by escapes": call('"\\ud83d\\ude00"'),
    "the text of a surrogate escape": call('"\\\\ud800"'),
    "NUL by escape": call('"\\u0000"'),
    "brackets in a string": call('"' + "[{" * 200 + '"'),
    "quotes and brackets in a string": call('"\\"' + "[" * 200 + '\\\\"'),
}


@pytest.mark.parametrize("body", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_only_looks_like_a_trick_is_accepted(body):
    assert isinstance(decode(body), Request)


def test_a_surrogate_pair_becomes_the_one_character_it_stands_for():
    assert read('"\\ud83d\\ude00"') == "\U0001f600"


INTEGERS_THAT_HOLD = ["0", "-1", "9007199254740991", "-9007199254740991", "900719925474099"]
INTEGERS_THAT_DO_NOT = [
    "9007199254740992",
    "-9007199254740992",
    "9007199254740993",
    "18446744073709551616",
    "1" * 4_301,
    "-" + "9" * 20_000,
]


@pytest.mark.parametrize("text", INTEGERS_THAT_HOLD)
def test_an_integer_that_javascript_holds_is_carried_exactly(text):
    value = read(text)
    assert type(value) is int
    assert value == int(text)


@pytest.mark.parametrize("text", INTEGERS_THAT_DO_NOT)
@pytest.mark.parametrize("frame", ["{}", "[[{}]]", '{{"b":{}}}', "[1.5,{}]"])
def test_an_integer_that_javascript_would_round_is_refused_and_the_way_out_is_said(text, frame):
    with pytest.raises(NumberRefused) as caught:
        decode(call(frame.format(text)))
    assert caught.value.request_id == 7
    assert caught.value.code == -32600
    assert "$numberLong" in caught.value.public


@pytest.mark.parametrize("text", ["1e309", "-1E309", "1e+309", "1e0000400", "1" * 310 + ".0", "9" * 200 + "e200"])
def test_a_number_that_overflows_a_double_is_refused(text):
    with pytest.raises(NumberRefused):
        decode(call(text))


REALS = {
    "1e308": 1e308,
    "1.7976931348623157e308": 1.7976931348623157e308,
    "1e-400": 0.0,
    "1E2": 100.0,
    "1e+2": 100.0,
    "1.0": 1.0,
    "0.1": 0.1,
    "9007199254740993.0": 9007199254740992.0,
    "123456789012345e99": 123456789012345e99,
    "0.12345678901234567890": 0.12345678901234568,
}


@pytest.mark.parametrize(("text", "expected"), REALS.items())
def test_a_real_number_is_the_double_that_javascript_reads_too(text, expected):
    value = read(text)
    assert type(value) is float
    assert value == expected


def test_negative_zero_keeps_its_sign_as_a_real_and_has_none_as_an_integer():
    assert exactly(read("-0.0"), -0.0)
    assert exactly(read("-0"), 0)


def test_digits_in_a_string_are_not_numbers():
    assert read('["9007199254740993","1e999"]') == ["9007199254740993", "1e999"]


def test_an_id_that_is_itself_out_of_range_is_not_echoed():
    with pytest.raises(NumberRefused) as caught:
        decode(b'{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}')
    assert caught.value.request_id is None


def test_the_deepest_message_is_accepted_and_the_next_is_refused():
    assert isinstance(decode(nested(jsonrpc.MAX_DEPTH)), Request)
    with pytest.raises(MessageTooComplex):
        decode(nested(jsonrpc.MAX_DEPTH + 1))


@pytest.mark.parametrize("depth", [16, 17, jsonrpc.MAX_DEPTH])
def test_settings_say_how_deep_a_message_may_be(depth):
    levels = depth - 2
    for inner in ("", "1e-000", '"\\u0041"'):  # read by either decoder
        assert isinstance(decode(call("[" * levels + inner + "]" * levels), depth=depth), Request)
    with pytest.raises(MessageTooComplex) as caught:
        decode(nested(depth + 1), depth=depth)
    assert str(depth) in caught.value.detail


@pytest.mark.parametrize("members", [1, 2, 100])
def test_settings_say_how_many_members_a_batch_may_have(members):
    one: JsonValue = {"jsonrpc": "2.0", "method": "ping"}
    assert isinstance(decode(encode([one] * members), members=members), Batch)
    with pytest.raises(jsonrpc.BatchTooLarge):
        decode(encode([one] * (members + 1)), members=members)


def test_depth_hidden_behind_brackets_in_strings_is_still_measured():
    inner = '["]]]]]]","}",' * 120 + "1" + "]" * 120
    with pytest.raises(MessageTooComplex):
        decode(call(inner))
    assert isinstance(decode(call('[["]]"],' + ",".join(['["["]'] * 200) + "]")), Request)


@given(values)
def test_the_measured_depth_and_count_never_fall_short_of_the_real_ones(value):
    def depth(node: JsonValue) -> int:
        members = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if members is None else 1 + max(map(depth, members), default=0)

    deep = value
    for _ in range(jsonrpc.MAX_DEPTH - depth(value) - 1):
        deep = [deep, "]}{["]
    with pytest.raises(MessageTooComplex):
        decode(call(encode(deep).decode()))


def test_as_many_values_as_allowed_are_accepted_and_one_more_is_refused():
    envelope = 6  # the message, its four members, and the array: counted as commas and openers, plus one
    fitting = "[" + ",".join("1" * (jsonrpc.MAX_VALUES - envelope)) + "]"
    assert isinstance(decode(call(fitting)), Request)
    with pytest.raises(MessageTooComplex):
        decode(call("[1," + fitting[1:]))


def test_commas_in_a_string_are_not_values():
    assert isinstance(decode(call('"' + "," * 300_000 + '"')), Request)


WRONG_ENVELOPES = {
    "a number": ("1", None),
    "a string": ('"ping"', None),
    "null": ("null", None),
    "an empty object": ("{}", None),
    "no jsonrpc": ('{"id":1,"method":"ping"}', 1),
    "jsonrpc 1.0": ('{"jsonrpc":"1.0","id":1,"method":"ping"}', 1),
    "jsonrpc as a number": ('{"jsonrpc":2.0,"id":1,"method":"ping"}', 1),
    "jsonrpc in capitals": ('{"JSONRPC":"2.0","id":1,"method":"ping"}', 1),
    "no method": ('{"jsonrpc":"2.0","id":"a"}', "a"),
    "empty method": ('{"jsonrpc":"2.0","id":1,"method":""}', 1),
    "method as a list": ('{"jsonrpc":"2.0","id":1,"method":["ping"]}', 1),
    "method too long": ('{"jsonrpc":"2.0","id":1,"method":"' + "m" * 129 + '"}', 1),
    "method with a line break": ('{"jsonrpc":"2.0","id":1,"method":"ping\\n"}', 1),
    "boolean id": ('{"jsonrpc":"2.0","id":true,"method":"ping"}', None),
    "null id": ('{"jsonrpc":"2.0","id":null,"method":"ping"}', None),
    "real id": ('{"jsonrpc":"2.0","id":1.0,"method":"ping"}', None),
    "object id": ('{"jsonrpc":"2.0","id":{},"method":"ping"}', None),
    "id too long": ('{"jsonrpc":"2.0","id":"' + "i" * 257 + '","method":"ping"}', None),
    "params as an array": ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 1),
    "an unknown key": ('{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}', 1),
    "a folded key": ('{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}', 1),
    "a key with NUL": ('{"jsonrpc":"2.0","id":1,"method":"ping","method\\u0000":"x"}', 1),
    "request and response at once": ('{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', 1),
    "result and error": ('{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', 1),
    "a result that is no object": ('{"jsonrpc":"2.0","id":1,"result":1}', 1),
    "a result without an id": ('{"jsonrpc":"2.0","result":{}}', None),
    "a result with a null id": ('{"jsonrpc":"2.0","id":null,"result":{}}', None),
    "an empty batch": ("[]", None),
    "a batch in a batch": ('[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]', None),
    "one bad member": ('[{"jsonrpc":"2.0","id":1,"method":"ping"},1]', None),
    "an id twice in a batch": (
        '[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        None,
    ),
}


@pytest.mark.parametrize(("body", "request_id"), WRONG_ENVELOPES.values(), ids=WRONG_ENVELOPES)
def test_json_that_is_no_message_is_refused_under_its_id_where_that_was_readable(body, request_id):
    with pytest.raises(InvalidMessage) as caught:
        decode(body.encode())
    assert isinstance(caught.value, InvalidRequest)
    assert caught.value.request_id == request_id
    assert type(caught.value.request_id) is type(request_id)


def test_absent_params_are_empty_params():
    assert decode(b'{"jsonrpc":"2.0","id":"a","method":"ping"}') == Request("a", "ping", {})
    assert decode(b'{"jsonrpc":"2.0","method":"ping"}') == Notification("ping", {})


def test_an_answer_to_an_unreadable_request_has_no_id():
    assert decode(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}') == Response(None)


def test_the_number_one_and_the_text_one_are_two_ids_in_a_batch():
    decoded = decode(b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":"1","method":"ping"}]')
    assert isinstance(decoded, Batch)


def test_a_batch_has_a_bound():
    members: list[JsonValue] = [{"jsonrpc": "2.0", "method": "ping"}] * jsonrpc.MAX_BATCH
    assert isinstance(decode(encode(members)), Batch)
    with pytest.raises(InvalidMessage):
        decode(encode([*members, members[0]]))


def test_an_error_keeps_nothing_of_the_body():
    with pytest.raises(ParseError) as caught:
        decode(b'{"password":"hunter2"')
    assert "hunter2" not in f"{caught.value!r} {caught.value.detail} {caught.value.__cause__}"
    assert caught.value.__suppress_context__


def test_params_that_are_null_are_absent():
    assert decode(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}') == Request(1, "ping")


def outside_of_strings(body: bytes) -> bytes:
    """What stands outside of strings, byte by byte, up to a backslash there, which no JSON has."""
    found, inside, escaped = bytearray(), False, False
    for byte in body:
        if escaped:
            escaped = False
        elif byte == ord("\\"):
            if not inside:
                break
            escaped = True
        elif byte == ord('"'):
            inside = not inside
        elif not inside:
            found.append(byte)
    return bytes(found)


@given(
    st.lists(st.sampled_from([b'"', b"\\", b'\\"', b"[", b"]", b"{", b"a", b",", b"\\\\"]), max_size=40).map(b"".join)
)
def test_strings_are_told_apart_as_a_reader_does_up_to_where_it_stops(body: bytes) -> None:
    assert jsonrpc._outside_of_strings(body).startswith(outside_of_strings(body))


@given(values)
def test_of_json_nothing_but_its_strings_is_left_out(value: JsonValue) -> None:
    body = json.dumps(value).encode()
    assert jsonrpc._outside_of_strings(body) == outside_of_strings(body)
