"""A real OPA that serves the repository's policies, and one that evaluates a changed copy of them."""

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from tests.parts import ROOT
from tests.patience import HANG_S

POLICIES = ROOT / "policies"
REVISION = "r-test"

Ask = Callable[..., tuple[int, Any]]


def bundles(root: Path) -> list[str]:
    """The argument list of policies/README.md."""
    return ["platform", "system", *sorted(f"teams/{team.name}" for team in (root / "teams").iterdir())]


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("opa", timeout=HANG_S)
        self._path = str(path)

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@pytest.fixture(scope="session")
def run_opa(opa_binary: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run OPA inside a policy folder."""

    def run(*arguments: str, root: Path = POLICIES, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [opa_binary, *arguments], cwd=root, input=stdin, capture_output=True, text=True, timeout=HANG_S, check=False
        )

    return run


@pytest.fixture(scope="session")
def ask(opa_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask an OPA that serves the repository's policies as policies/README.md says, with a revision."""
    folder = tmp_path_factory.mktemp("opa")
    revision = folder / "revision"
    revision.mkdir()
    manifest = {"roots": ["mcp/revision"], "revision": REVISION, "rego_version": 1}
    (revision / ".manifest").write_text(json.dumps(manifest))
    (revision / "data.json").write_text(json.dumps({"mcp": {"revision": REVISION}}))
    path = folder / "s"
    served = [*bundles(POLICIES), str(revision)]
    flags = ["--authorization=basic", "--skip-version-check", "--log-level=error", "--ignore=*_test.rego"]
    process = subprocess.Popen(
        [opa_binary, "run", "--server", f"--addr=unix://{path}", *flags, "-b", *served],
        cwd=POLICIES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    connection = _Unix(path)

    def request(
        rule: str, document: object = None, *, method: str = "POST", body: bytes | None = None
    ) -> tuple[int, Any]:
        target = rule if rule.startswith("/") else f"/v1/data/mcp/main/{rule}?strict-builtin-errors=true"
        if body is None and method == "POST":
            body = msgspec.json.encode({"input": document})
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                text = response.read()
                answer = msgspec.json.decode(text) if text.startswith(b"{") else None
                return response.status, answer
        except OSError:
            connection.close()  # a connection that failed half-way takes no other request
            raise

    try:
        deadline = time.monotonic() + HANG_S
        while not (path.exists() and _healthy(request)):
            assert process.poll() is None, "OPA ended"
            assert time.monotonic() < deadline, "OPA does not come up"
            time.sleep(0.02)  # between two looks at a condition, with a deadline
        yield request
    finally:
        connection.close()
        process.terminate()
        process.wait(timeout=HANG_S)


def _healthy(request: Ask) -> bool:
    try:
        return request("/health", method="GET")[0] == 200
    except OSError:
        return False


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the repository's policies that a test may spoil."""
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))
