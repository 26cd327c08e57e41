"""Two replicas with TLS as the page says, word for word, with only the ports of this machine put in."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.demo import database as demo_database
from tests import parts
from tests.integration.deployment import search_path
from tests.patience import HANG_S

SECTION = (parts.ROOT / "docs/replicas.md").read_text().partition("## Two replicas with TLS")[2].partition("\n## ")[0]


def blocks() -> list[tuple[str, str]]:
    found = re.findall(r"```(sh|toml)\n(.*?)```", SECTION, re.DOTALL)
    return [(str(language), str(text)) for language, text in found]


def script(ports: dict[str, str], database: str) -> str:
    """Every block in its order, each line told before it runs; a settings file is written where it stands."""
    lines = ["set -eu"]
    for language, text in blocks():
        if language == "toml":
            name = re.match(r"# (\S+)\n", text)
            assert name
            lines.append(f"cat >{name[1]} <<'END'\n{text}END")
        else:
            lines.append(text)
        lines.append(f"echo '--- {len(lines)}'")
    whole = "\n".join(lines)
    assert whole.count("mongodb://127.0.0.1:27017/") == 1
    whole = whole.replace("mongodb://127.0.0.1:27017/", database)
    for theirs, ours in ports.items():
        assert theirs in whole, f"the page names {theirs}"
        whole = whole.replace(theirs, ours)
    return whole


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Path]:
    """A checkout's folder as the page finds it; what a failed trial leaves running is ended."""
    for name in ("deploy", "policies", ".venv", ".parts"):
        (tmp_path / name).symlink_to(parts.ROOT / name)
    yield tmp_path
    for file in (tmp_path / "trial").glob("*.pid"):
        with suppress(OSError):
            subprocess.run(["kill", file.read_text().strip()], check=False, capture_output=True)


@pytest.mark.nightly
@pytest.mark.real
@pytest.mark.needs("nginx")
@pytest.mark.needs("curl")
def test_the_page_word_for_word_ends_with_two_replicas_of_which_one_may_end(trial: Path, database: str) -> None:
    asyncio.run(demo_database.seed(database))
    first, second, balancer = (parts.free_port() for _ in range(3))
    admin = [parts.free_port() for _ in range(2)]
    ports = {
        "127.0.0.1:808$number": f"127.0.0.1:$([ $number = 1 ] && echo {first} || echo {second})",
        "127.0.0.1:818$number": f"127.0.0.1:$([ $number = 1 ] && echo {admin[0]} || echo {admin[1]})",
        "127.0.0.1:8081": f"127.0.0.1:{first}",
        "127.0.0.1:8082": f"127.0.0.1:{second}",
        "8443": str(balancer),
    }
    output = trial / "output"
    with output.open("wb") as file:  # no pipe: what the page leaves running would hold it open
        done = subprocess.run(
            ["bash", "-c", script(ports, database)],
            cwd=trial,
            env={"PATH": search_path()},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=HANG_S,
            check=False,
        )
    said = output.read_text()
    assert done.returncode == 0, said
    assert said.count('"serverInfo"') == 1, said
    assert '"isError":true' not in said
    assert len(re.findall(r'"id":2\b', said)) == 2, said
    assert "intact" in said
    subprocess.run(["bash", "-c", 'kill "$(cat replica-2.pid)" "$(cat nginx.pid)"'], cwd=trial / "trial", check=True)
