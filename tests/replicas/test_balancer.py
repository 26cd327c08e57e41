"""The shipped configuration of nginx: reads go on when a sidecar ends, and no call is ever sent twice."""

import asyncio
import base64
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from sidecar.demo.client import DemoClient, HttpAnswer
from sidecar.demo.identities import ANALYST, LOADER, Person
from tests import parts
from tests.integration.deployment import Deployment, deployed
from tests.nginx import nginx, with_real
from tests.parts import ROOT
from tests.patience import HANG_S
from tests.signer import ISSUER

SHIPPED = ROOT / "deploy/nginx.conf"
TLS = ("ssl_certificate /etc/nginx/server.pem;", "ssl_certificate_key /etc/nginx/server.key;")
FIND = {"database": "sales", "collection": "orders", "filter": {}, "connectionId": "preconfigured"}


@asynccontextmanager
async def balancer(folder: Path, port: int, first: int, second: int, *, wrong: str = "") -> AsyncIterator[str]:
    """The real nginx with the shipped file, without TLS and with other addresses; ``wrong`` is added to it."""
    real = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "10.0.0.11:8080": f"127.0.0.1:{first}",
        "10.0.0.12:8080": f"127.0.0.1:{second}",
        "proxy_next_upstream error timeout;": f"proxy_next_upstream error timeout{wrong};",
        **dict.fromkeys(TLS, ""),
    }
    async with nginx(folder, with_real(SHIPPED.read_text(), real), port):
        yield f"http://127.0.0.1:{port}"


# --- what nginx does with a request whose answer is lost --------------------------------------------------------------


@dataclass(slots=True)
class Backend:
    """What stands where a sidecar would: it reads a request and answers it, or ends without a word."""

    mute: bool = False
    requests: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0)
        await reader.readexactly(length)
        self.requests.append(head.split(" ")[0])
        if not self.mute:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


@asynccontextmanager
async def backends(*, mute: bool) -> AsyncIterator[tuple[Backend, Backend]]:
    one, other = Backend(mute=mute), Backend(mute=mute)
    async with (
        await asyncio.start_server(one.serve, "127.0.0.1", 0) as first,
        await asyncio.start_server(other.serve, "127.0.0.1", 0) as second,
    ):
        one.port, other.port = (server.sockets[0].getsockname()[1] for server in (first, second))
        yield one, other


async def status_of(method: str, url: str) -> int:
    async with aiohttp.ClientSession(trust_env=False) as http, http.request(method, url, data=b"{}") as answer:
        return answer.status


@pytest.mark.needs("nginx")
@pytest.mark.parametrize(
    ("method", "wrong", "sent"),
    [("POST", "", 1), ("GET", "", 2), ("DELETE", "", 2), ("POST", " non_idempotent", 2)],
    ids=["a call", "a stream", "the end of a session", "a call where the file said so"],
)
async def test_a_call_that_reached_a_sidecar_is_not_sent_to_another_one(tmp_path, method, wrong, sent):
    """Both take the request and end without an answer. The last row shows that the test would notice a second one."""
    async with (
        backends(mute=True) as (one, other),
        balancer(tmp_path, parts.free_port(), one.port, other.port, wrong=wrong) as url,
    ):
        assert await status_of(method, f"{url}/mcp") == 502
        assert one.requests + other.requests == [method] * sent


@pytest.mark.needs("nginx")
async def test_a_sidecar_that_cannot_be_reached_has_received_nothing_so_the_other_one_gets_the_call(tmp_path):
    async with (
        backends(mute=False) as (one, _),
        balancer(tmp_path, parts.free_port(), one.port, parts.free_port()) as url,
    ):
        assert [await status_of("POST", f"{url}/mcp") for _ in range(6)] == [200] * 6
        assert one.requests == ["POST"] * 6


@pytest.mark.needs("nginx")
async def test_a_moment_in_which_no_sidecar_answers_is_over_when_one_does(tmp_path):
    """Nothing is left out for ``fail_timeout`` because it failed some calls before."""
    one, port = Backend(), parts.free_port()
    async with balancer(tmp_path, port, one_port := parts.free_port(), parts.free_port()) as url:
        assert {await status_of("POST", f"{url}/mcp") for _ in range(8)} == {502}
        async with await asyncio.start_server(one.serve, "127.0.0.1", one_port):
            assert [await status_of("POST", f"{url}/mcp") for _ in range(8)] == [200] * 8


