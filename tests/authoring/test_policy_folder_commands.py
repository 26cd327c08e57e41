"""``mcp-sidecar policy check|test|new|show`` as their users run them: real OPA, a copy of the repository's policies."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.authoring import kit
from sidecar.authoring.checking import CheckReport
from tests import parts
from tests.patience import HANG_S
from tests.policy_sets import quick_copy

POLICIES = parts.ROOT / "policies"
OPA = str(parts.BIN / "opa")
CALLER = {"sub": "mia", "client_id": "claude-desktop", "scope": "mongodb:read mongodb:write"}


def run(*arguments: str, cwd: Path = parts.ROOT, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """The command line, with no setting in its environment but those that are named."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        cwd=cwd,
        env={"PATH": str(parts.BIN), "PYTHONPATH": str(parts.ROOT), "COLUMNS": "200", **settings},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    return msgspec.json.decode(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the repository's policies that a test may spoil."""
    return quick_copy(tmp_path / "policies")


# --- check ------------------------------------------------------------------------------------------------------------


def test_the_repositorys_policies_are_fine() -> None:
    done = run("policy", "check", str(POLICIES), "--json")
    found = answer(done)
    assert (done.returncode, found["ok"], found["findings"]) == (0, True, []), done.stderr
    assert {"mcp.lib", "mcp.teams.analytics", "mcp.teams.loading", "mcp.teams.people"} <= found["reads"].keys()


def test_a_check_for_several_issuers_warns_of_what_counts_for_none() -> None:
    issuers = ("--issuer", "https://a.example", "--issuer", "https://b.example")
    done = run("policy", "check", str(POLICIES), "--json", *issuers)
    found = answer(done)["findings"]
    assert (done.returncode, {(one["rule"], one["severity"]) for one in found}) == (0, {("issuer", "warning")})
    assert any("/mcp/platform/routes/0: counts for no caller" in one["message"] for one in found)
    assert run("policy", "check", str(POLICIES), *issuers[:2]).stdout == "fine\n"


@pytest.fixture
def misspelt(tmp_path: Path) -> Path:
    """Settings that ask clients for a scope that is none."""
    config = tmp_path / "sidecar.toml"
    start = 'resource_url = "http://127.0.0.1:8080/mcp"\nscopes = ["mongodb:read", "mongodb:writ"]\n'
    servers = '[[servers]]\nname = "demo-ro"\nurl = "http://127.0.0.1:1/mcp"\n'
    config.write_text(f'{start}[[issuers]]\nissuer = "https://a.example"\n{servers}')
    return config


def test_a_check_with_settings_warns_of_scopes_that_clients_are_asked_for_in_vain(misspelt: Path) -> None:
    done = run("policy", "check", str(POLICIES), "--json", SIDECAR_CONFIG=str(misspelt))
    (found,) = answer(done)["findings"]
    assert (done.returncode, found["file"], found["severity"]) == (0, "platform/data.json", "warning")
    assert '"mongodb:writ", which opens nothing here: did you mean mongodb:write?' in found["message"]
    named = run("policy", "check", str(POLICIES), "--issuer", "https://a.example", SIDECAR_CONFIG=str(misspelt))
    assert named.stdout == "fine\n", "other issuers, other settings"


async def test_so_does_one_that_watches(misspelt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_CONFIG", str(misspelt))
    told: asyncio.Queue[CheckReport] = asyncio.Queue()
    watching = asyncio.create_task(kit.watch_checks(POLICIES, OPA, (), told.put_nowait))
    async with asyncio.timeout(HANG_S):
        report = await told.get()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    (found,) = report.findings
    assert '"mongodb:writ", which opens nothing here' in found.message


async def test_a_check_that_watches_tells_of_each_change_and_of_its_end(folder: Path) -> None:
    told: asyncio.Queue[CheckReport] = asyncio.Queue()
    watching = asyncio.create_task(kit.watch_checks(folder, OPA, (), told.put_nowait))
    found = []
    try:
        async with asyncio.timeout(3 * HANG_S):
            found.append((await told.get()).findings)
            more = folder / "teams/people/more.rego"
            more.write_text("package mcp.teams.people\n\nimport data.mcp.lib\n\np if lib.write\n")
            found.append((await told.get()).findings)
            more.unlink()
            found.append((await told.get()).findings)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [[(one.file, one.line) for one in findings] for findings in found] == [
        [],
        [("teams/people/more.rego", 5)],
        [],
    ]


@pytest.mark.parametrize(
    ("file", "text", "line", "rule"),
    [
        ("teams/people/more.rego", "package mcp.main\n\nallow if true\n", 1, "package"),
        ("teams/people/more.rego", "package mcp.teams.people\n\nx := data.mcp.platform.routes\n", 3, "reference"),
        ("teams/people/more.rego", "package mcp.teams.people\n\nx := time.now_ns()\n", 3, "builtin"),
        ("teams/people/more.rego", "package mcp.teams.people\n\nx := {\n", 4, "syntax"),
        ("teams/people/more.rego", "package mcp.teams.people\n\nx := nowhere\n", 3, "compile"),
        ("teams/people/data.json", '{"mcp": {"platform": {}}}', 1, "data"),
    ],
)
def test_a_problem_has_a_file_and_a_line(folder: Path, file: str, text: str, line: int, rule: str) -> None:
    (folder / file).write_text(text)
    done = run("policy", "check", str(folder), "--json")
    assert done.returncode == 1, done.stderr
    found = answer(done)["findings"]
    assert {"file": file, "line": line, "rule": rule}.items() <= found[0].items()
    assert f"{file}:{line}: error: " in run("policy", "check", str(folder)).stdout


def test_a_team_whose_own_test_fails_is_refused_as_it_would_be_at_the_start(folder: Path) -> None:
    test = folder / "teams/people/more_test.rego"
    test.write_text("package mcp.teams.people.more_test\n\ntest_two if 1 + 1 == 3\n")
    done = run("policy", "check", str(folder), "--json")
    assert done.returncode == 1, done.stderr
    (found,) = answer(done)["findings"]
    assert {
        "file": "teams/people/more_test.rego",
        "line": 3,
        "rule": "test",
        "severity": "error",
    }.items() <= found.items()
    test.write_text("package mcp.teams.people.more_test\n\ntest_two if 1 + 1 == 2\n")
    assert run("policy", "check", str(folder)).returncode == 0


def test_the_platforms_data_is_held_to_its_schema(folder: Path) -> None:
    data = folder / "platform/data.json"
    data.write_text(data.read_text().replace('"id": "writers"', '"idd": "writers"'))
    done = run("policy", "check", str(folder), "--json")
    assert done.returncode == 1
    found = answer(done)["findings"]
    assert {one["message"] for one in found} == {
        "routes.1: id is required",
        'routes.1: there is no "idd" here: did you mean id?',
    }
    assert {one["file"] for one in found} == {"platform/data.json"}


def test_what_is_no_policy_folder_is_a_configuration_error(tmp_path: Path) -> None:
    done = run("policy", "check", str(tmp_path))
    assert done.returncode == 78
    assert "the policy folder has no platform/.manifest" in done.stderr
    assert run("policy", "check", str(tmp_path / "nowhere")).returncode == 2
    assert run("policy", "check", str(POLICIES), "--opa", "no-such-opa").returncode == 78


# --- test -------------------------------------------------------------------------------------------------------------


def test_the_repositorys_tests_pass_and_reach_every_line() -> None:
    done = run("policy", "test", str(POLICIES), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = answer(done)
    assert found["failures"] == []
    assert found["cases"] > 40
    assert {file["coverage"] for file in found["coverage"].values()} == {100}
    assert "teams/analytics/policy.rego" in found["coverage"]


def test_a_failing_test_and_a_failing_case_are_named_and_uncovered_lines_shown(folder: Path) -> None:
    policy = folder / "teams/people/policy.rego"
    policy.write_text(policy.read_text().replace('lib.in_group("hr-admins")', 'lib.in_group("nobody")', 1))
    done = run("policy", "test", str(folder), "--json")
    assert done.returncode == 1
    found = answer(done)
    messages = {one["message"] for one in found["failures"]}
    assert "test_hr_admins_read fails" in messages
    assert any(message.startswith("test_case[") for message in messages)
    files = {one["file"] for one in found["failures"]}
    assert "teams/people/policy_test.rego" in files
    assert files & {f"cases/{path.name}" for path in (folder / "cases").glob("*.json")}


def test_a_line_that_no_test_reaches_is_shown(folder: Path) -> None:
    with (folder / "teams/people/policy.rego").open("a") as policy:
        policy.write(
            '\ngrant contains {"id": "untested"} if {\n\tlib.reads\n\tinput.access.database == "untested"\n}\n'
        )
    done = run("policy", "test", str(folder), "--json")
    assert answer(done)["coverage"]["teams/people/policy.rego"]["not_covered"]


# --- new --------------------------------------------------------------------------------------------------------------


def test_a_new_team_passes_check_and_tests_and_is_shown_to_its_readers(folder: Path) -> None:
    done = run("policy", "new", "shop", str(folder))
    assert done.returncode == 0, done.stderr
    assert '"owner": "shop"' in done.stdout
    assert run("policy", "check", str(folder), "--json").returncode == 0
    tested = run("policy", "test", str(folder), "--json")
    assert tested.returncode == 0, tested.stdout
    assert answer(tested)["coverage"]["teams/shop/policy.rego"]["coverage"] == 100
    formatted = subprocess.run(
        [OPA, "fmt", "--list", "teams/shop"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert formatted.stdout == ""
    data = msgspec.json.decode((folder / "platform/data.json").read_bytes())
    platform = data["mcp"]["platform"]
    platform["deployments"]["demo"]["databases"]["shop"] = {
        "owner": "shop",
        "delegated": [{"kinds": ["read", "metadata"], "collections": ["", "*"]}],
        "obligations": [],
    }
    platform["routes"].append({**platform["routes"][0], "id": "shop-readers", "groups": ["shop-readers"]})
    (folder / "platform/data.json").write_bytes(msgspec.json.encode(data))
    shown = show(folder, {**CALLER, "groups": ["shop-readers"]})
    granted = {"readers-read-documents", "readers-see-the-catalogue"}
    assert {row["grant"] for row in shown["permissions"]} == granted
    listing = re.search(r"^in grants, .*:\n(\{.*?^\})", done.stdout, re.MULTILINE | re.DOTALL)
    assert listing is not None
    platform["grants"].append(msgspec.json.decode(listing[1].replace("<deployment>", "demo")))
    (folder / "platform/data.json").write_bytes(msgspec.json.encode(data))
    shown = show(folder, {**CALLER, "groups": ["shop-readers"]})
    assert {row["grant"] for row in shown["permissions"]} == {*granted, "shop-lists-databases"}


@pytest.mark.parametrize("name", ["Shop", "shop-1", "platform", "if", "../shop", "1shop", "", "a" * 64, "shop\n"])
def test_a_name_that_cannot_be_a_teams_is_refused(folder: Path, name: str) -> None:
    before = sorted((folder / "teams").iterdir())
    assert run("policy", "new", name, str(folder)).returncode == 78
    assert sorted((folder / "teams").iterdir()) == before


def test_a_team_that_is_there_is_left_alone(folder: Path) -> None:
    before = (folder / "teams/people/policy.rego").read_bytes()
    assert run("policy", "new", "people", str(folder)).returncode == 78
    assert (folder / "teams/people/policy.rego").read_bytes() == before


def test_a_folder_without_a_platform_is_refused(tmp_path: Path) -> None:
    assert run("policy", "new", "shop", str(tmp_path)).returncode == 78


# --- show -------------------------------------------------------------------------------------------------------------


def show(folder: Path, claims: dict[str, Any]) -> Any:
    file = folder / "claims.json"
    file.write_text(json.dumps(claims))
    done = run("policy", "show", str(folder), "--claims", str(file), "--json")
    assert done.returncode == 0, done.stderr
    return answer(done)


def rows(shown: Any, grant: str) -> list[dict[str, Any]]:
    return [row for row in shown["permissions"] if row["grant"] == grant]


def test_a_filter_is_shown_with_the_callers_own_value(folder: Path) -> None:
    shown = show(folder, {**CALLER, "groups": ["regional-analysts"], "region": "EU"})
    (row,) = rows(shown, "regional-analysts-read-own-region")
    assert (row["database"], row["collections"], row["kinds"]) == ("sales", ["orders", "returns"], ["read"])
    assert (row["filter"], row["owner"], row["servers"]) == ({"region": "EU"}, "analytics", ["demo-ro"])
    assert not rows(show(folder, {**CALLER, "groups": ["regional-analysts"]}), "regional-analysts-read-own-region")


def test_masks_limits_and_the_platforms_obligations_are_shown(folder: Path) -> None:
    (row,) = rows(show(folder, {**CALLER, "groups": ["support"]}), "support-reads-tickets")
    assert row["mask"] == ["customer.email", "customer.phone", "customer.address"]
    assert row["max_documents"] == 100
    assert row["platform_obligations"][0]["max_time_ms"] == 5000


@pytest.mark.parametrize("store", ["", "file:/var/lib/approvals.json"])
def test_a_row_that_waits_for_a_second_person_says_where_no_calls_are_kept(folder: Path, store: str) -> None:
    claims, config = folder / "claims.json", folder.parent / "sidecar.toml"
    lead = {**CALLER, "iss": "https://a.example", "groups": ["support-leads"]}
    claims.write_bytes(msgspec.json.encode(lead))
    config.write_text(
        'resource_url = "http://127.0.0.1:8080/mcp"\n[[issuers]]\nissuer = "https://a.example"\n'
        f'[[servers]]\nname = "demo-ro"\nurl = "http://127.0.0.1:1/mcp"\n[approvals]\nstore = "{store}"\n'
    )
    asked = ("policy", "show", str(folder), "--claims", str(claims), "--json")
    (row,) = rows(answer(run(*asked, SIDECAR_CONFIG=str(config))), "leads-read-tickets-unmasked")
    said = [one for one in row["off"] if "approvals.store" in one]
    assert bool(said) is not bool(store)
    (unknown,) = rows(answer(run(*asked)), "leads-read-tickets-unmasked")
    assert unknown["off"] == [], "without settings nothing is known"


def test_what_cannot_be_told_beforehand_stands_as_a_condition(folder: Path) -> None:
    loader = {**CALLER, "client_id": "nightly-loader", "groups": ["loaders"]}
    (row,) = rows(show(folder, loader), "loader-inserts-on-weekdays")
    assert row["conditions"] == ["Monday to Friday, 00:00 to 24:00 Europe/Berlin"]
    assert row["servers"] == ["demo-rw"]


def test_the_catalogue_is_one_row_with_the_database_as_a_whole(folder: Path) -> None:
    (row,) = rows(show(folder, {**CALLER, "groups": ["analysts"]}), "readers-see-the-catalogue")
    assert (row["collections"], row["conditions"]) == (["", "*"], [])


def test_a_list_that_shows_only_what_is_reached_says_so_also_where_the_platform_grants_it(folder: Path) -> None:
    analyst = {**CALLER, "groups": ["analysts"]}
    grant = "everybody-with-a-group-lists-databases"
    assert [row["names"] for row in rows(show(folder, analyst), grant)] == [None]
    path = folder / "platform/data.json"
    document = msgspec.json.decode(path.read_bytes())
    document["mcp"]["platform"]["grants"][0]["names"] = "reachable"
    path.write_bytes(msgspec.json.encode(document))
    (row,) = rows(show(folder, analyst), grant)
    assert (row["names"], row["refused"]) == ("reachable", None)
    words = run("policy", "show", str(folder), "--claims", str(folder / "claims.json")).stdout
    assert 'names "reachable"' in words


def test_a_grant_that_leads_nowhere_is_said(folder: Path) -> None:
    shown = show(folder, {**CALLER, "groups": ["support"]})
    assert shown["unreached"] == [{"owner": "support", "grant": "support-updates-tickets"}]


def test_a_stranger_is_shown_nothing(folder: Path) -> None:
    assert show(folder, {**CALLER, "groups": []})["permissions"] == []


def test_what_the_token_lacks_is_told_beside_what_it_would_open(tmp_path: Path) -> None:
    """Of a loader: the way that lacks least, each scope on its own, and nothing of what no scope opens."""
    expected = {
        "mongodb:read mongodb:write": set(),
        "mongodb:read": {("insert", "with mongodb:write, which the token lacks")},
        "": {
            ("insert", "with mongodb:write, which the token lacks"),
            ("read", "with mongodb:read, which the token lacks"),
            ("metadata", "with mongodb:read, which the token lacks"),
        },
    }
    file = tmp_path / "claims.json"
    for scope, lacking in expected.items():
        file.write_text(json.dumps({"sub": "l", "client_id": "nightly-loader", "groups": ["loaders"], "scope": scope}))
        rows = answer(run("policy", "show", str(POLICIES), "--claims", str(file), "--json"))["permissions"]
        found = {(kind, one) for row in rows for kind in row["kinds"] for one in row["conditions"] if "lacks" in one}
        assert found == lacking, scope
        assert {kind for row in rows for kind in row["kinds"]} == {"metadata", "read", "insert"}


def test_the_table_is_for_people_and_has_no_control_characters(folder: Path) -> None:
    (folder / "claims.json").write_text(json.dumps({**CALLER, "groups": ["analysts"]}))
    done = run("policy", "show", str(folder), "--claims", str(folder / "claims.json"))
    assert done.returncode == 0
    assert "analysts-read-orders" in done.stdout
    assert "\x1b" not in done.stdout


def test_claims_that_no_token_would_have_are_refused(folder: Path) -> None:
    (folder / "claims.json").write_text(json.dumps({"sub": "x", "client_id": "x"}))
    done = run("policy", "show", str(folder), "--claims", str(folder / "claims.json"))
    assert done.returncode == 78
    assert "token has no user" in done.stderr


def test_what_rules_read_is_shown_and_stands_in_the_answer_of_check() -> None:
    shown = answer(run("policy", "show", str(POLICIES), "--reads", "--json"))
    assert shown["mcp.teams.analytics"] == [
        *("input.access.collection", "input.access.database", "input.access.kind"),
        *("input.subject.claims.region", "input.subject.groups"),
    ]
    assert "input.context.time_ns" in shown["mcp.teams.loading"], "through data.mcp.lib.during"
    assert answer(run("policy", "check", str(POLICIES), "--json"))["reads"] == shown
    assert "input.subject.claims.region" in run("policy", "show", str(POLICIES), "--reads").stdout


def test_reads_and_claims_are_two_questions() -> None:
    for words in ([], ["--reads", "--claims", "-"]):
        assert run("policy", "show", str(POLICIES), *words).returncode == 2
