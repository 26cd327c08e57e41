"""The unit of systemd: what systemd itself makes of it, and that what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import ROOT

UNIT = ROOT / "deploy/systemd/mcp-sidecar.service"
PAGE = (ROOT / "docs/deploy.md").read_text()
WORST = 1.5
"""The exposure that systemd may find at most, of 10: a service with a network and a compiler in it."""


def lines(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_what_the_unit_names_is_what_the_page_says() -> None:
    (command,) = lines("ExecStart")
    assert command == "/opt/mcp-sidecar/bin/mcp-sidecar serve"
    variables = dict(line.split("=") for line in lines("Environment"))
    assert variables["SIDECAR_CONFIG"] in PAGE
    assert f"XDG_DATA_HOME={variables['XDG_DATA_HOME']} {command.split()[0]} setup" in PAGE
    assert f"/var/lib/{lines('StateDirectory')[0]}/audit.jsonl" in PAGE
    credentials = dict(line.split(":") for line in lines("LoadCredential"))
    assert f"/run/credentials/{UNIT.name}/reader_uri" in PAGE
    assert {Path(path).parent.as_posix() for path in credentials.values()} == {"/etc/mcp-sidecar/secrets"}


def test_settings_that_cannot_be_used_end_it_and_anything_else_starts_it_again() -> None:
    assert lines("Restart") == ["always"]
    assert lines("RestartPreventExitStatus") == ["78"]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve"],
        env={"SIDECAR_CONFIG": "/no/such/file"},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 78, done.stderr


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_it_and_finds_little_to_expose(tmp_path: Path) -> None:
    """As on a host that has the program: its path is replaced by one that is here."""
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/mcp-sidecar/bin/mcp-sidecar", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, check=False, text=True
    )
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if UNIT.name in line]) == (0, [])
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(here)],
        capture_output=True,
        check=True,
        text=True,
    )
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    assert exposure
    assert float(exposure[1]) <= WORST
