"""An exact memo of recent answers.

A question is a pure value: it holds no argument values and no identifiers of the request, and its time is truncated to
a step (docs/adr/0007). Under one policy set equal questions have equal answers, and so have questions that differ in
parts only that no rule uses (docs/adr/0020). So a burst of like calls, as agents make them, needs one evaluation.
Measured on 2 cores: a question to OPA costs as much CPU as everything else of a call together.

::

    question ──▶ what the platform reads of it ──▶ whose rules answered then? ──▶ what those read of it ──▶ answer
                 (all of it, if that is not                  │
                  known or it is not well-formed)            └ not known: everybody's

What keeps it safe: the key is everything that the answer can depend on, byte for byte, and the whole question where
that is not known; an answer that depends on the time is no older than the step; the memo belongs to one instance of a
managed OPA, goes when that does, and answers nothing once the process has ended (asked of the kernel at every recall,
not learned of later); an answer that is not as it should be forgets everything; the self-test is never remembered. An
answer that is merely late forgets nothing: what was answered before is as right as it was, and to ask for it again is
what a busy OPA needs least.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.bounded import BoundedMemory
from sidecar.model import JsonObject, JsonValue
from sidecar.opa.wire import encode_question
from sidecar.policy import is_well_formed
from sidecar.policyset import TIME, QuestionReads, RegoPath
from sidecar.ports import PdpAnswer, Question

MAX_ENTRIES: Final = 2048
MAX_QUESTION_BYTES: Final = 8192
"""A larger question is asked every time."""
MAX_ANSWER_BYTES: Final = 65_536
"""A larger answer is asked for every time: a team's large filter must not push the others' answers out."""
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of all questions and answers together, as JSON; as values of Python answers take five to eight times that."""

_LATEST_NS: Final = 2**63 - 1
"""What ``input_check`` takes for a time, at most."""

_FORGETFUL: Final = frozenset({Question.SELF_TEST, Question.RESIDUAL})
"""What must be seen to happen, and what its asker keeps (``sidecar.enforcement.visibility``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoKey:
    """Where the answer to a question is kept."""

    question: Question
    platform: bytes
    """What the platform's rules read of it; the whole question where only that will do."""
    short: bytes = b""
    """A name of ``platform``."""
    document: JsonObject | None = None
    """The question, where the owners' rules read more of it."""
    timed: bool = True
    """The platform's rules read the time, or nothing is known of what they read."""
    is_question: bool = False
    """``platform`` is what OPA is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownAnswer:
    at: float
    answer: PdpAnswer
    size: int
    timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartsRead:
    """What the rules of some owners read beyond the platform's."""

    parts: tuple[tuple[str, RegoPath], ...]
    """Each with its name."""
    timed: bool


_AnswerKey = tuple[Question, bytes, tuple[str, ...], bytes]


