"""Faults of real parts under load, and what the log says of them: one line each way, one for each refused call."""

import asyncio
import json
import resource
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import jwt
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from sidecar.demo import database as demo_database
from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST
from tests import parts
from tests.integration.deployment import Deployment, deployed, search_path, wait_until
from tests.patience import HANG_S
from tests.signer import Signer

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
LISTED = "calls of one caller and cause that are logged in a minute: sidecar/enforcement/budget.py"
MOST = 30
SLOW_DATABASE = "?serverSelectionTimeoutMS=500&connectTimeoutMS=500"

LOST_AND_FOUND: dict[str, tuple[str, str]] = {
    "opa": ("the opa that ", "has come for the one that went"),
    "stopped opa": ("the opa that ", "has come for the one that went"),
    "server": ("the server demo-ro is gone and started again", "the server demo-ro is back after"),
    "audit": ("the audit file cannot be written", "the audit file can be written again"),
    "database": ("the database of demo-ro, demo-rw does not answer", "the database of demo-ro, demo-rw answers again"),
    "keys": ("cannot be fetched", "can be fetched again"),
    "introspection": ("does not say what a token is worth", "says again what a token is worth"),
    "external opa": ("the external opa does not answer", "the external opa answers again"),
    "server behind a url": ("the server demo-ro does not answer", "the server demo-ro answers again"),
}


# --- parts that can be taken away -------------------------------------------------------------------------------------


class Part:
    """A program of a test: it can be killed, and started again at the same address."""

    def __init__(self, *command: str, up: Any, **environment: str) -> None:
        self._command, self._up = command, up
        self._environment = {"PATH": search_path(), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=parts.ROOT / "policies",
        )
        wait_until(self._up, self._command[0], self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def running(self) -> Iterator["Part"]:
        self.start()
        try:
            yield self
        finally:
            self.kill()


def own_database(port: int) -> Part:
    uri = f"mongodb://127.0.0.1:{port}/"

    def up() -> bool:
        with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=300) as client, suppress(PyMongoError):
            return bool(client.admin.command("ping"))
        return False

    program = str(parts.installed("secantusd-py"))
    return Part(program, "--host", "127.0.0.1", "--port", str(port), "--storage-path", ":memory:", up=up)


OPA_ARGUMENTS = ("run", "--server", "--authorization=basic", "--skip-version-check", "--ignore=*_test.rego")
BUNDLES = (
    "--bundle",
    "platform",
    "system",
    *(f"teams/{team}" for team in ("analytics", "loading", "people", "support")),
)


def listening(port: int) -> Any:
    def up() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    return up


def answers(url: str) -> Any:
    def up() -> bool:
        with suppress(URLError, OSError), closing(urlopen(url, timeout=1)):  # noqa: S310 - http, on this machine
            return True
        return False

    return up


