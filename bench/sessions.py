"""Many sessions at once: no answer is lost or crossed, what an idle one weighs, and what a flood of new ones touches.

One sidecar with the real MongoDB MCP server and OPA, on loopback. Every session asks under the same request id, for a
document that is its own; an answer counts where it has that id and that document and no other. The status is 1 where an
aim is missed.

    python bench/sessions.py [--sessions 2000] [--streams 200] [--in-flight 64] [--flood 2000]
"""

import argparse
import asyncio
import dataclasses
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import uvloop
from pymongo import MongoClient

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.table import show  # noqa: E402
from sidecar.demo.identities import ANALYST, Person  # noqa: E402
from sidecar.session_settings import SessionLimits  # noqa: E402
from tests import parts  # noqa: E402
from tests.integration.deployment import Deployment, deployed  # noqa: E402

SESSION_KB = 20.0
"""What an idle session may weigh."""
OF_ONE_USER = 50
"""Sessions of one user; fewer than one may have."""
REQUEST_ID = 7
"""The same in every session."""
STALL_MS = 50
"""Under load a part of the answers are streams then."""
WARM_UP = 300
WAIT_S = 120

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Opened:
    """One session, and the headers that are its owner's."""

    number: int
    headers: dict[str, str]

    @property
    def mark(self) -> str:
        """What only the document of this session says."""
        return f"mark-{self.number:06}-of-one"


class Clients:
    """Everybody who calls, over one pool of connections."""

    def __init__(self, running: Deployment, http: aiohttp.ClientSession) -> None:
        self._running = running
        self._http = http
        self._tokens: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    async def open(self, number: int, person: Person) -> Opened | None:
        """Open a session and finish its handshake; None where that was refused."""
        token = self._tokens.setdefault(person.user, self._running.token(person))
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
        client = {"name": "bench", "version": "0"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        async with self._http.post(self._running.url, json=message("initialize", params), headers=headers) as answer:
            if answer.status != 200:
                return None
            headers["Mcp-Session-Id"] = answer.headers["Mcp-Session-Id"]
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        async with self._http.post(self._running.url, json=done, headers=headers) as answer:
            assert answer.status == 202, answer
        return Opened(number, headers)

    async def answered(self, session: Opened) -> str:
        """Call once; return what came of it: ``answered``, ``refused``, ``crossed`` or ``lost``."""
        arguments = {
            "connectionId": "preconfigured",
            "database": "sales",
            "collection": "orders",
            "filter": {"_id": session.number},
            "limit": 5,
        }
        asked = message("tools/call", {"name": "find", "arguments": arguments})
        async with self._http.post(self._running.url, json=asked, headers=session.headers) as answer:
            self.kinds[answer.content_type] += 1
            received = await answer.read()
        if answer.content_type == "text/event-stream":
            data = [line[6:] for line in received.splitlines() if line.startswith(b"data: ")]
            received = data[-1] if data else b""
        try:
            found = msgspec.json.decode(received)
        except msgspec.DecodeError:
            return "lost"
        marks = set(re.findall(r"mark-\d+-of-one", received.decode()))
        if marks - {session.mark} or found.get("id") != REQUEST_ID:
            return "crossed"
        if not marks:
            self.refusals[received.decode()[:300]] += 1
        return "answered" if marks else "refused"

    async def lives(self, session: Opened) -> bool:
        """Whether the session is still there for its owner."""
        async with self._http.post(self._running.url, json=message("ping", {}), headers=session.headers) as answer:
            return answer.status == 200 and (await answer.json()).get("id") == REQUEST_ID

    async def end(self, session: Opened) -> None:
        """End it."""
        async with self._http.delete(self._running.url, headers=session.headers) as answer:
            assert answer.status < 300, answer

    async def listen(self, session: Opened, opened: Callable[[], None]) -> bytes:
        """Read the session's stream until it ends; return what came, without comments."""
        headers = session.headers | {"Accept": "text/event-stream"}
        async with self._http.get(self._running.url, headers=headers) as answer:
            assert answer.status == 200, answer
            opened()
            lines = [line async for line in answer.content if line.startswith(b"data: ") and len(line) > 7]
            return b"".join(lines)


def message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": REQUEST_ID, "method": method, "params": params}


def user(number: int) -> Person:
    return dataclasses.replace(ANALYST, user=f"user-{number // OF_ONE_USER}")


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[Any]], at_once: int) -> list[Any]:
    """Do the work for every item, so many at once; the results in no order."""
    left = iter(items)

    async def worker() -> list[Any]:
        return [await work(item) for item in left]

    return [one for found in await asyncio.gather(*(worker() for _ in range(at_once))) for one in found]


def row(what: str, measured: object, aim: str, *, met: bool) -> Row:
    return {"what": what, "measured": measured, "aim": aim, "met": met}


