"""What is worked out once for a call, or for an answer that is remembered, is what it would be each time."""

import pytest

from sidecar.audit import record
from sidecar.enforcement.shadow import read_answer
from sidecar.enforcement.turn import Exchange, Turn
from sidecar.errors import DecisionUnavailable
from sidecar.model import JsonObject, ToolCall
from sidecar.ports import PdpAnswer
from sidecar.telemetry.tracing import OtelTracer

ALLOWED: JsonObject = {
    "v": 1,
    "allow": True,
    "reasons": [],
    "server": "one",
    "accesses": [
        {"owner": "red", "grants": ["g"], "filter": None, "mask": [], "max_documents": None, "max_time_ms": None}
    ],
    "approval": None,
    "revision": "r",
}


def answer() -> PdpAnswer:
    return PdpAnswer(result=ALLOWED, revision="r", decision_id="d")


def test_an_answer_that_is_remembered_is_checked_once_and_another_one_again() -> None:
    remembered = answer()
    first = read_answer(remembered, accesses=1, servers=["one", "two"])
    assert first.allow
    assert read_answer(remembered, accesses=1, servers=["one", "two"]) is first
    assert read_answer(answer(), accesses=1, servers=["one", "two"]) is not first
    assert remembered == answer(), "what it was found to be is no part of an answer"


@pytest.mark.parametrize(("accesses", "servers"), [(2, ["one"]), (1, ["two"]), (1, [])])
def test_an_answer_is_checked_against_each_question_of_another_form(accesses: int, servers: list[str]) -> None:
    remembered = answer()
    assert read_answer(remembered, accesses=1, servers=["one"]).allow
    for _ in range(2):
        with pytest.raises(DecisionUnavailable):
            read_answer(remembered, accesses=accesses, servers=servers)


def test_the_digest_of_arguments_is_that_of_the_call_of_now() -> None:
    exchange = Exchange(transport="http", client_ip="127.0.0.1")
    with OtelTracer(None).server("message", traceparent=None, link=None) as span:
        turn = Turn(request_id="r", exchange=exchange, caller=None, span=span, time_ns=0, started=0.0)
    assert turn.arguments_sha256 is None
    for arguments in ({"a": 1}, {"a": 2}, {"a": 1}):
        turn.call = ToolCall(name="find", arguments=dict(arguments))
        for _ in range(2):
            assert turn.arguments_sha256 == record.arguments_digest(turn.call.arguments)
