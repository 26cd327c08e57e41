"""Every secret of a serving sidecar is replaced in turn while calls go on; a wrong one first, which changes nothing."""

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from pymongo import MongoClient

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from sidecar.store.audit_segments import checkpoints_of
from sidecar.store.checkpoints import read_checkpoints
from tests import parts
from tests.control.test_control_listener import OPERATOR, Authority
from tests.doctor.conftest import Access, running, secret_file, signing_key
from tests.integration.deployment import Deployment, deployed, wait_until

SHARED = "kept"
ROLES = [
    {"role": "read", "db": "sales"},
    {"role": "readWrite", "db": SHARED},
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A database with two users of the same rights."""
    folder = tmp_path_factory.mktemp("guarded")
    with running(folder) as address:
        asyncio.run(demo_database.seed(f"mongodb://{address}/"))
        with MongoClient[dict[str, object]](f"mongodb://{address}/") as client:
            client.admin.command(
                {"createUser": "operator", "pwd": "secret", "roles": [{"role": "root", "db": "admin"}]}
            )
    with running(folder, "--auth") as address:
        access = Access(address=address)
        for name in ("before", "after"):
            access.make(name, ROLES)
        yield access


class Secrets:
    """The files of a deployment, and what replaces each: something wrong, then something new."""

    def __init__(self, folder: Path, access: Access) -> None:
        self.folder = folder
        self.authority = Authority(folder, "operators")
        for name in ("uri", "views"):
            secret_file(folder / name, access.uri("before"))
        sealing, next_one = (base64.b64encode(os.urandom(32)) for _ in range(2))
        (folder / "sessions").write_bytes(sealing)
        (folder / "nonces").write_bytes(os.urandom(32))
        signing_key(folder / "signing.pem")
        self.control = self.authority.issue("localhost")
        other = access.uri("after")
        wrong = other.replace("secret", "none")
        self.changes: dict[str, tuple[Path, bytes, bytes]] = {
            "mongodb.uri_file": (folder / "uri", wrong.encode(), other.encode()),
            "views_connection_string_file": (folder / "views", wrong.encode(), other.encode()),
            "dpop_nonce_key_file": (folder / "nonces", b"short", os.urandom(32)),
            "session_keys_file": (folder / "sessions", b"short", sealing + b"\n" + next_one),
            "audit.signing_key_file": (
                folder / "signing.pem",
                b"no key",
                signing_key(folder / "other.pem").read_bytes(),
            ),
            "control_tls": (self.control[1], b"no key", self.control[1].read_bytes() + b"\n"),
            "the server demo-ro": (folder / "mongodb", b"mongodb://db.corp.example/", other.encode()),
        }

    def settings(self, port: int) -> str:
        certificate, key = self.control
        return f"""
dpop_nonce_key_file = "{self.folder}/nonces"
session_keys_file = "{self.folder}/sessions"
suspensions = "mongodb:suspensions"
control_listen = "127.0.0.1:{port}"
mongodb = {{ uri_file = "{self.folder}/uri", database = "{SHARED}" }}
views = {{ refresh_s = 1 }}
sessions = {{ ended = "mongodb:ended" }}

[control_tls]
certificate = "{certificate}"
key = "{key}"
client_ca = "{self.authority.file}"
operators = ["{OPERATOR}"]
"""


@pytest.fixture(scope="module")
def secrets(folder: Path, guarded: Access) -> Secrets:
    return Secrets(folder, guarded)


@pytest.fixture(scope="module")
def rotating(folder: Path, guarded: Access, secrets: Secrets) -> Iterator[Deployment]:
    server = f"""
[[servers]]
name = "demo-ro"
command = ["{parts.installed("mongodb-mcp-server")}"]
connection_string_file = "{folder}/mongodb"
views_connection_string_file = "{folder}/views"
"""
    environment = {
        "SIDECAR_AUDIT__SIGNING_KEY_FILE": str(folder / "signing.pem"),
        "SIDECAR_AUDIT__CHECKPOINT_S": "1",
    }
    with deployed(
        folder,
        guarded.uri("before"),
        extra=secrets.settings(parts.free_port()),
        of_issuer='dpop = "allowed"\ndpop_nonce = true',
        environment=environment,
        servers=server,
    ) as serving:
        yield serving


def said(deployment: Deployment, setting: str, level: str) -> bool:
    """Whether the log has a line of this level that begins with the setting."""
    lines = [json.loads(line) for line in deployment.log_file.read_text().splitlines()]  # noqa: TID251 - our own log
    return any(line["level"] == level and line["message"].startswith(setting) for line in lines)


async def test_each_secret_is_replaced_while_calls_go_on(
    rotating: Deployment, secrets: Secrets, guarded: Access
) -> None:
    asked = {"connectionId": "preconfigured", "database": "sales", "collection": "orders", "limit": 1}
    answers: list[bool] = []
    over = asyncio.Event()

    async def call_on() -> None:
        async with rotating.plain(ANALYST) as client:
            await client.initialize()
            while not over.is_set():
                answer = await client.call("find", asked)
                answers.append(answer.status == 200 and not answer.result.get("isError", False))

    calling = asyncio.create_task(call_on())
    for level, number in (("error", 1), ("info", 2)):
        for path, *contents in secrets.changes.values():
            beside = path.with_name("beside")
            beside.touch(mode=0o600)
            beside.write_bytes(contents[number - 1])
            beside.replace(path)
        for setting in secrets.changes:
            told = partial(said, rotating, setting, level)
            await asyncio.to_thread(wait_until, told, f"{setting} to be told of at level {level}")
        assert rotating.ready()
    with MongoClient[dict[str, object]](guarded.uri("operator")) as client:
        client.admin.command({"dropUser": "before"})
    count = len(answers)
    await asyncio.to_thread(wait_until, lambda: len(answers) > count + 20, "calls after the old user is gone")
    over.set()
    await calling
    assert all(answers)
    assert rotating.ready()
    published, _ = read_checkpoints(checkpoints_of(rotating.audit_file))
    assert len({each.key for each in published}) == 2
