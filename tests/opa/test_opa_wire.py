"""What is sent to OPA and what is believed of its answer, without a socket."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.opa.wire import MAX_QUESTION_BYTES, decode_answer, describe_failure, encode_question
from sidecar.ports import PdpAnswer

SECRET = "alice@corp.example"

REFUSED_BODIES = {
    "undefined": b'{"decision_id":"1"}',
    "empty object": b"{}",
    "nothing": b"",
    "a list": b'[{"result":true}]',
    "a scalar": b"true",
    "null": b"null",
    "HTML": b"<html><body>Bad gateway</body></html>",
    "result twice": b'{"result":{"allow":false},"result":{"allow":true}}',
    "result twice, once escaped": b'{"result":{"allow":false},"\\u0072esult":{"allow":true}}',
    "allow twice": b'{"result":{"allow":false,"allow":true}}',
    "duplicate deep inside": b'{"result":{"a":[{"b":{"c":1,"c":1}}]}}',
    "NaN": b'{"result":{"max":NaN}}',
    "Infinity": b'{"result":{"max":Infinity}}',
    "-Infinity": b'{"result":{"max":-Infinity}}',
    "a number beyond a double": b'{"result":{"max":1e999}}',
    "an integer of 5000 digits": b'{"result":{"max":' + b"9" * 5000 + b"}}",
    "a lone surrogate": b'{"result":{"server":"\\ud800"}}',
    "a lone surrogate as key": b'{"result":{"\\uDC00":1}}',
    "a byte order mark": b'\xef\xbb\xbf{"result":true}',
    "not UTF-8": b'{"result":"\xff"}',
    "UTF-16": '{"result":true}'.encode("utf-16"),
    "truncated": b'{"result":{"allow":true',
    "two documents": b'{"result":true}{"result":true}',
    "trailing text": b'{"result":true} x',
    "a raw control character": b'{"result":"\x01"}',
    "a trailing comma": b'{"result":true,}',
    "single quotes": b"{'result':true}",
    "too deep": b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "an API usage warning": b'{"result":true,"warning":{"code":"api_usage_warning","message":"m"}}',
    "a decision id that is a number": b'{"result":true,"decision_id":7}',
    "a decision id with a line break": b'{"result":true,"decision_id":"a\\nb"}',
    "a decision id of 2000 characters": b'{"result":true,"decision_id":"' + b"x" * 2000 + b'"}',
    "provenance that is a list": b'{"result":true,"provenance":[]}',
    "bundles that are a list": b'{"result":true,"provenance":{"bundles":[]}}',
    "a bundle that is a string": b'{"result":true,"provenance":{"bundles":{"a":"r1"}}}',
    "a revision that is a number": b'{"result":true,"provenance":{"bundles":{"a":{"revision":1}}}}',
    "a revision with a space": b'{"result":true,"provenance":{"bundles":{"a":{"revision":"r 1"}}}}',
}

BELIEVED_BODIES = {
    "as OPA writes it": (b'{"decision_id":"d-1","result":{"allow":true}}\n', {"allow": True}),
    "null is a value": (b'{"result":null}', None),
    "false is a value": (b'{"result":false}', False),
    "a pair of surrogates": (b'{"result":"\\ud83d\\ude00"}', "\U0001f600"),
    "the same key in two objects": (b'{"result":[{"a":1},{"a":1}]}', [{"a": 1}, {"a": 1}]),
    "members of other distributions": (b'{"result":1,"com.example/metadata":{}}', 1),
    "the largest double": (b'{"result":1.7976931348623157e308}', 1.7976931348623157e308),
}


@pytest.mark.parametrize("body", REFUSED_BODIES.values(), ids=REFUSED_BODIES.keys())
def test_an_answer_of_another_form_is_no_decision(body: bytes) -> None:
    with pytest.raises(DecisionUnavailable):
        decode_answer(body)


@pytest.mark.parametrize(("body", "result"), BELIEVED_BODIES.values(), ids=BELIEVED_BODIES.keys())
def test_the_near_miss_of_each_is_believed(body: bytes, result: object) -> None:
    assert decode_answer(body).result == result


@pytest.mark.parametrize(
    ("provenance", "revision"),
    [
        (None, ""),
        ({}, ""),
        ({"bundles": {}}, ""),
        ({"bundles": {"a": {}}}, ""),
        ({"bundles": {"z": {"revision": "r1"}, "a": {"revision": "r2"}, "m": {"revision": ""}}}, "r1,r2"),
        ({"bundles": {"a": {"revision": "r1"}, "b": {"revision": "r1"}}}, "r1"),
    ],
)
def test_the_revision_is_that_of_all_bundles(provenance: object, revision: str) -> None:
    envelope = {"result": 1} | ({"provenance": provenance} if provenance is not None else {})
    assert decode_answer(json.dumps(envelope).encode()).revision == revision


def test_a_known_revision_is_not_taken_from_the_answer() -> None:
    body = b'{"result":1,"provenance":{"bundles":{"a":{"revision":"other"}}}}'
    assert decode_answer(body, revision="sha256:ours").revision == "sha256:ours"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_no_decision(body: bytes) -> None:
    with contextlib.suppress(DecisionUnavailable):
        assert isinstance(decode_answer(body), PdpAnswer)


def test_a_refusal_does_not_keep_the_body_as_its_cause() -> None:
    with pytest.raises(DecisionUnavailable) as caught:
        decode_answer(f'{{"result": "{SECRET}"'.encode())
    assert SECRET not in caught.value.detail
    assert caught.value.__cause__ is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_written_is_what_is_read(value: object) -> None:
    body = encode_question({"input": value})  # type: ignore[dict-item]  # any JSON value is one
    assert json.loads(body) == {"input": {"input": value}}  # noqa: TID251 - the independent witness
    assert decode_answer(json.dumps({"result": value}).encode()).result == value


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "\ud800", object()], ids=lambda value: ascii(value)[:12]
)
def test_a_document_without_a_json_form_is_never_sent(value: object) -> None:
    with pytest.raises(DecisionUnavailable) as caught:
        encode_question({"subject": SECRET, "x": value})  # type: ignore[dict-item]  # that is the point
    assert SECRET not in caught.value.detail
    assert caught.value.__cause__ is None


def test_a_document_that_contains_itself_is_never_sent() -> None:
    loop: dict = {}
    loop["self"] = loop
    with pytest.raises(DecisionUnavailable):
        encode_question(loop)


def test_a_question_of_the_largest_size_is_sent_and_one_byte_more_is_not() -> None:
    room = MAX_QUESTION_BYTES - len(encode_question({"x": ""}))
    assert len(encode_question({"x": "y" * room})) == MAX_QUESTION_BYTES
    with pytest.raises(DecisionUnavailable):
        encode_question({"x": "y" * (room + 1)})


def failure(**members: object) -> bytes:
    return json.dumps({"code": "internal_error", "message": f"oops {SECRET}", **members}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (failure(), "internal_error"),
        (
            failure(
                errors=[{"code": "eval_builtin_error", "message": SECRET, "location": {"file": "a/b.rego", "row": 7}}]
            ),
            "internal_error: eval_builtin_error at a/b.rego:7",
        ),
        (failure(errors=[{"code": SECRET, "location": {"file": SECRET, "row": SECRET}}]), "internal_error"),
        (failure(errors=[{"code": "c", "location": {"file": "a\nb", "row": 1}}]), "internal_error: c"),
        (failure(errors=[{"code": "c", "location": {"file": "a", "row": True}}]), "internal_error: c"),
        (failure(errors=SECRET), "internal_error"),
        (failure(errors=[]), "internal_error"),
        (failure(errors=[{"code": "c"}]), "internal_error: c"),
        (json.dumps({"code": SECRET}).encode(), ""),
        (b"<html>", ""),
        (b"[1]", ""),
    ],
)
def test_a_failure_is_described_without_a_word_of_the_question(body: bytes, said: str) -> None:
    assert describe_failure(body) == said


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_describing_a_failure_never_fails(body: bytes) -> None:
    assert describe_failure(body).isprintable()
