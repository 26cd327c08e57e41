"""What floods cost: the memory of large answers, the time of refused megabytes, idle connections beyond the limit.

Each against a sidecar of its own with the real MongoDB MCP server and OPA, on loopback. The status is 1 where an aim is
missed.

    python bench/floods.py [--users 200] [--megabytes 20] [--idle 1200]
"""

import argparse
import asyncio
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sidecar.demo.client import DemoClient  # noqa: E402
from sidecar.demo.identities import ANALYST, LOADER, Person  # noqa: E402
from sidecar.mcp.jsonrpc import decode  # noqa: E402
from tests import parts  # noqa: E402
from tests.integration.deployment import Deployment, deployed  # noqa: E402
from tests.integration.test_connection_flood import LIMITED, idle_connections  # noqa: E402
from tests.signer import ISSUER  # noqa: E402

ANSWER_BYTES = 426_000
GROWTH_MB, TIMES_DECODING, RELOADS = 100, 2.0, 2.0
"""What is aimed at."""
RELOAD_S = 1.0
"""One reload period: what is shipped."""

COUNT = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
LARGE = """
grant contains {{"id": "large", "filter": {{"region": {{"$in": data.mcp.grants.analytics.regions}}}}}} if {{
	input.access.kind == "read"
	input.access.collection == "large"
	input.subject.groups
}}
"""

Row = tuple[str, str, str, bool]


def shipped(folder: Path) -> Path:
    copy = folder / "policies"
    shutil.copytree(ROOT / "policies", copy)
    return copy


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def process_of(running: Deployment) -> psutil.Process:
    assert running.process is not None
    [sidecar] = [
        found
        for found in (
            psutil.Process(running.process.pid),
            *psutil.Process(running.process.pid).children(recursive=True),
        )
        if "sidecar" in found.cmdline()
    ] or [psutil.Process(running.process.pid)]
    return sidecar


def with_large_answers(folder: Path) -> Path:
    """One grant whose filter alone makes an answer of ``ANSWER_BYTES``."""
    policies = shipped(folder)
    team = policies / "teams/analytics"
    rules = team / "policy.rego"
    rules.write_text(rules.read_text() + LARGE.replace("{{", "{").replace("}}", "}"))
    data = json.loads((team / "data.json").read_text())  # noqa: TID251 - our own file
    regions = [f"region-{number:012}" for number in range(ANSWER_BYTES // 22)]
    data.setdefault("mcp", {}).setdefault("grants", {}).setdefault("analytics", {})["regions"] = regions
    (team / "data.json").write_text(json.dumps(data))
    return policies


async def large_answers(folder: Path, uri: str, users: int) -> Row:
    """Honest users, one call each, whose answers are large; refused after OPA's answer was read."""
    with deployed(folder, uri, record=False, policies=with_large_answers(folder)) as running:
        sidecar = process_of(running)
        await one_call(running, ANALYST, {**COUNT, "collection": "large"})
        before = sidecar.memory_info().rss
        for number in range(users):
            await one_call(
                running, dataclasses.replace(ANALYST, user=f"user-{number}"), {**COUNT, "collection": "large"}
            )
        grown = (sidecar.memory_info().rss - before) / 1e6
    what = f"{users} users, answers of {ANSWER_BYTES // 1000} kB: the process grows by"
    return what, f"{grown:.0f} MB", f"< {GROWTH_MB} MB", grown < GROWTH_MB


async def one_call(running: Deployment, person: Person, arguments: dict[str, object]) -> None:
    async with running.plain(person) as client:
        await client.initialize()
        answer = await client.call("count", arguments)
        assert answer.result["isError"], answer


async def refused_megabytes(folder: Path, uri: str, count: int) -> Row:
    """Calls of almost a megabyte by a caller without the right, against the time of decoding alone."""
    numbers = [0.1] * 195_000
    arguments: dict[str, object] = {**COUNT, "database": "sales", "documents": [{"v": numbers}]}
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "insert-many", "arguments": arguments}}
    )
    decoding = min(timed(lambda: decode(body.encode())) for _ in range(5))
    with deployed(folder, uri, record=False) as running:
        sidecar = process_of(running)
        async with running.plain(LOADER) as client:
            await client.initialize()
            await refused(client, arguments)
            before = cpu_s(sidecar)
            for _ in range(count):
                await refused(client, arguments)
            each = (cpu_s(sidecar) - before) / count
    what = f"a refused call of {len(body) // 1000} kB costs, in times of its decoding ({decoding * 1000:.0f} ms)"
    return what, f"{each / decoding:.2f}", f"≤ {TIMES_DECODING:g}", each <= TIMES_DECODING * decoding


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


async def refused(client: DemoClient, arguments: dict[str, object]) -> None:
    answer = await client.call("insert-many", arguments)
    assert answer.result["isError"], answer


async def idle_ones(folder: Path, uri: str, idle: int) -> list[Row]:
    """More idle connections than files the process may open."""
    policies = shipped(folder)
    data = policies / "platform/data.json"
    environment = {"SIDECAR_OPA__RELOAD_MS": str(round(RELOAD_S * 1000)), "SIDECAR_OPA__MEMO_MS": "0"}
    with (
        deployed(folder, uri, policies=policies, environment=environment, record=False, launcher=LIMITED) as running,
        idle_connections(running.port, idle),
    ):
        files = process_of(running).num_fds()
        began = time.monotonic()
        async with running.plain(ANALYST) as client:
            assert (await client.initialize()).status == 200
            entered = time.monotonic() - began
            await client.call("count", COUNT)
            said = json.dumps({"issuer": ISSUER, "id": ANALYST.user})
            data.write_text(data.read_text().replace('"subjects": []', f'"subjects": [{said}]'))
            acted = await until(lambda: is_refused(client))
    reloads = acted / RELOAD_S
    return [
        (f"{idle} idle connections: files open, of 1024", str(files), "< 1024", files < 1024),
        ("the same: a new client with a token is in after", f"{entered * 1000:.0f} ms", "it gets in", True),
        (
            "the same: a suspension acts after",
            f"{reloads:.1f} reload periods",
            f"≤ {RELOADS:g}",
            reloads <= RELOADS,
        ),
    ]


async def is_refused(client: DemoClient) -> bool:
    answer = await client.call("count", COUNT)
    return answer.body.get("error") is not None or bool(answer.result.get("isError"))


async def until(true: Callable[[], Awaitable[bool]]) -> float:
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def main(users: int, megabytes: int, idle: int) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, parts.running_database() as uri:
        homes = [Path(folder) / name for name in ("memory", "refused", "idle")]
        for home in homes:
            home.mkdir()
        rows.append(await large_answers(homes[0], uri, users))
        rows.append(await refused_megabytes(homes[1], uri, megabytes))
        rows += await idle_ones(homes[2], uri, idle)
    return rows


def show(rows: list[Row]) -> None:
    table = Table("flood", "measured", "aim", title="What floods cost")
    for what, measured, aim, met in rows:
        table.add_row(what, measured if met else f"[red]{measured}", aim)
    Console(width=125).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--idle", type=int, default=1_200)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(main(options.users, options.megabytes, options.idle))
    show(found)
    sys.exit(0 if all(met for *_, met in found) else 1)
