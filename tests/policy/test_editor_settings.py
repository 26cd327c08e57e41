"""policies/README.md: the settings for VS Code, run as the extension "Open Policy Agent" 0.24 runs OPA with them.

Its source (open-policy-agent/vscode-opa, src/extension.ts and src/opa.ts) says: on save, `opa check --bundle`, each
root as a URI, `--schema`, and `--strict`; `opa test --verbose --bundle` and the roots for *Test Workspace*. Bundle mode
is on unless settings turn it off.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.parts import ROOT
from tests.policy_sets import quick_copy

pytestmark = pytest.mark.real

PAGE = (ROOT / "policies/README.md").read_text(encoding="utf-8")
(SETTINGS,) = [
    msgspec.json.decode(text) for text in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]
WORKSPACE = "${workspaceFolder}"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    quick_copy(tmp_path / "policies")
    return tmp_path


def in_workspace(setting: str, workspace: Path) -> str:
    assert setting.startswith(WORKSPACE)
    return setting.replace(WORKSPACE, str(workspace))


def on_save(run_opa: Run, workspace: Path) -> subprocess.CompletedProcess[str]:
    assert SETTINGS["opa.checkOnSave"]
    assert "opa.bundleMode" not in SETTINGS
    roots = [Path(in_workspace(root, workspace)).as_uri() for root in SETTINGS["opa.roots"]]
    strict = ["--strict"] if SETTINGS["opa.strictMode"] else []
    schema = in_workspace(SETTINGS["opa.schema"], workspace)
    return run_opa("check", "--bundle", *roots, f"--schema={schema}", *strict, root=workspace)


def test_the_roots_are_the_bundles_of_the_set(workspace: Path) -> None:
    roots = {Path(in_workspace(root, workspace)) for root in SETTINGS["opa.roots"]}
    assert roots == {path.parent for path in (workspace / "policies").rglob(".manifest")}


def test_a_misspelt_part_of_the_question_is_told_on_save_with_file_and_line(run_opa: Run, workspace: Path) -> None:
    done = on_save(run_opa, workspace)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    policy = workspace / "policies/teams/people/policy.rego"
    text = policy.read_text().replace("input.actor.chain", "input.actor.chian")
    policy.write_text(text)
    (line,) = [number for number, one in enumerate(text.splitlines(), 1) if "chian" in one]
    said = on_save(run_opa, workspace).stderr
    assert re.search(rf"teams/people/policy\.rego:{line}: rego_type_error: undefined ref: input\.actor\.chian", said)


def test_the_extensions_own_tests_of_the_workspace_pass(run_opa: Run, workspace: Path) -> None:
    roots = [Path(in_workspace(root, workspace)).as_uri() for root in SETTINGS["opa.roots"]]
    # The extension leaves OPA's limit of 5 s for each test, which a busy machine can reach.
    done = run_opa("test", "--timeout=90s", "--verbose", "--bundle", *roots, root=workspace)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_platforms_data_is_held_to_its_schema_by_the_built_in_support() -> None:
    (entry,) = SETTINGS["json.schemas"]
    (matched,) = entry["fileMatch"]
    reference: Any = entry["schema"]["properties"]["mcp"]["properties"]["platform"]["$ref"]
    assert (ROOT / matched.lstrip("/")).is_file()
    schema = msgspec.json.decode((ROOT / reference).read_bytes())
    assert "routes" in schema["properties"]
