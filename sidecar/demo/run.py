"""The demo's one sequence: parts, seed, sidecar, tour, then serve until interrupted."""

import json
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from sidecar import app, lifecycle, settings
from sidecar.demo import authorization_server, database, hours, log_in
from sidecar.demo.identities import ANALYST, EVERYBODY, Person
from sidecar.demo.tour import MARK, Tour, steps
from sidecar.errors import ConfigurationError
from sidecar.mcp import revision
from sidecar.provision import InstallPlace, OutsideProgram, bring
from sidecar.settings import Settings
from sidecar.telemetry import logs

PORTS: Final = (8080, 8081)
ISSUER_PORT: Final = 9000
PLAIN_WIDTH: Final = 120
"""Columns when the width of the output is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSetup:
    """What the tour plays on."""

    config: Settings
    issuer: str
    passwords: dict[str, str]
    uri: str
    may_write: bool


async def demo(place: InstallPlace, *, once: bool, write: bool) -> bool:
    """Run the demo; return whether every step of the tour went as expected.

    Args:
        place: with which programs that are missing are brought.
        once: end after the tour.
        write: seed and write even to a database that was named from outside.

    Raises:
        ConfigurationError: a part is missing or does not start.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    async with _stage(place, write=write) as stage:
        logs.configure("WARNING", json=not sys.stderr.isatty())
        if (evidence := stage.config.audit.path) is None:
            raise ConfigurationError("audit.store: the demo shows its evidence in a file; use file:<path>")
        async with app.sidecar(stage.config) as running:
            tokens = await _tokens(stage)
            tour = Tour(
                running.url,
                tokens,
                inserted=lambda namespace: database.count(
                    stage.uri, namespace.database, namespace.collection, {"by": MARK}
                ),
                evidence=evidence,
            )
            config = stage.config
            loading = await hours.are_on(config.opa.binary, config.policies, time.time_ns())
            announced = [step for step in steps(loading=loading) if stage.may_write or not step.writes]
            as_announced = await tour.play(console, announced)
            if stage.may_write and not loading:
                console.print("It is outside the loading team's hours, so its insert was expected to be refused.")
            if not stage.may_write:
                console.print(
                    "Steps that write were left out, because the database is your own. `--write` includes them."
                )
            _tell_evidence(console, evidence)
            if not once:
                _invite(console, running, stage, tokens)
                await lifecycle.interrupted()
    return as_announced


@asynccontextmanager
async def _stage(place: InstallPlace, *, write: bool) -> AsyncIterator[DemoSetup]:
    async with AsyncExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcp-sidecar-demo-")))
        named = settings.demo_connection_string()
        wanted = [part for part in OutsideProgram if part is not OutsideProgram.DATABASE or not named]
        programs = {one.part: one.path for one in await bring(wanted, place)}
        uri = named or await stack.enter_async_context(database.stand_in(programs[OutsideProgram.DATABASE]))
        may_write = write or not named
        if may_write:
            await database.seed(uri)
        issuer = f"http://127.0.0.1:{ISSUER_PORT if _is_free(ISSUER_PORT) else database.free_port()}"
        config = settings.load(**_defaults(issuer, uri, programs))
        passwords = authorization_server.made_passwords()
        await stack.enter_async_context(
            authorization_server.running(
                programs[OutsideProgram.ISSUER],
                issuer,
                resource=config.resource.text,
                passwords=passwords,
                private=private,
            )
        )
        yield DemoSetup(config=config, issuer=issuer, passwords=passwords, uri=uri, may_write=may_write)


