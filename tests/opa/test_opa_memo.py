"""The memo of answers: exact, short, and gone with what gave the answers."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import weakref

import pytest

from sidecar.opa.memo import MAX_ANSWER_BYTES, MAX_BYTES, MAX_ENTRIES, MAX_QUESTION_BYTES, Memo
from sidecar.ports import PdpAnswer, Question
from sidecar.system.liveness import Pulse

ANSWER = PdpAnswer(result={"allow": True}, revision="r")
ASKED = Question.DECISION, b'{"input":{"a":1}}'


def alive() -> bool:
    return True


async def test_the_same_bytes_get_the_same_answer():
    memo = Memo(60, alive)
    memo.remember(*ASKED, ANSWER, size=20)
    assert memo.recall(*ASKED) is ANSWER


@pytest.mark.parametrize(
    "other",
    [
        (Question.DECISION, b'{"input":{"a":2}}'),
        (Question.DECISION, b'{"input":{"a":1} }'),
        (Question.VISIBILITY, b'{"input":{"a":1}}'),
    ],
)
async def test_any_other_bytes_and_any_other_question_are_asked(other):
    memo = Memo(60, alive)
    memo.remember(*ASKED, ANSWER, size=20)
    assert memo.recall(*other) is None


async def test_an_answer_does_not_outlive_its_time():
    memo = Memo(1e-9, alive)
    memo.remember(*ASKED, ANSWER, size=20)
    await asyncio.sleep(0.001)
    assert memo.recall(*ASKED) is None


async def test_nothing_is_remembered_when_it_is_switched_off():
    memo = Memo(0, alive)
    memo.remember(*ASKED, ANSWER, size=20)
    assert memo.recall(*ASKED) is None


@pytest.mark.parametrize("question", [Question.SELF_TEST, Question.RESIDUAL])
async def test_the_self_test_and_what_its_asker_keeps_are_never_remembered(question):
    memo = Memo(60, alive)
    memo.remember(question, b"{}", ANSWER, size=20)
    assert memo.recall(question, b"{}") is None


async def test_a_large_answer_is_not_remembered():
    memo = Memo(60, alive)
    memo.remember(*ASKED, ANSWER, size=MAX_ANSWER_BYTES + 1)
    assert memo.recall(*ASKED) is None
    memo.remember(*ASKED, ANSWER, size=MAX_ANSWER_BYTES)
    assert memo.recall(*ASKED) is ANSWER


async def test_the_bytes_of_all_answers_together_are_bounded():
    memo = Memo(60, alive)
    fit = MAX_BYTES // (MAX_ANSWER_BYTES + 8)
    for number in range(fit + 1):
        memo.remember(Question.DECISION, f"{number:08}".encode(), ANSWER, size=MAX_ANSWER_BYTES)
    assert memo.recall(Question.DECISION, f"{0:08}".encode()) is None
    assert memo.recall(Question.DECISION, f"{1:08}".encode()) is ANSWER
    for _ in range(fit):
        memo.remember(Question.DECISION, b"again", ANSWER, size=MAX_ANSWER_BYTES)
    assert memo.recall(Question.DECISION, f"{2:08}".encode()) is ANSWER, "an answer in the place of one is counted once"


async def test_what_is_too_old_goes_with_the_next_that_comes():
    class Watched(PdpAnswer):
        """One that can be seen to be let go."""

    memo = Memo(0.01, alive)
    old = Watched(result=None, revision="r")
    gone = weakref.ref(old)
    memo.remember(Question.DECISION, b"old", old, size=20)
    del old
    await asyncio.sleep(0.02)
    memo.remember(Question.DECISION, b"new", ANSWER, size=20)
    gc.collect()
    assert gone() is None


async def test_large_questions_and_old_answers_make_room():
    memo = Memo(60, alive)
    large = b"x" * (MAX_QUESTION_BYTES + 1)
    memo.remember(Question.DECISION, large, ANSWER, size=20)
    assert memo.recall(Question.DECISION, large) is None
    memo.remember(*ASKED, ANSWER, size=20)
    for number in range(MAX_ENTRIES):
        memo.remember(Question.DECISION, str(number).encode(), ANSWER, size=20)
    assert memo.recall(*ASKED) is None
    assert memo.recall(Question.DECISION, b"1") is ANSWER


async def test_what_has_ended_is_not_quoted_and_not_when_it_is_replaced_either():
    there = [True]
    memo = Memo(60, lambda: there[0])
    memo.remember(*ASKED, ANSWER, size=20)
    there[0] = False
    assert memo.recall(*ASKED) is None
    there[0] = True
    assert memo.recall(*ASKED) is None


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
