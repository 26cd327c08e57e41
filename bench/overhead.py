"""What the sidecar costs: the same calls to the MongoDB MCP server's own HTTP endpoint, and through the sidecar.

Both run on this machine against one database, and short rounds alternate between them, so that other load on
the machine hits both. The direct side uses the server's faster JSON answers, not its default event streams.

    python bench/overhead.py [--rounds 6] [--calls 160] [--memo-ms 0]
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.table import show  # noqa: E402
from sidecar.demo import database as demo_database  # noqa: E402
from sidecar.demo.client import DemoClient  # noqa: E402
from sidecar.demo.identities import ANALYST  # noqa: E402
from tests import parts  # noqa: E402
from tests.integration.deployment import deployed  # noqa: E402

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
OPERATIONS = ("tools/list", "count", "find")
CONCURRENCY = (1, 8)


def request(operation: str, number: int) -> tuple[str, dict[str, object]]:
    """One call; the values differ from call to call, as they do where agents work."""
    match operation:
        case "count":
            return "tools/call", {"name": "count", "arguments": {**ORDERS, "query": {"customer": number % 4}}}
        case "find":
            arguments = {**ORDERS, "filter": {"customer": number % 4}, "limit": 5}
            return "tools/call", {"name": "find", "arguments": arguments}
        case _:
            return operation, {}


@contextmanager
def direct_server(uri: str):
    """The real server on its own HTTP transport."""
    port = parts.free_port()
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a benchmark, not the product
        "MDB_MCP_CONNECTION_STRING": uri,
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_LOGGERS": "stderr",
        "MDB_MCP_HTTP_RESPONSE_TYPE": "json",
        "NODE_ENV": "production",
    }
    command = [str(parts.installed("mongodb-mcp-server")), "--transport", "http", "--httpPort", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        parts.stop(process)


async def connect(url: str, token: str | None, count: int) -> list[DemoClient]:
    """Open sessions; the server may need a moment to come up."""
    clients = [DemoClient(url, token, "bench") for _ in range(count)]
    for client in clients:
        for _ in range(200):
            try:
                if (await client.initialize()).status == 200:
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    return clients


async def play(clients: list[DemoClient], operation: str, calls: int) -> tuple[float, list[float]]:
    """Have each client make its share of the calls one after the other; return seconds and every latency."""
    latencies: list[float] = []

    async def one(client: DemoClient, share: int) -> None:
        for number in range(share):
            method, params = request(operation, number)
            began = time.perf_counter()
            answer = await client._request(method, params)
            latencies.append(time.perf_counter() - began)
            assert answer.status == 200, answer
            assert answer.result, answer
            assert not answer.result.get("isError"), answer

    began = time.perf_counter()
    await asyncio.gather(*(one(client, calls // len(clients)) for client in clients))
    return time.perf_counter() - began, latencies


def quantile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100)[at - 1] * 1000


async def measure(sides: dict[str, list[DemoClient]], rounds: int, calls: int) -> list[dict[str, object]]:
    """Alternate short rounds; return one row per operation and concurrency."""
    rows = []
    for operation in OPERATIONS:
        for concurrency in CONCURRENCY:
            share = max(calls // 4, concurrency) if operation == "tools/list" else calls
            spent = dict.fromkeys(sides, 0.0)
            seen: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(rounds + 1):
                for side, clients in sides.items():
                    seconds, latencies = await play(clients[:concurrency], operation, share)
                    if turn:  # the first round warms both sides up
                        spent[side] += seconds
                        seen[side] += latencies
            rate = {side: len(seen[side]) / spent[side] for side in sides}
            rows.append(
                {
                    "operation": operation,
                    "concurrency": concurrency,
                    **{f"{side} calls/s": round(rate[side]) for side in sides},
                    **{f"{side} p50 ms": round(quantile(seen[side], 50), 2) for side in sides},
                    **{f"{side} p99 ms": round(quantile(seen[side], 99), 2) for side in sides},
                    "ratio": round(rate["sidecar"] / rate["direct"], 2),
                }
            )
    return rows


async def main(rounds: int, calls: int, memo_ms: int) -> list[dict[str, object]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = stack.enter_context(parts.running_database())
        await demo_database.seed(uri)
        direct = await connect(stack.enter_context(direct_server(uri)), None, max(CONCURRENCY))
        deployment = stack.enter_context(
            deployed(folder, uri, record=False, environment={"SIDECAR_OPA__MEMO_MS": str(memo_ms)})
        )
        sidecar = await connect(deployment.url, deployment.token(ANALYST), max(CONCURRENCY))
        try:
            return await measure({"direct": direct, "sidecar": sidecar}, rounds, calls)
        finally:
            for client in direct + sidecar:
                await client.__aexit__(None, None, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--calls", type=int, default=160)
    parser.add_argument("--memo-ms", type=int, default=1000, help="0 asks OPA for every single call")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = asyncio.run(main(arguments.rounds, arguments.calls, arguments.memo_ms))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    show(found, machine, as_json=arguments.json)
