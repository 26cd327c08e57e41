"""What a change costs: this tree and another revision of it, played in one run in alternating rounds.

Both sidecars serve at once, each from its own code and policies, with the same parts and one database, so that other
load on the machine hits both. For each operation: calls per second, and CPU time per call of the sidecar's own
processes (the sidecar and its OPAs; the MCP servers do the same work on both sides). Figures are medians of rounds;
a ratio is the median of the rounds' own ratios, this tree by the other, with their quartiles.

    python bench/against.py REVISION [--rounds 12] [--calls 200] [--memo-ms 1000]
"""

import argparse
import asyncio
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.overhead import CONCURRENCY, OPERATIONS, connect, play  # noqa: E402
from bench.table import show  # noqa: E402
from sidecar.demo import database as demo_database  # noqa: E402
from sidecar.demo.client import DemoClient  # noqa: E402
from tests import parts  # noqa: E402

OTHER, THIS = "other", "this"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One running sidecar."""

    pid: int
    clients: list[DemoClient]

    def processes(self) -> list[psutil.Process]:
        """The sidecar and what it started, without the MCP servers and their children."""
        found, queue = [], [psutil.Process(self.pid)]
        while queue:
            process = queue.pop()
            if not any("mongodb-mcp-server" in part for part in process.cmdline()):
                found.append(process)
                queue += process.children()
        return found

    def cpu_s(self) -> dict[int, float]:
        """CPU seconds of each process so far, by its id."""
        return {process.pid: _cpu_s(process) for process in self.processes()}


def _cpu_s(process: psutil.Process) -> float:
    """Nanoseconds count: ``psutil`` has hundredths of a second, which is a whole round of some operations."""
    if psutil.LINUX:
        return time.clock_gettime((~process.pid << 3) | 2)  # clock_getcpuclockid(3)
    times = process.cpu_times()
    return times.user + times.system


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one side did in one round."""

    rate: float
    """Calls per second."""
    cpu_us: float
    """Microseconds of CPU per call."""


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """The files of a revision, in a folder of their own, with this tree's outside parts."""
    done = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / ".parts").symlink_to(ROOT / ".parts")
        yield Path(folder)


@contextmanager
def served(tree: Path, uri: str, memo_ms: int, *upstream: str) -> Iterator[dict[str, object]]:
    """The tree's sidecar; yields what ``bench/served.py`` prints."""
    command = [sys.executable, str(ROOT / "bench/served.py"), str(tree), uri, str(memo_ms), *upstream]
    process = subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the sidecar of {tree} did not start")
        yield json.loads(line)  # noqa: TID251 - our own program
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


async def play_round(side: Side, operation: str, concurrency: int, calls: int) -> Round:
    before = side.cpu_s()
    seconds, latencies = await play(side.clients[:concurrency], operation, calls)
    after = side.cpu_s()
    if before.keys() != after.keys():
        raise SystemExit("a process of the sidecar ended while it was measured")
    spent = sum(after.values()) - sum(before.values())
    return Round(rate=len(latencies) / seconds, cpu_us=spent / len(latencies) * 1e6)


def ratio(other: Sequence[float], this: Sequence[float]) -> str:
    """Median and quartiles of the rounds' ratios."""
    each = [b / a for a, b in zip(other, this, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def row(operation: str, concurrency: int, rounds: dict[str, list[Round]]) -> dict[str, object]:
    """The figures of one operation."""
    rates = {name: [each.rate for each in found] for name, found in rounds.items()}
    cpu = {name: [each.cpu_us for each in found] for name, found in rounds.items()}
    return {
        "operation": operation,
        "at once": concurrency,
        **{f"{name} calls/s": round(statistics.median(rates[name])) for name in (OTHER, THIS)},
        "calls/s, ratio": ratio(rates[OTHER], rates[THIS]),
        **{f"{name} CPU µs": round(statistics.median(cpu[name])) for name in (OTHER, THIS)},
        "CPU, ratio": ratio(cpu[OTHER], cpu[THIS]),
    }


async def measure(sides: dict[str, Side], rounds: int, calls: int) -> list[dict[str, object]]:
    """Play every operation; the side that begins a round changes with each round."""
    rows = []
    for operation in OPERATIONS:
        for concurrency in CONCURRENCY:
            share = max(calls // 4, concurrency) if operation == "tools/list" else calls
            seen: dict[str, list[Round]] = {name: [] for name in sides}
            for turn in range(rounds + 1):
                for name in sorted(sides, reverse=bool(turn % 2)):
                    played = await play_round(sides[name], operation, concurrency, share)
                    if turn:  # the first round warms both sides up
                        seen[name].append(played)
            rows.append(row(operation, concurrency, seen))
    return rows


async def main(revision: str, rounds: int, calls: int, memo_ms: int) -> list[dict[str, object]]:
    with ExitStack() as stack:
        other = stack.enter_context(tree_of(revision))
        uri = stack.enter_context(parts.running_database())
        await demo_database.seed(uri)
        sides = {}
        async with AsyncExitStack() as sessions:
            for name, tree in ((OTHER, other), (THIS, ROOT)):
                said = stack.enter_context(served(tree, uri, memo_ms))
                clients = await connect(str(said["url"]), str(said["token"]), max(CONCURRENCY))
                for client in clients:
                    sessions.push_async_exit(client)
                sides[name] = Side(pid=int(str(said["pid"])), clients=clients)
            return await measure(sides, rounds, calls)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="what git knows: a commit, a branch, a tag")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--memo-ms", type=int, default=1000, help="0 asks OPA for every single call")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = asyncio.run(main(arguments.revision, max(arguments.rounds, 2), arguments.calls, arguments.memo_ms))
    show(
        found,
        f"this tree against {arguments.revision}; ratios are this by other, median and quartiles of rounds",
        as_json=arguments.json,
    )