async def opened_sessions(clients: Clients, sidecar: psutil.Process, count: int) -> tuple[list[Opened], float]:
    """Open the sessions; return them, and the bytes by which the process grew for each."""

    async def some(numbers: Sequence[int]) -> list[Opened]:
        found = await each(numbers, lambda number: clients.open(number, user(number)), 16)
        return [one for one in found if one is not None]

    # every user's token is known before, and what the process allocates once
    for session in await some(range(0, count, max(1, count // WARM_UP))):
        await clients.answered(session)
        await clients.end(session)
    before = sidecar.memory_info().rss
    sessions = await some(range(count))
    return sessions, (sidecar.memory_info().rss - before) / count


async def flooded(clients: Clients, sessions: list[Opened], flood: int) -> list[Row]:
    """One user opens sessions without end, while the others call; then look who is still there."""
    person = dataclasses.replace(ANALYST, user="flood")
    over = asyncio.Event()

    async def others() -> Counter[str]:
        found: Counter[str] = Counter()
        while not over.is_set():
            for session in sessions[:: max(1, len(sessions) // 40)]:
                found[await clients.answered(session)] += 1
        return found

    calling = asyncio.create_task(others())
    began = time.monotonic()
    made = await each(range(flood), lambda number: clients.open(number, person), 16)
    seconds = time.monotonic() - began
    over.set()
    found = await calling
    own = [one for one in made if one is not None]
    there = sum(await each(own, clients.lives, 16))
    alive = sum(await each(sessions, clients.lives, 16))
    most = SessionLimits().per_identity
    what = f"{flood} initialize of one user ({flood / seconds:.0f}/s)"
    return [
        row(f"{what}: sessions that it has then", there, f"≤ {most}", met=there <= most),
        row(f"{what}: sessions of others that live", alive, f"{len(sessions)}", met=alive == len(sessions)),
        row(f"{what}: {found.total()} calls of others: answered", found["answered"], f"{found.total()}",
            met=found["answered"] == found.total() > 0),
    ]  # fmt: skip


async def main(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, parts.running_database() as uri:
        with MongoClient[dict[str, Any]](uri) as database:
            documents = [{"_id": n, "mark": Opened(n, {}).mark} for n in range(options.sessions)]
            database["sales"]["orders"].insert_many(documents)
        environment = {"SIDECAR_SESSIONS__STALL_MS": str(STALL_MS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=WAIT_S)
        with deployed(Path(folder), uri, record=False, environment=environment) as running:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
                return await measured(Clients(running, http), running, options)


async def measured(clients: Clients, running: Deployment, options: argparse.Namespace) -> list[Row]:
    assert running.process is not None
    sidecar = psutil.Process(running.process.pid)
    sessions, size = await opened_sessions(clients, sidecar, options.sessions)
    rows = [
        row("sessions open at once", len(sessions), f"{options.sessions}", met=len(sessions) == options.sessions),
        row("an idle session weighs, kB", f"{size / 1000:.1f}", f"≤ {SESSION_KB:g}", met=size <= SESSION_KB * 1000),
    ]
    listening = 0
    all_listen = asyncio.Event()

    def opened() -> None:
        nonlocal listening
        listening += 1
        if listening == options.streams:
            all_listen.set()

    streams = [asyncio.create_task(clients.listen(session, opened)) for session in sessions[: options.streams]]
    async with asyncio.timeout(WAIT_S):
        await all_listen.wait()
    began = time.monotonic()
    clients.kinds.clear()
    found = Counter(await each(sessions, clients.answered, options.in_flight))
    rate = len(sessions) / (time.monotonic() - began)
    streamed = clients.kinds["text/event-stream"]
    what = f"{options.in_flight} calls in flight, one of each session ({rate:.0f}/s, {streamed} answers were streams)"
    rows += [
        row(f"{what}: answered", found["answered"], f"{len(sessions)}", met=found["answered"] == len(sessions)),
        row(f"{what}: crossed", found["crossed"], "0", met=not found["crossed"]),
        *await flooded(clients, sessions, options.flood),
    ]
    held = sum(not stream.done() for stream in streams)
    rows.append(row("streams open through all of this", held, f"{options.streams}", met=held == options.streams))
    await each(sessions, clients.end, 16)
    async with asyncio.timeout(WAIT_S):
        came = await asyncio.gather(*streams)
    strange = sum(map(bool, came))
    rows.append(row("streams with a message that was not theirs, once their sessions ended", strange, "0",
                    met=not strange))  # fmt: skip
    for said, times in clients.refusals.most_common(3):
        print(f"{times} times refused: {said}", file=sys.stderr)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--flood", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(main(chosen))
    show(result, "Many sessions at once", as_json=chosen.json)
    sys.exit(0 if all(line["met"] for line in result) else 1)
