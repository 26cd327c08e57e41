"""What each OPA was asked, and which databases are to blame where one ends or keeps the others waiting.

Time is the measure. An answer takes milliseconds, so

- where a process ends, the oldest question without an answer is to blame, with those asked in the same moment;
- where a question gets no answer in time although one that was asked after it got its answer at once, its own policy is
  slow, and not the machine.

A policy that was blamed by chance is cleared by the first answer that it gives alone; one that is blamed again has to
wait for the end of the term.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sidecar.model import JsonObject
from sidecar.opa.instance import Instance
from sidecar.ports import Question

Places = frozenset[str]

LISTS: Final[Places] = frozenset({"*"})
"""What partial evaluation is about; no database has this name."""

TERM_S: Final = 60.0
"""How long a place is suspected or set aside for the first time; each further time twice as long."""
LONGEST_TERM_S: Final = 3600.0

_AFTERMATH_S: Final = 1.5
"""A question that got no answer can end a process this long after its own deadline."""
_TOGETHER_S: Final = 0.05
"""Of the questions without an answer the oldest is to blame, with those that were asked this shortly after it. All
others waited because of it: an answer takes milliseconds."""
_QUICK_SHARE: Final = 0.25
"""An answer within this part of the deadline says that the process is not busy."""
MAX_REMEMBERED: Final = 1024
"""Places that are remembered; callers name databases, so there may be any number of them."""


@dataclass(slots=True, eq=False)
class PendingQuestion:
    """A question for one process; of many that are about the same, each is itself.

    Args:
        places: what it is about.
        now: seconds on a clock that never goes back.
    """

    places: Places
    now: Callable[[], float]
    asked_at: float = math.inf
    """When it was sent. One that waits for its turn, or whose answer was remembered, is to blame for nothing."""
    failed_at: float | None = None
    """When it ended without an answer; None while it is under way."""

    def sent(self) -> None:
        """Note that it is sent now."""
        self.asked_at = self.now()


@dataclass(slots=True)
class Blame:
    """For which places something is remembered, and until when.

    Args:
        now: seconds on a clock that never goes back.
    """

    now: Callable[[], float]
    _until: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The end of the term, and its length, by place."""

    def put(self, places: Places) -> None:
        """Remember the places, those that are remembered or were before for twice as long."""
        for place in places:
            _, length = self._until.pop(place, (0.0, TERM_S / 2))
            length = min(2 * length, LONGEST_TERM_S)
            self._until[place] = (self.now() + length, length)
        while len(self._until) > MAX_REMEMBERED:
            del self._until[next(iter(self._until))]

    def lift(self, places: Places) -> None:
        """End the term of those that are remembered for the first time."""
        for place in places & self._until.keys():
            _, length = self._until[place]
            if length <= TERM_S:
                self._until[place] = (self.now(), length)

    def holds(self, places: Places) -> bool:
        """Whether one of the places is remembered now."""
        return bool(self.among(places))

    def among(self, places: Places) -> Places:
        """Return those of the places that are remembered now."""
        return frozenset(place for place in places if place in self._until and self.now() < self._until[place][0])


@dataclass(slots=True, eq=False)
class Member:
    """One process of the two, with the questions that it has not answered."""

    instance: Instance
    asked: dict[PendingQuestion, None] = field(default_factory=dict)
    """In the order in which they came; of those that were never sent, none that has ended."""
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where it did not answer in time."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where it was taken out."""
    quick: float = -math.inf
    """When the last question was asked that it answered at once."""

    def blamed(self, now: float) -> Places:
        """Return the places of the questions that may have ended it."""
        unanswered = [one for one in self._relevant(now) if one.asked_at <= now]
        oldest = min((one.asked_at for one in unanswered), default=now)
        return frozenset().union(*(one.places for one in unanswered if one.asked_at - oldest < _TOGETHER_S))

    def _relevant(self, now: float) -> list[PendingQuestion]:
        return [one for one in self.asked if one.failed_at is None or now - one.failed_at < _AFTERMATH_S]

    @contextmanager
    def asking(self, one: PendingQuestion, deadline_s: float) -> Iterator[None]:
        """Note a question for as long as it is under way, and a little longer where it gets no answer.

        Args:
            one: the question.
            deadline_s: seconds that an answer may take.
        """
        self.asked[one] = None
        try:
            yield
        except BaseException:
            if one.asked_at == math.inf:
                del self.asked[one]
            else:
                one.failed_at = one.now()
                self.asked = dict.fromkeys(self._relevant(one.failed_at))
            raise
        del self.asked[one]
        if one.asked_at < math.inf and one.now() - one.asked_at < deadline_s * _QUICK_SHARE:
            self.quick = max(self.quick, one.asked_at)

    def is_slow(self, one: PendingQuestion) -> bool:
        """Whether a question that got no answer in time is slow by itself: another, asked after it, was not."""
        return one.asked_at < self.quick


def places(question: Question, document: JsonObject) -> Places:
    """Return the databases that a question is about, by which teams are looked up; ``LISTS`` for partial evaluation."""
    if question is Question.RESIDUAL:
        return LISTS
    accesses = document.get("accesses")
    found = accesses if isinstance(accesses, list) else []
    return frozenset(str(access.get("database", "")) for access in found if isinstance(access, dict))


def together(about: Places) -> Places:
    """Return what stands for these databases in one question; one that ends an OPA so need not do it alone."""
    return frozenset({" + ".join(sorted(about))}) if len(about) > 1 else about


def parts(document: JsonObject, about: Places) -> Iterator[tuple[Places, JsonObject]]:
    """Divide a question about several databases into one for each; nothing where there is one.

    A team is asked about each access by itself, so what it does in the whole it does in its part. Without this, the
    owner of a policy that ends OPA could have another team's database blamed, by naming it in the same call.
    """
    accesses = document.get("accesses")
    if len(about) > 1 and isinstance(accesses, list):
        for place in sorted(about):
            own = [access for access in accesses if isinstance(access, dict) and access.get("database", "") == place]
            yield frozenset({place}), {**document, "accesses": [*own]}
