"""Callers of ``bench/rolling.py``, and what became of each of their calls."""

import asyncio
import itertools
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp

from sidecar.demo.identities import ANALYST, LOADER, Person

PROTOCOL: Final = "2025-11-25"
MARK: Final = re.compile(rb"mark-[0-9a-f]{16}")
REPEAT_S: Final = 2.0
"""After which a caller repeats what it has no answer to."""
_CHAIN: Final = re.compile(r"audit\.jsonl(\.\d+)?")
"""Names of audit files; what is kept beside them has others."""
_WAIT = aiohttp.ClientTimeout(total=90)


class Became(StrEnum):
    """What the caller knows of a call."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"
    """No answer, or one that says neither: it was carried out or not."""


class Kind(StrEnum):
    """What is called."""

    READ = "read"
    WRITE = "write"
    NEVER = "never"
    """What no policy of the run allows."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call; each has a mark of its own, which is in its arguments and so in its evidence."""

    kind: Kind
    person: Person
    tool: str
    arguments: dict[str, Any]
    mark: str
    sent: float = 0.0
    answered: float = 0.0
    became: Became = Became.UNKNOWN
    repeated: bool = False
    said: str = ""
    refusals: list[str] = field(default_factory=list)
    """Request ids of the refusals that its caller read."""


def calls(person: Person) -> Iterable[Call]:
    """What one caller does, over and over."""
    of_analyst = [("find", "sales", "orders", Kind.READ), ("find", "hr", "salaries", Kind.NEVER)]
    of_loader = [("insert-many", "staging", "orders", Kind.WRITE), ("find", "staging", "returns", Kind.READ)]
    for tool, database, collection, kind in itertools.cycle(of_analyst if person == ANALYST else of_loader):
        mark = f"mark-{secrets.token_hex(8)}"
        named = {"connectionId": "preconfigured", "database": database, "collection": collection}
        wanted = {"documents": [{"mark": mark}]} if tool == "insert-many" else {"filter": {"mark": mark}, "limit": 1}
        yield Call(kind=kind, person=person, tool=tool, arguments={**named, **wanted}, mark=mark)


@dataclass(slots=True, kw_only=True)
class Load:
    """Callers that call until they are told to stop."""

    url: str
    token: Callable[[Person], str]
    made: list[Call] = field(default_factory=list)
    stopping: bool = False

    async def run(self, callers: int, pause_s: float) -> None:
        """Call with so many at once."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(trust_env=False, connector=connector, timeout=_WAIT) as http:
            people = itertools.cycle((ANALYST, LOADER))
            await asyncio.gather(*(self._caller(http, next(people), pause_s) for _ in range(callers)))

    async def _caller(self, http: aiohttp.ClientSession, person: Person, pause_s: float) -> None:
        session: dict[str, str] = {}
        for call in calls(person):
            if self.stopping:
                return
            if not session:
                session = await self._opened(http, person)
            self.made.append(call)
            await self._carry_out(http, session, call)
            if call.became is Became.UNKNOWN and call.kind is not Kind.WRITE:
                call.repeated = True
                await asyncio.sleep(REPEAT_S)
                await self._carry_out(http, session, call)
            await asyncio.sleep(pause_s)

    async def _carry_out(self, http: aiohttp.ClientSession, session: Mapping[str, str], call: Call) -> None:
        call.sent = call.sent or time.monotonic()
        asked = {"name": call.tool, "arguments": call.arguments}
        status, body = await self._post(http, call.person, session, message("tools/call", asked))
        call.answered = time.monotonic()
        call.became, call.said, name = became(status, body)
        call.refusals += [name] if name else []

    async def _opened(self, http: aiohttp.ClientSession, person: Person) -> dict[str, str]:
        """Open a session; it lasts for the whole run, at any sidecar."""
        client = {"name": "rolling", "version": "0"}
        params = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
        headers: dict[str, str] = {}
        while not headers and not self.stopping:
            try:
                async with http.post(
                    self.url, json=message("initialize", params), headers=self._headers(person)
                ) as answer:
                    if answer.status == 200:
                        headers = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": PROTOCOL}
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._post(http, person, headers, done)
        return headers

    def _headers(self, person: Person) -> dict[str, str]:
        accept = "application/json, text/event-stream"
        return {"Authorization": f"Bearer {self.token(person)}", "Accept": accept}

    async def _post(
        self, http: aiohttp.ClientSession, person: Person, session: Mapping[str, str], body: dict[str, Any]
    ) -> tuple[int, bytes]:
        try:
            headers = {**self._headers(person), **session}
            async with http.post(self.url, json=body, headers=headers) as answer:
                received = await answer.read()
                if answer.content_type == "text/event-stream":
                    data = [line[6:] for line in received.splitlines() if line.startswith(b"data: ")]
                    received = data[-1] if data else b""
                return answer.status, received
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, type(error).__name__.encode()


def message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def became(status: int, body: bytes) -> tuple[Became, str, str]:
    """Read an answer: a result, a denial of policy, or neither; with its words, and the request id of a refusal.

    What the sidecar refuses for a reason of its own, such as a shared store that does not answer, is neither.
    """
    try:
        answer = json.loads(body) if status == 200 else {}  # noqa: TID251 - the sidecar's own answer
    except ValueError:
        answer = {}
    result = answer.get("result", {})
    if result and not result.get("isError"):
        return Became.ALLOWED, "", ""
    decision = result.get("_meta", {}).get("mcp-sidecar/decision", {})
    name, said = decision.get("request_id", ""), f"{status} {body[:400]!r}"
    of_policy = [reason for reason in decision.get("reasons", []) if reason["source"] != "sidecar"]
    return (Became.DENIED if of_policy else Became.UNKNOWN), said, name


def recorded(files: Iterable[Path]) -> dict[str, Counter[str]]:
    """By mark and by request id: how many records of each event there are.

    A mark is in the arguments of a record, or in those of another record of the same request.
    """
    found: dict[str, Counter[str]] = {}
    owners: dict[str, str] = {}
    for file in sorted(file for file in files if _CHAIN.fullmatch(file.name)):
        for line in file.read_bytes().splitlines():
            record = json.loads(line)  # noqa: TID251 - the sidecar's own file
            name = record.get("request_id", "")
            found.setdefault(name, Counter())[record["event"]] += 1
            if (mark := MARK.search(line)) is not None:
                owners[name] = mark.group().decode()
            if (owner := owners.get(name)) is not None:
                found.setdefault(owner, Counter())[record["event"]] += 1
    return found
