"""A candidate policy set beside the serving one: what it would have said is recorded, and changes nothing."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from sidecar.errors import DecisionUnavailable
from sidecar.model import Decision, JsonObject
from sidecar.policy import verdict
from sidecar.ports import DecisionPoint, PdpAnswer, Question


class Difference(StrEnum):
    """How the candidate's answer stands to the serving one."""

    SAME = "same"
    WOULD_DENY = "would_deny"
    WOULD_ALLOW = "would_allow"
    UNAVAILABLE = "unavailable"
    """The candidate gave no answer that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the candidate would have said of one call."""

    difference: Difference
    revision: str = ""
    reasons: tuple[str, ...] = ()

    def record(self) -> JsonObject:
        """Return it as audit records hold it."""
        return {"difference": self.difference.value, "revision": self.revision, "reasons": list(self.reasons)}


class Shadow:
    """Asks the candidate while the serving set is asked, so that a comparison costs no second round trip.

    Args:
        candidate: the decision point of the candidate set; it decides no call.
        read: reads an answer of this call's question (``sidecar.policy.verdict.read_decision`` with its bounds).
    """

    def __init__(self, candidate: DecisionPoint, question: JsonObject, read: Callable[[PdpAnswer], Decision]) -> None:
        self._read = read
        self._asked = asyncio.create_task(candidate.ask(Question.DECISION, question), name="shadow")

    async def compare(self, serving: Decision) -> Opinion:
        """Return the difference to what the serving set decided; never raises on the candidate's account."""
        try:
            candidate = self._read(await self._asked)
        except DecisionUnavailable:
            return Opinion(difference=Difference.UNAVAILABLE)
        if candidate.allow == serving.allow:
            difference = Difference.SAME
        else:
            difference = Difference.WOULD_ALLOW if candidate.allow else Difference.WOULD_DENY
        reasons = tuple(dict.fromkeys(reason.code for reason in candidate.reasons))
        return Opinion(difference=difference, revision=candidate.revision, reasons=reasons)

    async def dismiss(self) -> None:
        """End the question, because its answer will not be compared."""
        self._asked.cancel()
        with suppress(asyncio.CancelledError, DecisionUnavailable):
            await self._asked


def read_answer(answer: PdpAnswer, *, accesses: int, servers: Collection[str]) -> Decision:
    """Return the decision that an answer is, of either set and to any question; raises as ``read_decision`` does."""
    held_to = (accesses, tuple(servers))
    decision = answer.decisions.get(held_to)
    if decision is None:
        decision = answer.decisions[held_to] = verdict.read_decision(
            answer.result, accesses=accesses, servers=servers, revision=answer.revision, decision_id=answer.decision_id
        )
    return decision
