"""Private folders of children: those in use stay, those of a process that was killed go with the next start."""

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sidecar.errors import ConfigurationError
from sidecar.upstream import homes
from sidecar.upstream.homes import ChildHome, own_home
from tests.parts import ROOT
from tests.patience import HANG_S

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


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_one_whose_making_is_cancelled_is_not_left(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(HANG_S)

    monkeypatch.setattr(homes, "_delete_left_behind", slow)
    before = psutil.Process().num_fds()
    making = asyncio.create_task(own_home())
    await asyncio.to_thread(begun.wait, HANG_S)
    for _ in range(2):
        making.cancel()
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert left(own_folder) == []
    assert psutil.Process().num_fds() == before


async def test_where_there_is_no_place_for_one_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no-such-folder")
    with pytest.raises(ConfigurationError, match="private folder"):
        await own_home()
