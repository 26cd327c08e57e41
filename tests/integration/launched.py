"""A sidecar that a client launches: the settings of a deployment, and a process that is spoken to line by line."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.demo.identities import TOKEN_SECONDS, Person
from tests import parts
from tests.hours import policies_on
from tests.integration.deployment import Deployment, search_path, settings_of
from tests.patience import HANG_S
from tests.signer import Signer

INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": "open",
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "lines", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


def call(number: int | str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A tools/call."""
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


@dataclass(slots=True, kw_only=True)
class Launched:
    """What a client launches, and what it then finds."""

    deployment: Deployment
    process: subprocess.Popen[bytes] | None = None
    others: list[dict[str, Any]] = field(default_factory=list)
    """What came while something else was waited for."""

    @property
    def token_file(self) -> Path:
        return self.deployment.folder / "token"

    @property
    def log(self) -> str:
        return self.deployment.log_file.read_text(encoding="utf-8")

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "sidecar", "stdio", *options]

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": search_path(), "SIDECAR_CONFIG": str(self.deployment.folder / "sidecar.toml"), **more}

    def present(self, person: Person, *, seconds: int = 600) -> None:
        """Put another token into the file, as programs that renew one do: a whole file, moved into its place."""
        fresh = self.token_file.with_suffix(".new")
        fresh.write_text(self.token(person, seconds=seconds) + "\n")
        fresh.rename(self.token_file)

    def token(self, person: Person, *, seconds: int = 600) -> str:
        """A token that is good for so many seconds from now."""
        issued = int(time.time()) - TOKEN_SECONDS + seconds
        return self.deployment.issuer.token(person, audience=self.deployment.url, now=issued)

    @contextmanager
    def running(self, *options: str, environment: Mapping[str, str] | None = None) -> Iterator["Launched"]:
        """Launch it, and end it at the end."""
        options = options or ("--token-file", str(self.token_file))
        with self.deployment.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*options),
                cwd=parts.ROOT,
                env=self.environment(**(environment or {})),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            yield self
        finally:
            self.end()

    def end(self) -> tuple[int, bytes]:
        """Close its input, as clients do, and return its status and what it still had to say."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        rest = b"" if self.process.stdout.closed else self.process.stdout.read()
        status = self.process.wait(HANG_S)
        self.process.stdout.close()
        return status, rest

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended; its log:\n{self.log[-3000:]}"
        found: dict[str, Any] = json.loads(line)  # noqa: TID251 - what the process itself wrote
        return found

    def answer(self, number: int | str) -> dict[str, Any]:
        """The answer to a request; what else comes meanwhile is kept."""
        while (found := self.next()).get("id") != number:
            self.others.append(found)
        return found

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.say(message)
        return self.answer(message["id"])

    def open(self) -> dict[str, Any]:
        opened = self.ask(INITIALIZE)
        self.say(INITIALIZED)
        return opened


def launchable(folder: Path, uri: str, *, extra: str = "", environment: str = "test") -> Launched:
    """Write the settings of a sidecar that a client launches, before the server that reads."""
    deployment = Deployment(
        folder=folder,
        uri=uri,
        port=parts.free_port(),
        admin_port=parts.free_port(),
        issuer=Signer(),
        servers=("demo-ro",),
    )
    deployment.issuer.write_keys(folder / "jwks.json")
    (folder / "mongodb").write_text(uri)
    text = settings_of(deployment, extra, policies_on(folder))
    (folder / "sidecar.toml").write_text(text.replace('environment = "test"', f'environment = "{environment}"'))
    return Launched(deployment=deployment)
