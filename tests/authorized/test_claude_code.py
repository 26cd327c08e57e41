"""Claude Code as its users configure it: what it says of the sidecar before and after it logged its user in.

No log-in at Anthropic is needed for this, and none is used: each test has a home folder of its own, and what is not on
this machine is sent to a proxy that is not there.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import parts, programs
from tests.authorization_server import AuthorizationServer, authorized
from tests.authorized.test_log_in import CHROMIUM, HERE, PARTS
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S

CLAUDE = "claude"
NEEDS_LOGIN = "! Needs authentication"
pytestmark = pytest.mark.needs(CLAUDE)

SEQUENCES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
"""What colours a terminal and makes links of it."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[tuple[AuthorizationServer, Deployment]]:
    folder = tmp_path_factory.mktemp("claude_code")
    port = parts.free_port()
    with authorized(folder, resource=f"http://127.0.0.1:{port}/mcp") as server:
        issuers = f'[[issuers]]\nissuer = "{server.issuer}"\n'
        with deployed(folder, database, port=port, issuers=issuers) as deployment:
            yield server, deployment


def surroundings(home: Path) -> dict[str, str]:
    nowhere = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "HOME": str(home),
        "TERM": "xterm",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "HTTPS_PROXY": nowhere,
        "HTTP_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
    }


def claude(home: Path, *words: str) -> str:
    """What ``claude mcp`` prints."""
    done = subprocess.run(
        [programs.path_of(CLAUDE) or "", "mcp", *words],
        env=surroundings(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def log_in(home: Path, browse: Callable[[str], None]) -> str:
    """What ``claude mcp login`` shows on a terminal, to its end; ``browse`` opens the link that it prints."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
    process = subprocess.Popen(
        [programs.path_of(CLAUDE) or "", "mcp", "login", "--no-browser", "mongodb"],
        env=surroundings(home),
        cwd=home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, opened, deadline = "", False, time.monotonic() + HANG_S
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                shown += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # Linux says so when the last writer is gone
                break
            plain = SEQUENCES.sub("", shown)
            if not opened and "paste the redirect URL" in plain:
                opened = True
                (link,) = re.findall(r"http://\S+/auth\?\S+", plain)
                browse(link)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return SEQUENCES.sub("", shown)


def test_it_says_that_it_needs_to_log_in_and_not_that_the_server_failed(deployment: Deployment, tmp_path: Path) -> None:
    claude(tmp_path, "add", "--transport", "http", "mongodb", deployment.url)
    assert f"mongodb: {deployment.url} (HTTP) - {NEEDS_LOGIN}" in claude(tmp_path, "list")
    assert f"Status: {NEEDS_LOGIN}" in claude(tmp_path, "get", "mongodb")


def test_a_server_that_is_away_is_told_from_one_that_needs_a_log_in(tmp_path: Path) -> None:
    claude(tmp_path, "add", "--transport", "http", "mongodb", f"http://127.0.0.1:{parts.free_port()}/mcp")
    assert "✘ Failed to connect" in claude(tmp_path, "list")


@pytest.mark.needs(CHROMIUM)
def test_it_logs_its_user_in_with_a_browser_and_connects(
    server: AuthorizationServer, deployment: Deployment, tmp_path: Path
) -> None:
    def browse(link: str) -> None:
        chromium = programs.path_of(CHROMIUM) or ""
        command = ["node", str(HERE / "browsing.mjs"), str(PARTS / "clients"), chromium]
        subprocess.run([*command, "alice", server.password("alice"), link], check=True, timeout=HANG_S)

    claude(tmp_path, "add", "--transport", "http", "mongodb", deployment.url)
    assert 'Authenticated with "mongodb".' in log_in(tmp_path, browse)
    assert server.served("/reg") == server.served("/token") == 1, "it is a client that registers itself"
    assert f"mongodb: {deployment.url} (HTTP) - ✔ Connected" in claude(tmp_path, "list")
    claude(tmp_path, "logout", "mongodb")
    assert NEEDS_LOGIN in claude(tmp_path, "list")
