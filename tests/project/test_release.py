"""A release: its bill of materials names everything that the lock files do, and its workflow takes nothing by a tag."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.parts import BIN, ROOT
from tools import sbom

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_./-]+@[0-9a-f]{40}")
BUILD_INFORMATION = """\
opa: go1.26.11
\tpath\tgithub.com/open-policy-agent/opa
\tmod\tgithub.com/open-policy-agent/opa\tv1.22.4\th1:x=
\tdep\tgithub.com/cespare/xxhash/v2\tv2.3.0\th1:y=
\tbuild\t-compiler=gc
"""


def test_every_python_package_of_the_lock_is_listed_with_its_digests():
    lock = (ROOT / "deploy/requirements.lock").read_text()
    pinned = {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    }
    listed = list(sbom.python_components(lock))
    assert {(one["name"], one["version"]) for one in listed} == pinned
    assert len(pinned) > 30
    assert sum(len(one["properties"]) for one in listed) == lock.count("--hash=sha256:")


def test_every_npm_package_of_the_lock_is_listed_with_its_digest():
    lock = json.loads((ROOT / "parts/package-lock.json").read_bytes())  # noqa: TID251 - a file of ours
    listed = list(sbom.npm_components(lock))
    assert len(listed) == len([place for place, one in lock["packages"].items() if place and not one.get("dev")])
    server = next(one for one in listed if one["name"] == "mongodb-mcp-server")
    assert server["purl"] == "pkg:npm/mongodb-mcp-server@3.0.4"
    assert all(re.fullmatch(r"[0-9a-f]{128}", one["hashes"][0]["content"]) for one in listed)


def test_what_is_for_development_only_is_not_listed():
    packages = {
        "": {},
        "node_modules/a": {"version": "1.0.0", "integrity": "sha512-AAAA"},
        "node_modules/a/node_modules/@s/b": {"version": "2.0.0", "integrity": "sha512-AAAA", "dev": True},
    }
    assert [one["purl"] for one in sbom.npm_components({"packages": packages})] == ["pkg:npm/a@1.0.0"]


def test_a_scope_is_encoded_and_its_slash_is_not():
    packages = {"node_modules/x/node_modules/@s/b": {"version": "2.0.0", "integrity": "sha512-AAAA"}}
    assert [one["purl"] for one in sbom.npm_components({"packages": packages})] == ["pkg:npm/%40s/b@2.0.0"]


def test_go_modules_are_those_that_the_executable_names():
    assert [one["purl"] for one in sbom.go_components(BUILD_INFORMATION)] == [
        "pkg:golang/stdlib@1.26.11",
        "pkg:golang/github.com/open-policy-agent/opa@v1.22.4",
        "pkg:golang/github.com/cespare/xxhash/v2@v2.3.0",
    ]
    with pytest.raises(ValueError, match="which Go built it"):
        list(sbom.go_components("opa: not a Go executable\n"))


def test_printed_twice_it_is_the_same_and_references_are_unique():
    command = [sys.executable, "-S", "tools/sbom.py"]
    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout for _ in range(2))
    assert first == second
    document = json.loads(first)  # noqa: TID251 - our own output
    references = [one["bom-ref"] for one in document["components"]]
    assert references == sorted(set(references))
    assert document["metadata"]["component"]["version"] == sbom.own_version()


@pytest.mark.needs("go")
def test_the_modules_of_the_real_opa_are_listed():
    listed = {one["name"]: one["version"] for one in sbom.bill(BIN / "opa")["components"]}
    assert listed["github.com/open-policy-agent/opa"].startswith("v1.")
    assert "github.com/cespare/xxhash/v2" in listed


# --- the workflow -----------------------------------------------------------------------------------------------------


def used(workflow: Path) -> list[str]:
    return re.findall(r"^\s*-?\s*uses:\s*(\S+)", workflow.read_text(), re.MULTILINE)


def test_each_action_is_pinned_by_commit():
    assert WORKFLOWS
    assert [action for workflow in WORKFLOWS for action in used(workflow) if not PINNED.fullmatch(action)] == []
    assert sum(len(used(workflow)) for workflow in WORKFLOWS) >= 5


@pytest.mark.parametrize("action", ["actions/checkout@v7", "actions/checkout@main", "actions/checkout@3d3c42e"])
def test_an_action_that_is_not_is_found(action):
    assert not PINNED.fullmatch(action)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_rights_but_those_that_a_job_names_and_runs_for_no_strangers(workflow):
    document = YAML(typ="safe").load(workflow)
    assert document["permissions"] == {}
    assert all("write" not in str(job["permissions"].get("contents", "")) for job in document["jobs"].values())
    assert not {"pull_request", "pull_request_target", "issue_comment"} & set(document["on"])
    scripts = [step["run"] for job in document["jobs"].values() for step in job["steps"] if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script], "what a name says is passed as a variable"


def test_the_workflow_builds_with_the_toolchain_that_the_scripts_pin():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    pinned = re.search(r"^readonly GO_TOOLCHAIN=(\S+)", (ROOT / "scripts/lib.sh").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f'go-version: "{pinned[1]}"' in text


@pytest.mark.nightly
@pytest.mark.needs("actionlint")
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(workflow):
    done = subprocess.run(
        [str(BIN / "actionlint"), "-shellcheck=", str(workflow)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
