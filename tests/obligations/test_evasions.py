"""Attempts at getting past a row filter, in a real deployment, and honest neighbours of them.

``evasions.json`` has one attempt a line: ``kind``, ``what`` is tried, the ``call``, and where it says more a ``near``
call that has to work. Whatever is tried is refused, or answers what it would on a database that holds nothing but the
rows of the filters; no hidden row changes, and none appears. What reads is done twice, with other rows hidden, and the
answers are the same to the letter, those of failures included.

``refused`` says that the attempt has to be refused by the sidecar, and ``collision`` that it is the one thing that does
tell of a hidden row: that its key is taken. ``wire`` names what the stand-in does not do as MongoDB does, ``plan`` what
answers about plans and not about documents; these are looked at where they are sent.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from sidecar.demo import database as demo_database
from sidecar.demo.client import DemoClient
from sidecar.model import JsonObject, ToolCall
from tests.integration.deployment import Deployment
from tests.obligations import filtered
from tests.obligations.filtered import EDITOR, HIDDEN, SALES
from tests.obligations.oracle import Client, restricted
from tests.parts import outside_database

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1_800)]

ROWS: Final[list[dict[str, Any]]] = json.loads(Path(__file__).with_name("evasions.json").read_text("utf-8"))  # noqa: TID251 - our own file
KINDS: Final = ["either", "filter", "nested", "open", "options", "pipeline", "range", "tool", "view", "write"]
WRITES: Final = frozenset(
    {"insert-many", "update-many", "delete-many", "rename-collection", "drop-collection", "create-index"}
)

READS: Final = frozenset({"find", "count", "aggregate"})
"""What gives documents or a number of them, so that the answer can be told beforehand."""

AT_ONCE: Final = 6
"""Reads under way together; the MongoDB MCP server is slow one at a time."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call and what came of it."""

    row: dict[str, Any]
    call: ToolCall
    honest: bool
    """It is the neighbour, which has to work."""
    result: JsonObject
    changed: bool = False
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.row['id']}{' near' if self.honest else ''}: {self.row['what']} ({self.call.name})"


def calls(row: dict[str, Any]) -> Iterator[tuple[ToolCall, bool]]:
    for key in ("call", "near"):
        if key in row:
            arguments = {**SALES, **row[key]["arguments"]}
            yield ToolCall(name=row[key]["name"], arguments=arguments), key == "near"


def faults_of_read(client: Client, row: dict[str, Any], call: ToolCall, result: JsonObject) -> Iterator[str]:
    if filtered.refused(result) or call.name not in READS or row.get("wire"):
        return
    worked, wanted = filtered.expected(client, call)
    if result.get("isError"):
        if worked and not _only_here(call):
            yield f"it failed: {str(result['content'])[:300]}"
    elif not worked:
        yield "it works, and fails on the permitted rows alone"
    elif filtered.given(result) != wanted:
        yield f"it gave {str(filtered.given(result))[:300]} and not {str(wanted)[:300]}"


def _only_here(call: ToolCall) -> bool:
    """Whether the MongoDB MCP server refuses it by its own rules."""
    return "$where" in str(call.arguments) or "$function" in str(call.arguments)


async def tried(deployment: Deployment, client: Client, agent: DemoClient, row: dict[str, Any]) -> list[Attempt]:
    """Try a row."""
    found = []
    for call, honest in calls(row):
        writes = call.name in WRITES or "$merge" in str(call.arguments) or "$out" in str(call.arguments)
        before = (filtered.snapshot(client), filtered.hidden_rows(client)) if writes else None
        result = (await agent.call(call.name, dict(call.arguments))).result
        faults = [] if writes else [*faults_of_read(client, row, call, result)]
        changed = False
        if before is not None:
            changed = filtered.snapshot(client) != before[0]
            if filtered.hidden_rows(client) != before[1]:
                faults.append("hidden rows have changed, or rows have left the filter")
            if changed:
                filtered.store_sales(client, _which(before[1]))
        found.append(Attempt(row, call, honest, result, changed, tuple(faults)))
    return found


def _which(hidden: dict[str, tuple[bytes, ...]]) -> int:
    return 0 if len(hidden["shipments"]) == len(HIDDEN[0]["shipments"]) else 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attempts(tmp_path_factory, database):
    """Every attempt with one choice of hidden rows, and every one that reads with the other."""
    folder = tmp_path_factory.mktemp("evasions")
    found: list[list[Attempt]] = []
    with filtered.filtering(folder, database) as deployment, filtered.connect(database) as client:
        await demo_database.seed(database)
        for which in range(len(HIDDEN)):
            filtered.store_sales(client, which)
            async with deployment.plain(EDITOR) as agent:
                await agent.initialize()
                found.append(await _all(deployment, client, agent, writing=which == 0))
        yield found, _sent(deployment)


