"""What a call costs the sidecar: CPU time per call of all its processes, with a server behind it that answers at once.

CPU time is what counts, since other work on the machine changes the time by the clock and hardly the CPU time. Filter
values, limits and callers differ from call to call. With ``--against`` another revision is played in the same run, in
alternating rounds.

    python bench/calls.py [--against REVISION] [--rows NAME …] [--rounds 6] [--clients 8] [--beside] [--pass-through]

``--pass-through`` plays ``bench/pass_through.py`` in the same rounds: how many times its CPU time does a call cost?

``--beside`` plays one analyst alone, and beside 16 inserts of 900 kB at a time by one other caller.

Rows: ``hit`` (questions that were answered before, of 50 identities), ``miss`` (OPA is asked every time), ``list``
(tools/list), ``insert-1``, ``insert-30``, ``insert-300``, ``insert-900`` (an insert of so many kB).
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.against import Side, ratio, served, tree_of  # noqa: E402
from bench.overhead import direct_server  # noqa: E402
from bench.table import show  # noqa: E402
from sidecar.demo import database as demo_database  # noqa: E402
from sidecar.demo.client import ACCEPT, PROTOCOL, DemoClient  # noqa: E402
from tests import parts  # noqa: E402

THIS, OTHER, LEAST = "this", "other", "pass-through"
CALLS = {"hit": 1200, "miss": 400, "list": 400, "insert-1": 400, "insert-30": 200, "insert-300": 48, "insert-900": 24}
STAGING = {"database": "staging", "collection": "orders"}
LOADERS = 16
"""Inserts at a time that a loader makes beside an analyst."""
ANALYST_CALLS = 60
CALLS_EACH = 6
"""Calls of each client in a round, at least."""
BUSY = (b"decision_unavailable", b"decision point is not available", b"too_many", b"overloaded", b"busy", b"upstream")
PLACE = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


class Connection:
    """One client: a connection, a token, a session; it sends what is ready and reads to the end of the answer."""

    def __init__(self, url: str, token: str) -> None:
        parts_of = urlsplit(url)
        assert parts_of.hostname
        assert parts_of.port
        self._address = parts_of.hostname, parts_of.port
        self._head = (
            f"POST {parts_of.path} HTTP/1.1\r\nHost: {parts_of.netloc}\r\nAccept: {ACCEPT}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
        )
        self._number = 0

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=1 << 24)
        params = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}}
        _, head, _ = await self.ask("initialize", json.dumps(params))
        [session] = [line for line in head.split("\r\n") if line.lower().startswith("mcp-session-id:")]
        self._head += f"{session}\r\nMCP-Protocol-Version: {PROTOCOL}\r\n"
        await self._send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    async def ask(self, method: str, params: str) -> tuple[int, str, bytes]:
        self._number += 1
        return await self._send(
            f'{{"jsonrpc":"2.0","id":{self._number},"method":"{method}","params":{params}}}'.encode()
        )

    async def _send(self, body: bytes) -> tuple[int, str, bytes]:
        if self._reader.at_eof():  # it was idle for longer than a connection may be
            self._writer.close()
            self._reader, self._writer = await asyncio.open_connection(*self._address, limit=1 << 24)
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        [length] = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        return int(head[9:12]), head, await self._reader.readexactly(int(length.partition(":")[2]))

    def close(self) -> None:
        self._writer.close()


def documents(kilobytes: int) -> str:
    """An insert of about so many kB, of documents of about 250 bytes."""
    one = {"customer": 7, "name": "A. N. Other", "tags": ["a", "b"], "note": "x" * 120, "total": 12.5, "lines": [1, 2]}
    size = len(json.dumps(one)) + 2
    arguments: dict[str, object] = {**PLACE, **STAGING, "documents": [one] * max(1, kilobytes * 1000 // size)}
    return json.dumps({"name": "insert-many", "arguments": arguments})


def request(row: str, number: int) -> tuple[str, str]:
    """One call of a row; values and limits differ from call to call."""
    if row == "list":
        return "tools/list", "{}"
    if number % 2:
        counted = {**PLACE, "query": {"customer": number}}
        return "tools/call", json.dumps({"name": "count", "arguments": counted})
    arguments: dict[str, object] = {**PLACE, "filter": {"customer": number}, "limit": 1 + number % 40}
    return "tools/call", json.dumps({"name": "find", "arguments": arguments})


@dataclass(slots=True, kw_only=True)
class Deployed:
    """A running sidecar with its clients."""

    side: Side
    analysts: list[Connection]
    loaders: list[Connection]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One round of a row."""

    cpu_us: float
    """Microseconds of CPU for each call that was carried out."""
    rate: float
    """Calls per second that were carried out."""
    refused: float
    """The share of those that were not, since the sidecar had too much to do."""
    worst_ms: float
    """How long 95 of 100 calls took at most."""


