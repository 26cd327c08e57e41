"""Questions of servers and answers of clients: what MCP defines of them passes, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import UpstreamProtocolViolation
from sidecar.mcp.questions import (
    MAX_ANSWER_BYTES,
    MAX_AT_ONCE,
    MAX_QUESTION_BYTES,
    MAX_ROOTS,
    MAX_SERVER_STATE,
    answerable,
    declared,
    read_answer,
    read_question,
    read_raw_question,
    read_required,
)
from sidecar.questions import QuestionKind, ServerQuestion
from tests.examples import examples

FORM: Any = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
TEXT: Any = {"type": "text", "text": "Hello"}
TALK: Any = {"messages": [{"role": "user", "content": TEXT}], "maxTokens": 10}
SAID: Any = {"role": "assistant", "content": TEXT, "model": "m"}
ROOT: Any = {"uri": "file:///a", "name": "a"}
ALL = frozenset(QuestionKind)


@pytest.mark.parametrize(
    ("method", "params", "left"),
    [
        ("elicitation/create", FORM | {"mode": "form", "_meta": {"a": 1}, "more": 1}, FORM),
        ("sampling/createMessage", TALK | {"includeContext": "allServers", "_meta": {}}, TALK),
        ("sampling/createMessage", TALK | {"systemPrompt": "s", "tools": None}, TALK | {"systemPrompt": "s"}),
        ("roots/list", None, {}),
        ("roots/list", {"_meta": {"progressToken": 1}}, {}),
    ],
)
def test_what_mcp_does_not_define_of_a_question_is_left_out(method: str, params: Any, left: Any) -> None:
    question = read_question(method, params)
    assert question is not None
    assert question.params == left


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("elicitation/create", FORM | {"mode": "url", "url": "https://evil.example"}),
        ("elicitation/create", {"message": "Who?"}),
        ("elicitation/create", FORM | {"requestedSchema": {"type": "object"}}),
        ("elicitation/create", FORM | {"message": 1}),
        ("elicitation/create", [FORM]),
        ("Elicitation/create", FORM),
        ("tools/call", FORM),
        ("sampling/createMessage", TALK | {"tools": [{"name": "find"}]}),
        ("sampling/createMessage", TALK | {"task": {}}),
        ("sampling/createMessage", TALK | {"messages": []}),
        ("sampling/createMessage", TALK | {"messages": [{"role": "system", "content": TEXT}]}),
        ("sampling/createMessage", TALK | {"messages": [{"role": "user", "content": {"type": "tool_use"}}]}),
        ("sampling/createMessage", TALK | {"maxTokens": True}),
        ("sampling/createMessage", TALK | {"maxTokens": 0}),
        ("sampling/createMessage", TALK | {"temperature": "hot"}),
        ("sampling/createMessage", {}),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_is_no_such_question_is_taken_to_nobody(method: str, params: Any) -> None:
    assert read_question(method, params) is None


def test_a_question_is_as_long_as_one_may_be() -> None:
    padding = MAX_QUESTION_BYTES - len(json.dumps(FORM | {"message": ""}))
    for more, read in ((0, True), (1, False)):
        raw = json.dumps(FORM | {"message": "x" * (padding + more)}).encode()
        assert (read_raw_question("elicitation/create", raw) is not None) is read
    for raw in (b"{", b"\xff", b"[" * 5_000, b'"x"'):
        assert read_raw_question("elicitation/create", raw) is None


@pytest.mark.parametrize(
    ("kind", "answer", "left"),
    [
        ("elicitation", {"action": "accept", "content": {"name": "a"}, "_meta": {}}, True),
        ("elicitation", {"action": "accept", "content": {}}, True),
        ("elicitation", {"action": "decline", "content": {"name": "a"}}, {"action": "decline"}),
        ("elicitation", {"action": "accept", "content": {"other": "a"}}, None),
        ("elicitation", {"action": "accept", "content": {"name": {"$gt": ""}}}, None),
        ("elicitation", {"action": "accept", "content": {"name": None}}, None),
        ("elicitation", {"action": "accept", "content": {"name": "x" * 20_000}}, None),
        ("elicitation", {"action": ["accept"], "content": {"name": "a"}}, None),
        ("sampling", SAID | {"more": 1, "_meta": {}}, SAID),
        ("sampling", SAID | {"stopReason": "endTurn"}, SAID | {"stopReason": "endTurn"}),
        ("sampling", SAID | {"content": [TEXT, {"type": "image", "data": "", "mimeType": "image/png"}]}, True),
        ("sampling", SAID | {"content": {"type": "tool_use", "id": "1", "name": "find", "input": {}}}, None),
        ("sampling", SAID | {"content": {"type": "image", "data": ""}}, None),
        ("sampling", SAID | {"model": None}, None),
        ("sampling", SAID | {"content": TEXT | {"text": "x" * MAX_ANSWER_BYTES}}, None),
        ("roots", {"roots": [ROOT | {"_meta": {}}]}, {"roots": [ROOT]}),
        ("roots", {"roots": []}, True),
        ("roots", {"roots": [{"uri": "https://evil.example"}]}, None),
        ("roots", {"roots": [{"uri": "file:///a"}] * (MAX_ROOTS + 1)}, None),
        ("roots", {}, None),
    ],
    ids=lambda value: json.dumps(value)[:60],
)  # fmt: skip
def test_an_answer_is_reduced_to_what_was_asked_for_or_is_none(kind: str, answer: Any, left: Any) -> None:
    question = ServerQuestion(kind=QuestionKind(kind), params=FORM if kind == "elicitation" else {})
    read = read_answer(question, answer)
    assert read == ({key: answer[key] for key in answer if key != "_meta"} if left is True else left)


def test_capabilities_are_what_can_be_asked_and_declared_back_the_same() -> None:
    assert answerable(declared(ALL)) == ALL
    for kinds in ((), ("roots",), ("elicitation", "sampling")):
        assert answerable(declared(frozenset(map(QuestionKind, kinds)))) == set(kinds)
    lacking: list[Any] = [
        None,
        [],
        {"sampling": True},
        {"elicitation": None},
        {"elicitation": {"url": {}}},
        {"tools": {}},
    ]
    for capabilities in lacking:
        assert answerable(capabilities) == frozenset()


REQUEST: Any = {"method": "elicitation/create", "params": FORM}


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"inputRequests": {}},
        {"inputRequests": [REQUEST]},
        {"inputRequests": {"a": FORM}},
        {"inputRequests": {"": REQUEST}},
        {"inputRequests": {"a" * 129: REQUEST}},
        {"inputRequests": {str(number): REQUEST for number in range(MAX_AT_ONCE + 1)}},
        {"inputRequests": {"a": {"method": "tools/call", "params": {}}}},
        {"inputRequests": {"a": REQUEST, "b": {"method": "elicitation/create", "params": {}}}},
        {"inputRequests": {"a": {"method": ["roots/list"]}}},
        {"inputRequests": {"a": {"method": "elicitation/create", "params": FORM | {"message": "x" * 70_000}}}},
        {"inputRequests": {"a": REQUEST}, "requestState": {"a": 1}},
        {"inputRequests": {"a": REQUEST}, "requestState": "x" * (MAX_SERVER_STATE + 1)},
    ],
    ids=lambda result: json.dumps(result)[:60],
)
def test_a_result_that_asks_for_something_else_is_a_violation(result: Any) -> None:
    with pytest.raises(UpstreamProtocolViolation):
        read_required(result)


def test_a_result_may_ask_for_as_much_as_a_client_is_asked_at_once() -> None:
    requests = {str(number): REQUEST for number in range(MAX_AT_ONCE)}
    asked, state = read_required({"inputRequests": requests, "requestState": "x" * MAX_SERVER_STATE})
    assert (len(asked), len(state or "")) == (MAX_AT_ONCE, MAX_SERVER_STATE)
    assert read_required({"requestState": "later"}) == ({}, "later")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FORM, *TALK, *SAID, "roots"]), inner),
    max_leaves=12,
)


@given(st.sampled_from(["elicitation/create", "sampling/createMessage", "roots/list", "x"]), JSON, JSON)
@settings(max_examples=examples(200))
def test_nothing_that_a_server_or_a_client_sends_is_an_error_here(method: str, params: Any, answer: Any) -> None:
    question = read_question(method, params)
    read = None if question is None else read_answer(question, answer)
    again = None if question is None or read is None else read_answer(question, read)
    assert again == read, "what is passed on is of the form itself"
