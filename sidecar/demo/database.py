"""The database of the demo: the operator's, or a stand-in that is started for it; and its sample documents."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from sidecar.errors import ConfigurationError
from sidecar.system import StandardStreams, spawn

STAND_IN: Final = "secantusd-py"
"""SecantusDB, a separate program that speaks MongoDB's wire protocol; never imported."""

START_SECONDS: Final = 30.0

SAMPLES: Final[dict[tuple[str, str], list[dict[str, Any]]]] = {
    ("sales", "orders"): [
        {
            "_id": number,
            "region": ("EU", "US", "APAC")[number % 3],
            "status": ("open", "paid", "shipped")[number % 3],
            "customer": number % 4,
            "total": 25 + 7.5 * number,
            "placed": datetime(2026, 1 + number % 9, 1 + number, tzinfo=UTC),
        }
        for number in range(12)
    ],
    ("sales", "customers"): [{"_id": n, "name": name} for n, name in enumerate(("Ada", "Boole", "Curie", "Dijkstra"))],
    ("staging", "orders"): [
        {"_id": n, "region": "EU", "status": "open", "customer": n, "total": 12.5} for n in range(2)
    ],
    ("hr", "salaries"): [{"_id": n, "employee": f"e{n}", "salary": 50_000 + 5_000 * n} for n in range(4)],
    ("support", "tickets"): [
        {
            "_id": number,
            "subject": subject,
            "customer": {
                "name": name,
                "email": f"{name.lower()}@example.org",
                "phone": "555-0100",
                "address": "Main St 1",
            },
        }
        for number, (subject, name) in enumerate((("where is my order", "Ada"), ("refund", "Curie")), 1)
    ],
}


_PORTS: Final = range(20_000, 32_768)
"""Below those that Linux gives to connections that go out (``ip_local_port_range``): on a busy machine one of them took
a port before the program that it was for."""


@asynccontextmanager
async def stand_in(program: Path) -> AsyncIterator[str]:
    """Run the stand-in on a free loopback port, in memory, and yield its connection string.

    Args:
        program: what is run.

    Raises:
        ConfigurationError: it does not start.
    """
    port = free_port()
    command = (str(program), "--host", "127.0.0.1", "--port", str(port), "--storage-path", ":memory:")
    process = await spawn(command, StandardStreams())
    uri = f"mongodb://127.0.0.1:{port}/"
    try:
        await _answers(uri, process)
        yield uri
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def seed(uri: str) -> None:
    """Put the sample documents in place, replacing what the sample collections held."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, serverSelectionTimeoutMS=5000)
    try:
        for (database, collection), documents in SAMPLES.items():
            await client[database][collection].drop()
            await client[database][collection].insert_many(documents)
    finally:
        await client.close()


async def count(uri: str, database: str, collection: str, query: dict[str, Any]) -> int:
    """Count documents in the database itself: what a call really did, not what its reply says."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, serverSelectionTimeoutMS=5000)
    try:
        return await client[database][collection].count_documents(query)
    finally:
        await client.close()


async def _answers(uri: str, process: asyncio.subprocess.Process) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, serverSelectionTimeoutMS=500)
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                if process.returncode is not None:
                    msg = f"{STAND_IN} ended with status {process.returncode}"
                    raise ConfigurationError(msg)
                try:
                    await client.admin.command("ping")
                except PyMongoError:
                    await asyncio.sleep(0.05)
                else:
                    return
    except TimeoutError:
        msg = f"{STAND_IN} did not answer within {START_SECONDS:.0f} s"
        raise ConfigurationError(msg) from None
    finally:
        await client.close()


def free_port() -> int:
    """Return a loopback port that nothing listens on at this moment."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