# --- two sidecars -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, database: str) -> Iterator[tuple[int, Deployment, Deployment]]:
    """Two sidecars with one resource URL, which is the balancer's, and the keys of each other's sessions."""
    port = parts.free_port()
    keys = tmp_path / "session-keys"
    keys.touch(mode=0o600)
    keys.write_bytes(base64.b64encode(secrets.token_bytes(32)) + b"\n")
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    trusted = [{"issuer": ISSUER, "jwks_file": str(folders[0] / "jwks.json"), "algorithms": ["ES256"]}]
    environment = {
        "SIDECAR_RESOURCE_URL": f"http://127.0.0.1:{port}/mcp",
        "SIDECAR_SESSION_KEYS_FILE": str(keys),
        "SIDECAR_ISSUERS": json.dumps(trusted),
    }
    with ExitStack() as stack:
        one, other = (stack.enter_context(deployed(folder, database, environment=environment)) for folder in folders)
        yield port, one, other


def caller(url: str, one: Deployment, person: Person) -> DemoClient:
    return DemoClient(f"{url}/mcp", one.token(person, audience=f"{url}/mcp"), person.agent)


def insert(mark: str) -> dict[str, object]:
    return {
        "database": "staging",
        "collection": "orders",
        "documents": [{"mark": mark}],
        "connectionId": "preconfigured",
    }


def count(one: Deployment, mark: str) -> int:
    with one.database() as client:
        return client.staging.orders.count_documents({"mark": mark})


def is_fine(answer: HttpAnswer) -> bool:
    return answer.status == 200 and answer.result.get("isError") is not True


@pytest.mark.nightly
@pytest.mark.needs("nginx")
async def test_one_of_two_sidecars_ends_and_comes_back(tmp_path, pair):
    port, one, other = pair
    async with (
        balancer(tmp_path, port, one.port, other.port) as url,
        caller(url, one, ANALYST) as reading,
        caller(url, one, LOADER) as writing,
    ):
        assert (await reading.initialize()).status == 200
        assert (await writing.initialize()).status == 200
        assert all([is_fine(await reading.call("find", FIND)) for _ in range(8)])
        assert all(any(record["tool"] == "find" for record in each.records()) for each in (one, other))

        # One stops in its tracks with a write in its hands, and ends: what became of it is not known.
        assert one.process is not None
        os.kill(one.process.pid, signal.SIGSTOP)
        marks = [secrets.token_hex(8) for _ in range(4)]
        calls = [asyncio.create_task(writing.call("insert-many", insert(mark))) for mark in marks]
        done, waiting = await asyncio.wait(calls, timeout=20)
        assert done, "the other one answers meanwhile"
        assert waiting, "some are at the one that has stopped"
        os.kill(one.process.pid, signal.SIGKILL)
        answers = await asyncio.gather(*calls)
        assert all(is_fine(answer) for answer in answers if answer.status == 200)
        assert {answer.status for answer in answers} == {200, 502}
        written = {mark: count(one, mark) for mark in marks}
        assert written == {mark: int(answer.status == 200) for mark, answer in zip(marks, answers, strict=True)}

        # Reads and writes go on with the other one, in the same sessions.
        one.process.wait(HANG_S)
        assert all([is_fine(await reading.call("find", FIND)) for _ in range(8)])
        mark = secrets.token_hex(8)
        assert is_fine(await writing.call("insert-many", insert(mark)))
        assert count(one, mark) == 1

        # It comes back, and serves sessions that it never opened.
        before = len(one.records())
        one.start()
        async with asyncio.timeout(HANG_S):
            while len(one.records()) == before:
                assert is_fine(await reading.call("find", FIND))
    for each in (one, other):
        intents = [record for record in each.records() if record["event"] == "intent"]
        assert intents, "nothing was let through unrecorded"