class Issuer(ThreadingHTTPServer):
    """An issuer's web server: a key set, and an introspection endpoint for which every token is unknown."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, keys: bytes) -> None:
        self.keys = keys
        super().__init__(("127.0.0.1", port), Answers)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class Answers(BaseHTTPRequestHandler):
    server: Issuer  # type: ignore[mutable-override]  # whose handler this is

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._say(self.server.keys)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(b'{"active": false}')

    def log_message(self, *_arguments: object) -> None:  # type: ignore[explicit-override]
        pass


# --- what a fault leaves in the log -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Log:
    """The lines of the sidecar's log since the last look."""

    file: Path
    seen: int = 0

    def new(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines()
        fresh, self.seen = lines[self.seen :], len(lines)
        return [json.loads(line) for line in fresh]  # noqa: TID251 - our own log; a traceback would not be JSON

    def so_far(self) -> str:
        return "\n".join(self.file.read_text().splitlines()[self.seen :])


def texts(lines: list[dict[str, Any]]) -> list[str]:
    assert not [line for line in lines if "stack" in str(line.get("error", ""))], "no traceback"
    return [f"{line['logger']}: {line['message']}" for line in lines]


def one_line_each_way(lines: list[dict[str, Any]], what: str, refused: int, *, times: int = 1) -> None:
    """The fault is said once, and its end; besides that each refused call has its line, up to the bound."""
    lost, found = LOST_AND_FOUND[what]
    said = texts(lines)
    of_calls = [line for line in lines if line["logger"] == "sidecar.calls"]
    # Each published head of the evidence is a line too, so often as settings say.
    others = [text for text in said if not text.startswith(("sidecar.calls:", "sidecar.store.checkpoints:"))]
    assert len([text for text in others if lost in text]) == times, said
    assert len([text for text in others if found in text]) == times, said
    assert [text for text in others if lost not in text and found not in text] == []
    stood_for = len(of_calls) + sum(line.get("more_like_it", 0) for line in of_calls)
    assert stood_for == refused if refused <= MOST else len(of_calls) >= MOST, (LISTED, of_calls)
    assert len({line["request_id"] for line in of_calls}) == len(of_calls)


async def calls(deployment: Deployment, seconds: float, *, token: str | None = None) -> Counter[str]:
    """Four callers who call all the time; how often which answer came."""
    found: Counter[str] = Counter()

    async def caller(number: int) -> None:
        client = deployment.plain(ANALYST) if token is None else DemoClient(deployment.url, token, "test")
        async with client:
            await client.initialize()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                query = {"unlike": f"{number} {time.monotonic_ns()}"}  # else the answer of OPA is remembered
                answer = await client.call("find", {**ORDERS, "filter": query, "limit": 1})
                code = answer.decision.get("reasons", [{}])[0].get("code")
                found[code or (f"{answer.status}" if answer.status != 200 else "answered")] += 1

    await asyncio.gather(*(caller(number) for number in range(4)))
    return found


async def waited(true: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, true, what)


REFUSALS = {"decision_unavailable", "audit_unavailable", "upstream_unreachable", "upstream_timed_out"}


def refused(found: Counter[str]) -> int:
    return sum(count for code, count in found.items() if code in REFUSALS)


# --- the tests --------------------------------------------------------------------------------------------------------

WEB = """
[[issuers]]
issuer = "http://127.0.0.1:{port}"
jwks_uri = "http://127.0.0.1:{port}/keys"
algorithms = ["ES256"]
introspection = {{ uri = "http://127.0.0.1:{port}/introspect", client_id = "me", secret_file = "{secret}" }}
"""
FAST = {"SIDECAR_OPA__MEMO_MS": "0", "SIDECAR_OPA__TIMEOUT_MS": "1500"}


@dataclass(slots=True, kw_only=True)
class World:
    """A deployment of which every part can be taken away."""

    deployment: Deployment
    log: Log
    database: Part

    def program(self, name: str) -> list[psutil.Process]:
        """The processes of this deployment whose command line names a program."""
        return self.deployment.children(name)

    async def well(self) -> None:
        """Everything answers, and what there was to say about that has been said."""
        await waited(self.deployment.ready, "the sidecar to be ready")
        assert not refused(await calls(self.deployment, 0.5))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, port = tmp_path_factory.mktemp("faults"), parts.free_port()
    uri = f"mongodb://127.0.0.1:{port}/"
    with own_database(port).running() as database:
        asyncio.run(demo_database.seed(uri))
        with deployed(folder, uri + SLOW_DATABASE, record=False, environment=FAST) as deployment:
            yield World(deployment=deployment, log=Log(deployment.log_file), database=database)


def said(world: World, text: str, times: int = 1) -> Any:
    return lambda: world.log.so_far().count(text) >= times


async def test_opas_that_are_killed_under_load_are_a_line_each_way_each(world):
    await world.well()
    world.log.new()
    load = asyncio.create_task(calls(world.deployment, 4))
    await asyncio.sleep(1)
    for opa in world.program("/opa"):
        opa.kill()
    found = await load
    await waited(said(world, LOST_AND_FOUND["opa"][1], 2), "both to be back")
    one_line_each_way(world.log.new(), "opa", refused(found), times=2)


async def test_opas_that_hang_are_a_line_each_way_each_and_so_is_each_decision_that_timed_out(world):
    await world.well()
    world.log.new()
    for opa in world.program("/opa"):
        opa.suspend()
    found = await calls(world.deployment, 4)
    assert refused(found), "calls meet the fault"
    await waited(said(world, LOST_AND_FOUND["stopped opa"][1], 2), "both to be replaced")
    lines = world.log.new()
    one_line_each_way(lines, "stopped opa", refused(found), times=2)
    assert {line["fault"] for line in lines if line["logger"] == "sidecar.calls"} <= {"timeout", "unreachable"}


async def test_a_server_that_is_killed_under_load_is_a_line_each_way(world):
    await world.well()
    world.log.new()
    load = asyncio.create_task(calls(world.deployment, 4))
    await asyncio.sleep(1)
    (server,) = [one for one in world.program("mongodb-mcp-server") if one.environ()["MDB_MCP_READ_ONLY"] == "true"]
    server.kill()
    found = await load
    await waited(said(world, LOST_AND_FOUND["server"][1]), "the server to be back")
    one_line_each_way(world.log.new(), "server", refused(found))


async def test_a_full_disk_is_a_line_each_way_and_one_for_each_call_until_the_bound(world):
    await calls(world.deployment, 1)
    await world.well()
    process = psutil.Process(world.deployment.process.pid)
    size = world.deployment.audit_file.stat().st_size
    assert size > world.deployment.log_file.stat().st_size + 50_000, "the limit must not meet the log"
    world.log.new()
    process.rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        found = await calls(world.deployment, 3)
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert found.keys() == {"audit_unavailable"}
    await waited(said(world, LOST_AND_FOUND["audit"][1]), "the disk to have room")
    one_line_each_way(world.log.new(), "audit", refused(found))


async def test_a_database_that_is_killed_under_load_is_a_line_each_way_and_what_its_server_says_of_it_one(world):
    await world.well()
    world.log.new()
    load = asyncio.create_task(calls(world.deployment, 5))
    await asyncio.sleep(1)
    world.database.kill()
    assert not refused(await load), "the server answers with its own error"
    await waited(said(world, LOST_AND_FOUND["database"][0]), "the database to be missed")
    world.database.start()
    await waited(said(world, LOST_AND_FOUND["database"][1]), "the database to be back")
    await demo_database.seed(world.deployment.uri)
    lines = world.log.new()
    own = [line for line in lines if not line["logger"].startswith("sidecar.upstream.demo-")]
    one_line_each_way(own, "database", 0)
    assert 0 < len(lines) - len(own) <= 2, "not one for each call"


def unknown_key(deployment: Deployment, port: int) -> str:
    """A token of the web issuer, signed with a key that it does not publish."""
    now = int(time.time())
    claims = {"iss": f"http://127.0.0.1:{port}", "sub": "x", "aud": deployment.url, "exp": now + 99}
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "at+jwt", "kid": f"k{now}"})


