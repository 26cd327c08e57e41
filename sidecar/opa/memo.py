"""An exact memo of recent answers.

A question is a pure value: it holds no argument values and no identifiers of the request, and its time is truncated to
a step (docs/adr/0007). Under one policy set the same bytes are the same decision, so a burst of like calls, as agents
make them, needs one evaluation. Measured on 2 cores: a question to OPA costs as much CPU as everything else of a call
together.

What keeps it safe: the key is the whole question, byte for byte; no entry is older than the step; it belongs to one
instance of a managed OPA, goes when that does, and answers nothing once the process has ended (asked of the kernel at
every recall, not learned of later); an answer that is not as it should be forgets everything; the self-test is never
remembered. An answer that is merely late forgets nothing: what was answered before is as right as it was, and to ask
for it again is what a busy OPA needs least.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.ports import PdpAnswer, Question

MAX_ENTRIES: Final = 2048
MAX_QUESTION_BYTES: Final = 8192
"""A larger question is asked every time."""
MAX_ANSWER_BYTES: Final = 65_536
"""A larger answer is asked for every time: a team's large filter must not push the others' answers out."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of all questions and answers together, as JSON; as values of Python answers take five to eight times that."""

_FORGETFUL: Final = frozenset({Question.SELF_TEST, Question.RESIDUAL})
"""What must be seen to happen, and what its asker keeps (``sidecar.enforcement.visibility``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownAnswer:
    at: float
    answer: PdpAnswer
    size: int


class Memo:
    """Remembers answers.

    Args:
        max_age_s: for how many seconds at most; 0 remembers nothing.
        alive: whether what gave the answers is still there.
    """

    def __init__(self, max_age_s: float, alive: Callable[[], bool]) -> None:
        self._max_age_s = max_age_s
        self._alive = alive
        self._answers: OrderedDict[tuple[Question, bytes], _KnownAnswer] = OrderedDict()
        self._size = 0

    def recall(self, question: Question, body: bytes) -> PdpAnswer | None:
        """Return the answer that was given to these very bytes a moment ago, if there is one."""
        entry = self._answers.get((question, body))
        if entry is None:
            return None
        if not self._alive():
            self.clear()
            return None
        return entry.answer if self._now() - entry.at < self._max_age_s else None

    def remember(self, question: Question, body: bytes, answer: PdpAnswer, *, size: int) -> None:
        """Keep an answer; what is too old goes, then the oldest.

        Args:
            question: what was asked.
            body: the question, as it was sent.
            answer: as it was read.
            size: bytes of the answer, as it came.
        """
        if self._max_age_s <= 0 or question in _FORGETFUL:
            return
        if len(body) > MAX_QUESTION_BYTES or size > MAX_ANSWER_BYTES:
            return
        now = self._now()
        self._forget((question, body))
        entry = self._answers[question, body] = _KnownAnswer(at=now, answer=answer, size=len(body) + size)
        self._size += entry.size
        while self._full() or now - self._oldest().at >= self._max_age_s:
            self._forget(next(iter(self._answers)))

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._size = 0

    def _full(self) -> bool:
        return len(self._answers) > MAX_ENTRIES or self._size > MAX_BYTES

    def _oldest(self) -> _KnownAnswer:
        return next(iter(self._answers.values()))

    def _forget(self, key: tuple[Question, bytes]) -> None:
        entry = self._answers.pop(key, None)
        if entry is not None:
            self._size -= entry.size

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
