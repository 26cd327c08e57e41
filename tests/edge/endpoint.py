"""The real endpoint on loopback, and a client that writes exact bytes.

The application, its server, the enforcement point, the sessions and the JWT verifier are the product's own. Policy and
MongoDB are not needed for what the edge decides: the decision point here is one that is down, and there is no upstream.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.edge.http import EdgeConfig, build_application
from sidecar.edge.origins import default_hosts, default_origins
from sidecar.edge.server import ServerLimits, serve
from sidecar.enforcement import EnforcementPoint, EnforcementRules, Ports
from sidecar.errors import DecisionUnavailable
from sidecar.identity.resource import ResourceUri
from sidecar.mcp.session import Sessions
from sidecar.model import JsonObject
from sidecar.oauth import Binding, Nonces, TrustedIssuer
from sidecar.oauth.key_sets import FileKeySet
from sidecar.oauth.verifier import JwtVerifier
from sidecar.ports import AttributeValue, AuditReceipt, Metrics, PdpAnswer, Question, Tracer
from tests.patience import HANG_S

ISSUER = "https://idp.corp.example"
RESOURCE = "http://mcp.corp.example/mcp"
RESOURCE_URI = ResourceUri.parse(RESOURCE)
KEY = ec.generate_private_key(ec.SECP256R1())
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


class WallClock:
    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class Counter:
    def __init__(self) -> None:
        self.last = 0

    def request_id(self) -> str:
        self.last += 1
        return f"r{self.last}"

    def session_id(self) -> str:
        self.last += 1
        return f"s{self.last}"


class Ledger:
    """Keeps audit records in memory."""

    def __init__(self) -> None:
        self.records: list[JsonObject] = []

    async def append(self, record: JsonObject) -> AuditReceipt:
        self.records.append(record)
        return AuditReceipt(id=str(record.get("id")), seq=len(self.records), hash="")


class Down:
    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        raise DecisionUnavailable("no PDP in this test")


class Silence:
    """Tracer, span and metrics that record nothing."""

    trace_id = "0" * 32
    span_id = "0" * 16
    traceparent = f"00-{'0' * 32}-{'0' * 16}-00"

    @contextmanager
    def server(self, name: str, **_: Any) -> Iterator["Silence"]:
        yield self

    @contextmanager
    def step(self, name: str, *, client: bool = False) -> Iterator["Silence"]:
        yield self

    def past(self, name: str, *, start_ns: int, end_ns: int) -> None: ...

    def set(self, attributes: dict[str, AttributeValue]) -> None: ...

    def rename(self, name: str) -> None: ...

    def fail(self, error_type: str, description: str = "") -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_named: None


def token(subject: str = "alice", **claims: Any) -> str:
    now = int(time.time())
    payload = {
        "iss": ISSUER,
        "sub": subject,
        "aud": RESOURCE,
        "exp": now + 86_400,  # some are made when a module is imported, long before they are sent
        "iat": now,
        "client_id": "raw-client",
    }
    return jwt.encode(payload | claims, KEY, algorithm="ES256", headers={"typ": "at+jwt", "kid": "k"})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)  # noqa: TID251 - our own answer


@dataclass
class Endpoint:
    port: int
    pep: EnforcementPoint
    sessions: Sessions
    ledger: Ledger
    runner: web.AppRunner
    tls: ssl.SSLContext | None = None
    """How a client dials; None: in the clear."""

    @property
    def refusals(self) -> list[Any]:
        """What was refused, as evidence has it."""
        return [record.get("outcome") for record in self.ledger.records if record["event"] == "refusal"]

    async def raw(self, *pieces: bytes, pause: float = 0.0) -> list[Answer]:
        """Send exact bytes on one connection, and return every answer until the server closes it."""
        host = None if self.tls is None else "localhost"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=host)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            async with asyncio.timeout(HANG_S):
                received = await reader.read()
        except ConnectionError:
            received = b""
        finally:
            writer.close()
        return list(answers(received))

    async def ask(self, method: str = "POST", target: str = "/mcp", body: bytes = b"", **changes: str | None) -> Answer:
        """Send one well-formed request; a keyword is a header (``_`` for ``-``), None leaves a default out."""
        [answer] = await self.raw(request(method, target, body, **changes))
        return answer

    async def open_session(self) -> str:
        answer = await self.ask(body=encoded(INITIALIZE))
        assert answer.status == 200, answer
        return answer.headers["mcp-session-id"]


def encoded(message: object) -> bytes:
    return json.dumps(message).encode()


def head(method: str, target: str, **changes: str | None) -> bytes:
    """A request's head without framing; the connection closes after the answer."""
    defaults: dict[str, str | None] = {
        "Host": "mcp.corp.example",
        "Authorization": f"Bearer {token()}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Connection": "close",
    }
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in (defaults | named).items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, ""]).encode("latin-1")