def _defaults(issuer: str, uri: str, programs: Mapping[OutsideProgram, Path]) -> dict[str, Any]:
    """The demo's own settings; the environment and the settings file win over them."""
    port, admin_port = (port if _is_free(port) else 0 for port in PORTS)
    if not port:
        port = database.free_port()
    server = {"command": [str(programs[OutsideProgram.SERVER])], "connection_string": uri}
    return {
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin_port}",
        "resource_url": f"http://127.0.0.1:{port}/mcp",
        "environment": "demo",
        "policies": _policies(),
        "opa": {"binary": str(programs[OutsideProgram.OPA])},
        "issuers": [{"issuer": issuer, "algorithms": ["ES256"], "dpop": "allowed"}],
        "servers": [
            {"name": "demo-ro", "read_only": True, **server},
            {"name": "demo-rw", "read_only": False, **server},
        ],
        # A second demo has other ports; two sidecars never share a chain.
        "audit": {"store": "file:audit.jsonl" if port == PORTS[0] else f"file:audit-{port}.jsonl"},
        "log_level": "WARNING",
    }


def _policies() -> Path:
    """The example policies: of the working directory, else those that came with the package or its source."""
    here, package = Path("policies"), Path(__file__).resolve().parent.parent
    candidates = (here, package / "_policies", package.parent / "policies")
    return next((folder for folder in candidates if (folder / "platform").is_dir()), here)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def _tokens(stage: DemoSetup) -> dict[Person, str]:
    """Log everybody in, as they would do it in a browser."""
    return {person: await _token(stage, person) for person in EVERYBODY}


async def _token(stage: DemoSetup, person: Person) -> str:
    client = log_in.Registered(client_id=person.agent, redirect_uri=authorization_server.CALLBACK)
    who = (person.user, stage.passwords[person.user])
    try:
        answer = await log_in.tokens_of(
            stage.issuer, client, who, resource=stage.config.resource.text, scopes=person.scopes
        )
    except log_in.LoginFailed as error:
        raise ConfigurationError(f"{person.user} could not log in at {stage.issuer}: {error}") from None
    return str(answer["access_token"])


def _tell_evidence(console: Console, audit: Path) -> None:
    """Say where the tour's evidence is, and how to check it."""
    lines = (
        f"\nThe evidence of every call is in {audit}, and it stays there. Whether it is intact:",
        f"{_own_command()} audit verify {shlex.quote(str(audit))}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _own_command() -> str:
    """Return how this program is called again from this folder: ``make`` has another search path than its user."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{_from_here(Path(sys.executable))} -m sidecar"
    return (
        program.name if shutil.which(program.name) == str(program) and not _below_here(program) else _from_here(program)
    )


def _from_here(path: Path) -> str:
    return shlex.quote(str(path.relative_to(Path.cwd()) if _below_here(path) else path))


def _below_here(path: Path) -> bool:
    return path.is_relative_to(Path.cwd())


def _invite(console: Console, running: app.Endpoints, stage: DemoSetup, tokens: dict[Person, str]) -> None:
    """Print what a reader needs to try more calls; plain lines, so that they can be copied."""
    token = tokens[ANALYST]
    header = f"Authorization: Bearer {token}"
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": revision.LATEST.value,
                "capabilities": {},
                "clientInfo": {"name": "curl", "version": "0"},
            },
        }
    )
    lines = [
        "",
        f"The sidecar serves {running.url} (health and metrics: {running.admin_url}).",
        "",
        "Give a client this address only, and it leads you to a page to log in, at",
        stage.issuer,
        f"\nclaude mcp add --transport http mongodb {running.url}",
        "",
        *(
            f"{person.user:8} {stage.passwords[person.user]}  {', '.join(person.groups) or 'no group'}"
            for person in EVERYBODY
        ),
        "",
        "Without a browser: tokens, valid for 8 hours:",
        *(f"\n# {person.label} ({', '.join(person.groups) or 'no group'})\n{tokens[person]}" for person in EVERYBODY),
        "",
        "Try it as the analyst:",
        (
            f"\ncurl -si {running.url} -H '{header}' -H 'Content-Type: application/json' \\\n"
            f"  -H 'Accept: application/json, text/event-stream' -d '{body}'"
        ),
        (
            "\n# the Inspector needs Node ≥ 22.19\n"
            f"npx @modelcontextprotocol/inspector@2 --cli {running.url} --transport http \\\n"
            f"  --header '{header}' --method tools/list"
        ),
        "",
        "Ctrl-C stops everything that was started.",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
