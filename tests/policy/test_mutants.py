"""Every rule has a test in which it holds, and each condition a near miss: the policies, one change at a time."""

import json
from pathlib import Path

import pytest

from tests.parts import ROOT
from tools import mutate_policies as mutation
from tools.mutate_policies import Change, Fate

POLICIES = ROOT / "policies"
MODULES = mutation.modules(POLICIES)
TEAMS = [module for module in MODULES if module.startswith("teams/")]
PLATFORM = ["platform/names.rego"]
"""One of the platform's modules; `make nightly` takes all, which are minutes."""


@pytest.fixture(autouse=True)
def opa_on_the_path(monkeypatch: pytest.MonkeyPatch, opa_binary: str) -> None:
    monkeypatch.setenv("PATH", str(Path(opa_binary).parent), prepend=":")


# --- the repository's policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [*TEAMS, *PLATFORM])
def test_some_test_notices_each_change_of_a_rule(module: str) -> None:
    tried = mutation.fates(POLICIES, [module], workers=2)
    assert sum(fate is Fate.KILLED for _, fate in tried) > 5
    assert mutation.complaints(tried, [module], mutation.accepted()) == []


def test_what_may_go_unnoticed_is_still_there_and_has_a_reason() -> None:
    there = {mutant.name for module in MODULES for mutant in mutation.mutants(POLICIES, module)}
    assert {name for name, reason in mutation.accepted().items() if name not in there or len(reason) < 20} == set()


def test_each_rule_of_each_module_is_changed() -> None:
    for module in MODULES:
        found = list(mutation.mutants(POLICIES, module))
        assert {mutant.change for mutant in found} >= {Change.NEVER}, module
        assert len({mutant.source for mutant in found}) == len(found), module


# --- the tool ---------------------------------------------------------------------------------------------------------

POLICY = """package mcp.teams.small

grant contains {"id": "reads"} if {
	input.kind == "read"
	input.group == "staff"
}

level := 1 if {
	input.level == 1
} else := 2 if input.level == 2

all_short if count([name | some name in input.names; count(name) > 3]) == 0

limit := 10
"""
TEST = """package mcp.teams.small_test

import data.mcp.teams.small

test_read if {
	count(small.grant) == 1 with input as {"kind": "read", "group": "staff"}
	count(small.grant) == 0 with input as {"kind": "insert", "group": "staff"}
	count(small.grant) == 0 with input as {"kind": "read", "group": "guests"}
}

test_level if {
	small.level == 1 with input as {"level": 1}
	small.level == 2 with input as {"level": 2}
	not small.level with input as {"level": 3}
}

test_short if {
	small.all_short with input as {"names": ["abc"]}
	not small.all_short with input as {"names": ["abc", "abcd"]}
}

test_limit if small.limit == 10
"""
MODULE = "teams/small/policy.rego"


def small(folder: Path, policy: str = POLICY, test: str = TEST) -> Path:
    """A set of one team, and a platform with nothing in it."""
    for name, text in {
        "capabilities.json": (POLICIES / "capabilities.json").read_text(),
        "platform/data.json": "{}",
        "platform/fixture_test.rego": "package mcp.platform.fixture_test\n",
        "cases/cases.json": "{}",
        MODULE: policy,
        "teams/small/policy_test.rego": test,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def survivors(folder: Path) -> set[tuple[str, str]]:
    tried = mutation.fates(folder, [MODULE], workers=2)
    return {(mutant.change.value, mutant.text) for mutant, fate in tried if fate is Fate.SURVIVED}


def test_nothing_survives_tests_with_their_near_misses(tmp_path: Path) -> None:
    assert survivors(small(tmp_path)) == set()


@pytest.mark.parametrize(
    ("missing", "survivor"),
    [
        ('	count(small.grant) == 0 with input as {"kind": "insert", "group": "staff"}\n', 'input.kind == "read"'),
        ('	count(small.grant) == 0 with input as {"kind": "read", "group": "guests"}\n', 'input.group == "staff"'),
        ('	not small.level with input as {"level": 3}\n', "input.level == 2"),
        ('	small.all_short with input as {"names": ["abc"]}\n', "count(name) > 3"),
    ],
)
def test_a_condition_without_its_near_miss_survives(tmp_path: Path, missing: str, survivor: str) -> None:
    assert missing in TEST
    assert ("removed", survivor) in survivors(small(tmp_path, test=TEST.replace(missing, "")))


def test_a_rule_without_a_test_in_which_it_holds_survives(tmp_path: Path) -> None:
    test = TEST.replace("test_limit if small.limit == 10", "test_limit if not small.limit == 11")
    assert survivors(small(tmp_path, test=test)) == {("never", "limit := 10")}
    test = TEST.replace('	small.level == 2 with input as {"level": 2}\n', "")
    assert ("never", "else := 2") in survivors(small(tmp_path, test=test))


def test_a_change_that_does_not_compile_is_no_mutant(tmp_path: Path) -> None:
    tried = mutation.fates(small(tmp_path), [MODULE], workers=1)
    assert [mutant.text for mutant, fate in tried if fate is Fate.INVALID] == ["some name in input.names"]


def test_the_folder_is_left_as_it_is(tmp_path: Path) -> None:
    folder = small(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    mutation.fates(folder, [MODULE], workers=2)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_whose_tests_fail_already_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path, test=TEST.replace("limit == 10", "limit == 11"))
    with pytest.raises(mutation.MutationError, match="test_limit"):
        mutation.fates(folder, [MODULE], workers=1)


def test_a_module_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mutation.MutationError, match="rego_parse_error"):
        mutation.fates(small(tmp_path, policy="package mcp.teams.small\n\nx := {\n"), [MODULE], workers=1)


def test_survivors_are_told_unless_accepted_and_accepted_ones_have_to_survive(tmp_path: Path) -> None:
    folder = small(tmp_path, test=TEST.replace("test_limit if small.limit == 10", ""))
    tried = mutation.fates(folder, [MODULE], workers=2)
    name = f"{MODULE}: limit := 10: never: limit := 10"
    assert mutation.complaints(tried, [MODULE], {name: "a constant"}) == []
    (told,) = mutation.complaints(tried, [MODULE], {})
    assert told.startswith(f"{MODULE}:14: no test notices: never")
    stale = {name: "a constant", f"{MODULE}: level := 1: removed: input.level == 1": "gone"}
    assert len(mutation.complaints(tried, [MODULE], stale)) == 1
    assert mutation.complaints(tried, [MODULE], {name: "a constant", "teams/other/policy.rego: x: never: x": "?"}) == []


def test_the_accepted_ones_are_one_object_of_texts() -> None:
    assert json.dumps(mutation.accepted(), indent=2, ensure_ascii=False) + "\n" == mutation.ACCEPTED.read_text()