def request(method: str, target: str, body: bytes = b"", **changes: str | None) -> bytes:
    framing = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    return head(method, target, **changes) + framing + b"\r\n" + body


def answers(received: bytes) -> Iterator[Answer]:
    """Split what a server sent into its answers."""
    while received:
        top, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        chunked = headers.get("transfer-encoding") == "chunked"
        yield Answer(int(status.split()[1]), headers, rest if chunked else rest[:length])
        received = b"" if chunked else rest[length:]


def config(**changes: Any) -> EdgeConfig:
    fields: dict[str, Any] = {
        "resource_uri": RESOURCE_URI,
        "authorization_servers": (ISSUER,),
        "scopes": ("mongodb:read",),
        "allowed_hosts": default_hosts(RESOURCE_URI, "127.0.0.1"),
        "allowed_origins": default_origins(RESOURCE_URI, "127.0.0.1"),
    }
    return EdgeConfig(**(fields | changes))


@asynccontextmanager
async def running(
    tmp_path: Path,
    limits: ServerLimits | None = None,
    *,
    max_sessions: int = 100,
    point: type[EnforcementPoint] = EnforcementPoint,
    dpop: Binding = Binding.OFF,
    mtls: Binding = Binding.OFF,
    nonces: Nonces | None = None,
    tls: ssl.SSLContext | None = None,
    verifier: JwtVerifier | None = None,
    tracer: Tracer | None = None,
    metrics: Metrics | None = None,
    **changes: Any,
) -> AsyncIterator[Endpoint]:
    """The endpoint, for as long as the block lasts; ``point`` stages a fault of what is behind it."""
    keys = tmp_path / "jwks.json"
    member = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    keys.write_bytes(encoded({"keys": [{**member, "kid": "k"}]}))
    clock, ledger, silence = WallClock(), Ledger(), Silence()
    issuer = TrustedIssuer(
        issuer=ISSUER,
        audiences=frozenset({RESOURCE}),
        keys=FileKeySet(keys, clock),
        dpop=dpop,
        dpop_nonce=nonces is not None,
        mtls=mtls,
    )
    if nonces is not None:
        changes["nonce"] = nonces.current
    ports: Any = Ports(
        verifier=verifier or JwtVerifier([issuer], clock, nonces=nonces),
        decisions=Down(),
        audit=ledger,
        upstreams={},
        clock=clock,
        identifiers=Counter(),
        tracer=tracer or silence,  # type: ignore[arg-type]
        metrics=metrics or silence,
    )
    sessions = Sessions(max_sessions, max_sessions, 3600)
    pep = point(ports, EnforcementRules(environment="test", server_version="0"), sessions)
    fast = ServerLimits(shutdown_s=1.0, lingering_s=0.2)
    runner = await serve(
        build_application(pep, config(**changes)), ("127.0.0.1", 0), limits=limits or fast, ssl_context=tls
    )
    try:
        yield Endpoint(runner.addresses[0][1], pep, sessions, ledger, runner)
    finally:
        await runner.cleanup()
