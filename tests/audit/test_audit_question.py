"""The question to OPA in a record: only where it is asked for, exactly, once, and inside the chain."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.chain import FIELDS, GENESIS, link, read, verify
from sidecar.audit.record import QUESTION_LIMIT, Facts, Status, intent, outcome, question_text, refusal
from sidecar.errors import DecisionUnavailable
from sidecar.model import AccessVerdict, Command, Decision, JsonObject
from sidecar.opa import wire
from sidecar.store.file import FileAuditSink
from tests.authoring.traffic import ANALYST

ALLOW = Decision(allow=True, reasons=(), server="s", accesses=(AccessVerdict(owner="o", grants=("g",)),), revision="r")
COMMAND: Command = ANALYST.command
FACTS = Facts(request_id="r", command=COMMAND, question=question_text(ANALYST.question))


def decode(text: Any) -> Any:
    return json.JSONDecoder().decode(text)


def test_an_intent_and_a_refusal_have_it_and_an_outcome_has_it_not() -> None:
    begun = intent(FACTS, ALLOW, record_id="1", time_ns=0)
    refused = refusal(FACTS, "policy_denied", record_id="2", time_ns=0)
    ended = outcome(begun, record_id="3", time_ns=0, status=Status.OK)
    assert decode(begun["question"]) == decode(refused["question"]) == ANALYST.question
    assert "question" not in ended
    assert begun.keys() | {"seq", "prev", "hash"} == FIELDS | {"question", "token"}


def test_where_it_is_not_asked_for_the_record_has_no_such_member() -> None:
    facts = replace(FACTS, question=None)
    assert "question" not in intent(facts, ALLOW, record_id="1", time_ns=0)
    assert "question" not in refusal(facts, "policy_denied", record_id="2", time_ns=0)


def test_it_is_byte_for_byte_what_opa_reads_as_input() -> None:
    assert f'{{"input":{FACTS.question}}}'.encode() == wire.encode_question(ANALYST.question)


def test_the_chain_covers_it() -> None:
    line, _ = link(intent(FACTS, ALLOW, record_id="1", time_ns=0), 1, GENESIS)
    assert verify([line + b"\n"]).holds
    changed = line.replace(b"analysts", b"Analysts")
    assert changed != line
    assert not verify([changed + b"\n"]).holds


@pytest.mark.parametrize("value", [2**53, -(2**70), 1e300, 0.1, "ü\u2028\x1b[2J", ["\\", '"'], None], ids=repr)
def test_claims_that_canonical_json_has_no_form_for_are_recorded_all_the_same(value: Any) -> None:
    asked = replace(ANALYST, claims={"odd": value}).question
    line, _ = link(intent(replace(FACTS, question=question_text(asked)), ALLOW, record_id="1", time_ns=0), 1, GENESIS)
    read(line)
    assert decode(decode(line.decode())["question"]) == asked


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_there_is_a_text_exactly_where_opa_can_be_asked(document: JsonObject) -> None:
    text = question_text(document)
    try:
        body = wire.encode_question(document)
    except DecisionUnavailable:
        assert text is None
    else:
        assert text is not None
        assert body == b'{"input":%b}' % text.encode()
        assert question_text(decode(text)) == text, "read again and asked again, it is the same question"
        line, _ = link(intent(replace(FACTS, question=text), ALLOW, record_id="1", time_ns=0), 1, GENESIS)
        read(line)


def deep(levels: int) -> JsonObject:
    document: JsonObject = {}
    for _ in range(levels):
        document = {"a": document}
    return document


@pytest.mark.parametrize(
    "document",
    [{"a": float("nan")}, {"a": "\ud800"}, deep(100_000), {"a": "x" * QUESTION_LIMIT}],
    ids=["nan", "surrogate", "deep", "large"],
)
def test_what_was_never_asked_is_not_recorded(document: JsonObject) -> None:
    assert question_text(document) is None
    with pytest.raises(DecisionUnavailable):
        wire.encode_question(document)


async def test_the_largest_question_makes_a_record_that_the_store_takes_up_again(tmp_path: Path) -> None:
    assert QUESTION_LIMIT == wire.MAX_QUESTION_BYTES
    path = tmp_path / "audit.jsonl"
    for number, value in enumerate(["\x01" * (QUESTION_LIMIT // 6 - 2), '"' * (QUESTION_LIMIT // 2 - 5)]):
        text = question_text({"a": value})
        assert text is not None
        facts = replace(FACTS, question=text, request_id=f"r{number}")
        sink = FileAuditSink(path)
        await sink.append(intent(facts, ALLOW, record_id="1", time_ns=0))
        await sink.close()
    with path.open("rb") as lines:
        assert verify(lines).records == 2
