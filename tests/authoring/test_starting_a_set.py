"""``policy init`` and ``policy new --write``: sets that pass from the first moment on, and what they refuse."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from sidecar.authoring import kit
from sidecar.authoring.checking import ALL_TESTS, ChosenTests, TeamTestReport
from sidecar.authoring.differences import differences
from sidecar.authoring.watching import Changed, afterwards, at_once, watch
from sidecar.policyset import PolicySet
from tests.authoring.test_policy_folder_commands import OPA, POLICIES, answer, run
from tests.patience import HANG_S


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


def test_a_name_that_no_folder_could_have_is_one_line(tmp_path: Path) -> None:
    refused = run("policy", "init", str(tmp_path / ("a" * 300)), "--opa", OPA)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (78, 1)
    assert "File name too long" in refused.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--database", "a*b"),
        ("--database", '"'),
        ("--database", "*"),
        ("--database", "sales", "--write", "--server", "demo-ro"),
        ("--database", "new", "--write"),
        ("--database", "new", "--write", "--server", "nowhere"),
        ("--database", "new", "--server", "Demo RO"),
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


@pytest.mark.parametrize(
    ("changed", "packages", "cases", "also"),
    [
        ({"teams/people/policy.rego", "teams/people/data.json"}, {"mcp.teams.people.policy_test"}, False, "cases"),
        ({"cases/shop.json", "cases/more.json"}, set(), True, ""),
        ({"platform/bounds_test.rego"}, {"mcp.platform.bounds_test"}, False, "rest"),
        ({"platform/names.rego"}, {"mcp.platform.names_test"}, False, "rest"),
        ({"platform/data.json"}, set(), True, "rest"),
        ({"cases/cases_test.rego"}, set(), True, "rest"),
        ({"teams/people/policy.rego", "teams/support/data.json"}, {"mcp.teams.people.policy_test"}, False, "rest"),
        ({"teams/people/policy.rego", "platform/names.rego"}, {"mcp.platform.names_test"}, False, "rest"),
        ({"teams/cases/a.json"}, set(), False, "cases"),
        ({"platform/gone.rego"}, set(), True, "rest"),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_what_changed_is_run_at_once_and_afterwards_what_depends_on_it(
    changed: set[str], packages: set[str], cases: bool, also: str
) -> None:
    policies = PolicySet.read(POLICIES)
    everything = {f"mcp.teams.{team}.policy_test" for team in ("analytics", "loading", "people", "support")}
    everything |= {"mcp.main_test", "mcp.platform.names_test", "mcp.platform.views_test", "mcp.lib_test"}
    first = at_once(policies, frozenset(changed))
    assert first.packages is not None
    assert packages <= {*first.packages}
    assert len(first.packages) < 8, "few of them"
    assert first.cases is cases
    rest = afterwards(policies, frozenset(changed), frozenset(changed))
    match also:
        case "":
            assert rest is None
        case "cases":
            assert rest == ChosenTests(packages=(), measured=False)
        case _:
            assert rest is not None
            assert not {*first.packages} & {*(rest.packages or ())}, "nothing twice"
            assert everything <= {*first.packages, *(rest.packages or ())}
            assert rest.cases is not first.cases


def test_all_is_run_at_first_and_what_was_interrupted_is_run_with_what_comes_next() -> None:
    policies = PolicySet.read(POLICIES)
    assert at_once(policies, None) == ALL_TESTS
    platform, team = frozenset({"platform/views.rego"}), frozenset({"teams/people/policy.rego"})
    rest = afterwards(policies, platform | team, team)
    assert rest is not None
    assert "mcp.platform.views_test" in (rest.packages or ())
    assert "mcp.teams.people.policy_test" not in (rest.packages or ()), "it ran at once"
    assert rest.cases


@pytest.mark.real
async def test_each_change_runs_what_changed_and_then_what_depends_on_it(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    told: asyncio.Queue[TeamTestReport] = asyncio.Queue()

    async def heard(of: str) -> TeamTestReport:
        report = await asyncio.wait_for(told.get(), HANG_S)
        assert report.of == of
        return report

    watching = asyncio.create_task(kit.watch_tests(folder, OPA, told.put_nowait))
    try:
        whole = await heard("")
        assert (whole.failures, whole.cases > 60, "platform/main.rego" in whole.coverage) == ((), True, True)
        policy = folder / "teams/people/policy.rego"
        policy.write_text(policy.read_text().replace("hr-admins-read", "hr-admins-look"))
        team = await heard("what changed")
        assert {one.file for one in team.failures} == {"teams/people/policy_test.rego"}
        assert team.cases == 0
        by_team = await heard("what depends on it")
        assert {one.file for one in by_team.failures} == {"cases/people.json"}
        cases = folder / "cases/routes.json"
        cases.write_text(cases.read_text().replace('"server": ""', '"server": "nowhere"', 1))
        golden = await heard("what changed")
        assert {one.file for one in golden.failures} == {"cases/routes.json", "cases/people.json"}
        assert golden.passed == golden.cases + 1, "the golden cases, and that there are some"
        assert golden.coverage == {}
        names = folder / "platform/names.rego"
        names.write_text(names.read_text() + "\n# a change\n")
        own = await heard("what changed")
        assert (own.failures, own.cases) == ((), 0)
        assert 0 < own.passed < 100
        others = await heard("what depends on it")
        assert own.passed + others.passed + len(others.failures) == whole.passed, "each of them once"
        assert told.empty()
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_change_interrupts_what_depends_on_the_one_before(tmp_path: Path) -> None:
    """With what is run replaced: how long OPA takes must not decide what is tried."""
    a, b = frozenset("a"), frozenset("b")
    (tmp_path / "a").touch()
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def act(changed: Changed) -> None:
        seen.put_nowait(changed)

    async def later(owed: Changed, done: Changed) -> None:
        seen.put_nowait((owed, done))
        if owed == a:
            try:
                await asyncio.sleep(HANG_S)
            finally:
                seen.put_nowait("interrupted")

    watching = asyncio.create_task(watch(tmp_path, act, later))
    try:
        async with asyncio.timeout(HANG_S):
            assert await seen.get() is None
            (tmp_path / "a").write_text("1")
            assert [await seen.get(), await seen.get()] == [a, (a, a)]
            (tmp_path / "b").write_text("2")
            assert [await seen.get() for _ in range(3)] == ["interrupted", b, (a | b, b)]
    finally:
        watching.cancel()
        await asyncio.wait([watching])
