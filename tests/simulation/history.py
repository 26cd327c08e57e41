"""What happened in one run, as those outside of the sidecar saw it."""

import json
from dataclasses import dataclass, field
from typing import Any

from sidecar.audit.chain import verify
from tests.simulation.simulated_policy import GUARDED, OPEN, Served, may, number_of
from tests.simulation.simulated_server import Effect

NEVER = float("inf")


@dataclass(kw_only=True)
class Asked:
    """One call of a client."""

    user: str
    tool: str
    collection: str
    began: float
    ended: float = NEVER
    answer: str = ""
    """The text that came back; empty where none did."""
    allowed: bool = False


@dataclass(kw_only=True)
class Listed:
    """One list of tools that a client was sent."""

    user: str
    began: float
    ended: float
    tools: frozenset[str]


@dataclass(kw_only=True)
class Suspended:
    """One suspension that was acknowledged, and when somebody began to end it."""

    user: str
    since: float
    until: float = NEVER


@dataclass(frozen=True, kw_only=True)
class Approved:
    """An approval that a second person gave, or was about to."""

    since: float
    revision: str
    """Of the policy set that asked for it."""


@dataclass(kw_only=True)
class History:
    """Everything that the invariants are about."""

    calls: dict[int, Asked] = field(default_factory=dict)
    """By number."""
    whole: bool = True
    """It came to its end; else the power was lost before."""
    lists: list[Listed] = field(default_factory=list)
    suspensions: list[Suspended] = field(default_factory=list)
    approved: dict[str, "Approved"] = field(default_factory=dict)
    """By id."""
    faults: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    served: dict[int, Served] = field(default_factory=dict)
    audit: bytes = b""
    """The file at the end, before the power was lost."""
    left: bytes = b""
    """What was left of it after that, and after the next start."""

    def told(self) -> list[str]:
        """The run in a form that is the same for the same seed."""
        calls = [f"{n} {one.user} {one.began:.4f} {one.ended:.4f} {one.answer}" for n, one in self.calls.items()]
        return [*calls, *(f"{one.call} {one.moment:.4f} {one.durable}" for one in self.effects)]


@dataclass(frozen=True)
class _Intent:
    ends: int
    """Offset of the end of its line."""
    record: dict[str, Any]


def violations(history: History) -> list[str]:
    """Return every way in which a run went against what must always hold; empty where there is none."""
    intents = _intents(history.audit)
    found = [f"internal: {fault}" for fault in history.faults] + _chain(history)
    spent: dict[str, int] = {}
    happened: set[str] = set()
    for effect in history.effects:
        intent = intents.get(effect.permit.audit_id)
        if effect.permit.request_id in happened:
            found.append(f"twice: call {effect.call} was written to the server twice")
        happened.add(effect.permit.request_id)
        if intent is None or intent.ends > effect.durable:
            found.append(f"intent: call {effect.call} left before its intent was durable")
            continue
        found += _of_one(effect, intent.record, history)
        found += _suspended(effect, history)
        found += _approved(effect, intent.record, history, spent)
    return found + _answers(history) + _lists(history)


def _intents(audit: bytes) -> dict[str, _Intent]:
    found, offset = {}, 0
    for line in audit.splitlines(keepends=True):
        offset += len(line)
        if line.endswith(b"\n"):
            record = json.loads(line)  # noqa: TID251 - our own file
            if record["event"] == "intent":
                found[record["id"]] = _Intent(offset, record)
    return found


def _chain(history: History) -> list[str]:
    """What is left after a loss of power is a whole chain, with the intent of everything that happened."""
    fault = verify(iter(history.left.splitlines(keepends=True))).fault
    known = _intents(history.left)
    lost = [effect.call for effect in history.effects if effect.permit.audit_id not in known]
    return [
        *([f"chain: {fault}"] if fault else []),
        *(f"intent: call {call} has none after a loss of power" for call in lost),
    ]


def _of_one(effect: Effect, record: dict[str, Any], history: History) -> list[str]:
    """An effect is of the call that its intent is about, and of a policy set that allowed it and served meanwhile."""
    asked = history.calls[effect.call]
    [access] = record["accesses"]
    said = (record["subject"]["id"], record["tool"], access["collection"], int(record["trace_id"], 16))
    found = []
    if said != (asked.user, asked.tool, asked.collection, effect.call):
        found.append(f"intent: call {effect.call} has that of another call")
    revision = number_of(record["decision"]["revision"])
    if not may(revision, asked.user, asked.tool, asked.collection):
        found.append(f"policy: call {effect.call} was allowed by no policy set")
    if history.served[revision].until < asked.began:
        found.append(f"retired: call {effect.call} was decided by a set that was retired before it came")
    return found


def _suspended(effect: Effect, history: History) -> list[str]:
    user = history.calls[effect.call].user
    return [
        f"suspended: call {effect.call} left after its caller's suspension was acknowledged"
        for one in history.suspensions
        if one.user == user and one.since < effect.moment < one.until
    ]


def _approved(effect: Effect, record: dict[str, Any], history: History, spent: dict[str, int]) -> list[str]:
    """What waits for a second person was approved, under the policy set that decided it, and each approval is one."""
    approval, call = record.get("approval"), effect.call
    if history.calls[call].collection != GUARDED:
        return []
    if approval is None or approval["action"] != "spent" or approval["id"] not in history.approved:
        return [f"approval: call {call} left without the approval of a second person"]
    found, given = [], history.approved[approval["id"]]
    if approval["id"] in spent:
        found.append(f"approval: calls {spent[approval['id']]} and {call} used the same one")
    spent[approval["id"]] = call
    if record["decision"]["revision"] != given.revision:
        found.append(f"approval: call {call} used one that was asked for by another policy set")
    if any(one.user == "hanna" and given.since < one.since < effect.moment < one.until for one in history.suspensions):
        found.append(f"approval: call {call} used one of an approver who was suspended by then")
    return found


def _answers(history: History) -> list[str]:
    found = []
    happened = {effect.call for effect in history.effects}
    for number, asked in history.calls.items():
        if asked.ended == NEVER and history.whole:
            found.append(f"hung: call {number} was never answered")
        if not asked.allowed:
            continue
        if asked.answer != f"the answer to {number}" or number not in happened:
            found.append(f"crossed: call {number} was answered with {asked.answer!r}")
        found += [
            f"suspended: call {number} was answered after its caller's suspension was acknowledged"
            for one in history.suspensions
            if one.user == asked.user and one.since < asked.ended < one.until
        ]
    return found


def _lists(history: History) -> list[str]:
    found = []
    for listed in history.lists:
        during = [n for n, one in history.served.items() if one.since <= listed.ended and one.until >= listed.began]
        shown = [{tool for tool in ("find", "delete-many") if may(n, listed.user, tool, OPEN)} for n in during]
        if listed.tools not in shown:
            found.append(f"retired: {listed.user} was shown the list of a set that did not serve by then")
    return found
