"""Policies that change, and an OPA that answers late, with an error, or never.

What stands between OPA and a decision is the product's: the memo of each instance, and the rule that a question goes to
the instance that serves when it is asked.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from sidecar.errors import DecisionUnavailable
from sidecar.model import JsonObject
from sidecar.opa.memo import Memo
from sidecar.ports import PdpAnswer, Question
from tests.simulation.simulated_loop import SimulatedLoop

MEMO_S = 1.0
LATE_S = 0.05
OPEN, GUARDED, CLOSED = "orders", "guarded", "salaries"
SERVER = "demo-rw"


def may(revision: int, user: str, tool: str, collection: str) -> bool:
    """The policy of a revision; what bob may changes with each."""
    if collection == CLOSED:
        return False
    if user == "bob":
        return (tool == "find") == bool(revision % 2)
    return user == "alice"


def name_of(revision: int) -> str:
    return f"r{revision}"


def number_of(name: str) -> int:
    return int(name.removeprefix("r"))


@dataclass(frozen=True)
class Served:
    """When a revision served."""

    since: float
    until: float = float("inf")


class SimulatedOpa:
    """The decision point (``sidecar.ports.DecisionPoint``) of one run."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.fails = 0.0
        self.served: dict[int, Served] = {}
        self.revision = 0
        self._memo: Memo
        self._alive = [True]
        self.serve()

    def serve(self) -> None:
        """Another policy set serves from now on; OPA has a new process for it."""
        now = self._loop.time()
        if self.revision:
            self.served[self.revision] = Served(self.served[self.revision].since, now)
        self.revision += 1
        self.served[self.revision] = Served(now)
        self.start()

    def start(self) -> None:
        """A process begins, with nothing remembered; the one before has ended."""
        self._alive[0] = False
        self._alive = alive = [True]
        self._memo = Memo(MEMO_S, lambda: alive[0])

    def forget(self) -> None:
        """Drop every remembered answer."""
        self._memo.clear()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Answer as the set that serves now, some time later, or fail."""
        revision, memo, alive = self.revision, self._memo, self._alive
        key = memo.key(question, document)
        known = None if key is None else memo.recall(key)
        if known is not None:
            return known
        await self._loop.passes()
        if self._loop.random.random() < self.fails:
            if self._loop.random.random() < 0.5:
                await asyncio.sleep(LATE_S)  # as long as the client waits
            raise DecisionUnavailable("staged: no answer")
        if not alive[0] and self._loop.random.random() < 0.5:
            raise DecisionUnavailable("staged: it ended meanwhile")
        answer = PdpAnswer(result=_evaluated(question, document, revision), revision=name_of(revision))
        if key is not None:
            memo.remember(key, answer, size=100)
        return answer


def _evaluated(question: Question, document: Any, revision: int) -> Any:
    match question:
        case Question.DECISION:
            return _decision(document, revision)
        case Question.VISIBILITY:
            user = document["subject"]["id"]
            tools = [tool for tool in ("find", "delete-many") if may(revision, user, tool, OPEN)]
            return {"v": 1, "tools": tools, "servers": [SERVER] if tools else []}
        case Question.APPROVER:
            return {"v": 1, "may": document["subject"]["id"] == "hanna", "revision": name_of(revision)}
        case _:
            raise DecisionUnavailable("staged: nothing else is answered")


def _decision(document: Any, revision: int) -> Any:
    user, tool, accesses = document["subject"]["id"], document["action"]["tool"], document["accesses"]
    if not all(may(revision, user, tool, access["collection"]) for access in accesses):
        entries = [{**_access(), "grants": []} for _ in accesses]
        reason = {"code": "not_granted", "source": "platform", "access": 0}
        answer = {"allow": False, "reasons": [reason], "server": "", "accesses": entries, "approval": None}
    else:
        waiting = [i for i, access in enumerate(accesses) if access["collection"] == GUARDED]
        approval = {"accesses": [{"access": index, "codes": ["second_person"]} for index in waiting]}
        entries = [_access() for _ in accesses]
        answer = {"allow": True, "reasons": [], "server": SERVER, "accesses": entries}
        answer["approval"] = approval if waiting else None
    return {"v": 1, "revision": name_of(revision), **answer}


def _access() -> Any:
    return {
        "owner": "analytics",
        "grants": ["g"],
        "filter": None,
        "mask": [],
        "max_documents": None,
        "max_time_ms": None,
    }
