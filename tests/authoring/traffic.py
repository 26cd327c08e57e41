"""Audit files as a sidecar writes them: real questions, decided by a real OPA, recorded and chained."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sidecar.audit import record
from sidecar.audit.chain import GENESIS, link
from sidecar.commands.derive import derive
from sidecar.model import (
    AccessRequest,
    Actor,
    Command,
    Decision,
    Identity,
    JsonObject,
    Principal,
    RequestContext,
    ToolCall,
)
from sidecar.obligations import possible
from sidecar.opa.managed import ManagedOpa
from sidecar.policy.document import decision_document
from sidecar.policy.verdict import read_decision
from sidecar.ports import Question
from tests import parts, policy_sets

POLICIES = policy_sets.served()
SERVERS = ("demo-ro", "demo-rw")
SECOND = 1_795_000_000
CANARY = "canary-of-a-claim"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of one person."""

    subject: str
    groups: tuple[str, ...]
    collection: str = "orders"
    database: str = "sales"
    claims: JsonObject = field(default_factory=dict)
    second: int = SECOND
    tool: str = "find"

    @property
    def identity(self) -> Identity:
        principal = Principal(
            issuer="https://idp.example",
            subject=self.subject,
            groups=self.groups,
            roles=("canary-of-a-role",),
            scopes=("mongodb:read",),
            claims={"region": CANARY, **self.claims},
        )
        return Identity(principal=principal, actor=Actor(id="claude-desktop"), expires_at=1.0)

    @property
    def command(self) -> Command:
        place = {"connectionId": "preconfigured", "database": self.database, "collection": self.collection}
        more: JsonObject = {"filter": {}, "limit": 5} if self.tool == "find" else {}
        return derive(ToolCall(name=self.tool, arguments={**place, **more})).command

    @property
    def question(self) -> JsonObject:
        context = RequestContext(
            time_ns=self.second * 10**9, client_ip="10.0.0.7", protocol="2025-11-25", environment="test"
        )
        return decision_document(
            AccessRequest(identity=self.identity, method="tools/call", command=self.command, context=context)
        )


ANALYST = Call(subject="alice", groups=("analysts",))
STRANGER = Call(subject="mallory", groups=("nobodies",))
HR = Call(subject="hanna", groups=("hr-admins",), database="hr", collection="salaries")
REGIONAL = Call(subject="rita", groups=("regional-analysts",))
SUPPORT = Call(subject="sue", groups=("support",), database="support", collection="tickets", tool="collection-schema")
"""Is allowed under a mask, for which this tool has no place."""


async def decided(calls: Iterable[Call], policies: Path = POLICIES) -> dict[str, Decision]:
    """What a policy folder says of each call, by the text of its question."""
    answers = {}
    with tempfile.TemporaryDirectory() as directory:
        async with ManagedOpa(
            str(parts.installed("opa")), policies, directory=Path(directory) / "opa", timeout_s=20
        ) as opa:
            for call in calls:
                answer = await opa.ask(Question.DECISION, call.question)
                decision = read_decision(answer.result, accesses=len(call.command.accesses), servers=SERVERS)
                answers[text(call)] = decision
    return answers


def text(call: Call) -> str:
    found = record.question_text(call.question)
    assert found is not None
    return found


class Book:
    """An audit file while it is written."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._prev = GENESIS

    @property
    def content(self) -> bytes:
        return b"".join(self.lines)

    def add(self, entry: JsonObject) -> None:
        line, self._prev = link(entry, len(self.lines) + 1, self._prev)
        self.lines.append(line + b"\n")

    def call(
        self, call: Call, decision: Decision, *, question: bool = True, error: str = "", edit: JsonObject | None = None
    ) -> None:
        """Write what a sidecar writes of a call: an intent and its outcome, or a refusal (of ``error``, if it says)."""
        number, changes = len(self.lines), edit or {}
        facts = facts_of(call, number, question=question)
        if not error and (not decision.allow or refused_by_plan(decision, call.tool)):
            error = "obligation_unsupported" if decision.allow else "policy_denied"
        if error:
            self.add(record.refusal(facts, error, decision, record_id=f"i{number}", time_ns=number) | changes)
            return
        begun = record.intent(facts, decision, record_id=f"i{number}", time_ns=number)
        self.add(begun | changes)
        self.add(record.outcome(begun, record_id=f"o{number}", time_ns=number, status=record.Status.OK))

    def refusal(self, call: Call, error: str, *, question: bool) -> None:
        """Write a refusal without a decision."""
        number = len(self.lines)
        facts = facts_of(call, number, question=question)
        self.add(record.refusal(facts, error, record_id=f"i{number}", time_ns=number))


def facts_of(call: Call, number: int, *, question: bool) -> record.Facts:
    facts = record.Facts(
        request_id=f"r{number}",
        identity=call.identity,
        command=call.command,
        method="tools/call",
        tool=call.tool,
        arguments_sha256="0" * 64,
    )
    return replace(facts, question=text(call)) if question else facts


def refused_by_plan(decision: Decision, tool: str) -> bool:
    try:
        possible(decision, tool)
    except Exception:  # noqa: BLE001 - whatever it is, the call was not forwarded
        return True
    return False


def path() -> str:
    return f"{parts.BIN}:{os.environ['PATH']}"  # noqa: TID251 - the tests' own environment
