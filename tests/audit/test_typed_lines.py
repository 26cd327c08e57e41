"""What the check of many lines takes is what the slow one takes; everything that is written is taken."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.audit import chain, stretch
from sidecar.audit.chain import FIELDS, GENESIS, BrokenRecord, link, read
from sidecar.audit.record import Event, Status, approval, control, intent, outcome, refusal
from sidecar.audit.typed_lines import typed
from sidecar.model import JsonObject
from tests.audit.test_audit_record import ALLOW, DENY, FACTS, NOW
from tests.examples import examples


def an_intent(**changes: Any) -> JsonObject:
    return intent(replace(FACTS, **changes), ALLOW, record_id="i", time_ns=NOW)


DEEP: JsonObject = {"$and": [{"a": {"$in": ["x", 1, None, True]}}, {"b": {"$gt": -5}}]}
WRITTEN: dict[str, JsonObject] = {
    "intent": an_intent(),
    "intent with everything": an_intent(
        arguments={"filter": DEEP}, question='{"x":1.5}', shadow={"difference": "same", "reasons": ["a"]}
    ),
    "approved": an_intent(approval={"id": "a1", "approvers": ["bob"]}),
    "outcome": outcome(an_intent(), record_id="o", time_ns=NOW, status=Status.OK, documents=3, size=90, duration_ms=5),
    "confirmed": outcome(
        an_intent(),
        record_id="o",
        time_ns=NOW,
        status=Status.TOOL_ERROR,
        error="x",
        confirmation="client",
        questions={"asked": {"elicitation": 1}, "answered": {"elicitation": 1}},
    ),
    "refusal": refusal(FACTS, "policy_denied", DENY, record_id="r", time_ns=NOW),
    "refusal of a stranger": refusal(replace(FACTS, identity=None), "token_missing", record_id="r", time_ns=NOW),
    "refusal for many": refusal(FACTS, "e", record_id="r", time_ns=NOW, suppressed=7),
    "refusal by a limit": refusal(FACTS, "e", record_id="r", time_ns=NOW, limit={"id": "daily", "unit": "calls"}),
    "control": control("suspend", {"kind": "user"}, operator="o", record_id="c", request_id="q", time_ns=NOW),
    "approval": approval(FACTS, {"id": "a1", "decision": "approved"}, record_id="p", time_ns=NOW),
    "names of a language": an_intent(tool="fïnd", client_name="Ωμέγα"),
}


def line_of(record: JsonObject) -> bytes:
    return link(record, 1, GENESIS)[0]


def sealed(body: bytes) -> bytes:
    """A line as a forger writes it: whatever it says, its hash is over its bytes."""
    return body[:-1] + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}'


def body_of(line: bytes) -> bytes:
    return line[: line.rindex(b',"hash":"')] + b"}"


def is_canonical(body: bytes) -> bool:
    """By the reference alone: the names of each object once, and the same bytes again."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        value = json.loads(body, object_pairs_hook=once)  # noqa: TID251 - an oracle beside the product's decoders
        return rfc8785.dumps(value) == body and value.keys() >= FIELDS - {"hash"}
    except (ValueError, RecursionError):
        return False


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_record_that_is_written_is_taken(kind):
    line = line_of(WRITTEN[kind])
    [found] = typed(line + b"\n") or []
    place, record = chain.opened(line)
    assert (found.seq, found.prev, found.hash, found.event, found.request_id) == (
        place.seq, place.prev, place.hash, place.event, place.request_id
    )  # fmt: skip
    assert found.event == record["event"]
    assert read(line) == place


def test_every_kind_of_record_is_tried():
    assert {record["event"] for record in WRITTEN.values()} == {event.value for event in Event}


NEAR = {
    "a name twice": (b'"tool":"aggregate"', b'"tool":"find","tool":"aggregate"'),
    "a space": (b'"v":1', b'"v": 1'),
    "an escape": (b'"tool":"aggregate"', b'"tool":"\\u0061ggregate"'),
    "a fraction of a whole number": (b'"max_documents":50', b'"max_documents":50.0'),
    "an exponent": (b'"max_documents":50', b'"max_documents":5e1'),
    "a number that no double holds": (b'"max_documents":50', b'"max_documents":9007199254740993'),
    "minus zero": (b'"max_documents":50', b'"max_documents":-0'),
    "another order": (b'"seq":1,"server":"sales-ro"', b'"server":"sales-ro","seq":1'),
    "another version": (b'"v":1', b'"v":2'),
    "a version that is true": (b'"v":1', b'"v":true'),
    "no number": (b'"seq":1,', b""),
    "number zero": (b'"seq":1', b'"seq":0'),
    "no request": (b'"request_id":"req-1"', b'"request_id":""'),
    "an unknown event": (b'"event":"intent"', b'"event":"permit"'),
    "a lone surrogate": (b'"tool":"aggregate"', b'"tool":"\\ud800"'),
    "no UTF-8": (b'"tool":"aggregate"', b'"tool":"\xff"'),
    "a control character": (b'"tool":"aggregate"', b'"tool":"\x01"'),
    "two hashes": (b'"id":"i"', b'"hash":"0","id":"i"'),
    "something behind": (b'"v":1}', b'"v":1} '),
}


