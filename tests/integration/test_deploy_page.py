"""The page about deploying, word for word: its settings and its call, with only this machine's addresses put in."""

import json
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests import parts
from tests.integration.deployment import search_path, wait_until
from tests.patience import HANG_S

SECTION = (parts.ROOT / "docs/deploy.md").read_text().partition("## On a host")[2].partition("\n## ")[0]
CALLED = "127.0.0.1:8080"
"""What the page's clients call, and so the audience of ``deploy/token``."""


def block(language: str, beginning: str) -> str:
    """The one block of the section that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    [found] = [str(text) for text in blocks if text.startswith(beginning)]
    return found


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old} is there once"
        text = text.replace(old, new)
    return text


def settings(folder: Path, database: str, port: int, admin_port: int) -> str:
    """The page's settings, with what it says to change for a trial."""
    for name in ("reader_uri", "writer_uri"):
        (folder / name).write_text(database)
    issuer = 'issuer = "http://127.0.0.1:9000"'
    assert "`http://127.0.0.1:9000`, with `jwks_file" in SECTION
    assert '`algorithms = ["RS256"]`, and set `resource_url` to `http://127.0.0.1:8080/mcp`' in SECTION
    return replaced(
        block("toml", "# sidecar.toml"),
        {
            'listen = "127.0.0.1:8080"': f'listen = "127.0.0.1:{port}"\nadmin_listen = "127.0.0.1:{admin_port}"',
            "https://mcp.corp.example/mcp": f"http://{CALLED}/mcp",
            'issuer = "https://idp.corp.example"': f'{issuer}\njwks_file = "{folder}/keys/jwks.json"\n'
            'algorithms = ["RS256"]',
            "/run/secrets/reader_uri": f"{folder}/reader_uri",
            "/run/secrets/writer_uri": f"{folder}/writer_uri",
            "/var/lib/sidecar/audit.jsonl": f"{folder}/audit.jsonl",
        },
    )


def token(folder: Path) -> str:
    words = block("sh", "token=").partition("deploy/token ")[2].partition(")")[0].split()
    environment = {"PATH": search_path(), "DEPLOY_KEYS": str(folder / "keys")}
    return subprocess.check_output([parts.ROOT / "deploy/token", *words], env=environment, text=True).strip()


def call(folder: Path, port: int) -> tuple[int, str]:
    """Send what the page sends with curl."""
    command = block("sh", "token=")
    headers = dict(re.findall(r"-H ['\"]([^:]+): ([^'\"]+)['\"]", command))
    headers["Authorization"] = headers["Authorization"].replace("$token", token(folder))
    connection = HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    body = command.partition("-d '")[2].partition("'\n")[0]
    connection.request("POST", "/mcp", body, {**headers, "Host": CALLED})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def ready(admin_port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=5) as answer:
            return bool(json.loads(answer.read())["ready"])  # noqa: TID251 - our own answer
    except (URLError, OSError):
        return False


def test_the_settings_and_the_call_of_the_page_work_as_they_stand_there(tmp_path, database):
    port, admin_port = parts.free_port(), parts.free_port()
    environment = {"PATH": search_path()}
    subprocess.run([parts.ROOT / "deploy/prepare", tmp_path], env=environment, check=True, capture_output=True)
    (tmp_path / "sidecar.toml").write_text(settings(tmp_path, database, port, admin_port))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "serve"],
            cwd=parts.ROOT,
            env={**environment, "SIDECAR_CONFIG": str(tmp_path / "sidecar.toml")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: ready(admin_port), "readiness", process)
        status, text = call(tmp_path, port)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(HANG_S)
    assert status == 200, text
    assert json.loads(text)["result"]["serverInfo"]["name"] == "mcp-sidecar"  # noqa: TID251 - our own answer
    assert ended == 0, "as the page says of SIGTERM"
    assert all(json.loads(line) for line in (tmp_path / "log").read_text().splitlines())  # noqa: TID251 - our own log