async def test_an_issuer_that_is_away_is_a_line_each_way_of_its_keys_and_of_its_introspection(tmp_path, database):
    port = parts.free_port()
    (tmp_path / "secret").write_text("shh")
    extra = WEB.format(port=port, secret=tmp_path / "secret")
    Signer().write_keys(tmp_path / "web.json")
    web = Issuer(port, (tmp_path / "web.json").read_bytes())
    try:
        with deployed(tmp_path, database, extra=extra, record=False) as deployment:
            log = Log(deployment.log_file)
            log.new()
            web.close()
            ends = time.monotonic() + HANG_S
            while LOST_AND_FOUND["keys"][0] not in log.so_far():
                assert time.monotonic() < ends, "an unknown key is asked for every ten seconds"
                await calls(deployment, 0.5, token=unknown_key(deployment, port))
            found = await calls(deployment, 2, token="opaque-token-of-nobody")
            assert found.keys() == {"503"}, "whether it is good is not known"
            web = Issuer(port, web.keys)
            await waited(lambda: LOST_AND_FOUND["keys"][1] in log.so_far(), "the keys to be had again")
            assert (await calls(deployment, 0.5, token="opaque-token-of-nobody")).keys() == {"401"}
            lines = [line for line in log.new() if line["logger"] != "sidecar.oauth.verifier"]
    finally:
        web.close()
    of_keys = [line for line in lines if line["logger"].endswith("key_sets")]
    one_line_each_way(of_keys, "keys", 0)
    one_line_each_way([line for line in lines if line not in of_keys], "introspection", 0)


SERVERS = """
[[servers]]
name = "demo-ro"
url = "http://127.0.0.1:{port}/mcp"
timeout_ms = 2000
"""


async def test_an_opa_and_a_server_that_are_run_by_others_are_a_line_each_way(tmp_path, database):
    await demo_database.seed(database)
    opa_port, server_port = parts.free_port(), parts.free_port()
    opa = Part(
        str(parts.installed("opa")),
        *OPA_ARGUMENTS,
        f"--addr=127.0.0.1:{opa_port}",
        *BUNDLES,
        up=answers(f"http://127.0.0.1:{opa_port}/health"),
    )
    server = Part(
        str(parts.installed("mongodb-mcp-server")),
        "--transport",
        "http",
        "--httpHost",
        "127.0.0.1",
        "--httpPort",
        str(server_port),
        up=listening(server_port),
        MDB_MCP_CONNECTION_STRING=database,
        MDB_MCP_READ_ONLY="true",
        MDB_MCP_TELEMETRY="disabled",
        MDB_MCP_LOGGERS="stderr",
    )
    environment = {**FAST, "SIDECAR_OPA__URL": f"http://127.0.0.1:{opa_port}"}
    with (
        opa.running(),
        server.running(),
        deployed(tmp_path, database, servers=SERVERS.format(port=server_port), environment=environment) as deployment,
    ):
        log = Log(deployment.log_file)
        for what, part in (("external opa", opa), ("server behind a url", server)):
            await waited(deployment.ready, "the sidecar to be ready")
            assert not refused(await calls(deployment, 0.5))
            log.new()
            load = asyncio.create_task(calls(deployment, 4))
            await asyncio.sleep(1)
            part.kill()
            found = await load
            assert refused(found)
            part.start()
            await waited(lambda what=what: LOST_AND_FOUND[what][1] in log.so_far(), f"{what} to be back")
            one_line_each_way(log.new(), what, refused(found))
