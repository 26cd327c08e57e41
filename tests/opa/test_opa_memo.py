"""The memo of answers: exact, short, and gone with what gave the answers."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import weakref
from typing import Any

import pytest

from sidecar.model import JsonObject
from sidecar.opa.memo import MAX_ANSWER_BYTES, MAX_BYTES, MAX_ENTRIES, MAX_QUESTION_BYTES, Memo
from sidecar.opa.wire import encode_question
from sidecar.policyset import TIME, QuestionReads
from sidecar.ports import PdpAnswer, Question
from sidecar.system.liveness import Pulse

ANSWER = PdpAnswer(result={"allow": True}, revision="r")
ASKED: tuple[Question, JsonObject] = Question.DECISION, {"a": 1}


def alive() -> bool:
    return True


def recall(memo: Memo, question: Question, document: JsonObject) -> PdpAnswer | None:
    key = memo.key(question, document)
    return memo.recall(key) if key is not None else None


def remember(memo: Memo, question: Question, document: JsonObject, answer: PdpAnswer, *, size: int) -> None:
    key = memo.key(question, document)
    if key is not None:
        memo.remember(key, answer, size=size)


async def test_the_same_question_gets_the_same_answer():
    memo = Memo(60, alive)
    remember(memo, *ASKED, ANSWER, size=20)
    assert recall(memo, *ASKED) is ANSWER


@pytest.mark.parametrize(
    "other",
    [
        (Question.DECISION, {"a": 2}),
        (Question.DECISION, {"a": 1.0}),
        (Question.DECISION, {"a": 1, "b": None}),
        (Question.VISIBILITY, {"a": 1}),
    ],
)
async def test_any_other_question_is_asked(other):
    memo = Memo(60, alive)
    remember(memo, *ASKED, ANSWER, size=20)
    assert recall(memo, *other) is None


async def test_an_answer_does_not_outlive_its_time():
    memo = Memo(1e-9, alive)
    remember(memo, *ASKED, ANSWER, size=20)
    await asyncio.sleep(0.001)
    assert recall(memo, *ASKED) is None


async def test_nothing_is_remembered_when_it_is_switched_off():
    memo = Memo(0, alive)
    remember(memo, *ASKED, ANSWER, size=20)
    assert recall(memo, *ASKED) is None


@pytest.mark.parametrize("question", [Question.SELF_TEST, Question.RESIDUAL])
async def test_the_self_test_and_what_its_asker_keeps_are_never_remembered(question):
    memo = Memo(60, alive)
    remember(memo, question, {}, ANSWER, size=20)
    assert recall(memo, question, {}) is None


async def test_a_large_answer_is_not_remembered():
    memo = Memo(60, alive)
    remember(memo, *ASKED, ANSWER, size=MAX_ANSWER_BYTES + 1)
    assert recall(memo, *ASKED) is None
    remember(memo, *ASKED, ANSWER, size=MAX_ANSWER_BYTES)
    assert recall(memo, *ASKED) is ANSWER


async def test_the_bytes_of_all_answers_together_are_bounded():
    memo = Memo(60, alive)
    fit = MAX_BYTES // (MAX_ANSWER_BYTES + len(encode_question({"n": "00000000"})))
    for number in range(fit + 1):
        remember(memo, Question.DECISION, {"n": f"{number:08}"}, ANSWER, size=MAX_ANSWER_BYTES)
    assert recall(memo, Question.DECISION, {"n": f"{0:08}"}) is None
    assert recall(memo, Question.DECISION, {"n": f"{1:08}"}) is ANSWER
    for _ in range(fit):
        remember(memo, Question.DECISION, {"n": "again..."}, ANSWER, size=MAX_ANSWER_BYTES)
    assert recall(memo, Question.DECISION, {"n": f"{2:08}"}) is ANSWER, "an answer in the place of one is counted once"


async def test_what_is_too_old_goes_with_the_next_that_comes():
    class Watched(PdpAnswer):
        """One that can be seen to be let go."""

    memo = Memo(0.01, alive)
    old = Watched(result=None, revision="r")
    gone = weakref.ref(old)
    remember(memo, Question.DECISION, {"old": 1}, old, size=20)
    del old
    await asyncio.sleep(0.02)
    remember(memo, Question.DECISION, {"new": 1}, ANSWER, size=20)
    gc.collect()
    assert gone() is None


async def test_large_questions_and_old_answers_make_room():
    memo = Memo(60, alive)
    large: JsonObject = {"x": "x" * MAX_QUESTION_BYTES}
    remember(memo, Question.DECISION, large, ANSWER, size=20)
    assert recall(memo, Question.DECISION, large) is None
    remember(memo, *ASKED, ANSWER, size=20)
    for number in range(MAX_ENTRIES):
        remember(memo, Question.DECISION, {"n": number}, ANSWER, size=20)
    assert recall(memo, *ASKED) is None
    assert recall(memo, Question.DECISION, {"n": 1}) is ANSWER


async def test_what_has_ended_is_not_quoted_and_not_when_it_is_replaced_either():
    there = [True]
    memo = Memo(60, lambda: there[0])
    remember(memo, *ASKED, ANSWER, size=20)
    there[0] = False
    assert recall(memo, *ASKED) is None
    there[0] = True
    assert recall(memo, *ASKED) is None


def test_a_pulse_ends_with_the_process_before_anybody_waits_for_it():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pulse = Pulse()
    assert not pulse.alive(), "what was never watched is not alive"
    pulse.watch(process.pid)
    try:
        assert pulse.alive()
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not pulse.alive()
    finally:
        process.kill()
        process.communicate()
        pulse.close()
    assert not pulse.alive()


def a_list(time_ns: object) -> tuple[Question, JsonObject]:
    context: dict[str, Any] = {"time_ns": time_ns, "client_ip": "203.0.113.1"}
    return Question.VISIBILITY, {"subject": {"id": "alice"}, "context": context}


def reads(*platform: tuple[str, ...]) -> QuestionReads:
    return QuestionReads(platform=frozenset({("accesses",), *platform}), owners={}, answers_name_owners=True)


async def test_a_list_outlives_its_time_where_no_hours_are_closed_and_only_there():
    for known, lasts in ((reads(), True), (reads(TIME), False), (None, False)):
        memo = Memo(1e-9, alive, known)
        remember(memo, *a_list(1), ANSWER, size=20)
        await asyncio.sleep(0.001)
        assert (recall(memo, *a_list(2)) is ANSWER) is lasts
        assert (recall(memo, *a_list(1)) is ANSWER) is lasts
        memo.clear()
        assert recall(memo, *a_list(1)) is None


@pytest.mark.parametrize("malformed", [-1, True, "1", None, 1.0])
async def test_a_list_with_an_ill_formed_time_is_another_question(malformed):
    memo = Memo(60, alive, reads())
    remember(memo, *a_list(1), ANSWER, size=20)
    assert recall(memo, *a_list(malformed)) is None


async def test_a_question_that_differs_in_time_is_sent_as_it_is():
    key = Memo(60, alive, reads()).key(*a_list(5))
    assert key is not None
    assert not key.is_question, "the key has another time in it"
    key = Memo(60, alive, reads(TIME)).key(*a_list(5))
    assert key is not None
    assert key.is_question
    assert key.platform == encode_question(a_list(5)[1])
