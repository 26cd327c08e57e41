"""An exact memo of recent answers.

A question is a pure value: it holds no argument values and no identifiers of the request, and its time is truncated to
a step (docs/adr/0007). Under one policy set the same bytes are the same decision, so a burst of like calls, as agents
make them, needs one evaluation. Measured on 2 cores: a question to OPA costs as much CPU as everything else of a call
together.

What keeps it safe: the key is the whole question, byte for byte; no entry is older than the step; it belongs to one
instance of a managed OPA, goes when that does, and answers nothing once the process has ended (asked of the kernel at
every recall, not learned of later); any failure to answer forgets everything; the self-test is never remembered.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sidecar.ports import PdpAnswer, Question

MAX_ENTRIES: Final = 2048
MAX_QUESTION_BYTES: Final = 8192
"""A larger question is asked every time, so that the memo is bounded in bytes too (16 MiB)."""

_FORGETFUL: Final = frozenset({Question.SELF_TEST})


class Memo:
    """Remembers answers.

    Args:
        max_age_s: for how many seconds at most; 0 remembers nothing.
        alive: whether what gave the answers is still there.
    """

    def __init__(self, max_age_s: float, alive: Callable[[], bool]) -> None:
        self._max_age_s = max_age_s
        self._alive = alive
        self._answers: OrderedDict[tuple[Question, bytes], tuple[float, PdpAnswer]] = OrderedDict()

    def recall(self, question: Question, body: bytes) -> PdpAnswer | None:
        """Return the answer that was given to these very bytes a moment ago, if there is one."""
        entry = self._answers.get((question, body))
        if entry is None:
            return None
        at, answer = entry
        if not self._alive():
            self.clear()
            return None
        if asyncio.get_running_loop().time() - at >= self._max_age_s:
            del self._answers[question, body]
            return None
        return answer

    def remember(self, question: Question, body: bytes, answer: PdpAnswer) -> None:
        """Keep an answer; the oldest go first."""
        if self._max_age_s <= 0 or question in _FORGETFUL or len(body) > MAX_QUESTION_BYTES:
            return
        self._answers[question, body] = (asyncio.get_running_loop().time(), answer)
        if len(self._answers) > MAX_ENTRIES:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
