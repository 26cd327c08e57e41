"""A deployment as it should be, and a database that asks who one is."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from sidecar.doctor import ExaminedDeployment, role_for
from sidecar.provision import server_version
from sidecar.settings import Settings
from tests import parts
from tests.parts import ROOT
from tests.patience import HANG_S


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """The stand-in on a folder; yields where it listens."""
    port = parts.free_port()
    command = [str(parts.installed("secantusd-py")), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([*command, "--storage-path", str(folder), "--log-level", "ERROR", *options], cwd=folder)
    try:
        _await_port(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        parts.stop(process)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    with MongoClient[dict[str, object]](f"mongodb://127.0.0.1:{port}/", serverSelectionTimeoutMS=500) as client:
        ends = time.monotonic() + HANG_S
        while process.poll() is None and time.monotonic() < ends:
            try:
                client.admin.command("hello")
            except PyMongoError:
                continue
            return
    msg = "the database did not answer"
    raise RuntimeError(msg)


def await_listener(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a program that a test started listens."""
    parts_of = urlsplit(url)
    ends = time.monotonic() + HANG_S
    while process.poll() is None and time.monotonic() < ends:
        with contextlib.suppress(OSError):
            socket.create_connection((parts_of.hostname, parts_of.port)).close()
            return
        time.sleep(0.05)
    msg = f"nothing listens at {url}"
    raise RuntimeError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A database with access control: its users, each with the roles of its name."""

    address: str

    def uri(self, user: str = "") -> str:
        return f"mongodb://{user}:secret@{self.address}/?authSource=admin" if user else f"mongodb://{self.address}/"

    def make(self, user: str, roles: list[dict[str, str]], *commands: dict[str, Any]) -> str:
        """Make a user by other commands first, as an administrator; return its connection string."""
        with MongoClient[dict[str, object]](self.uri("operator")) as client:
            for command in commands:
                client.admin.command(command)
            client.admin.command({"createUser": user, "pwd": "secret", "roles": roles})
        return self.uri(user)


@pytest.fixture(scope="session")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    folder = tmp_path_factory.mktemp("database")
    with running(folder) as address, MongoClient[dict[str, object]](f"mongodb://{address}/") as client:
        client.sales.orders.insert_one({"_id": 1})
        client.admin.command({"createUser": "operator", "pwd": "secret", "roles": [{"role": "root", "db": "admin"}]})
    with running(folder, "--auth") as address:
        yield Access(address=address)


@pytest.fixture(scope="session")
def open_database() -> Iterator[str]:
    """A database that asks nobody who they are."""
    with parts.running_database() as uri:
        yield uri


def certificate(path: Path, *, days: float) -> Path:
    """A self-signed certificate that ends so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mcp.corp.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file = path.with_suffix(".key")
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def secret_file(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def signing_key(path: Path) -> Path:
    """A key for heads of the evidence."""
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret_file(path, ed25519.Ed25519PrivateKey.generate().private_bytes(*pem).decode())


SERVER_SAYS = "#!/bin/sh\necho {version}\n"
"""Stands for the MCP server where only its version is asked for; starting the real one takes a second of CPU."""


def program(path: Path, script: str) -> Path:
    path.write_text(script)
    path.chmod(0o755)
    return path


def as_it_should_be(folder: Path, policies: Path, reader: str) -> dict[str, Any]:
    """The settings of a deployment with nothing to find."""
    shutil.copytree(policies, folder / "policies")
    (folder / "jwks.json").write_text(json.dumps({"keys": []}))
    return {
        "resource_url": "https://mcp.corp.example/mcp",
        "policies": folder / "policies",
        "opa": {"binary": str(parts.installed("opa"))},
        "audit": {"store": f"file:{folder / 'audit.jsonl'}", "signing_key_file": signing_key(folder / "audit-key.pem")},
        "issuers": [{"issuer": "https://idp.corp.example", "jwks_file": folder / "jwks.json"}],
        "servers": [
            {
                "name": "main",
                "command": [str(program(folder / "server", SERVER_SAYS.format(version=server_version())))],
                "connection_string_file": secret_file(folder / "reader_uri", reader),
            }
        ],
    }


def deployment(given: dict[str, Any], **more: Any) -> ExaminedDeployment:
    config = Settings(**given)
    folder = None if config.opa.url else config.policies
    return ExaminedDeployment(config=config, **{"file": None, "policies": folder, "databases": {}, **more})


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy set with one team, whose readers read every collection of the database `example`."""
    folder = tmp_path_factory.mktemp("set") / "policies"
    program_ = [sys.executable, "-m", "sidecar", "policy", "init", str(folder)]
    environment = {"PATH": f"{parts.BIN}:{os.defpath}", "PYTHONPATH": str(ROOT)}
    subprocess.run(program_, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def reader(access: Access, policies: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The connection string of a user with the role that `mcp-sidecar roles` prints, and no other."""
    folder = tmp_path_factory.mktemp("first")
    held = deployment(as_it_should_be(folder, policies, access.make("bare", [])), viewer=access.uri("operator"))
    role = asyncio.run(role_for(held, held.config.servers[0]))
    return access.make("reader", [{"role": role.name, "db": "admin"}], role.commands()[0])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user of the machine can enter, as /var/lib is; pytest's own are closed."""
    made = Path(tempfile.mkdtemp(prefix="mcp-sidecar-doctor-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def good(folder: Path, policies: Path, reader: str) -> dict[str, Any]:
    return as_it_should_be(folder, policies, reader)
