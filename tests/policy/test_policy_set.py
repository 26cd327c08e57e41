"""The repository's policies as a set: checked, contained, covered, documented, and decided as the golden cases say."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the locked tools
import msgspec
import pytest

from tests.parts import ROOT

POLICIES = ROOT / "policies"
Run = Callable[..., subprocess.CompletedProcess[str]]
TEAMS = sorted(f"teams/{team.name}" for team in (POLICIES / "teams").iterdir())
BUNDLES = ["platform", "system", *TEAMS]
CASES = {
    f"{path.stem}: {name}": case
    for path in sorted((POLICIES / "cases").glob("*.json"))
    for name, case in msgspec.json.decode(path.read_bytes()).items()
}


def load(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(load(POLICIES / "schema" / f"{name}.json"))


# --- the checks that an author runs -----------------------------------------------------------------------------------


def test_the_set_passes_the_strict_check_with_schemas_and_capabilities(run_opa: Run) -> None:
    flags = ["--strict", "--capabilities=capabilities.json", "--schema=schema"]
    done = run_opa("check", *flags, "-b", *BUNDLES)
    assert done.returncode == 0, done.stderr


def test_the_set_is_formatted(run_opa: Run) -> None:
    done = run_opa("fmt", "--list", ".")
    assert (done.returncode, done.stdout) == (0, "")


def test_every_line_is_covered_by_the_sets_own_tests_and_cases(run_opa: Run) -> None:
    # All golden cases are one test, which on a busy machine takes longer than the 5 s that OPA gives to each.
    flags = ["--capabilities=capabilities.json", "--coverage", "--threshold=100", "--timeout=90s"]
    done = run_opa("test", *flags, *BUNDLES, "mcp.cases:cases")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_a_misspelt_part_of_the_question_is_found_by_the_check(run_opa: Run, policies: Path) -> None:
    policy = policies / "teams/people/policy.rego"
    policy.write_text(policy.read_text().replace("input.actor.chain", "input.actor.chian"))
    done = run_opa("check", "--strict", "--schema=schema", "-b", *BUNDLES, root=policies)
    assert done.returncode != 0
    assert "undefined ref: input.actor.chian" in done.stderr


@pytest.mark.parametrize(
    "call",
    [
        'http.send({"method": "GET", "url": "http://127.0.0.1"})',
        'net.lookup_ip_addr("localhost")',
        "opa.runtime()",
        'rand.intn("x", 2)',
        "time.now_ns()",
        'rego.parse_module("x", "package x")',
        "numbers.range(1, 20000000)",
        'uuid.rfc4122("x")',
    ],
)
def test_a_forbidden_builtin_is_found_by_the_check(run_opa: Run, policies: Path, call: str) -> None:
    (policies / "teams/people/more.rego").write_text(f'package mcp.teams.people\n\ndeny contains "x" if {call}\n')
    done = run_opa("check", "--capabilities=capabilities.json", "-b", *BUNDLES, root=policies)
    assert done.returncode != 0
    assert "undefined function" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("more.rego", "package mcp.main\n\nallow if true\n"),
        ("more.rego", 'package mcp.teams.analytics\n\ngrant contains {"id": "mine"} if true\n'),
        ("more.rego", "package mcp.platform.guardrails\n\nx := 1\n"),
        ("more.rego", "package system.authz\n\nallow if true\n"),
        ("more.rego", "package mcp.lib\n\nreads if true\n"),
        ("more.rego", "package mcp.teams\n\npeople := 1\n"),
        ("data.json", '{"mcp": {"platform": {"refused_kinds": []}}}'),
        ("data.json", '{"mcp": {"grants": {"analytics": {"frozen": []}}}}'),
        ("data.json", '{"mcp": {"main": {"allow": true}}}'),
        ("data.json", '{"mcp": {"revision": "forged"}}'),
        (".manifest", '{"roots": ["mcp/teams/people", "mcp/main"], "rego_version": 1}'),
        (".manifest", '{"roots": ["mcp"], "rego_version": 1}'),
        (".manifest", '{"rego_version": 1}'),
    ],
)
def test_a_team_that_reaches_beyond_its_roots_does_not_load(run_opa: Run, policies: Path, name: str, text: str) -> None:
    (policies / "teams/people" / name).write_text(text)
    flags = [part for bundle in BUNDLES for part in ("-b", bundle)]
    done = run_opa("eval", "--fail", *flags, "true", root=policies)
    assert done.returncode != 0
    assert "roots" in done.stdout + done.stderr


# --- golden cases -----------------------------------------------------------------------------------------------------


def overlay(value: Any, change: Any) -> Any:
    """The same as the cases' own test does in Rego: tables of the platform replaced, keys of the teams merged."""
    mcp = value["mcp"]
    if "platform" in mcp:
        mcp["platform"] |= change.get("platform", {})
    for team in mcp.get("grants", {}):
        mcp["grants"][team] |= change.get("grants", {}).get(team, {})
    return value


