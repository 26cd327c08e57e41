"""A grant to change documents without the mask that another one has for reading them is told; near misses are fine.

Each case is two grants of one module on a collection of its own, so that one look at the set judges them all.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.unmasked_writes import unmasked_writes
from sidecar.policyset.workshop import workshop

pytestmark = pytest.mark.real

HEAD = 'package mcp.teams.red\n\nimport data.mcp.lib\n\nown := {{"{every}"}}\n\ndeny contains "x" if false\n'
READ = 'grant contains {{"id": "r{n}", "mask": {{"ssn"}}}} if {{ {reads}; lib.on("red", ["c{n}"]); {who} }}\n'
WRITE = 'grant contains {{"id": "w{n}"{mask}}} if {{ {writes}; {where}; {who} }}\n'
USUAL = {
    "reads": "lib.reads",
    "writes": 'input.access.kind == "update"',
    "mask": "",
    "where": 'lib.on("red", ["c{n}"])',
    "reader": 'lib.in_group("reds")',
    "writer": 'lib.in_group("reds")',
}
TOLD: dict[str, dict[str, str]] = {
    "an update": {},
    "a delete": {"writes": 'input.access.kind == "delete"'},
    "all writes": {"writes": "lib.writes"},
    "kinds by membership": {"writes": 'input.access.kind in {{"insert", "update"}}'},
    "the other way round": {"writes": '"delete" == input.access.kind'},
    "reads by a comparison": {"reads": 'input.access.kind == "read"'},
    "reads and more": {"reads": 'input.access.kind in {{"read", "export"}}'},
    "several collections": {"where": 'lib.on("red", ["other", "c{n}"])'},
    "anybody may read": {"reader": "lib.is_person"},
    "anybody may write": {"writer": "lib.is_person"},
    "one of several groups": {"writer": 'lib.in_any_group({{"reds", "others"}})'},
    "a filter is no mask": {"mask": ', "filter": {{"region": "EU"}}'},
    "a further condition": {"writer": 'lib.in_group("reds"); lib.via_agent("nightly-loader")'},
}
FINE: dict[str, dict[str, str]] = {
    "the same mask": {"mask": ', "mask": {{"ssn"}}'},
    "inserts only": {"writes": "lib.inserts"},
    "reads too": {"writes": 'input.access.kind in {{"read", "update"}}'},
    "kinds that are not said": {"writes": "lib.is_person"},
    "kinds that exclude each other": {"writes": "lib.writes; lib.inserts"},
    "another collection": {"where": 'lib.on("red", ["d{n}"])'},
    "another database": {"where": 'lib.on("blue", ["c{n}"])'},
    "collections that are computed": {"where": 'lib.on("red", own)'},
    "another group": {"writer": 'lib.in_group("others")'},
    "a negated place": {"where": 'not lib.on("red", ["c{n}"])'},
    "a mask of metadata": {"reads": "lib.reads_metadata"},
}


def module() -> tuple[str, dict[int, str]]:
    """The text, and by line the case whose grant of writes stands there."""
    cases = {
        **{f"told: {name}": case for name, case in TOLD.items()},
        **{f"fine: {name}": one for name, one in FINE.items()},
    }
    text, lines = HEAD.format(every="d"), {}
    for number, (name, case) in enumerate(cases.items()):
        parts = {key: value.format(n=number) for key, value in {**USUAL, **case}.items()}
        text += READ.format(n=number, who=parts["reader"], **parts)
        lines[text.count("\n") + 1] = name
        text += WRITE.format(n=number, who=parts["writer"], **parts)
    return text, lines


async def test_what_a_caller_could_find_out_by_a_write_is_told_and_the_near_misses_are_not(
    policies: Path, team_file: Callable[[str, str], Path], opa_binary: str
) -> None:
    text, lines = module()
    team_file("policy.rego", text)
    async with workshop(opa_binary) as checker:
        found = await checker.examine(PolicySet.read(policies))
    masks = [one for one in found if one.rule is Rule.MASK]
    assert {lines[one.line] for one in masks} == {f"told: {name}" for name in TOLD}
    assert len(masks) == len(TOLD)
    assert {one.severity for one in masks} == {Severity.WARNING}
    assert {one.file for one in masks} == {"teams/red/policy.rego"}
    assert "w0 is for changes in red.c0 without the mask that r0 has" in masks[0].message


@pytest.mark.parametrize(
    "tree",
    [
        *({}, {"rules": None}, {"rules": [None, 1, {}, {"head": None}, {"head": {"ref": []}}]}),
        {"rules": [{"head": {"name": "grant", "key": {"type": "object", "value": [[1], [None, 2], "x"]}}}]},
        {"rules": [{"head": {"name": "grant", "key": {"type": "object", "value": []}}, "body": [1, {"terms": [{}]}]}]},
    ],
)
def test_a_tree_of_another_form_is_not_judged(tree: object) -> None:
    found: list[Violation] = [*unmasked_writes(tree, "x.rego")]
    assert found == []
