"""Which question is to blame where an OPA ends, also where many about the same wait, and what is kept of them."""

import asyncio
from contextlib import suppress
from typing import cast

import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.blame import Member, PendingQuestion
from sidecar.opa.instance import Instance

SHOP = frozenset({"shop"})
DEADLINE_S = 0.5


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def member() -> Member:
    """Nothing of these claims asks its process anything."""
    return Member(cast("Instance", None))


def test_a_question_whose_answer_was_known_takes_nothing_from_one_that_waits_to_be_sent(clock, member):
    waits, known = (PendingQuestion(SHOP, clock.now) for _ in range(2))
    with member.asking(waits, DEADLINE_S):
        with member.asking(known, DEADLINE_S):
            """Its answer was remembered, so it is never sent."""
        waits.sent()
        clock.now_s = 0.01
        assert member.blamed(clock.now_s) == SHOP, "it is the one that OPA is evaluating"
    assert not member.asked


def test_of_questions_that_were_not_sent_nothing_is_kept_however_many_are_refused(clock, member):
    for _ in range(3000):
        refused = DecisionUnavailable("not sent", fault=PdpFault.OVERLOADED)
        with (
            pytest.raises(DecisionUnavailable),
            member.asking(PendingQuestion(SHOP, clock.now), DEADLINE_S),
        ):
            raise refused
        assert not member.asked
    assert not member.blamed(clock.now_s)


def unanswered(member: Member, clock: Clock) -> PendingQuestion:
    """Send a question that gets no answer."""
    one = PendingQuestion(SHOP, clock.now)
    with suppress(asyncio.CancelledError), member.asking(one, DEADLINE_S):
        one.sent()
        raise asyncio.CancelledError
    return one


def test_one_that_got_no_answer_is_to_blame_for_a_while_and_then_forgotten(clock, member):
    unanswered(member, clock)
    clock.now_s = 1.0
    assert member.blamed(clock.now_s) == SHOP
    clock.now_s = 2.0
    assert not member.blamed(clock.now_s)
    later = unanswered(member, clock)
    assert [*member.asked] == [later]