@pytest.mark.parametrize("title", [title for title, case in CASES.items() if not case["data"]])
def test_a_golden_case_is_decided_by_the_served_set_as_it_says(ask: Callable[..., Any], title: str) -> None:
    case = CASES[title]
    status, answer = ask("decision", case["input"])
    assert status == 200
    assert answer["result"] == case["decision"] | {"revision": "r-test"}


@pytest.mark.parametrize("title", [title for title, case in CASES.items() if case["data"]])
def test_a_golden_case_with_data_is_decided_as_it_says(run_opa: Run, policies: Path, title: str) -> None:
    case = CASES[title]
    for path in policies.glob("**/data.json"):
        path.write_bytes(msgspec.json.encode(overlay(load(path), case["data"])))
    flags = [part for bundle in BUNDLES for part in ("-b", bundle)]
    done = run_opa(
        "eval",
        "--strict-builtin-errors",
        "--stdin-input",
        *flags,
        "data.mcp.main.decision",
        root=policies,
        stdin=msgspec.json.encode(case["input"]).decode(),
    )
    assert msgspec.json.decode(done.stdout)["result"][0]["expressions"][0]["value"] == case["decision"], done.stderr


def test_golden_cases_are_of_the_schemas() -> None:
    for title, case in CASES.items():
        schema("decision").validate(case["decision"])
        malformed = any(reason["code"] == "invalid_input" for reason in case["decision"]["reasons"])
        assert schema("input").is_valid(case["input"]) is not malformed, title


# --- what is written down is what is there ----------------------------------------------------------------------------


def test_the_platforms_data_is_of_its_schema() -> None:
    schema("platform").validate(load(POLICIES / "platform/data.json")["mcp"]["platform"])


def test_the_platforms_data_hangs_together() -> None:
    data = load(POLICIES / "platform/data.json")["mcp"]["platform"]
    assert {route["server"] for route in data["routes"]} <= set(data["servers"])
    assert {server["deployment"] for server in data["servers"].values()} == set(data["deployments"])
    owners = {
        holding["owner"]
        for estate in data["deployments"].values()
        for table in (estate["databases"], estate["prefixes"], estate["targets"], {"whole": estate["whole"]})
        for holding in table.values()
    }
    assert owners == {"platform", *(team.removeprefix("teams/") for team in TEAMS)}


def test_dropping_is_delegated_to_nobody() -> None:
    demo = load(POLICIES / "platform/data.json")["mcp"]["platform"]["deployments"]["demo"]
    named = {name: entry["delegated"] for name, entry in demo["databases"].items()}
    entries = {"whole": demo["whole"]["delegated"], **named}
    assert demo["prefixes"] == demo["targets"] == {}
    dropping = {name for name, delegated in entries.items() if any("drop" in entry["kinds"] for entry in delegated)}
    assert dropping == set()


def rules() -> list[tuple[Path, str]]:
    found = [(path, path.read_text()) for path in sorted(POLICIES.glob("**/*.rego")) if "_test" not in path.name]
    assert len(found) > 10
    return found


def test_the_vocabulary_of_reasons_is_that_of_the_rules() -> None:
    vocabulary = load(POLICIES / "schema/reasons.json")["reasons"]
    said = {code for _, text in rules() for code in re.findall(r'"code": "([a-z_]+)"', text)}
    said |= {code for _, text in rules() for code in re.findall(r'closed\("([a-z_]+)"\)', text)}
    listed = load(POLICIES / "schema/decision.json")["properties"]["reasons"]["items"]["properties"]["code"]["enum"]
    assert said == set(vocabulary) == set(listed)


def test_a_rule_that_gives_a_reason_names_its_code_in_its_metadata() -> None:
    reasoning = [(path, text) for path, text in rules() if path.parent.name == "platform" and path.name != "main.rego"]
    assert len(reasoning) > 5
    for path, text in reasoning:
        for code, rule in re.findall(r"#   code: ([a-z_]+)\n(reasons contains .*)", text):
            assert f'"code": "{code}"' in rule, path
        assert len(re.findall(r"#   code:", text)) == len(re.findall(r"^reasons contains", text, re.MULTILINE)), path


def test_every_package_and_every_rule_has_a_title(run_opa: Run) -> None:
    found = rules()
    assert found
    for path, text in found:
        assert text.startswith("# METADATA\n# title: "), path
        parsed = msgspec.json.decode(run_opa("parse", "--format=json", str(path)).stdout)
        heads = {rule["head"]["ref"][0]["value"] for rule in parsed["rules"]}
        for name in heads:
            first = re.search(rf"((?:^#.*\n)*)^(?:default )?{name}\b", text, re.MULTILINE)
            assert first, (path, name)
            assert "# METADATA\n# title: " in first.group(1), (path, name)
