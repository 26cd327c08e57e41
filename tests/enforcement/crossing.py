"""Two users with disjoint rights before one sidecar, and a server that answers each question with the question.

Every call carries a mark that is its own: the answer, what is told of it and the record of evidence can each be held
against it. What a connection receives is judged as it comes in, by what may come in there.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from sidecar.model import JsonObject, Permit
from sidecar.ports import DecisionPoint
from tests.attacks.test_stateless_wire import META, MIRROR
from tests.enforcement.streaming import Streaming, call, events, message, streaming
from tests.patience import HANG_S

MAY_READ = {"alice": ("sales", "orders"), "hanna": ("hr", "salaries")}
USERS = tuple(MAY_READ)
LIST_CHANGED = "notifications/tools/list_changed"
STALL_S = 0.005
T = TypeVar("T")


@dataclass(eq=False)
class Opened:
    """One session of one user."""

    user: str
    id: str
    revision: str
    held: dict[Any, "Held"] = field(default_factory=dict)
    general: "Reader | None" = None
    general_ids: list[str] = field(default_factory=list)
    """Event ids of its newest general stream."""
    streams: int = 0

    @property
    def resumable_general(self) -> bool:
        return self.general is None and bool(self.general_ids)


@dataclass(eq=False)
class Held:
    """A call that is under way until the server is told to answer."""

    user: str
    mark: str
    request_id: Any
    token: Any
    session: Opened | None
    """None: a request without a session."""
    reader: "Reader | None" = None
    ids: list[str] = field(default_factory=list)
    """Event ids of its stream, as they were received."""
    told: int = 0
    final: str | None = None
    """What its answer is to say, once there is one."""


@dataclass(eq=False)
class Reader:
    """One connection that reads a stream."""

    response: aiohttp.ClientResponse
    allowed: Callable[[Any], bool]
    ids: list[str]
    crossed: list[str]
    messages: list[Any] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def start(self) -> "Reader":
        self.task = asyncio.create_task(self._read())
        return self

    @property
    def over(self) -> bool:
        return self.task is not None and self.task.done()

    async def close(self) -> None:
        self.response.close()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _read(self) -> None:
        try:
            async for event in events(self.response):
                if event.id:
                    self.ids.append(event.id)
                if event.message is not None:
                    self.messages.append(event.message)
                    if not self.allowed(event.message):
                        self.crossed.append(json.dumps(event.message))
        except aiohttp.ClientError as error:
            self.crossed.append(f"a stream was cut: {error!r}")


def answer_of(mark: str) -> str:
    return f"the answer to {mark}"


def says(body: Any) -> str:
    """The text of a result, or of an error."""
    if "error" in body:
        return str(body["error"]["message"])
    return str(body["result"]["content"][0]["text"])


class World:
    """The endpoint, its clients and the server behind it, driven step by step from outside of the loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._exits = AsyncExitStack()
        self.run: Streaming
        self.http: aiohttp.ClientSession
        self.reached: dict[str, Permit] = {}
        self.twice: list[str] = []
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.withdrawn: set[str] = set()
        self.crossed: list[str] = []
        self.marks = 0
        self._audited = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def start(self, decisions: DecisionPoint, offered: tuple[JsonObject, ...]) -> None:
        endpoint = streaming(decisions, offered, self._script, stall_s=STALL_S, lasts_s=None)
        self.run = await self._exits.enter_async_context(endpoint)
        connector = aiohttp.TCPConnector(limit=0)
        self.http = await self._exits.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def stop(self) -> None:
        await self._exits.aclose()

    async def _script(self, permit: Permit) -> str:
        asked: Any = permit.call.arguments["filter"]
        mark = str(asked["mark"])
        if mark in self.reached:
            self.twice.append(mark)
        self.reached[mark] = permit
        if asked["slow"]:
            gate = self.gates[mark] = asyncio.get_running_loop().create_future()
            try:
                await gate
            except asyncio.CancelledError:
                self.withdrawn.add(mark)
                raise
        return answer_of(mark)

    def forget(self) -> None:
        """Begin with the next example; a fault of the one before is not its own."""
        for known in (self.reached, self.twice, self.gates, self.withdrawn, self.crossed):
            known.clear()
        self.evidence()

    def mark(self, user: str) -> str:
        self.marks += 1
        return f"{user}-{self.marks}-"

    # --- what a client sends ------------------------------------------------------------------------------------------

    def find(self, user: str, mark: str, request_id: Any, *, may: bool = True, slow: bool = False, token: Any) -> Any:
        """A call that names the mark, of what the user may read, or of what only the other may."""
        owner = user if may else next(one for one in USERS if one != user)
        database, collection = MAY_READ[owner]
        arguments: JsonObject = {
            "connectionId": "preconfigured",
            "database": database,
            "collection": collection,
            "filter": {"mark": mark, "slow": slow},
        }
        return call(request_id, token, {"name": "find", "arguments": arguments})

    def post(self, user: str, session: str | None, body: Any) -> Any:
        headers = self.run.headers(session, user)
        if session is None:
            body = body | {"params": body["params"] | {"_meta": META | body["params"].get("_meta", {})}}
            headers |= MIRROR
        return self.http.post(self.run.url, json=body, headers=headers)

    async def said(self, user: str, session: str | None, body: Any) -> tuple[int, Any]:
        """Status and the last message of an answer, whether or not it became a stream."""
        async with self.post(user, session, body) as response:
            if response.content_type != "text/event-stream":
                return response.status, await response.json() if response.content_type == "application/json" else None
            found = [event.message async for event in events(response) if event.message is not None]
            return response.status, found[-1] if found else None

    async def run_listen(self, session: Opened, after: str | None) -> aiohttp.ClientResponse:
        more = {} if after is None else {"Last-Event-ID": after}
        return await self.http.get(self.run.url, headers=self.run.headers(session.id, session.user, **more))

    def listening(self, response: aiohttp.ClientResponse, session: Opened) -> Reader:
        """A reader of a general stream: news of no call may come, and nothing else."""

        def news(received: Any) -> bool:
            return bool(received == {"jsonrpc": "2.0", "method": LIST_CHANGED})

        session.general_ids = []
        return Reader(response, news, session.general_ids, self.crossed).start()

    def of_call(self, response: aiohttp.ClientResponse, held: Held) -> Reader:
        """A reader of a call's stream: what is told of it under its own token, then its own answer."""

        def own(received: Any) -> bool:
            if "method" in received:
                said = received["params"]
                fits = (said.get("progressToken"), said.get("message")) == (held.token, held.mark)
                return fits and received["method"] == "notifications/progress" and held.token is not None
            same = received["id"] == held.request_id and type(received["id"]) is type(held.request_id)
            return same and held.final is not None and held.final in says(received)

        return Reader(response, own, held.ids, self.crossed).start()

    # --- what a step waits for ----------------------------------------------------------------------------------------

    async def until(self, true: Callable[[], object], what: str) -> None:
        ends = time.monotonic() + HANG_S
        while not true():
            if time.monotonic() > ends:
                raise AssertionError(f"waited in vain for {what}")
            await asyncio.sleep(0.0005)

    @property
    def left(self) -> dict[str, int]:
        """Everything that the enforcement point keeps of anybody."""
        pep = self.run.pep
        return {
            "streams": len(pep._notices),
            "streams by session": len(pep._notices._of_session),
            "general streams": len(pep._notices._general),
            "unread": len(pep._notices._unread),
            "levels": len(pep._notices._levels),
            "flights": len(pep._calls._in_flight),
            "identities with calls": len(+pep._calls._under_way._calls),
            "calls whose answers are streams": len(pep._answering._under_way),
            "sessions": len(pep._sessions),
            "sessions in a call": len(+pep._sessions._calls),
            "sessions in a stream": len(+pep._sessions._streams),
        }

    def evidence(self) -> list[dict[str, Any]]:
        """The records since this was asked before."""
        path: Path = self.run.audit
        with path.open("rb") as file:
            file.seek(self._audited)
            lines = file.read()
        self._audited += len(lines)
        return [json.loads(line) for line in lines.splitlines()]  # noqa: TID251 - our own file


__all__ = ["STALL_S", "USERS", "Held", "Opened", "Reader", "World", "answer_of", "message", "says"]
