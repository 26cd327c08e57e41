"""A caller that sends exact bytes, and reads what became of them at the server rather than in the reply."""

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from sidecar.demo.identities import Person
from tests.integration.deployment import Deployment
from tests.patience import HANG_S

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
STAGING = {**ORDERS, "database": "staging"}
SALARIES = {**ORDERS, "database": "hr", "collection": "salaries"}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)  # noqa: TID251 - the product's own answer

    @property
    def code(self) -> str:
        """The first reason of a refused tool call, or empty."""
        meta = self.json.get("result", {}).get("_meta", {})
        return str(meta["mcp-sidecar/decision"]["reasons"][0]["code"]) if meta else ""


@dataclass(frozen=True, slots=True)
class Attacker:
    deployment: Deployment

    def send(
        self,
        who: Person | str | None,
        body: object = None,
        *,
        method: str = "POST",
        session: str | None = None,
        **headers: str,
    ) -> Reply:
        """One HTTP request; ``who`` is a person, a token as it stands, or nobody; a keyword is a header."""
        sent = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if who is not None:
            sent["Authorization"] = f"Bearer {who if isinstance(who, str) else self.deployment.token(who)}"
        if session is not None:
            sent["Mcp-Session-Id"] = session
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.deployment.port, timeout=HANG_S)
        try:
            connection.request(method, "/mcp", body=raw, headers=sent)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, *, then: bytes = b"", silence_s: float = 0.5) -> bytes:
        """Everything that comes back until the connection closes or falls silent; ``then`` goes after the first."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.deployment.port), timeout=silence_s) as connection:
            connection.sendall(data)
            try:
                if then:
                    received = connection.recv(65536)
                    connection.sendall(then)
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                pass
        return received

    def open(self, who: Person, revision: str = "2025-11-25") -> str:
        client = {"name": "attacker", "version": "1"}
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": client}
        return self.send(who, rpc("initialize", params)).headers["mcp-session-id"]

    def call(self, who: Person, session: str, tool: str, arguments: object, request_id: object = 1) -> Reply:
        return self.send(who, rpc("tools/call", {"name": tool, "arguments": arguments}, request_id), session=session)

    def reached(self) -> int:
        """How many calls the MCP servers have seen."""
        return len(self.deployment.all_reached())


def rpc(method: str, params: object, request_id: object = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def head(line: str, *headers: str, token: str | None = None, host: str = "127.0.0.1") -> bytes:
    """The head of one request, with the usual headers before the given ones."""
    usual = [f"Host: {host}", *(f"{name}: {value}" for name, value in HEADERS.items())]
    if token is not None:
        usual.append(f"Authorization: Bearer {token}")
    return "\r\n".join([line, *usual, *headers, "", ""]).encode("latin-1")
