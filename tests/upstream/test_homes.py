"""Private folders of children: those in use stay, those of a process that was killed go with the next start."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.upstream.homes import ChildHome
from tests.parts import ROOT

MAKES_ONE = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from sidecar.upstream.homes import ChildHome
print(ChildHome().path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has a folder, and the folder."""
    command = [sys.executable, "-c", MAKES_ONE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_the_folder_of_a_killed_process_goes_with_all_that_is_in_it(elsewhere) -> None:
    process, folder = elsewhere
    (folder / "exports").mkdir()
    (folder / "exports" / "a.json").write_text("[]")
    process.kill()
    process.wait()
    assert folder.exists()
    home = ChildHome()
    assert not folder.exists()
    home.remove()


def test_the_folder_of_a_process_that_lives_stays(elsewhere) -> None:
    _, folder = elsewhere
    home = ChildHome()
    assert folder.exists()
    home.remove()
    assert not home.path.exists()


def test_one_process_may_have_several(own_folder: Path) -> None:
    first, second = ChildHome(), ChildHome()
    assert first.path.exists()
    assert second.path.exists()
    assert first.path.stat().st_mode & 0o777 == 0o700
    first.remove()
    second.remove()
    assert [*own_folder.iterdir()] == []


def test_what_is_not_known_to_have_been_one_stays(own_folder: Path) -> None:
    other = own_folder / "mcp-sidecar-opa-x"
    other.mkdir()
    (own_folder / "mcp-sidecar-file").write_text("")
    precious = own_folder / "precious"
    precious.mkdir()
    (precious / "in-use").write_text("")
    (own_folder / "mcp-sidecar-link").symlink_to(precious)
    linked = own_folder / "mcp-sidecar-linked"
    linked.mkdir()
    (linked / "in-use").symlink_to(precious / "in-use")
    (linked / "in-use.new").write_text("")
    home = ChildHome()
    assert other.exists()
    assert (own_folder / "mcp-sidecar-file").exists()
    assert (precious / "in-use").exists()
    assert linked.exists()
    home.remove()
