"""One run of the enforcement loop: who is in it, and what they do, all of it drawn from one seed.

The product's are the enforcement point, its approvals and their desk, the kill switch, the audit file with its group
commit, the files of approvals and suspensions, the memo of answers and the child process's side of the pipes. Simulated
are time, threads, the disk, OPA with its policies, the server, and the people.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

from sidecar.audit import record
from sidecar.enforcement import (
    Answer,
    Caller,
    EnforcementPoint,
    EnforcementRules,
    Exchange,
    KillSwitch,
    OperatorCommandFailed,
    Ports,
    Refused,
    Stream,
    Suspensions,
)
from sidecar.mcp.mirrored import MirroredHeaders
from sidecar.mcp.session import Sessions
from sidecar.model import Actor, AuthScheme, Credential, Identity, JsonObject, Principal, UnverifiedToken
from sidecar.store import AuditSync, FileApprovals, FileAuditSink, FileSuspensions
from sidecar.telemetry.tracing import OtelTracer
from tests.simulation.history import NEVER, Approved, Asked, History, Listed, Suspended, violations
from tests.simulation.simulated_disk import SimulatedDisk, mounted
from tests.simulation.simulated_loop import SimulatedLoop
from tests.simulation.simulated_policy import CLOSED, GUARDED, OPEN, SERVER, SimulatedOpa
from tests.simulation.simulated_server import SimulatedServer, traceparent_of

ISSUER = "https://idp.example"
EPOCH_S = 1_900_000_000
RESTARTS = 0.25
"""How many runs that came to their end are started again from what a loss of power leaves, of one."""
LONGEST_S = 60.0
"""Within which everything of a run has come to its end."""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
}


class _Silent:
    """Metrics that nobody reads."""

    def __getattr__(self, _: str) -> Any:
        return self._nothing

    def _nothing(self, *_: object, **_named: object) -> None:
        return None


class _SimulatedClock:
    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def time_ns(self) -> int:
        return EPOCH_S * 10**9 + round(self._loop.time() * 1e9)

    def monotonic(self) -> float:
        return self._loop.time()


class _Numbered:
    """Identifiers in their order."""

    def __init__(self) -> None:
        self._last = 0

    def request_id(self) -> str:
        self._last += 1
        return f"{self._last:032x}"

    def session_id(self) -> str:
        return f"session-{self.request_id()}"


def identity(user: str) -> Identity:
    principal = Principal(issuer=ISSUER, subject=user, groups=("analysts",), scopes=("mongodb:read",))
    return Identity(principal=principal, actor=Actor(id="desk"), expires_at=EPOCH_S + 10_000)


class World:
    """The sidecar of one run, and everybody around it."""

    def __init__(self, loop: SimulatedLoop, folder: Path, offered: tuple[JsonObject, ...]) -> None:
        self.loop, self.random = loop, loop.random
        self.history = History()
        self.folder = folder
        self.disk = SimulatedDisk(self.random, folder / "audit")
        self.sync = AuditSync.GROUP
        self.opa = SimulatedOpa(loop)
        self.server = SimulatedServer(loop, offered, lambda: self.disk.durable)
        self.clock, self.identifiers = _SimulatedClock(loop), _Numbered()
        self.suspensions = Suspensions(self.clock)
        self.approvals = FileApprovals(folder / "approvals", self.clock, flush=self.disk.flush)
        self.kept = FileSuspensions(folder / "suspensions", flush=self.disk.flush)
        self.rules = EnforcementRules(
            environment="test",
            server_version="0",
            stall_s=self.random.choice((0.002, 0.05, 30.0)),
        )
        self._calls = 0

    async def run(self) -> None:
        """Play the run to its end, or until the power is lost."""
        self.sink = FileAuditSink(self.disk.audit, sync=self.sync, flush=self.disk.flush)
        self.disk.durable = 0
        await self.approvals.load()
        await self.kept.load()
        ports = Ports(
            verifier=self,
            decisions=self.opa,
            audit=self.sink,
            upstreams={SERVER: self.server},
            clock=self.clock,
            identifiers=self.identifiers,
            tracer=OtelTracer(None),
            metrics=cast("Any", _Silent()),
            suspensions=self.suspensions,
            approvals=self.approvals,
        )
        self.pep = EnforcementPoint(ports, self.rules, Sessions(100, 100, 3600))
        self.switch = KillSwitch(
            self.pep,
            self.suspensions,
            self.kept,
            self.sink,
            self.clock,
            self.identifiers,
            issuers=[ISSUER],
            forget=self.opa.forget,
        )
        self.disk.fails = self.random.choice((0.0, 0.0, 0.02, 0.2))
        self.opa.fails = self.random.choice((0.0, 0.0, 0.1, 0.5))
        self.server.odd = self.random.choice((0.0, 0.3, 1.0))
        everybody: list[Coroutine[Any, Any, None]] = [self._client(user) for user in ("alice", "bob")]
        everybody += [self._approver(), self._operator(), self._reloader()]
        await self.all_of(everybody)
        await self.pep.stop()
        await self.server.stop()

    async def verify(self, credential: Credential) -> Identity:
        """A token is the name of its user (``sidecar.ports.TokenVerifier``)."""
        await self.loop.passes()
        return identity(str(credential.token))

    async def all_of(self, work: list[Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)

    # --- who calls ----------------------------------------------------------------------------------------------------

    async def _client(self, user: str) -> None:
        session = await self._open(user)
        for _ in range(self.random.randint(1, 2)):
            await self._pause()
            kind = self.random.random()
            if kind < 0.15:
                await self._list(user, session)
            elif kind < 0.4:
                await self._guarded(user, session)
            else:
                tool, collection = self.random.choice((("find", OPEN), ("delete-many", OPEN), ("find", CLOSED)))
                together = self.random.choice((1, 1, 2))
                await self.all_of([self._call(user, session, tool, collection) for _ in range(together)])

    async def _guarded(self, user: str, session: str | None) -> None:
        """Ask for what waits for a second person, wait, and call again, also twice at the same time."""
        mark = f"mark {self._calls}"
        await self._call(user, session, "delete-many", GUARDED, mark)
        for _ in range(self.random.randint(1, 2)):
            await asyncio.sleep(self.random.choice((0.02, 0.05, 0.08)))
            await self.all_of([self._call(user, session, "delete-many", GUARDED, mark) for _ in range(2)])

    async def _open(self, user: str) -> str | None:
        """Open a session, or do without."""
        if self.random.random() < 0.3:
            return None
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        reply = await self._send(user, None, _message("initialize", info, 0))
        return reply.session_id if isinstance(reply, Answer) else None

    async def _call(self, user: str, session: str | None, tool: str, collection: str, mark: str = "") -> None:
        self._calls += 1
        number = self._calls
        asked = Asked(user=user, tool=tool, collection=collection, began=self.loop.time())
        self.history.calls[number] = asked
        arguments = {"connectionId": "preconfigured", "database": "sales", "collection": collection}
        meta = {"traceparent": traceparent_of(number)}
        params = {"name": tool, "arguments": {**arguments, "filter": {"mark": mark}}, "_meta": meta}
        gone: asyncio.Future[None] = self.loop.create_future()
        work = asyncio.create_task(self._answered(user, session, _message("tools/call", params, number), gone))
        work.add_done_callback(partial(self._ends, asked))  # a client that withdraws it meanwhile comes back later
        if self.random.random() < 0.15:
            await asyncio.sleep(self.loop.delay())
            await self._leaves(user, session, number, gone, work)
        with contextlib.suppress(asyncio.CancelledError):
            asked.answer, asked.allowed = await work

    def _ends(self, asked: Asked, _: object) -> None:
        asked.ended = self.loop.time()

    async def _leaves(
        self, user: str, session: str | None, number: int, gone: asyncio.Future[None], work: asyncio.Task[Any]
    ) -> None:
        if self.random.random() < 0.3:
            work.cancel()
        elif session is None:
            if not gone.done():
                gone.set_result(None)
        else:
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            await self._send(user, session, cancelled)

    async def _answered(self, user: str, session: str | None, message: Any, gone: Any) -> tuple[str, bool]:
        """Send a call, read its answer to the end; return its text, and whether it is a result."""
        reply = await self._send(user, session, message, gone)
        if isinstance(reply, Stream):
            text = ""
            async for event in reply.events:
                if event.message:
                    text = event.message.decode()
            return _said(text)
        return _said(reply.body.decode()) if isinstance(reply, Answer | Refused) else ("", False)

    async def _list(self, user: str, session: str | None) -> None:
        began = self.loop.time()
        reply = await self._send(user, session, _message("tools/list", {}, 1))
        if isinstance(reply, Answer) and "result" in (body := json.loads(reply.body)):  # noqa: TID251 - our own reply
            tools = frozenset(tool["name"] for tool in body["result"]["tools"])
            self.history.lists.append(Listed(user=user, began=began, ended=self.loop.time(), tools=tools))

    async def _send(self, user: str, session: str | None, message: Any, gone: Any = None) -> Any:
        exchange = Exchange(transport="http", client_ip="127.0.0.1", session_id=session)
        method = message["method"]
        if session is None and method != "initialize":
            meta = {**META, **message["params"].get("_meta", {})}
            message = {**message, "params": {**message["params"], "_meta": meta}}
            mirrored = MirroredHeaders(method=method, name=message["params"].get("name"), parameters=())
            exchange = Exchange(transport="http", client_ip="127.0.0.1", protocol="2026-07-28", mirrored=mirrored)
        caller = await self._caller(user, exchange)
        if isinstance(caller, Refused):
            return caller
        return await self.pep.enforce(json.dumps(message).encode(), exchange, caller, gone)

    async def _caller(self, user: str, exchange: Exchange) -> Caller | Refused:
        credential = Credential(
            scheme=AuthScheme.BEARER, token=UnverifiedToken(user), method="POST", uri="http://127.0.0.1/mcp"
        )
        return await self.pep.authenticate(credential, exchange)

    # --- who else is there --------------------------------------------------------------------------------------------

    async def _approver(self) -> None:
        desk = self.pep.approvals
        if desk is None:
            return
        exchange = Exchange(transport="http", client_ip="127.0.0.1")
        for _ in range(3):
            await asyncio.sleep(self.random.choice((0.02, 0.04, 0.06)))
            caller = await self._caller("hanna", exchange)
            listed = caller if isinstance(caller, Refused) else await desk.listed(exchange, caller)
            if isinstance(caller, Refused) or not isinstance(listed, Answer):
                continue
            for one in json.loads(listed.body)["approvals"]:  # noqa: TID251 - our own reply
                if self.random.random() < 0.8:
                    given = Approved(since=self.loop.time(), revision=one["revision"])
                    self.history.approved.setdefault(one["id"], given)
                    await desk.decided(one["id"], {"decision": "approve"}, exchange, caller)

    async def _operator(self) -> None:
        for _ in range(self.random.choice((0, 1, 2))):
            await asyncio.sleep(self.random.uniform(0.0, 0.12))
            user = self.random.choice(("alice", "bob", "hanna"))
            target: JsonObject = {"kind": "user", "subject": user, "reason": "r"}
            with contextlib.suppress(OperatorCommandFailed):
                await self.switch.suspend(target, "operator")
                suspended = Suspended(user=user, since=self.loop.time())
                self.history.suspensions.append(suspended)
                if self.random.random() < 0.5:
                    await asyncio.sleep(self.random.uniform(0.0, 0.05))
                    await self._resume(suspended, target)

    async def _resume(self, suspended: Suspended, target: JsonObject) -> None:
        suspended.until = self.loop.time()
        try:
            await self.switch.resume(target, "operator")
        except OperatorCommandFailed:
            suspended.until = NEVER

    async def _reloader(self) -> None:
        for _ in range(self.random.choice((0, 1, 3))):
            await asyncio.sleep(self.random.uniform(0.0, 0.08))
            match self.random.random():
                case share if share < 0.6:
                    self.opa.serve()
                    self.pep.policies_changed()
                case share if share < 0.8:
                    self.opa.start()
                case _:
                    self.server.dies()

    async def _pause(self) -> None:
        await asyncio.sleep(self.random.choice((0.0, 0.001, 0.005, 0.02)))


def _message(method: str, params: Any, number: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _said(text: str) -> tuple[str, bool]:
    if not text:
        return "", False
    body = json.loads(text)  # noqa: TID251 - our own reply
    if "result" not in body:
        return str(body["error"]["message"]), False
    result = body["result"]
    return str(result["content"][0]["text"]), not result.get("isError", False)


@dataclass(frozen=True, kw_only=True)
class Played:
    """One run, and what it went against."""

    history: History
    against: list[str]


def play(
    seed: int, offered: tuple[JsonObject, ...], folder: Path, plant: Callable[[World], None] = lambda _: None
) -> Played:
    """Play the run of a seed, with a fault where one is planted."""
    random = Random(seed)  # noqa: S311 - a schedule, no secret
    loop = SimulatedLoop(random)
    try:
        world = World(loop, folder, offered)
        plant(world)
        ends = random.uniform(0.0, 0.2) if random.random() < 0.2 else None
        with mounted(world.disk):
            history = loop.run_until_complete(_played(world, ends))
    finally:
        loop.close()
    return Played(history=history, against=violations(history))


async def _played(world: World, ends: float | None) -> History:
    """Play a run to its end, or until the power is lost, and return what had happened by then."""
    main = asyncio.create_task(world.run())
    await asyncio.wait({main}, timeout=LONGEST_S if ends is None else ends)
    history = _until_now(world, whole=main.done() or ends is None)
    if not main.done():
        history.faults += [] if ends is not None else ["the run has no end"]
    elif (error := main.exception()) is not None:
        history.faults.append(repr(error))
    restarts = not history.whole or world.random.random() < RESTARTS
    history.left = await _after_a_restart(world) if restarts else _whole_lines(history.audit)
    world.server.dies()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1.0)  # evidence and files are waited for in spite of it
    await world.sink.close()
    world.approvals.close()
    world.kept.close()
    return history


def _until_now(world: World, *, whole: bool) -> History:
    known = world.history
    return replace(
        known,
        calls={number: replace(asked) for number, asked in known.calls.items()},
        lists=[*known.lists],
        suspensions=[replace(one) for one in known.suspensions],
        approved=dict(known.approved),
        faults=[*world.loop.faults],
        effects=[*world.server.effects],
        served=dict(world.opa.served),
        audit=world.disk.audit.read_bytes(),
        whole=whole,
    )


def _whole_lines(audit: bytes) -> bytes:
    """Return the file without a torn end, which only the next record or start would cut off."""
    return audit[: audit.rfind(b"\n") + 1]


async def _after_a_restart(world: World) -> bytes:
    """Lose the power, start again, and return the chain as it goes on."""
    world.disk.fails = 0.0
    path = world.folder / "restarted"
    path.write_bytes(world.disk.after_a_loss_of_power())
    path.chmod(0o600)
    sink = FileAuditSink(path, sync=AuditSync.OS, flush=lambda _: None)
    began = world.clock.time_ns()
    await sink.append(record.control("a", {}, operator="o", record_id="r", request_id="r", time_ns=began))
    await sink.close()
    return path.read_bytes()
