"""The tour: a few calls of a few people, what is expected of each, and what really happened."""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sidecar.commands import derive
from sidecar.demo.client import DemoClient, HttpAnswer
from sidecar.demo.identities import ANALYST, LOADER, STRANGER, Person
from sidecar.errors import SidecarError
from sidecar.model import Access, Namespace, ToolCall

LIST: Final = "tools/list"
"""Stands in place of a tool where the step asks for the list of tools."""

MARK: Final = "mcp-sidecar-tour"
"""Marks the documents that the tour inserts."""


class ExpectedOutcome(StrEnum):
    """What the tour expects of a step."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN_TOOL = "unknown tool"
    NO_TOOLS = "no tools"
    UNAUTHENTICATED = "401"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of the tour."""

    person: Person | None
    """None calls without a token."""
    tool: str
    arguments: dict[str, Any]
    expected: ExpectedOutcome
    outside_hours: ExpectedOutcome | None = None
    """What is expected outside the loading team's hours, if that differs."""
    failing_access: int | None = None
    """The index of the access that a refusal must name."""
    writes: bool = False
    """Needs permission to write: left out on a database that is not the demo's own."""
    documents: bool = False
    """Must come back with at least one document."""

    @property
    def namespace(self) -> Namespace:
        """The collection that the call names."""
        return Namespace(database=self.arguments["database"], collection=self.arguments["collection"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened at one step."""

    step: Step
    decision: str
    reason: str
    """Codes and the team to ask, or the grants."""
    note: str
    """The sentence that a model reads, or what came back."""
    milliseconds: float
    failed: frozenset[int]
    """Indices of the accesses that a refusal names."""
    as_announced: bool


def _arguments(database: str, collection: str, **rest: object) -> dict[str, Any]:
    return {"connectionId": "preconfigured", "database": database, "collection": collection, **rest}


def _load(database: str, expected: ExpectedOutcome, *, outside_hours: ExpectedOutcome | None = None) -> Step:
    order = {"region": "EU", "status": "open", "customer": 1, "total": 9.5, "by": MARK}
    return Step(
        person=LOADER,
        tool="insert-many",
        arguments=_arguments(database, "orders", documents=[order]),
        expected=expected,
        outside_hours=outside_hours,
        failing_access=0,
        writes=True,
    )


STEPS: Final = (
    Step(
        person=ANALYST,
        tool="find",
        arguments=_arguments("sales", "orders", filter={"status": "open"}, limit=3),
        expected=ExpectedOutcome.ALLOWED,
        documents=True,
    ),
    Step(
        person=ANALYST,
        tool="count",
        arguments=_arguments("sales", "orders", query={"region": "EU"}),
        expected=ExpectedOutcome.ALLOWED,
        documents=True,
    ),
    Step(
        person=ANALYST,
        tool="aggregate",
        arguments=_arguments(
            "sales",
            "orders",
            pipeline=[
                {"$match": {"status": "open"}},
                {
                    "$facet": {
                        "paid": [
                            {
                                "$lookup": {
                                    "from": {"db": "hr", "coll": "salaries"},
                                    "pipeline": [{"$project": {"salary": 1}}],
                                    "as": "salaries",
                                }
                            }
                        ]
                    }
                },
            ],
        ),
        expected=ExpectedOutcome.REFUSED,
        failing_access=1,
    ),
    _load("staging", ExpectedOutcome.ALLOWED, outside_hours=ExpectedOutcome.REFUSED),
    Step(
        person=LOADER,
        tool="count",
        arguments=_arguments("staging", "orders", query={}),
        expected=ExpectedOutcome.ALLOWED,
    ),
    _load("sales", ExpectedOutcome.REFUSED),
    Step(person=STRANGER, tool=LIST, arguments={}, expected=ExpectedOutcome.NO_TOOLS),
    Step(
        person=STRANGER,
        tool="find",
        arguments=_arguments("sales", "orders", filter={}),
        expected=ExpectedOutcome.UNKNOWN_TOOL,
    ),
    Step(
        person=None,
        tool="find",
        arguments=_arguments("sales", "orders", filter={}),
        expected=ExpectedOutcome.UNAUTHENTICATED,
    ),
)


class Tour:
    """Plays the steps against a running sidecar and shows each as it happens.

    Args:
        url: the sidecar's MCP endpoint.
        tokens: one access token per person.
        inserted: counts the tour's own documents of a collection in the database itself.
        evidence: the audit file; it names the grants, which replies do not.
    """

    def __init__(
        self, url: str, tokens: dict[Person, str], *, inserted: Callable[[Namespace], Awaitable[int]], evidence: Path
    ) -> None:
        self._url = url
        self._tokens = tokens
        self._inserted = inserted
        self._evidence = evidence
        self._clients: dict[Person | None, DemoClient] = {}

    async def play(self, console: Console, announced: Iterable[Step]) -> bool:
        """Play the steps; return whether every one went as expected."""
        outcomes: list[Outcome] = []
        table = _table()
        try:
            with Live(table, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                for step in announced:
                    outcome = await self._take(step)
                    outcomes.append(outcome)
                    table.add_row(*_cells(outcome))
                    live.refresh()
        finally:
            if not console.is_terminal:
                console.line()  # rich ends the last table without a line break where it cannot redraw it
            for client in self._clients.values():
                await client.__aexit__(None, None, None)
        return bool(outcomes) and all(outcome.as_announced for outcome in outcomes)

    async def _take(self, step: Step) -> Outcome:
        before = await self._inserted(step.namespace) if step.writes else 0
        client = await self._client(step.person)
        began = time.perf_counter()
        try:
            answer = await (client.tools() if step.tool == LIST else client.call(step.tool, step.arguments))
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = HttpAnswer(0, {"error": {"message": type(error).__name__}})
        took = (time.perf_counter() - began) * 1000
        decision = _decision(answer)
        kept = decision == step.expected and await self._kept(step, answer, before)
        return Outcome(
            step=step,
            decision=decision,
            reason=self._granted() if decision == ExpectedOutcome.ALLOWED else _reason(answer),
            note=_note(step, answer, kept=kept),
            milliseconds=took,
            failed=_failed(answer),
            as_announced=kept,
        )

    async def _kept(self, step: Step, answer: HttpAnswer, before: int) -> bool:
        """Whether what is expected beyond the decision holds too."""
        allowed = step.expected is ExpectedOutcome.ALLOWED
        if step.writes:
            added = len(step.arguments["documents"]) if allowed else 0
            if await self._inserted(step.namespace) != before + added:
                return False
        if step.failing_access is not None and not allowed:
            return step.failing_access in _failed(answer)
        content = answer.result.get("structuredContent", {})
        return not step.documents or bool(content.get("documents") or content.get("count"))

    def _granted(self) -> str:
        """The grants of the call that was just allowed, as ``team/grant``."""
        for line in reversed(self._evidence.read_bytes().splitlines()):
            record: dict[str, Any] = msgspec.json.decode(line)
            if record["event"] == "intent":
                return ", ".join(record["decision"]["grants"])
        return ""

    async def _client(self, person: Person | None) -> DemoClient:
        client = self._clients.get(person)
        if client is None:
            token = self._tokens[person] if person is not None else None
            client = self._clients[person] = DemoClient(self._url, token, person.agent if person else "nobody")
            if person is not None:
                await client.initialize()
        return client


def steps(*, loading: bool) -> tuple[Step, ...]:
    """Return the tour as expected within the loading team's hours (``loading``) or outside of them."""
    return tuple(
        step if loading or step.outside_hours is None else replace(step, expected=step.outside_hours) for step in STEPS
    )


def touches(step: Step) -> tuple[Access, ...]:
    """What the step's call would touch, as the sidecar derives it; empty where that cannot be derived."""
    try:
        return derive(ToolCall(name=step.tool, arguments=step.arguments)).command.accesses
    except SidecarError:
        return ()


def _decision(answer: HttpAnswer) -> str:
    if answer.result.get("tools") == []:
        return ExpectedOutcome.NO_TOOLS
    if answer.status == 401:  # noqa: PLR2004 - Unauthorized
        return ExpectedOutcome.UNAUTHENTICATED
    error = answer.body.get("error")
    if error is not None:
        return ExpectedOutcome.UNKNOWN_TOOL if error.get("code") == -32602 else f"error {error.get('code', '')}".strip()  # noqa: PLR2004
    if answer.decision:
        return ExpectedOutcome.REFUSED
    return "failed" if answer.result.get("isError") else ExpectedOutcome.ALLOWED


def _reason(answer: HttpAnswer) -> str:
    codes = ", ".join(str(reason.get("code")) for reason in answer.decision.get("reasons", []))
    return " · ".join(part for part in (codes, str(answer.decision.get("owner") or "")) if part)


def _note(step: Step, answer: HttpAnswer, *, kept: bool) -> str:
    content = answer.result.get("structuredContent", {})
    if _decision(answer) != ExpectedOutcome.ALLOWED:
        return answer.text
    if step.writes:
        return "seen in the database" if kept else "not seen in the database"
    if "documents" in content:
        return f"{len(content['documents'])} documents"
    return ", ".join(f"{name} {value}" for name, value in content.items() if isinstance(value, int))


def _failed(answer: HttpAnswer) -> frozenset[int]:
    return frozenset(
        reason["access"] for reason in answer.decision.get("reasons", []) if reason.get("access") is not None
    )


def _table() -> Table:
    table = Table(title="Who may do what", title_justify="left", show_lines=True)
    table.add_column("who")
    table.add_column("call")
    table.add_column("touches")
    table.add_column("decision")
    table.add_column("why · whose policy", overflow="fold")
    table.add_column("ms", justify="right")
    return table


def _cells(outcome: Outcome) -> tuple[Text, ...]:
    step = outcome.step
    touched = Text()
    for index, access in enumerate(touches(step)):
        line = f"{access.kind} {access.namespace.database}.{access.namespace.collection}"
        touched.append("\n" if index else "")
        touched.append(f"✗ {line}" if index in outcome.failed else line, "red" if index in outcome.failed else "")
    colour = "green" if outcome.decision == ExpectedOutcome.ALLOWED else "yellow"
    decision = Text(outcome.decision, style=colour)
    if not outcome.as_announced:
        decision = Text(f"{outcome.decision} (expected: {step.expected})", style="bold red")
    why = Text("\n".join(part for part in (outcome.reason, outcome.note) if part))
    return (
        Text(f"{step.person.user}\nvia {step.person.agent}" if step.person else "nobody\n(no token)"),
        Text(step.tool, style="bold"),
        touched,
        decision,
        why,
        Text(f"{outcome.milliseconds:.0f}"),
    )
