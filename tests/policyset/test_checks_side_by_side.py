"""Checks that run side by side or are remembered say what they say one after the other and afresh."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.policyset.finding import Rule, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.workshop import workshop
from tests.policyset.conftest import RED

pytestmark = pytest.mark.real

Write = Callable[[str, str], Path]
PLATFORM = "platform/data.json"
GOOD_TEST = "package mcp.teams.red.policy_test\n\ntest_x if 1 == 1\n"
BAD_TEST = "package mcp.teams.red.policy_test\n\ntest_x if 1 == 2\n"
ENDLESS_TEST = f"""package mcp.teams.red.policy_test

many := {[*range(100)]}

test_x if count([1 | some a in many; some b in many; some c in many; some d in many; a + b + c + d < 0]) == 1
"""
NO_COMPILE = RED + "\np := undefined_variable\n"
MATCHES = 'package mcp.teams.red\n\np if regex.match(data.mcp.grants.red.shape, "x")\n\nq if data.mcp.lib.reads\n'


def red_data(shape: str) -> str:
    return json.dumps({"mcp": {"grants": {"red": {"shape": shape}}}})


def platform_with(policies: Path, **changed: object) -> str:
    document = json.loads((policies / PLATFORM).read_text())  # noqa: TID251 - the repository's own file
    document["mcp"]["platform"] |= changed
    return json.dumps(document)


async def found_by(opa_binary: str, policies: Path) -> list[Violation]:
    async with workshop(opa_binary) as checker:
        return await checker.examine(PolicySet.read(policies))


async def test_of_a_set_that_does_not_compile_its_tests_and_data_say_nothing(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    """The tests of that set would take longer than a check may: who compiles does not wait for them."""
    team_file("policy.rego", NO_COMPILE)
    team_file("policy_test.rego", ENDLESS_TEST)
    (policies / PLATFORM).write_text(platform_with(policies, suspended={"agents": ["{a"]}))
    found = await found_by(opa_binary, policies)
    assert {(finding.file, finding.rule) for finding in found} == {("teams/red/policy.rego", Rule.COMPILE)}


async def test_of_a_set_whose_data_is_wrong_its_tests_say_nothing(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    team_file("policy_test.rego", BAD_TEST)
    (policies / PLATFORM).write_text(platform_with(policies, suspended={"agents": ["{a"]}))
    found = await found_by(opa_binary, policies)
    assert {(finding.file, finding.rule) for finding in found} == {(PLATFORM, Rule.DATA)}


async def test_a_checker_that_has_seen_many_sets_says_of_each_what_a_fresh_one_says(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    """What is remembered (clean modules, the library, patterns that can be read) hides nothing of a later set."""
    library = policies / "platform/lib/lib.rego"
    whole = library.read_text()
    fine = (policies / PLATFORM).read_text()
    suspended = json.loads(fine)["mcp"]["platform"]["suspended"] | {"agents": ["x"]}  # noqa: TID251 - as above
    edits: list[tuple[str, Path, str]] = [
        ("fine", team_file("policy.rego", MATCHES), MATCHES),
        ("fine", team_file("data.json", red_data("a*")), red_data("a*")),
        ("fine", team_file("policy_test.rego", GOOD_TEST), GOOD_TEST),
        ("a pattern that cannot be read", policies / "teams/red/data.json", red_data("[")),
        ("the one from before", policies / "teams/red/data.json", red_data("a*")),
        ("a library without a rule that is used", library, whole.replace("reads if", "reads_ if")),
        ("the library from before", library, whole),
        ("a failing test", policies / "teams/red/policy_test.rego", BAD_TEST),
        ("the test from before", policies / "teams/red/policy_test.rego", GOOD_TEST),
        ("data of another form", policies / PLATFORM, platform_with(policies, routes=1)),
        ("a suspension", policies / PLATFORM, platform_with(policies, suspended=suspended)),
        ("no library", library, "package mcp.lib\n\nbroken :="),
        ("the library again", library, whole),
        ("the data from before", policies / PLATFORM, fine),
    ]
    said: dict[str, list[Violation]] = {}
    async with workshop(opa_binary) as checker:
        for what, file, text in edits:
            file.write_text(text)
            looked, afresh = checker.examine(PolicySet.read(policies)), found_by(opa_binary, policies)
            said[what], expected = await asyncio.gather(looked, afresh)
            assert said[what] == expected, what
    wrong = {what for what, found in said.items() if found}
    assert wrong == {
        "a pattern that cannot be read",
        "a library without a rule that is used",
        "a failing test",
        "data of another form",
        "no library",
    }
