"""A whole deployment of real parts, as an operator would run it: ``mcp-sidecar serve`` with a settings file."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import httpx2
import psutil
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from pymongo import MongoClient

from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST, LOADER, STRANGER, Person
from tests import parts
from tests.hours import policies_on
from tests.integration.canaries import leaks
from tests.patience import HANG_S
from tests.signer import ISSUER, Signer

START_DEADLINE_S = HANG_S
PIPE = Path(__file__).with_name("recording_pipe.py")

HR_ADMIN = Person(user="hanna", agent="claude-desktop", groups=("hr-admins",), scopes=("mongodb:read",))
EVERYBODY = (ANALYST, LOADER, STRANGER, HR_ADMIN)


@dataclass(slots=True, kw_only=True)
class Deployment:
    """A running sidecar and everything behind it."""

    folder: Path
    uri: str
    port: int
    admin_port: int
    issuer: Signer
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    servers: tuple[str, ...] = ("demo-ro", "demo-rw")
    """The MCP servers behind it; one is enough for those who only read, and starts in half the CPU time."""
    tokens: list[str] = field(default_factory=list)
    """Those that its callers were given."""
    launcher: tuple[str, ...] = ()
    """What the sidecar's own command line is given to, such as a shell that sets limits first."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def audit_file(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def log_file(self) -> Path:
        return self.folder / "sidecar.log"

    def token(self, person: Person, **changes: Any) -> str:
        self.tokens.append(self.issuer.token(person, now=int(time.time()), **{"audience": self.url, **changes}))
        return self.tokens[-1]

    def records(self) -> list[dict[str, Any]]:
        """Everything in the audit file."""
        return [json.loads(line) for line in self.audit_file.read_bytes().splitlines()]  # noqa: TID251 - our own file

    def reached(self, server: str) -> list[dict[str, Any]]:
        """The tools/call messages that reached an MCP server, in order."""
        lines = (self.folder / f"{server}.stdin").read_bytes().splitlines()
        messages = [json.loads(line) for line in lines]  # noqa: TID251 - what we sent ourselves
        return [message["params"] for message in messages if message.get("method") == "tools/call"]

    def all_reached(self) -> list[dict[str, Any]]:
        return [one for server in self.servers for one in self.reached(server)]

    def database(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(self.uri)

    def admin(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=HANG_S) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        try:
            return self.admin("/readyz")[0] == 200
        except (URLError, OSError):
            return False

    def children(self, name: str) -> list[psutil.Process]:
        """The sidecar's own descendants whose command line names a program; one that has just ended is none."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(part.endswith(name) for part in child.cmdline()[:3]):
                    found.append(child)
        return found

    @asynccontextmanager
    async def client(self, person: Person):
        """The official Python MCP client as this person's agent."""
        headers = {"Authorization": f"Bearer {self.token(person)}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=HANG_S) as http,
            Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            yield client

    def plain(self, person: Person | None) -> DemoClient:
        """A client that sends exactly what it is told to."""
        return DemoClient(self.url, self.token(person) if person else None, "test")

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, "-m", "sidecar", "serve"],
                cwd=parts.ROOT,
                env={"PATH": search_path(), "SIDECAR_CONFIG": str(self.folder / "sidecar.toml"), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self.ready, f"the sidecar to be ready; its log:\n{self.log_file}", self.process)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with suppress(URLError, OSError, HTTPException):
                (self.folder / "metrics").write_text(self.admin("/metrics")[1])
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(HANG_S)


@contextmanager
def deployed(
    folder: Path,
    uri: str,
    *,
    extra: str = "",
    of_issuer: str = "",
    environment: dict[str, str] | None = None,
    record: bool = True,
    server: Sequence[str] = (),
    urls: Mapping[str, str] | None = None,
    of_servers: str = "",
    policies: Path | None = None,
    launcher: tuple[str, ...] = (),
    port: int | None = None,
    issuers: str | None = None,
    servers: str = "",
    spans: Iterable[bytes] | None = None,
) -> Iterator[Deployment]:
    """Write the settings, start the sidecar, and take it down again; ``server`` wraps the MCP server's command.

    ``urls`` says which servers are reached by HTTP instead.

    ``extra``, ``of_issuer`` and ``of_servers`` are further settings as TOML: at the top, of the issuer, of each server.
    The policies are the shipped ones, with a loader that inserts on every day, unless others are named. ``issuers`` are
    settings instead of those of the issuer that signs ``Deployment.token``, and ``servers`` instead of both servers.
    At the end no output may have a canary (``canaries``), nor may ``spans``: what a receiver got, read at the end.
    Where spans are exported there has to be one.
    """
    exported = any(name.startswith("OTEL_EXPORTER_OTLP") for name in environment or {})
    assert exported == (spans is not None), "spans are searched wherever they are exported: name what the receiver got"
    deployment = Deployment(
        folder=folder,
        uri=uri,
        port=port or parts.free_port(),
        admin_port=parts.free_port(),
        issuer=Signer(),
        environment=environment or {},
        launcher=launcher,
    )
    deployment.issuer.write_keys(folder / "jwks.json")
    (folder / "mongodb").write_text(uri)
    servers = servers or _servers(deployment, of_servers, record=record, wrapper=server, urls=urls or {})
    trusted = _signer(folder, of_issuer) if issuers is None else issuers
    (folder / "sidecar.toml").write_text(
        _settings(deployment, f"{extra}\n{trusted}", servers, policies or policies_on(folder))
    )
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
    leaked = leaks(folder, deployment.tokens, uri, deployment.environment, spans or ())
    assert leaked == [], "an output of this deployment has what no output may have"


def wait_until(true: Any, what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for a condition; a process that ends meanwhile ends the waiting."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not true():
        if process is not None and process.poll() is not None:
            msg = f"the process ended with {process.returncode} while waiting for {what}"
            raise AssertionError(msg)
        if time.monotonic() > deadline:
            msg = f"waited in vain for {what}"
            raise AssertionError(msg)
        time.sleep(0.05)


def search_path() -> str:
    return f"{parts.BIN}:{os.environ['PATH']}"  # noqa: TID251 - the tests' own environment


def _servers(
    deployment: Deployment, more: str, *, record: bool, wrapper: Sequence[str], urls: Mapping[str, str]
) -> str:
    server = parts.installed("mongodb-mcp-server")
    pipes = {name: [sys.executable, str(PIPE), f"{deployment.folder / name}.stdin"] for name in deployment.servers}

    def of(name: str) -> str:
        if name in urls:
            return f'url = "{urls[name]}"'
        command = [*(pipes[name] if record else []), *wrapper, str(server)]
        return f'command = {command}\nconnection_string_file = "{deployment.folder / "mongodb"}"'

    return "\n".join(
        f"""
[[servers]]
name = "{name}"
{of(name)}
read_only = {str(name != "demo-rw").lower()}
timeout_ms = 20000
{more}
"""
        for name in deployment.servers
    )


def _signer(folder: Path, more: str) -> str:
    return f"""
[[issuers]]
issuer = "{ISSUER}"
jwks_file = "{folder / "jwks.json"}"
algorithms = ["ES256"]
{more}
"""


def settings_of(deployment: Deployment, extra: str, policies: Path) -> str:
    """The settings of a deployment whose servers' messages are recorded."""
    servers = _servers(deployment, "", record=True, wrapper=(), urls={})
    return _settings(deployment, f"{extra}\n{_signer(deployment.folder, 'leeway_s = 0')}", servers, policies)


def _settings(deployment: Deployment, extra: str, servers: str, policies: Path) -> str:
    return f"""
listen = "127.0.0.1:{deployment.port}"
admin_listen = "127.0.0.1:{deployment.admin_port}"
resource_url = "{deployment.url}"
environment = "test"
policies = "{policies}"
{extra}

[opa]
binary = "{parts.installed("opa")}"
timeout_ms = 5000

[audit]
store = "file:{deployment.audit_file}"
{servers}
"""
