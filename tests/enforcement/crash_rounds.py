"""Kills a sidecar's enforcement at random points under load, again and again on one audit file, and says what it left.

Run by ``test_audit_crashes``: ``crash_rounds.py FILE ROUNDS SEED SYNC``. Each round is a forked process with the real
enforcement sequence, audit store and rotation. What it forwards and what it replies it writes to a pipe, which outlives
it. The answers of policy and of the MCP server are canned: this is about the order of record and effect.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from sidecar.commands.catalog import CATALOG
from sidecar.enforcement import Answer, Caller, EnforcementPoint, EnforcementRules, Exchange, Ports
from sidecar.mcp import methods
from sidecar.mcp.session import Sessions
from sidecar.model import Actor, Credential, Identity, JsonObject, Permit, Principal, UpstreamResult
from sidecar.ports import AuditSink, PdpAnswer, Question
from sidecar.store.audit_proof import verify_chain
from sidecar.store.audit_segments import segments
from sidecar.store.file import AuditSync, FileAuditSink, Rotation
from sidecar.system.clock import SystemClock
from sidecar.system.identifiers import RandomIdentifiers
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer

AT_ONCE = 8
ALICE = Identity(
    principal=Principal(issuer="https://idp.example", subject="alice"),
    actor=Actor(id="a"),
    expires_at=time.time() + 1e6,
)
ALLOW: JsonObject = {
    "v": 1, "allow": True, "reasons": [], "server": "demo-ro", "approval": None, "revision": "r1",
    "accesses": [
        {"owner": "sales", "grants": ["g"], "filter": None, "mask": [], "max_documents": None, "max_time_ms": None}
    ],
}  # fmt: skip
FIND = {
    "name": "find",
    "arguments": {
        "connectionId": "preconfigured",
        "database": "sales",
        "collection": "orders",
        "filter": {},
        "limit": 1,
    },
}
FILES = Rotation(max_bytes=30_000)


class Allows:
    """Policy that allows everything."""

    async def ask(self, _question: Question, _document: JsonObject) -> PdpAnswer:
        return PdpAnswer(result=ALLOW, revision="r1")


class Knows:
    """A verifier that knows everybody."""

    async def verify(self, _credential: Credential) -> Identity:
        return ALICE


class Server:
    """An MCP server that writes down what reached it, where a crash does not lose it."""

    healthy = True

    def __init__(self, pipe: int, offered: tuple[JsonObject, ...]) -> None:
        self._pipe = pipe
        self._offered = offered

    async def forward(self, permit: Permit) -> UpstreamResult:
        os.write(self._pipe, f"F {permit.request_id}\n".encode())
        await asyncio.sleep(random.random() / 500)  # noqa: S311 - no secret
        return UpstreamResult(result=b'{"content":[]}', failed=False, documents=1)

    async def tools(self) -> tuple[JsonObject, ...]:
        return self._offered

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()


async def load(path: Path, pipe: int, sync: AuditSync, offered: tuple[JsonObject, ...]) -> None:
    """Call without end, with the evidence in a file."""
    await call_without_end(FileAuditSink(path, sync=sync, rotation=FILES), pipe, offered)


async def call_without_end(
    audit: AuditSink, pipe: int, offered: tuple[JsonObject, ...], refused: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Call, and write to the pipe what came of each call.

    Args:
        audit: where the evidence goes.
        pipe: what is told of.
        offered: the server's tools.
        refused: is awaited after each call that was refused.
    """
    server, clock = Server(pipe, offered), SystemClock()
    ports = Ports(
        verifier=Knows(),
        decisions=Allows(),
        audit=audit,
        upstreams={"demo-ro": server},
        clock=clock,
        identifiers=RandomIdentifiers(),
        tracer=OtelTracer(None),
        metrics=OtelMetrics(methods=methods.KNOWN, tools=CATALOG.keys(), servers=["demo-ro"]),
    )
    pep = EnforcementPoint(ports, EnforcementRules(environment="test", server_version="0"), Sessions(100, 100, 3600))
    caller = Caller(identity=ALICE, began_ns=1, ended_ns=2)
    info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}).encode()
    reply = await pep.enforce(hello, Exchange(transport="http", client_ip="127.0.0.1"), caller)
    assert isinstance(reply, Answer)
    numbers = itertools.count(2)

    async def one() -> None:
        exchange = Exchange(transport="http", client_ip="127.0.0.1", session_id=reply.session_id)
        while True:
            call = {"jsonrpc": "2.0", "id": next(numbers), "method": "tools/call", "params": FIND}
            answer = await pep.enforce(json.dumps(call).encode(), exchange, caller)
            text = getattr(answer, "body", b"")
            good = b'"result"' in text and b'isError":true' not in text
            os.write(pipe, b"R ok\n" if good else b"X " + text[:300] + b"\n")
            if refused is not None and not good:
                await refused()

    os.write(pipe, b"S\n")
    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


def one_round(path: Path, sync: AuditSync, offered: tuple[JsonObject, ...], after: int, rest_s: float) -> list[str]:
    """Let a process work until it has forwarded ``after`` calls and a little more, kill it, and return what it told."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            asyncio.run(load(path, write, sync, offered))
        finally:
            os._exit(1)
    os.close(write)
    told = b""
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while told.count(b"F ") < after and (more := pipe.read(4096)):
            told += more
        time.sleep(rest_s)
        os.kill(child, signal.SIGKILL)
        while more := pipe.read(65536):
            told += more
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), told[-400:]
    return told.decode().splitlines()


def main() -> None:
    """Play the rounds; print what was seen, as JSON."""
    path, rounds, seed, sync = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), AuditSync(sys.argv[4])
    offered: tuple[JsonObject, ...] = tuple(msgspec.json.decode(sys.stdin.buffer.read()))
    chance = random.Random(seed)  # noqa: S311 - a seed reproduces a run
    forwarded: set[str] = set()
    replies, torn = 0, 0
    for _ in range(rounds):
        told = one_round(path, sync, offered, chance.randint(0, 12), chance.random() / 50)
        assert not [line for line in told if line.startswith("X")], told
        forwarded |= {line[2:] for line in told if line.startswith("F ") and len(line) > 10}
        replies += told.count("R ok")
        last = segments(path)[-1].read_bytes() if segments(path) else b""
        torn += bool(last) and not last.endswith(b"\n")
    last_sink = FileAuditSink(path)  # the next start; puts aside what was torn
    reached, _ = last_sink.head
    asyncio.run(last_sink.close())
    report = verify_chain(path)
    records = [msgspec.json.decode(line) for each in segments(path) for line in each.read_bytes().splitlines()]
    intents = {row["request_id"] for row in records if row["event"] == "intent"}
    outcomes = {row["request_id"] for row in records if row["event"] == "outcome"}
    print(  # noqa: T201 - read by the test
        json.dumps(
            {
                "findings": [finding.what for finding in report.findings],
                "records": report.records,
                "head": reached,
                "files": len(report.files),
                "forwarded": len(forwarded),
                "forwarded without intent": len(forwarded - intents),
                "replies": replies,
                "outcomes": len(outcomes),
                "unfinished": len(report.unfinished),
                "torn": torn,
            }
        )
    )


if __name__ == "__main__":
    main()
