"""The wheel: everything that works from a checkout is in it, and it is the same bytes wherever it is built."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from sidecar.provision import OutsideProgram
from sidecar.provision.parts import FILES
from tests.parts import ROOT
from tests.patience import HANG_S

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied(folder: Path) -> Path:
    """What git tracks, elsewhere: other times, and other modes as under another umask."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    new = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in filter(None, (tracked + new).decode().split("\0")):
        if name.startswith(("tests/", "bench/", "docs/")) or not (ROOT / name).is_file():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o640)
    return folder


def built(source: Path, out: Path, **environment: str) -> Path:
    """The wheel of a tree, built by the backend itself: nothing is fetched."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=source,
        env={"PATH": os.defpath, "HOME": str(out), **environment},
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(copied(tmp_path_factory.mktemp("one")), tmp_path_factory.mktemp("out"), SOURCE_DATE_EPOCH="1764547200")


def test_built_twice_it_is_the_same_bytes(wheel, tmp_path):
    again = built(
        copied(tmp_path / "another" / "place"),
        tmp_path / "out",
        SOURCE_DATE_EPOCH="1764547200",
        LC_ALL="C",
        TZ="Asia/Tokyo",
    )
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_at_another_date_it_is_another_wheel(wheel, tmp_path):
    """The near miss: the date that is given is in it."""
    other = built(copied(tmp_path / "tree"), tmp_path / "out", SOURCE_DATE_EPOCH="1764633600")
    assert other.read_bytes() != wheel.read_bytes()


def test_everything_that_setup_the_demo_and_policies_need_is_in_it(wheel):
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        read = {name: archive.read(name) for name in inside}
    lock_files = {f"sidecar/_parts/{name}": ROOT / "parts" / name for names in FILES.values() for name in names}
    listed = subprocess.run(
        ["git", "ls-files", "policies"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    policies = {f"sidecar/_{name}": ROOT / name for name in listed.split()}
    assert len(lock_files) == 14
    assert len(policies) > 50
    wanted = lock_files | policies
    assert {name for name, source in wanted.items() if read.get(name) != source.read_bytes()} == set()
    assert {name for name in inside if name.startswith(("sidecar/_parts/", "sidecar/_policies/"))} == wanted.keys()


def test_the_authorization_server_in_it_is_whole():
    sources = {path.name for path in (ROOT / "parts" / "authorization-server").glob("*") if path.is_file()}
    assert {Path(name).name for name in FILES[OutsideProgram.ISSUER]} == sources


def test_it_holds_nothing_but_the_package(wheel):
    with ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
        kinds = {Path(name).suffix for name in archive.namelist()}
    version = wheel.name.split("-")[1]
    assert top == {"sidecar", f"mcp_sidecar-{version}.dist-info"}
    assert not kinds & {".pyc", ".so", ".pem", ".key"}


@pytest.mark.nightly
def test_installed_in_a_fresh_environment_the_demo_plays_its_tour_in_an_empty_folder(wheel, tmp_path):
    python = tmp_path / "environment" / "bin" / "python"
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "environment")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # noqa: TID251 - the tests' own
    outside = [folder for folder in inherited["PATH"].split(os.pathsep) if not folder.startswith(str(ROOT))]
    done = subprocess.run(
        [str(python.with_name("mcp-sidecar")), "demo", "--once"],
        cwd=empty,
        env={**inherited, "PATH": os.pathsep.join(outside), "XDG_DATA_HOME": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=4 * HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "analytics/analysts-read-orders" in done.stdout.replace("\n", "")
    assert {path.name for path in empty.iterdir()} == {"audit.jsonl", "audit.jsonl.checkpoints"}
    assert sorted(path.name for path in (tmp_path / "data/mcp-sidecar/bin").iterdir()) == sorted(OutsideProgram)
