"""The platform's own tests and golden cases stand alone: no example team and no data is needed for them to pass."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest

from sidecar.authoring.checking import ChosenTests, run_tests
from sidecar.authoring.engine import engine
from tests.parts import ROOT

pytestmark = pytest.mark.real

POLICIES = ROOT / "policies"
TEAMS = sorted(path.name for path in (POLICIES / "teams").iterdir())
CASES = {
    name: case
    for path in sorted((POLICIES / "cases").glob("*.json"))
    for name, case in msgspec.json.decode(path.read_bytes()).items()
}
FLAGS = ("--capabilities=capabilities.json", "--timeout=90s", "--format=json")

UNMEASURED = ChosenTests(packages=None, measured=False)
"""All tests and cases; which lines they reach is no question here, and two thirds of the work."""

Run = Callable[..., CompletedProcess[str]]


def owners(case: Any) -> set[str]:
    named = case.get("teams", [])
    return ({access["owner"] for access in case["decision"]["accesses"]} | {*named}) - {"", "platform"}


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


def forget(folder: Path, team: str) -> None:
    """Remove a team with all that the platform's data and the golden cases say of it, as its operator would."""
    shutil.rmtree(folder / "teams" / team)
    (folder / "cases" / f"{team}.json").unlink()
    path = folder / "platform/data.json"
    document = msgspec.json.decode(path.read_bytes())
    for deployment in document["mcp"]["platform"]["deployments"].values():
        held = deployment["databases"]
        deployment["databases"] = {name: one for name, one in held.items() if one["owner"] != team}
    path.write_bytes(msgspec.json.encode(document))


@pytest.mark.parametrize("gone", TEAMS)
def test_without_an_example_team_every_other_test_and_case_passes(run_opa: Run, tmp_path: Path, gone: str) -> None:
    folder = copied(tmp_path)
    shutil.rmtree(folder / "teams" / gone)
    bundles = ["platform", "system", *(f"teams/{team}" for team in TEAMS if team != gone)]
    done = run_opa("test", *FLAGS, *bundles, "mcp.cases:cases", root=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    (cases,) = [one for one in msgspec.json.decode(done.stdout) if one["name"] == "test_case"]
    assert {*cases["sub_results"]} == {name for name, case in CASES.items() if gone not in owners(case)} < {*CASES}


async def test_the_cases_of_teams_that_are_not_there_are_told(tmp_path: Path, opa_binary: str) -> None:
    folder = copied(tmp_path)
    for team in TEAMS:
        shutil.rmtree(folder / "teams" / team)
    async with engine(opa_binary, folder) as held:
        tested = await run_tests(held, UNMEASURED)
    assert (tested.ok, tested.failures) == (True, ())
    assert tested.cases == len([case for case in CASES.values() if not owners(case)])
    assert {one.message.rpartition("/")[2] for one in tested.left_out} == {*TEAMS}, "and nobody else"


async def test_without_all_that_the_set_says_of_the_example_teams_everything_passes(
    tmp_path: Path, opa_binary: str
) -> None:
    folder = copied(tmp_path)
    for team in TEAMS:
        forget(folder, team)
    tables = msgspec.json.decode((folder / "platform/data.json").read_bytes())
    tables["mcp"]["platform"] |= {"routes": [], "grants": []}
    (folder / "platform/data.json").write_bytes(msgspec.json.encode(tables))
    async with engine(opa_binary, folder) as held:
        tested = await run_tests(held, UNMEASURED)
    assert (tested.failures, tested.left_out) == ((), ())
    assert tested.cases == len([case for case in CASES.values() if not owners(case)])


def test_without_any_data_every_test_of_the_platform_and_of_the_teams_passes(run_opa: Run, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for path in folder.rglob("data.json"):
        path.unlink()
    bundles = ["platform", "system", *(f"teams/{team}" for team in TEAMS)]
    done = run_opa("test", *FLAGS, *bundles, root=folder)
    results = msgspec.json.decode(done.stdout)
    assert [one["name"] for one in results if one.get("fail") or one.get("error")] == []
    assert done.returncode == 0
    assert len(results) > 200


def test_without_any_data_and_any_team_every_case_of_the_platforms_own_passes(run_opa: Run, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for path in folder.rglob("data.json"):
        path.unlink()
    done = run_opa("test", *FLAGS, "platform", "system", "mcp.cases:cases", root=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    (cases,) = [one for one in msgspec.json.decode(done.stdout) if one["name"] == "test_case"]
    assert {*cases["sub_results"]} == {name for name, case in CASES.items() if not owners(case)}


async def test_a_case_of_the_platforms_own_still_fails_where_a_rule_is_changed(tmp_path: Path, opa_binary: str) -> None:
    folder = copied(tmp_path)
    shutil.rmtree(folder / "teams")
    (folder / "teams").mkdir()
    rule = folder / "platform/guardrails.rego"
    rule.write_text(rule.read_text().replace('lower(name), "system."', 'lower(name), "systems."'))
    async with engine(opa_binary, folder) as held:
        failures = {one.message: one.file for one in (await run_tests(held, UNMEASURED)).failures}
    cases = sorted(message for message in failures if message.startswith("test_case["))
    assert [case.partition(" fails: ")[0] for case in cases] == [
        "test_case[system-collection]",
        "test_case[through-a-system-view]",
    ]
    assert "/allow is true, expected false; /reasons is [], expected [{" in cases[0]
    assert {failures[case] for case in cases} == {"cases/guardrails.json"}


async def test_a_case_of_a_team_that_is_there_is_never_left_out(tmp_path: Path, opa_binary: str) -> None:
    folder = copied(tmp_path)
    for file in (folder / "teams/people").glob("*.rego"):
        file.write_text("package mcp.teams.people\n")
    async with engine(opa_binary, folder) as held:
        tested = await run_tests(held, UNMEASURED)
    assert tested.left_out == ()
    assert any(one.file == "cases/people.json" for one in tested.failures), "its rules are gone, and that is told"


async def test_the_condition_of_lists_is_decided_by_cases_of_the_platforms_own() -> None:
    names = msgspec.json.decode((POLICIES / "cases/names.json").read_bytes())
    shown = {name: case["decision"]["accesses"][0].get("names") for name, case in names.items()}
    assert shown == {
        "names-that-are-reached": "reachable",
        "names-of-a-wider-grant": None,
        "names-by-obligation": "reachable",
        "names-in-a-database": "reachable",
        "names-where-there-is-no-list": None,
    }