@pytest.mark.parametrize("kind", NEAR)
def test_a_line_with_a_hash_of_its_own_that_is_no_record_is_refused(kind):
    before, after = NEAR[kind]
    body = body_of(line_of(WRITTEN["intent"]))
    assert before in body
    line = sealed(body.replace(before, after))
    assert typed(line + b"\n") is None
    with pytest.raises(BrokenRecord):
        read(line)


@pytest.mark.parametrize(
    "more",
    [{"arguments": {"x": 1.5}}, {"of_a_later_version": 1}, {"arguments": {"😀": 1, "\uffff": 2}}, {"token": 5}],
    ids=["fraction", "member", "beyond", "type"],
)
def test_a_record_of_another_form_is_left_to_the_other_checks_which_take_it(more):
    line = line_of({**WRITTEN["intent"], **more})
    assert typed(line + b"\n") is None
    assert read(line).seq == 1


def test_a_prev_that_is_no_hash_is_no_record():
    line = link(WRITTEN["intent"], 1, "none")[0]
    with pytest.raises(BrokenRecord, match="prev"):
        read(line)


def test_two_lines_are_not_one_record():
    line = line_of(WRITTEN["intent"])
    assert len(typed(line + b"\n" + line + b"\n") or []) == 2
    with pytest.raises(BrokenRecord):
        read(line + b"\n" + line)


@pytest.mark.parametrize("between", [b"\n", b" \n", b"\r", b"\r\n", b"\0", b","])
def test_nothing_stands_between_lines(between):
    line = line_of(WRITTEN["intent"]) + b"\n"
    assert typed(line + between + line) is None
    assert typed(between + line) is None
    assert typed(line + between) is None
    assert stretch.prove([line + between + line]) is None


def test_a_block_ends_with_a_line_break():
    line = line_of(WRITTEN["intent"])
    assert typed(line) is None
    assert stretch.prove([line]) is None
    assert stretch.prove([line + b"\n"]) is not None


def test_one_record_of_another_form_leaves_the_others_of_its_block_proven():
    lines, prev = [], GENESIS
    for seq in range(1, 6):
        record = refusal(FACTS, "e", record_id="r", time_ns=NOW)
        line, prev = link({**record, **({"arguments": {"x": 0.5}} if seq == 3 else {})}, seq, prev)
        lines.append(line + b"\n")
    found = stretch.prove([b"".join(lines)], heads=frozenset([prev]))
    assert found is not None
    assert (found.first_seq, found.last_seq, found.last_hash, found.met) == (1, 5, prev, {prev: 5})
    lines[2] = lines[2].replace(b"0.5", b"0.6")
    assert stretch.prove([b"".join(lines)]) is None


@given(st.data())
@settings(max_examples=examples(400))
def test_whatever_a_forger_writes_with_a_hash_of_its_own_is_taken_only_if_it_is_canonical(data):
    body = bytearray(body_of(line_of(WRITTEN[data.draw(st.sampled_from(sorted(WRITTEN)))])))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(1, len(body) - 2))
        match data.draw(st.sampled_from(["byte", "insert", "delete", "copy"])):
            case "byte":
                body[place] = data.draw(st.integers(0, 255))
            case "insert":
                body[place:place] = data.draw(
                    st.sampled_from([b" ", b'"', b"0", b"1.0", b"e1", b"\\u0061", b",", b'"a":1,', b"\xc3\xa4", b"\n"])
                )
            case "delete":
                del body[place : place + data.draw(st.integers(1, 8))]
            case _:
                end = data.draw(st.integers(place, min(len(body) - 1, place + 60)))
                body[place:place] = body[place:end]
    line = sealed(bytes(body))
    if (found := typed(line + b"\n")) is None:
        return
    assert len(found) == 1
    assert is_canonical(bytes(body))
    assert found[0].hash == sha256(body).hexdigest()
    if re.fullmatch("[0-9a-f]{64}", found[0].prev):
        assert chain.opened(line)[0] == read(line)
    else:  # which a chain shows by the record before
        with pytest.raises(BrokenRecord, match="prev"):
            read(line)
