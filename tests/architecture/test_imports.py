"""Imports go one way: the contracts of pyproject.toml hold, and they break when something breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import ROOT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    lint = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([str(lint), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package alone, with its contracts, in a folder where it may be spoiled."""
    shutil.copytree(ROOT / "sidecar", tmp_path / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sidecar/mcp/planted.py", "import time"),
        ("sidecar/commands/planted.py", "import aiohttp"),
        ("sidecar/policy/planted.py", "from os import path"),
        ("sidecar/opa/planted.py", "import sidecar.upstream"),
        ("sidecar/model.py", "import sidecar.mcp"),
        ("sidecar/system/planted.py", "import sidecar.policyset"),
        ("sidecar/policyset/planted.py", "import sidecar.opa"),
        ("sidecar/identity/planted.py", "import pydantic"),
        ("sidecar/enforcement/planted.py", "from rich import console"),
        ("sidecar/planted.py", "import json"),
    ],
)
def test_an_import_against_the_direction_is_found(copy: Path, module: str, line: str) -> None:
    target = copy / module
    target.write_text(f"{line}\n{target.read_text() if target.exists() else ''}")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_an_import_along_the_direction_is_fine(copy: Path) -> None:
    (copy / "sidecar/opa/planted.py").write_text("import time\n\nimport sidecar.model\n")
    assert lint_imports(copy).returncode == 0
