"""What a candidate policy set answers to recorded questions, each distinct one asked once."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, TypeAlias

from sidecar.authoring.records import DecisionOutcome, RecordedQuestion
from sidecar.bounded import BoundedMemory
from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.policy import read_decision
from sidecar.ports import DecisionPoint, PdpAnswer, Question

MEMO: Final = 4096
"""Answers that are remembered. A question holds its second, so equal ones are near each other."""

RECOVERY_POLLS: Final = 200
_POLL_S: Final = 0.05
"""An OPA that a question ended has this long to be back."""


class Candidate(DecisionPoint, Protocol):
    """The candidate set's decision point."""

    @property
    def revision(self) -> str:
        """The policy set that answers."""
        ...

    async def healthy(self) -> bool:
        """Whether it answers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """The candidate gives no decision."""

    detail: str


CandidateAnswer: TypeAlias = DecisionOutcome | Unavailable


class CandidateAnswers:
    """Asks the candidate, and remembers its answers.

    A question is a pure value (docs/adr/0007), so equal ones have equal answers; unlike the memo that serves, this one
    may keep an answer for as long as it has room, because the candidate set does not change.
    """

    def __init__(self, candidate: Candidate, servers: Collection[str]) -> None:
        self._candidate = candidate
        self._servers = servers
        self._known: BoundedMemory[bytes, CandidateAnswer] = BoundedMemory(MEMO)
        self.asked = 0

    async def of(self, questions: Iterable[RecordedQuestion]) -> Mapping[str, CandidateAnswer]:
        """Return the answer to each question, by its text."""
        different = {asked.text: asked for asked in questions}
        answers = await asyncio.gather(*map(self._answer, different.values()))
        return dict(zip(different, answers, strict=True))

    async def _answer(self, asked: RecordedQuestion) -> CandidateAnswer:
        key = sha256(asked.text.encode()).digest()
        known = self._known.use(key)
        if known is not None:
            return known
        self.asked += 1
        answer = await self._decide(asked)
        self._known.put(key, answer)
        return answer

    async def _decide(self, asked: RecordedQuestion) -> CandidateAnswer:
        try:
            answer = await self._ask(asked.document)
            decision = read_decision(answer.result, accesses=asked.accesses, servers=self._servers)
            return DecisionOutcome.of(decision, asked.tool)
        except DecisionUnavailable as error:
            return Unavailable(detail=error.detail)
        except RecursionError:
            return Unavailable(detail="an obligation is nested too deep to be recorded")

    async def _ask(self, document: JsonObject) -> PdpAnswer:
        """Ask, and once more if OPA was not there: another question may have ended it."""
        try:
            return await self._candidate.ask(Question.DECISION, document)
        except DecisionUnavailable as error:
            if error.fault is not PdpFault.UNREACHABLE:
                raise
        for _ in range(RECOVERY_POLLS):
            if await self._candidate.healthy():
                break
            await asyncio.sleep(_POLL_S)
        return await self._candidate.ask(Question.DECISION, document)