async def _all(deployment: Deployment, client: Client, agent: DemoClient, *, writing: bool) -> list[Attempt]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(row: dict[str, Any]) -> list[Attempt]:
        async with turns:
            return await tried(deployment, client, agent, row)

    reads, writes = [row for row in ROWS if not _writes(row)], [row for row in ROWS if writing and _writes(row)]
    groups = [*await asyncio.gather(*map(one, reads)), *[await one(row) for row in writes]]
    return [attempt for group in groups for attempt in group]


def _writes(row: dict[str, Any]) -> bool:
    return any(call.name in WRITES or "$merge" in str(call.arguments) for call, _ in calls(row))


def _sent(deployment: Deployment) -> list[dict[str, Any]]:
    return deployment.all_reached()


def of_kind(found: list[list[Attempt]], kind: str) -> list[Attempt]:
    return [attempt for group in found for attempt in group if attempt.row["kind"] == kind]


async def test_the_ledger_is_what_it_says() -> None:
    assert len(ROWS) >= 250
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({json.dumps(row["call"]) for row in ROWS}) >= 0.98 * len(ROWS)
    assert sorted({row["kind"] for row in ROWS}) == KINDS
    assert sum("near" in row for row in ROWS) >= 100


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_gets_nothing_of_hidden_rows(attempts, kind) -> None:
    tried_ones = of_kind(attempts[0], kind)
    assert tried_ones
    assert [f"{one.name}: {fault}" for one in tried_ones for fault in one.faults] == []
    shown = [one for one in tried_ones if outside_database() or not one.row.get("wire")]
    assert [one.name for one in shown if "hidden" in _said(one)] == []


def _said(attempt: Attempt) -> str:
    """What comes back, without what the caller said."""
    result = json.dumps(attempt.result)
    return "" if "hidden" in json.dumps(attempt.call.arguments) and attempt.result.get("isError") else result


@pytest.mark.parametrize("kind", KINDS)
async def test_what_has_to_be_refused_is_refused_and_changes_nothing(attempts, kind) -> None:
    tried_ones = [one for one in of_kind(attempts[0], kind) if not one.honest]
    assert tried_ones
    must = [one for one in tried_ones if one.row.get("refused") or one.row.get("closed")]
    assert [one.name for one in must if not one.result.get("isError") and not filtered.refused(one.result)] == []
    assert [one.name for one in tried_ones if one.row.get("refused") and one.changed] == []


async def test_honest_neighbours_work(attempts) -> None:
    honest = [one for group in attempts[0] for one in group if one.honest]
    assert len(honest) >= 180
    assert [f"{one.name}: {str(one.result)[:300]}" for one in honest if one.result.get("isError")] == []
    assert [one.name for one in honest if one.call.name in WRITES and not one.changed] == []


async def test_answers_do_not_depend_on_what_is_hidden(attempts) -> None:
    first, second = ({one.name: filtered.comparable(one.result) for one in group} for group in attempts[0])
    assert len(second) >= 250
    told = {name: (first[name], text) for name, text in second.items() if text != first[name]}
    lacking = set() if outside_database() else {one.name for one in attempts[0][1] if one.row.get("wire")}
    assert {name: both for name, both in told.items() if name not in lacking} == {}


async def test_every_graph_that_was_sent_is_restricted_to_rows(attempts) -> None:
    graphs = [one for one in attempts[1] if "$graphLookup" in json.dumps(one)]
    assert graphs
    assert [one for one in graphs if not restricted(one["arguments"], filtered.FILTERS)] == []


async def test_every_export_that_was_sent_is_held_to_rows(attempts) -> None:
    exports = [one["arguments"] for one in attempts[1] if one["name"] == "export"]
    assert exports
    assert [one for one in exports if json.dumps(filtered.FILTERS["shipments"]) not in json.dumps(one)] == []


def _end(attempt: Attempt) -> str:
    if filtered.refused(attempt.result):
        return "refused"
    return "failed" if attempt.result.get("isError") else "answered"


async def test_most_attempts_are_answered_and_not_refused(attempts, record_property) -> None:
    """A sidecar that refuses everything would be past all of this, and useless."""
    ends = Counter(
        "refused" if filtered.refused(one.result) else "failed" if one.result.get("isError") else "answered"
        for one in attempts[0][0]
    )
    record_property("oracle", {f"evasions {end}": number for end, number in ends.items()})
    assert ends["answered"] >= 0.4 * ends.total()
