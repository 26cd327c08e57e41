"""A small platform with two teams: ``red`` is the hostile one, ``blue`` the one that must not notice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.opa.conftest import make_policies, runtime
from tests.parts import ROOT

__all__ = ["make_policies", "policies", "runtime", "team_file"]

BLUE = """package mcp.teams.blue

grant contains {"id": "blue-reads"} if {
	input.access.kind == "read"
	input.access.collection == "orders"
	"blues" in input.subject.groups
}

deny contains "x" if false
"""

RED = """package mcp.teams.red

grant contains {"id": "red-reads"} if {
	input.access.kind == "read"
	"reds" in input.subject.groups
}

deny contains "x" if false
"""

OBLIGED = {"owner": "", "delegated": [{"kinds": ["read"], "collections": ["*"]}], "obligations": []}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The repository's platform with the teams ``red`` and ``blue`` in the place of its own."""
    root = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", root, ignore=shutil.ignore_patterns("teams", "cases", "*_test.rego"))
    for team, text in (("red", RED), ("blue", BLUE)):
        folder = root / "teams" / team
        folder.mkdir(parents=True)
        roots = [f"mcp/teams/{team}", f"mcp/grants/{team}"]
        (folder / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
        (folder / "policy.rego").write_text(text)
    data = json.loads((root / "platform" / "data.json").read_text())  # noqa: TID251 - the repository's own file
    platform = data["mcp"]["platform"]
    platform["deployments"]["demo"]["databases"] = {team: {**OBLIGED, "owner": team} for team in ("red", "blue")}
    platform["routes"][0]["groups"] = ["reds", "blues"]
    (root / "platform" / "data.json").write_text(json.dumps(data))
    return root


@pytest.fixture
def team_file(policies: Path) -> Callable[[str, str], Path]:
    """Writes a file into red's folder."""

    def write(name: str, text: str) -> Path:
        file = policies / "teams" / "red" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write