class Memo:
    """Remembers answers.

    Args:
        max_age_s: for how many seconds at most an answer that depends on the time; 0 remembers nothing.
        alive: whether what gave the answers is still there.
        reads: what the answers of the policy set depend on; None where that is not known.
    """

    def __init__(self, max_age_s: float, alive: Callable[[], bool], reads: QuestionReads | None = None) -> None:
        self._max_age_s = max_age_s
        self._alive = alive
        self._reads = reads
        self._everybody = tuple(sorted(reads.owners)) if reads is not None else ()
        self._answered_by: BoundedMemory[bytes, tuple[str, ...]] = BoundedMemory(MAX_ENTRIES)
        """Whose rules answered questions of which the platform reads the same."""
        self._platform = _parts_read(reads.platform) if reads is not None else None
        self._read_by: BoundedMemory[tuple[str, ...], _PartsRead] = BoundedMemory(MAX_ENTRIES)
        self._answers: OrderedDict[_AnswerKey, _KnownAnswer] = OrderedDict()
        self._size = 0

    def key(self, question: Question, document: JsonObject) -> MemoKey | None:
        """Return where the answer to a question is kept; None where it is not kept.

        Raises:
            DecisionUnavailable: as for ``encode_question``.
        """
        if self._max_age_s <= 0 or question in _FORGETFUL:
            return None
        platform = self._platform
        if platform is not None and question is Question.VISIBILITY and not platform.timed and _has_time(document):
            return MemoKey(question=question, platform=encode_question(_at_any_time(document)), timed=False)
        if platform is None or question is not Question.DECISION or not is_well_formed(document):
            return MemoKey(question=question, platform=encode_question(document), is_question=True)
        read = _encoded(document, platform)
        name = hashlib.sha256(read).digest()
        return MemoKey(question=question, platform=read, short=name, document=document, timed=platform.timed)

    def recall(self, key: MemoKey) -> PdpAnswer | None:
        """Return the answer that was given to a question of which the rules read the same, if there is one."""
        place = self._known(key)
        if place is None:
            return None
        if not self._alive():
            self.clear()
            return None
        known = self._answers[place]
        if not known.timed:
            self._answers.move_to_end(place)
        return None if self._is_over(known, self._now()) else known.answer

    def remember(self, key: MemoKey, answer: PdpAnswer, *, size: int) -> None:
        """Keep an answer; what is too old goes, then the oldest.

        Args:
            key: of the question.
            answer: as it was read.
            size: bytes of the answer, as it came.
        """
        owners = self._answering(key, answer.result)
        place = self._place(key, owners)
        asked = len(place[1]) + len(place[3])
        if asked > MAX_QUESTION_BYTES or size > MAX_ANSWER_BYTES:
            return
        now = self._now()
        self._forget(place)
        if key.document is not None:
            self._answered_by.put(key.short, owners)
        timed = key.timed or self._reads_of(owners).timed
        entry = _KnownAnswer(at=now, answer=answer, size=asked + size, timed=timed)
        self._answers[place] = entry
        self._size += entry.size
        while self._full() or self._is_over(self._oldest(), now):
            self._forget(next(iter(self._answers)))

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self._answered_by.clear()
        self._size = 0

    def _known(self, key: MemoKey) -> _AnswerKey | None:
        """Return where there is an answer."""
        if key.document is None:
            ways: tuple[tuple[str, ...] | None, ...] = ((),)
        else:
            ways = tuple({self._answered_by.get(key.short): None, self._everybody: None})
        for owners in ways:
            if owners is not None and (place := self._place(key, owners)) in self._answers:
                return place
        return None

    def _answering(self, key: MemoKey, result: JsonValue) -> tuple[str, ...]:
        """Return whose rules an answer can depend on: those of the owners that it names, or everybody's.

        A refusal depends on everybody: whether more scopes would turn it is tried where other owners may be asked.
        """
        if key.document is None or self._reads is None:
            return ()
        match result:
            case {"allow": True, "accesses": [*accesses]} if self._reads.answers_name_owners:
                named = {str(one.get("owner", "")) for one in accesses if isinstance(one, dict)} - {"platform"}
                asked = key.document["accesses"]
                if named <= self._reads.owners.keys() and isinstance(asked, list) and len(accesses) == len(asked):
                    return tuple(sorted(named))
        return self._everybody

    def _place(self, key: MemoKey, owners: tuple[str, ...]) -> _AnswerKey:
        """Return the key of an answer in the table."""
        read = b"" if key.document is None else _encoded(key.document, self._reads_of(owners))
        return key.question, key.platform, owners, read

    def _reads_of(self, owners: tuple[str, ...]) -> _PartsRead:
        known = self._read_by.get(owners)
        if known is None:
            known = _parts_read(self._reads.of(owners) if self._reads is not None else ())
            self._read_by.put(owners, known)
        return known

    def _full(self) -> bool:
        return len(self._answers) > MAX_ENTRIES or self._size > MAX_BYTES

    def _oldest(self) -> _KnownAnswer:
        return next(iter(self._answers.values()))

    def _is_over(self, entry: _KnownAnswer, now: float) -> bool:
        return entry.timed and now - entry.at >= self._max_age_s

    def _forget(self, place: _AnswerKey) -> None:
        entry = self._answers.pop(place, None)
        if entry is not None:
            self._size -= entry.size

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _has_time(document: JsonObject) -> bool:
    """Whether the time of a question is one to ``input_check``, which looks at its form."""
    match document:
        case {"context": {"time_ns": int(time_ns)}}:
            return type(time_ns) is int and 0 <= time_ns <= _LATEST_NS
        case _:
            return False


def _at_any_time(document: JsonObject) -> JsonObject:
    """Return a question about a list without its time, which only closed hours are compared with there."""
    context = document["context"]
    return {**document, "context": {**context, "time_ns": 0}} if isinstance(context, dict) else document


def _parts_read(parts: Iterable[RegoPath]) -> _PartsRead:
    ordered = sorted(parts)
    timed = any(part == TIME[: len(part)] for part in ordered)
    return _PartsRead(parts=tuple((repr(part), part) for part in ordered), timed=timed)


def _encoded(document: JsonObject, read: _PartsRead) -> bytes:
    """Return the parts of a question that are there, each with its name."""
    return encode_question({name: value for name, part in read.parts for value in _at(document, part)})


def _at(document: JsonObject, part: RegoPath) -> list[Any]:
    found: Any = document
    for name in part:
        if not isinstance(found, dict) or name not in found:
            return []
        found = found[name]
    return [found]
