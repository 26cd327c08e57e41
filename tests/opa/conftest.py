"""A policy set of a few lines for staging faults, and a runtime folder with a short path."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.opa.small_policies import MAIN, TEAM
from tests.parts import ROOT

REPOSITORY = ROOT / "policies"


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A private folder; pytest's own can be longer than a Unix socket's path may be."""
    folder = Path(tempfile.mkdtemp(prefix="opa"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_policies(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small policy folder; keyword ``main`` replaces the platform's rules, ``team`` the team's."""

    def make(*, main: str = MAIN, team: str = TEAM) -> Path:
        root = tmp_path / "policies"
        bundles = {
            "platform": (["mcp/main", "mcp/platform"], {"main.rego": main}),
            "system": (["system"], {}),
            "teams/red": (["mcp/teams/red", "mcp/grants/red"], {"policy.rego": team}),
        }
        for bundle, (roots, files) in bundles.items():
            (root / bundle).mkdir(parents=True, exist_ok=True)
            (root / bundle / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
            for name, text in files.items():
                (root / bundle / name).write_text(text)
        shutil.copy(REPOSITORY / "platform" / "facts.rego", root / "platform")
        shutil.copy(REPOSITORY / "system" / "authz.rego", root / "system")
        shutil.copy(REPOSITORY / "capabilities.json", root)
        return root

    return make