async def play(running: Deployed, row: str, clients: int, calls: int) -> Played:
    """Play a row."""
    kilobytes = int(row.partition("-")[2] or 0)
    large = documents(kilobytes) if kilobytes else ""
    among = running.loaders[:8] if kilobytes else running.analysts
    queues = [among[start::clients] for start in range(min(clients, len(among)))]
    numbers = iter(range(calls))

    latencies, refused = [], 0

    async def one(mine: list[Connection]) -> None:
        nonlocal refused
        for number in numbers:
            method, params = ("tools/call", large) if large else request(row, number)
            asked = time.perf_counter()
            status, _, body = await mine[number % len(mine)].ask(method, params)
            latencies.append(time.perf_counter() - asked)
            if status != 200 or b'"isError":true' in body or b'"error"' in body[:200]:
                refused += 1
                if not any(word in body for word in BUSY):
                    raise SystemExit(f"{row}: HTTP {status}: {body[:500]!r}")

    before, began = running.side.cpu_s(), time.perf_counter()
    await asyncio.gather(*(one(mine) for mine in queues))
    seconds, after = time.perf_counter() - began, running.side.cpu_s()
    spent = sum(after.values()) - sum(before.get(pid, 0.0) for pid in after)
    good = calls - refused
    worst = sorted(latencies)[len(latencies) * 95 // 100] * 1000
    return Played(cpu_us=spent / max(good, 1) * 1e6, rate=good / seconds, refused=refused / calls, worst_ms=worst)


@contextmanager
def listening(program: str, argument: str) -> Iterator[tuple[int, str]]:
    """A program of this folder that prints its port; yields its process id and its URL."""
    command = [sys.executable, str(ROOT / "bench" / program), argument]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


async def real_tools(uri: str) -> bytes:
    with direct_server(uri) as url:
        async with DemoClient(url, None, "bench") as client:
            for _ in range(400):
                try:
                    if (await client.initialize()).status == 200:
                        break
                except OSError:
                    await asyncio.sleep(0.05)
            return json.dumps((await client.tools()).result).encode()


async def open_side(said: dict[str, object], clients: int) -> Deployed:
    tokens = said["tokens"]
    assert isinstance(tokens, list)
    url = str(said["url"])
    running = Deployed(
        side=Side(pid=int(str(said["pid"])), clients=[]),
        analysts=[Connection(url, tokens[number % len(tokens)]) for number in range(max(clients, len(tokens)))],
        loaders=[Connection(url, str(said["loader"])) for _ in range(LOADERS)],
    )
    for one in running.analysts + running.loaders:
        await one.open()
    return running


async def measure(
    against: str | None, rows: list[str], rounds: int, clients: int, *, loader: bool, least: bool
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = stack.enter_context(parts.running_database())
        await demo_database.seed(uri)
        (folder / "tools.json").write_bytes(await real_tools(uri))
        _, upstream = stack.enter_context(listening("zero_upstream.py", str(folder / "tools.json")))
        trees = {THIS: ROOT}
        if against is not None:
            trees[OTHER] = stack.enter_context(tree_of(against))
        for memo_ms, played in (
            (1000, [row for row in rows if row != "miss"] or ["beside"] * loader),
            (0, [row for row in rows if row == "miss"]),
        ):
            with ExitStack() as serving:
                sides = {
                    name: await open_side(
                        serving.enter_context(served(tree, uri, memo_ms, upstream)) if played else {}, clients
                    )
                    for name, tree in trees.items()
                    if played
                }
                if least and played:
                    pid, url = serving.enter_context(listening("pass_through.py", upstream))
                    sides[LEAST] = await open_side({"url": url, "pid": pid, "tokens": ["none"], "loader": "none"}, 50)
                found += [await alternating(sides, row, rounds, clients) for row in played if row != "beside"]
                if loader and memo_ms:
                    found.append(await beside_in_turn(sides, rounds))
    return found


async def median_ms(analyst: Connection, calls: int) -> float:
    """Half of an analyst's calls took at most so long."""
    latencies = []
    for number in range(calls):
        asked = time.perf_counter()
        status, _, body = await analyst.ask(*request("hit", number))
        latencies.append((time.perf_counter() - asked) * 1000)
        if status != 200 or b'"isError":true' in body:
            raise SystemExit(f"beside: HTTP {status}: {body[:500]!r}")
    return statistics.median(latencies)


async def beside(running: Deployed) -> tuple[float, float, float]:
    """Return an analyst's median alone and beside a loader, in milliseconds, and the loader's inserts per second."""
    alone = await median_ms(running.analysts[0], ANALYST_CALLS)
    large, inserted, going = documents(900), 0, True

    async def load(mine: Connection) -> None:
        nonlocal inserted
        while going:
            status, _, body = await mine.ask("tools/call", large)
            inserted += status == 200 and b'"isError":true' not in body

    loading = [asyncio.create_task(load(one)) for one in running.loaders]
    began = time.perf_counter()
    loaded = await median_ms(running.analysts[0], ANALYST_CALLS)
    rate = inserted / (time.perf_counter() - began)
    going = False
    await asyncio.gather(*loading)
    return alone, loaded, rate


async def beside_in_turn(sides: dict[str, Deployed], rounds: int) -> dict[str, object]:
    cells: dict[str, object] = {"row": "an analyst beside 16 inserts of 900 kB"}
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            seen[name].append(await beside(sides[name]))
    for name, each in sorted(seen.items()):
        cells[f"{name} alone ms"] = round(statistics.median(one[0] for one in each), 1)
        cells[f"{name} beside ms"] = round(statistics.median(one[1] for one in each), 1)
        cells[f"{name} ratio"] = round(statistics.median(one[1] / one[0] for one in each), 2)
        cells[f"{name} inserts/s"] = round(statistics.median(one[2] for one in each), 1)
    return cells


async def alternating(sides: dict[str, Deployed], row: str, rounds: int, clients: int) -> dict[str, object]:
    seen: dict[str, list[Played]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in sorted(sides, reverse=bool(turn % 2)):
            played = await play(sides[name], row, clients, max(CALLS[row], CALLS_EACH * clients))
            if turn:  # the first round warms both sides up
                seen[name].append(played)
    cells: dict[str, object] = {"row": row, "clients": clients}
    for name, each in sorted(seen.items()):
        cells[f"{name} CPU µs"] = round(statistics.median(one.cpu_us for one in each))
        cells[f"{name} least"] = round(min(one.cpu_us for one in each))
        cells[f"{name} calls/s"] = round(statistics.median(one.rate for one in each))
        cells[f"{name} p95 ms"] = round(statistics.median(one.worst_ms for one in each))
        cells[f"{name} refused"] = f"{statistics.mean(one.refused for one in each):.0%}"
    if OTHER in seen:
        cells["CPU, ratio"] = ratio([one.cpu_us for one in seen[OTHER]], [one.cpu_us for one in seen[THIS]])
    if LEAST in seen:
        cells["CPU, times pass-through"] = ratio(
            [one.cpu_us for one in seen[LEAST]], [one.cpu_us for one in seen[THIS]]
        )
    return cells


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", help="another revision, in the same run")
    parser.add_argument("--rows", nargs="*", choices=CALLS, default=[*CALLS])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--clients", type=int, default=8, help="1 to 256; calls that are refused for want of room count apart"
    )
    parser.add_argument("--beside", action="store_true", help="also an analyst beside a loader")
    parser.add_argument("--pass-through", action="store_true", help="also the least gateway, in the same rounds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    table = asyncio.run(
        measure(
            arguments.against,
            arguments.rows,
            max(arguments.rounds, 2),
            arguments.clients,
            loader=arguments.beside,
            least=arguments.pass_through,
        )
    )
    show(table, "CPU per call of the sidecar's own processes; medians of rounds", as_json=arguments.json)
