"""The enforcement loop under thousands of schedules: whatever fails, dies, comes late or happens at once.

What must always hold (``history.violations``): nothing happens without an intent that outlives a loss of power; no
answer is one of a policy set that was retired before the question; an approval is spent once, for what it was given
for; nothing of a suspended caller leaves; each caller gets the answer to its own call, and gets one. A violation names
its seed, and ``python -m tests.simulation.test_schedules SEED`` plays that run again. The second half shows that each
of these is found where the product or something around it breaks it.
"""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.enforcement import approvals, calls, evidence
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Turn, still
from sidecar.errors import AuditUnavailable
from sidecar.model import JsonObject
from sidecar.store import AuditSync, FileApprovals
from sidecar.upstream.child import Child
from sidecar.upstream.process import StdioUpstream
from tests import examples, parts
from tests.simulation.simulated_policy import SimulatedOpa
from tests.simulation.world import Played, World, play

SCHEDULES = examples.examples(2_000, deep=2_000)
AT_NIGHT = examples.examples(20_000, deep=20_000)
MOST_TRIED = 1_500
TOOLS = {"find", "delete-many"}
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - only where the system has it


def real_tools(command: list[str]) -> tuple[JsonObject, ...]:
    """The real server's own description of the tools that are called, which the pins are of."""

    async def ask() -> tuple[JsonObject, ...]:
        path = os.environ["PATH"]  # noqa: TID251 - the tests' own environment
        environment = {"PATH": path, "MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:1/"}
        server = StdioUpstream("demo-rw", command, {**environment, "MDB_MCP_TELEMETRY": "disabled"}, timeout_s=30.0)
        await server.start()
        try:
            return tuple(tool for tool in await server.tools() if tool["name"] in TOOLS)
        finally:
            await server.stop()

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def offered(mcp_server_command: list[str]) -> tuple[JsonObject, ...]:
    return real_tools(mcp_server_command)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log lines of failures that are staged by the thousand, and no search for garbage in what stays."""
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def played(seed: int, offered: tuple[JsonObject, ...], plant: Callable[[World], None] = lambda _: None) -> Played:
    with tempfile.TemporaryDirectory(prefix="schedule-", dir=FOLDER) as folder:
        return play(seed, offered, Path(folder), plant)


def against(seeds: range, offered: tuple[JsonObject, ...]) -> tuple[dict[int, list[str]], dict[str, int]]:
    """Play runs; return what each went against, and how often the things happened that the invariants are about."""
    found: dict[int, list[str]] = {}
    count = dict.fromkeys(("effects", "answers", "approvals used", "suspensions", "policy sets", "power lost"), 0)
    for seed in seeds:
        one = played(seed, offered)
        if one.against:
            found[seed] = one.against
        history = one.history
        count["effects"] += len(history.effects)
        count["answers"] += sum(asked.allowed for asked in history.calls.values())
        count["approvals used"] += sum(b'"action":"spent"' in line for line in history.left.splitlines())
        count["suspensions"] += len(history.suspensions)
        count["policy sets"] += len(history.served)
        count["power lost"] += not history.whole
    return found, count


def test_what_must_always_hold_holds_under_every_schedule(offered):
    found, count = against(range(SCHEDULES), offered)
    assert found == {}
    if SCHEDULES >= 2_000:
        assert min(count.values()) >= 100, count


@pytest.mark.nightly
def test_what_must_always_hold_holds_under_ten_times_as_many(offered):
    found, _ = against(range(SCHEDULES, SCHEDULES + AT_NIGHT), offered)
    assert found == {}


def test_a_seed_plays_the_same_run_again(offered):
    for seed in range(10):
        assert played(seed, offered).history.told() == played(seed, offered).history.told()


@pytest.mark.nightly
def test_a_seed_plays_the_same_run_in_another_process(offered, tmp_path):
    """Where another process hashes names otherwise, nothing may go in the order of a set."""
    (tmp_path / "tools.json").write_text(json.dumps(offered))
    told = []
    for hashes in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation.test_schedules", "0", "20", str(tmp_path / "tools.json")]
        environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": hashes}  # noqa: TID251 - as above
        told.append(subprocess.run(command, cwd=parts.ROOT, env=environment, capture_output=True, check=True).stdout)
    assert told[0].count(b"\n") > 100
    assert told[0] == told[1]


# --- the invariants find what breaks them -----------------------------------------------------------------------------


def _evidence_that_is_not_required(patch: pytest.MonkeyPatch, world: World) -> None:
    real = evidence.Evidence.intent

    async def anyway(self: Any, turn: Any) -> str:
        try:
            return await real(self, turn)
        except AuditUnavailable:
            turn.intended = None
            return ""

    patch.setattr(evidence.Evidence, "intent", anyway)


def _a_receipt_before_the_disk_has_the_record(_: pytest.MonkeyPatch, world: World) -> None:
    world.sync = AuditSync.OS


def _the_intent_is_stored_while_the_call_leaves(patch: pytest.MonkeyPatch, _: World) -> None:
    real, under_way = evidence.Evidence.intent, []

    async def at_once(self: Any, turn: Any) -> str:
        under_way.append(asyncio.ensure_future(real(self, turn)))
        await asyncio.sleep(0)
        return turn.intended["id"]  # type: ignore[no-any-return]

    patch.setattr(evidence.Evidence, "intent", at_once)


def _answers_outlive_their_opa(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(SimulatedOpa, "start", lambda _: None)


def _questions_go_to_the_set_before(patch: pytest.MonkeyPatch, world: World) -> None:
    real = SimulatedOpa.ask

    async def behind(self: SimulatedOpa, question: Any, document: Any) -> Any:
        now, self.revision = self.revision, max(1, self.revision - 1)
        work = asyncio.ensure_future(real(self, question, document))
        await asyncio.sleep(0)
        self.revision = now
        return await work

    patch.setattr(SimulatedOpa, "ask", behind)


def _an_approval_is_not_used_up(patch: pytest.MonkeyPatch, world: World) -> None:
    async def spend(_: object, approval: Any) -> bool:
        return True

    patch.setattr(FileApprovals, "spend", spend)


def _an_approval_is_looked_at_and_then_used_up(patch: pytest.MonkeyPatch, world: World) -> None:
    real = FileApprovals.spend

    async def spend(self: FileApprovals, approval: Any) -> bool:
        there: bool = await self.get(approval.id) == approval
        await asyncio.sleep(0.001)
        await real(self, approval)
        return there

    patch.setattr(FileApprovals, "spend", spend)


def _an_approval_counts_under_any_policy(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(approvals.Approvals, "_counts", lambda self, found, _: not self._suspended(found))


def _nothing_looks_again_before_a_call_leaves(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(calls, "still", lambda *_: None)


def _nobody_looks_who_is_suspended(patch: pytest.MonkeyPatch, world: World) -> None:
    patch.setattr(Suspensions, "require", lambda *_: None)


def _nobody_looks_whether_the_approver_is_suspended(patch: pytest.MonkeyPatch, world: World) -> None:
    def look(known: Suspensions, turn: Turn) -> None:
        still(known, replace(turn, relies_on=()))

    patch.setattr(calls, "still", look)


def _answers_go_to_the_oldest_call(patch: pytest.MonkeyPatch, world: World) -> None:
    real = Child._settle

    def settle(self: Child, request_id: int, outcome: bytes | Exception) -> None:
        real(self, next(iter(self._pending), request_id), outcome)

    patch.setattr(Child, "_settle", settle)


PLANTED = {
    _evidence_that_is_not_required: ("intent", 25),
    _a_receipt_before_the_disk_has_the_record: ("intent", 0),
    _the_intent_is_stored_while_the_call_leaves: ("intent", 7),
    _answers_outlive_their_opa: ("retired", 63),
    _questions_go_to_the_set_before: ("retired", 23),
    _an_approval_is_not_used_up: ("approval", 31),
    _an_approval_is_looked_at_and_then_used_up: ("approval", 63),
    _an_approval_counts_under_any_policy: ("approval", 273),
    _nothing_looks_again_before_a_call_leaves: ("suspended", 237),
    _nobody_looks_who_is_suspended: ("suspended", 12),
    _nobody_looks_whether_the_approver_is_suspended: ("approval", 728),
    _answers_go_to_the_oldest_call: ("crossed", 19),
}
"""What it goes against, and a seed that finds it; where the runs have changed since, others are tried."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_fault_is_found(offered, plant, monkeypatch):
    wanted, first = PLANTED[plant]
    for seed in (first, *range(MOST_TRIED)):
        with monkeypatch.context() as patch:
            found = played(seed, offered, partial(plant, patch)).against
        if any(each.startswith(wanted) for each in found):
            assert played(seed, offered).against == [], "without the fault the same run is in order"
            return
    pytest.fail(f"{MOST_TRIED} runs found nothing of it")


KEPT: dict[str, int] = {
    "the approver is suspended after the approval was used and before the call left": 728,
}
"""Seeds of runs that found a defect of the product, which is mended."""


@pytest.mark.parametrize("defect", KEPT)
def test_a_defect_that_was_found_stays_mended(offered, defect):
    assert played(KEPT[defect], offered).against == []


def _main(first: str, number: str = "1", tools: str = "") -> None:
    """Print runs: what was asked and what happened, then what they went against."""
    logging.disable(logging.CRITICAL)
    command = [str(parts.installed("mongodb-mcp-server"))]
    offered = tuple(json.loads(Path(tools).read_text())) if tools else real_tools(command)  # noqa: TID251 - our own file
    for seed in range(int(first), int(first) + int(number)):
        one = played(seed, offered)
        sys.stdout.write("\n".join([f"seed {seed}", *one.history.told(), *one.against, ""]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
