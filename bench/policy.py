"""What a decision costs, asked through the sidecar's own client of a managed OPA, as teams and grants grow.

Two policy sets are served side by side and asked in turn: 10 teams of 30 grants, and 100 teams of 100. No question is
asked twice (the memo is off). Also: how long the large set takes to start, and a reload of it under
questions. The status is 1 where an aim is missed.

    python bench/policy.py [--questions 2000]
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sidecar.errors import DecisionUnavailable  # noqa: E402
from sidecar.model import (  # noqa: E402
    Access,
    AccessKind,
    AccessRequest,
    Actor,
    Command,
    Identity,
    Namespace,
    Principal,
    RequestContext,
)
from sidecar.opa.managed import ManagedOpa  # noqa: E402
from sidecar.policy import document, verdict  # noqa: E402
from sidecar.ports import Question  # noqa: E402
from tests import parts  # noqa: E402

SIZES = ((10, 30), (100, 100))
ACCESSES = (1, 8)
P50_MS, GROWTH = 2.0, 2.0
"""What is aimed at, on two shared cores."""
AFTERWARDS = 200
"""Questions after a reload."""

PLAIN = """
grant contains {{"id": "g{number}"}} if {{
	input.access.kind == "read"
	input.access.collection == "c{number}"
	"analysts" in input.subject.groups
}}
"""
LIBRARY = """
grant contains {{"id": "g{number}"}} if {{
	lib.reads
	lib.on(data.mcp.grants.{team}.database, ["c{number}"])
	lib.in_group("analysts")
}}
"""
CONDITIONAL = PLAIN.replace('"g{number}"', '"g{number}", "mask": {{"ssn"}}, "max_documents": 50')
SHAPES = {
    "plain comparisons": PLAIN,
    "the functions of lib": LIBRARY,
    "plain, mask and limit": CONDITIONAL,
}
"""How authors write. The aims are for the first: OPA finds plain comparisons by index, and calls every function."""


def write_policies(folder: Path, teams: int, grants: int, shape: str = PLAIN) -> None:
    """The shipped platform, with as many generated teams; each owns one database."""
    shutil.copytree(ROOT / "policies", folder)
    shutil.rmtree(folder / "teams")
    data = json.loads((folder / "platform" / "data.json").read_text())  # noqa: TID251 - our own file
    databases = {
        f"db{team}": {
            "owner": f"team{team}",
            "delegated": [{"kinds": ["read"], "collections": ["*"]}],
            "obligations": [],
        }
        for team in range(teams)
    }
    data["mcp"]["platform"]["deployments"]["demo"]["databases"] = databases
    (folder / "platform" / "data.json").write_text(json.dumps(data))
    for team in range(teams):
        home = folder / "teams" / f"team{team}"
        home.mkdir(parents=True)
        roots = [f"mcp/teams/team{team}", f"mcp/grants/team{team}"]
        (home / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
        rules = "".join(shape.format(number=number, team=f"team{team}") for number in range(grants))
        imports = "\nimport data.mcp.lib\n" if "lib." in rules else ""
        (home / "policy.rego").write_text(f"package mcp.teams.team{team}\n{imports}{rules}\ndeny := set()\n")
        held = {f"team{team}": {"database": f"db{team}"}}
        (home / "data.json").write_text(json.dumps({"mcp": {"grants": held}}))


def question(number: int, accesses: int, teams: int, grants: int) -> dict:
    identity = Identity(
        principal=Principal(issuer="https://i", subject="alice", groups=("analysts",), scopes=("mongodb:read",)),
        actor=Actor(id="claude-desktop"),
        expires_at=1e12,
    )
    touched = tuple(
        Access(
            kind=AccessKind.READ,
            namespace=Namespace(database=f"db{number % teams}", collection=f"c{(number + index) % grants}"),
            via="/arguments/collection",
        )
        for index in range(accesses)
    )
    context = RequestContext(time_ns=number * 10**9, client_ip="127.0.0.1", protocol="2025-11-25", environment="bench")
    command = Command(tool="aggregate", accesses=touched)
    return document.decision_document(
        AccessRequest(identity=identity, method="tools/call", command=command, context=context)
    )


async def ask(opa: ManagedOpa, size: tuple[int, int], accesses: int, first: int, count: int) -> list[float]:
    seen = []
    for number in range(first, first + count):
        asked = question(number, accesses, *size)
        began = time.perf_counter()
        answer = await opa.ask(Question.DECISION, asked)
        seen.append((time.perf_counter() - began) * 1000)
        decision = verdict.read_decision(answer.result, accesses=accesses, servers={"demo-ro", "demo-rw"})
        assert decision.allow, decision
    return seen


def managed(policies: Path, directory: Path, *, timeout_s: float, reload_s: float = 0.0) -> ManagedOpa:
    """An OPA with room for the large set; it is not started."""
    directory.mkdir(mode=0o700)
    return ManagedOpa(
        str(parts.installed("opa")),
        policies,
        directory=directory,
        timeout_s=timeout_s,
        memory_limit_bytes=2 * 2**30,
        start_timeout_s=120,
        reload_s=reload_s,
    )


async def reload(folder: Path, size: tuple[int, int]) -> tuple[float, int, int, int]:
    """Take one grant away while a client keeps asking about it.

    Returns:
        Seconds until it is taken, questions, questions without an answer, and answers that are not their revision's.
    """
    policies = folder / "reloaded"
    write_policies(policies, *size)
    opa = managed(policies, folder / "rr", timeout_s=2, reload_s=0.2)
    async with opa:
        serving, number, failed, wrong, after = opa.revision, 0, 0, 0, 0
        policy = policies / "teams" / "team0" / "policy.rego"
        policy.write_text(policy.read_text().replace('collection == "c0"', 'collection == "taken"'))
        began, seconds = time.perf_counter(), 0.0
        while after < AFTERWARDS:
            number += 1
            try:
                answer = await opa.ask(Question.DECISION, question(number * size[0] * size[1], 1, *size))
            except DecisionUnavailable:
                failed += 1
                continue
            decision = verdict.read_decision(answer.result, accesses=1, servers={"demo-ro", "demo-rw"})
            wrong += decision.allow is not (answer.revision == serving)
            after += answer.revision != serving
            seconds = seconds or (time.perf_counter() - began if after else 0.0)
        return seconds, number, failed, wrong


Size = tuple[int, int]


async def started(folder: Path, shape: str, stack: AsyncExitStack) -> tuple[dict[Size, ManagedOpa], dict[Size, float]]:
    """Start one OPA for each size; return them, and the seconds that each took."""
    running, starts = {}, {}
    for size in SIZES:
        policies = folder / f"p{size[0]}"
        write_policies(policies, *size, shape)
        opa = managed(policies, folder / f"r{size[0]}", timeout_s=10)
        began = time.perf_counter()
        running[size] = await stack.enter_async_context(opa)
        starts[size] = time.perf_counter() - began
    return running, starts


async def measured(running: dict[Size, ManagedOpa], accesses: int, questions: int) -> dict[Size, tuple[float, float]]:
    """Ask both sizes in turn; return p50 and p99 of each in milliseconds. The first turn is for warming up."""
    seen: dict[Size, list[float]] = {size: [] for size in running}
    for turn in range(5):
        for size, opa in running.items():
            found = await ask(opa, size, accesses, turn * questions, questions // 4)
            if turn:
                seen[size] += found
    cuts = {size: statistics.quantiles(times, n=100) for size, times in seen.items()}
    return {size: (cut[49], cut[98]) for size, cut in cuts.items()}


async def compared(shape: str, questions: int, table: Table) -> dict[str, bool]:
    """Measure both sizes of one way to write grants; return which of the aims are met."""
    bars = {}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, starts = await started(Path(folder), SHAPES[shape], stack)
            for accesses in ACCESSES:
                found = await measured(running, accesses, questions)
                growth = found[SIZES[-1]][1] / found[SIZES[0]][1]
                bars[f"p99 grows at most twice ({growth:.1f}), {accesses} accesses"] = growth <= GROWTH
                for size, (p50, p99) in found.items():
                    name = f"{size[0]} x {size[1]}"
                    bars[f"p50 of at most {P50_MS:g} ms, {name}, {accesses} accesses"] = p50 <= P50_MS
                    table.add_row(shape, name, str(accesses), f"{p50:.2f}", f"{p99:.2f}", f"{starts[size]:.1f}")
    return bars


async def main(questions: int) -> bool:
    """Measure and print; return whether every bar is met."""
    table = Table(title="one decision through the sidecar's client, ms")
    for column in ("the grants are", "teams x grants", "accesses", "p50", "p99", "start s"):
        table.add_column(column, justify="right")
    aimed, *others = SHAPES
    bars = await compared(aimed, questions, table)
    for shape in others:
        await compared(shape, questions // 4, table)
    Console(width=100).print(table)
    with tempfile.TemporaryDirectory() as folder:
        seconds, asked, failed, wrong = await reload(Path(folder), SIZES[-1])
    print(
        f"reload of {SIZES[-1][0]} x {SIZES[-1][1]}: taken after {seconds:.1f} s; "
        f"of {asked} questions {failed} had no answer, and {wrong} an answer of another revision"
    )
    bars["every question is answered while a set is reloaded, by the set that it names"] = not failed and not wrong
    print(f"aims, with {aimed}:")
    for bar, met in bars.items():
        print("met    " if met else "NOT MET", bar)
    return all(bars.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(0 if runner.run(main(parser.parse_args().questions)) else 1)
