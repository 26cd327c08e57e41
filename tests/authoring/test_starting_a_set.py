"""``policy init`` and ``policy new --write``: sets that pass from the first moment on, and what they refuse."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from sidecar.authoring import kit
from sidecar.authoring.checking import TeamTestReport
from sidecar.authoring.differences import differences
from sidecar.authoring.watching import only_cases, team_of
from tests.authoring.test_policy_folder_commands import OPA, POLICIES, answer, run


def tables(folder: Path) -> dict[str, dict[str, object]]:
    document = msgspec.json.decode((folder / "platform/data.json").read_bytes())
    found: dict[str, dict[str, object]] = document["mcp"]["platform"]
    return found


def test_a_set_from_nothing_passes_and_takes_further_teams(tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    wards = ("--team", "wards", "--database", "ward_*", "--database", "beds", "--collection", "obs_*")
    made = run("policy", "init", str(folder), *wards, "--opa", OPA)
    assert made.returncode == 0, made.stderr
    new = run("policy", "new", "pharmacy", str(folder), "--database", "drugs", "--write")
    assert new.returncode == 0, new.stderr
    assert "platform/data.json:" in new.stdout
    assert "add to grants" in new.stdout
    holdings = tables(folder)["deployments"]["main"]
    assert isinstance(holdings, dict)
    assert (set(holdings["databases"]), set(holdings["prefixes"])) == ({"beds", "drugs"}, {"ward_"})
    checked = run("policy", "check", str(folder), "--json", "--opa", OPA)
    assert answer(checked)["findings"] == []
    tested = answer(run("policy", "test", str(folder), "--json", "--opa", OPA))
    assert (tested["failures"], tested["cases"]) == ([], 2)
    assert {one["coverage"] for file, one in tested["coverage"].items() if file.startswith("teams/")} == {100}

    policy = folder / "teams/wards/policy.rego"
    policy.write_text(policy.read_text().replace("readers-read-documents", "readers-read"))
    failures = answer(run("policy", "test", str(folder), "--json", "--opa", OPA))["failures"]
    said = '/accesses/0/grants/0 is "readers-read", expected "readers-read-documents"'
    assert any(one["file"] == "cases/wards.json" and said in one["message"] for one in failures), failures


@pytest.mark.parametrize("held", ["a file", "a folder with a file", "a link"])
def test_a_set_is_never_made_where_something_is(tmp_path: Path, held: str) -> None:
    folder = tmp_path / "policies"
    match held:
        case "a file":
            folder.write_text("x")
        case "a folder with a file":
            folder.mkdir()
            (folder / ".kept").write_text("x")
        case _:
            (tmp_path / "elsewhere").mkdir()
            folder.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    assert run("policy", "init", str(folder), "--opa", OPA).returncode == 78
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [
        ("--database", "a*b"),
        ("--database", '"'),
        ("--database", "*"),
        ("--database", "sales", "--write", "--server", "demo-ro"),
        ("--database", "new", "--write"),
        ("--database", "new", "--write", "--server", "nowhere"),
        ("--collection", "[a]"),
    ],
)
def test_what_cannot_be_owned_is_refused_and_nothing_is_written(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "platform").mkdir()
    for name in (".manifest", "data.json"):
        source = Path(__file__).parents[2] / "policies/platform" / name
        (tmp_path / "platform" / name).write_bytes(source.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run("policy", "new", "shop", str(tmp_path), *options).returncode == 78
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_difference_of_two_decisions_is_told_by_its_place() -> None:
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["/a/1/b is 3, expected 2"]
    assert differences({"a": 1}, {"b": 1}) == ["/a is not there, expected 1", "/b is 1, expected not there"]
    assert differences({"a": True}, {"a": 1}) == ["/a is 1, expected true"]
    assert differences({"a": [1]}, {"a": [1]}) == []


def test_a_change_within_one_team_is_that_teams_alone() -> None:
    assert team_of(frozenset({"teams/red/policy.rego", "teams/red/data.json"})) == "red"
    assert team_of(frozenset({"teams/red/policy.rego", "teams/blue/data.json"})) is None
    assert team_of(frozenset({"teams/red/policy.rego", "platform/main.rego"})) is None
    assert team_of(None) is None


def test_a_change_of_golden_cases_alone_is_theirs() -> None:
    assert only_cases(frozenset({"cases/shop.json", "cases/more.json"}))
    for others in ({"cases/shop.json", "platform/main.rego"}, {"cases/cases_test.rego"}, {"teams/cases/a.json"}):
        assert not only_cases(frozenset(others))
    assert not only_cases(frozenset())
    assert not only_cases(None)


@pytest.mark.real
async def test_each_change_runs_what_changed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    told: asyncio.Queue[TeamTestReport] = asyncio.Queue()
    watching = asyncio.create_task(kit.watch_tests(folder, OPA, told.put_nowait))
    try:
        whole = await asyncio.wait_for(told.get(), 300)
        assert (whole.failures, whole.cases > 60, "platform/main.rego" in whole.coverage) == ((), True, True)
        policy = folder / "teams/people/policy.rego"
        policy.write_text(policy.read_text().replace("hr-admins-read", "hr-admins-look"))
        team = await asyncio.wait_for(told.get(), 300)
        assert {one.file for one in team.failures} == {"teams/people/policy_test.rego"}
        assert team.cases == 0
        cases = folder / "cases/routes.json"
        cases.write_text(cases.read_text().replace('"server": ""', '"server": "nowhere"', 1))
        golden = await asyncio.wait_for(told.get(), 300)
        assert {one.file for one in golden.failures} == {"cases/routes.json", "cases/people.json"}
        assert golden.passed == golden.cases + 1, "the golden cases, and that there are some"
        assert golden.coverage == {}
    finally:
        watching.cancel()
        await asyncio.wait([watching])
