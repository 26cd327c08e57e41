"""Names that nothing defines, patterns that nothing can read and grants that nothing takes; the near miss is fine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.workshop import workshop
from sidecar.strict_json import DECODER, DuplicateName, first_duplicate

pytestmark = pytest.mark.real

Write = Callable[[str, str], Path]
HEAD = "package mcp.teams.red\n\nimport data.mcp.grants.red as mine\nimport data.mcp.lib\n\n"
DATA = {"mcp": {"grants": {"red": {"readers": ["reds"], "limits": {"eu": 1}, "globs": ["a*"], "names": ["["]}}}}


async def examined(policies: Path, opa_binary: str) -> list[Violation]:
    async with workshop(opa_binary) as checker:
        return await checker.examine(PolicySet.read(policies))


@pytest.fixture
def red(policies: Path, team_file: Write) -> Write:
    """Red with data of its own."""
    team_file("data.json", json.dumps(DATA, indent=1))
    assert (policies / "teams/red/data.json").is_file()
    return team_file


WRONG = {
    "a rule of the library": ('deny contains "x" if lib.write', "data.mcp.lib.write: did you mean writes?"),
    "a rule of the library, negated": ('deny contains "x" if not lib.read', "data.mcp.lib.read: did you mean reads?"),
    "a rule of the library, spelled out": ("p if data.mcp.lib.wites", "data.mcp.lib.wites: did you mean writes?"),
    "a function of the library": ('p if lib.in_groups("x")', "data.mcp.lib.in_groups: did you mean in_group?"),
    "an import of the library": ("p if true\n\nq if data.mcp.lib.zzz.y", "nothing defines data.mcp.lib.zzz"),
    "a rule of the team": ("p if data.mcp.teams.red.grnt", "data.mcp.teams.red.grnt: did you mean grant?"),
    "a package of the team": ("p if data.mcp.teams.red.helpers.x", "nothing defines data.mcp.teams.red.helpers"),
    "a key": ("p if data.mcp.grants.red.reader", "data.mcp.grants.red.reader: did you mean readers?"),
    "a key by an import": ("p if mine.readerz", "data.mcp.grants.red.readerz: did you mean readers?"),
    "a key below": ("p if mine.limits.us", "data.mcp.grants.red.limits.us"),
    "a key in brackets": ('p if mine["no such"]', "data.mcp.grants.red.no such"),
    "a key of a list": ("p if mine.readers.reds", "data.mcp.grants.red.readers is no object"),
    "a key in a comprehension": ("p := [x | x := mine.nobody[_]]", "data.mcp.grants.red.nobody"),
    "a key in a head": ('grant contains {"id": "x", "mask": mine.personal} if lib.reads', "red.personal"),
    "a part of the question": ("p if input.accesses_.kind", "input.accesses_: did you mean access?"),
    "a part of an access": ("p if input.access.collections", "input.access.collections: did you mean collection?"),
    "a part of the subject": ("p if input.subject.group", "input.subject.group: did you mean groups?"),
    "a part of a grant": ('grant contains {"id": "x", "masks": {"a"}}', "no part masks: did you mean mask?"),
    "a part that is like none": ('grant contains {"id": "x", "zzz": 1}', "no part zzz: it has id, filter"),
    "a part of a grant with a name": (
        'grant contains g if {\n\tg := {"id": "x", "filtr": {"a": 1}}\n}',
        "no part filtr: did you mean filter?",
    ),
    "a grant in brackets": ('grant[{"id": "x", "masks": {"a"}}] if true', "no part masks"),
    "no id": ('grant contains {"max_documents": 1}', "a grant has an id"),
    "an id with a capital": ('grant contains {"id": "Reads"}', "id is a text"),
    "a limit that is a text": ('grant contains {"id": "x", "max_documents": "5"}', "max_documents is a whole number"),
    "a limit of none": ('grant contains {"id": "x", "max_time_ms": 0}', "max_time_ms is a whole number"),
    "a limit of a part": ('grant contains {"id": "x", "max_documents": 1.5}', "max_documents is a whole number"),
    "a mask of nothing": ('grant contains {"id": "x", "mask": []}', "mask is a set of fields"),
    "a mask that is a text": ('grant contains {"id": "x", "mask": "a"}', "mask is a set of fields"),
    "a mask of a position": ('grant contains {"id": "x", "mask": {"a.0"}}', "no path of a field"),
    "a mask of an unknown form": (
        'grant contains {"id": "x", "mask": {{"field": "a", "as": "sha256"}}}',
        "nothing that can be left of a masked field",
    ),
    "a mask of one value a bucket": (
        'grant contains {"id": "x", "mask": {{"field": "a", "as": "bucket:1"}}}',
        "nothing that can be left of a masked field",
    ),
    "a mask without a form": ('grant contains {"id": "x", "mask": {{"field": "a"}}}', '"field" and "as", and no more'),
    "a reduced field that is none": (
        'grant contains {"id": "x", "mask": [{"field": "$a", "as": "last4"}]}',
        "no path of a field",
    ),
    "a mask of no field": ('grant contains {"id": "x", "mask": {"a..b"}}', "no path of a field"),
    "a filter of nothing": ('grant contains {"id": "x", "filter": {}}', "filter is an object"),
    "an approval with a space": ('grant contains {"id": "x", "approval": "the boss"}', 'approval is "confirm"'),
    "an approval of no kind": ('grant contains {"id": "x", "approval": "second-person"}', 'approval is "confirm"'),
    "an approver who is asked for what is not there": ("approver contains input.subject.grops", "grops"),
    "a regular expression": ("p if regex.match(`[`, input.access.collection)", '"[" as a regular expression'),
    "a regular expression that replaces": ('p := regex.replace("x", `(`, "y")', '"(" as a regular expression'),
    "a glob": ('p if glob.match("{a", [], input.access.collection)', '"{a" as a glob'),
    "a glob of the library": ('p if lib.on("shop", ["ok", "[a-"])', '"[a-" as a glob'),
    "a glob by its name": ('p if lib.named({"[]"}, input.access.collection)', '"[]" as a glob'),
    "a glob of the team's own function": ('f(globs) if lib.named(globs, "x")\n\np if f(["{a"])', '"{a" as a glob'),
}
RULES = {Rule.NAME, Rule.PATTERN}


@pytest.mark.parametrize("name", WRONG)
async def test_what_nothing_defines_is_refused_at_its_line(
    policies: Path, red: Write, opa_binary: str, name: str
) -> None:
    text, said = WRONG[name]
    red("more.rego", HEAD + "used if {\n\tlib.reads\n\tmine.readers\n}\n\n" + text + "\n")
    found = [one for one in await examined(policies, opa_binary) if one.severity is Severity.ERROR]
    assert [(one.file, one.rule in RULES) for one in found] == [("teams/red/more.rego", True)], found
    assert said in found[0].message
    assert found[0].line > 9


FINE = """\
helper(patterns) if lib.named(patterns, input.access.collection)

part := {"inner": 1}

approver contains "lead" if "leads" in input.subject.groups

grant contains {"id": "fine", "mask": {"a.b", {"field": "c", "as": "last4"}}, "approval": "second_person"} if {
	lib.reads
	lib.on("red", ["a*", "[a-c]", ""])
	helper(mine.globs)
	helper(input.subject.claims.anything.at.all)
	regex.match(`^[a-z]+$`, input.access.database)
	data.mcp.teams.red.part.inner == 1
	data.mcp.teams.red.part[input.access.kind]
	mine.limits[input.access.database]
	mine.readers[0]
	input.access.via_view.database
	input.context.approval.code
	object.get(data.mcp.grants.red, "nothing", [])
}

grant contains g if {
	g := object.union({"id": "made"}, {"mask": {"a"}})
}

grant contains {"id": name} if {
	some name in mine.names
	name == "["
}

deny contains "x" if input.access.collection in mine.readers
"""


async def test_what_is_there_or_cannot_be_told_is_fine(policies: Path, red: Write, opa_binary: str) -> None:
    red("more.rego", HEAD + FINE)
    assert await examined(policies, opa_binary) == []


async def test_a_glob_in_the_teams_data_is_tried_where_a_module_takes_it_for_one(
    policies: Path, red: Write, opa_binary: str
) -> None:
    red("more.rego", HEAD + 'p if lib.named(mine.names, "x")\n')
    (found,) = await examined(policies, opa_binary)
    assert (found.file, found.line, found.rule) == ("teams/red/data.json", 15, Rule.PATTERN)
    red("more.rego", HEAD + 'p if "x" in mine.names\n\nq if lib.reads\n')
    assert await examined(policies, opa_binary) == []


async def test_a_test_may_name_what_is_not_there(policies: Path, red: Write, opa_binary: str) -> None:
    test = "package mcp.teams.red.policy_test\n\ntest_x if not data.mcp.grants.red.nothing\n"
    red("policy_test.rego", test)
    assert await examined(policies, opa_binary) == []


async def test_a_key_that_another_file_of_the_team_has_is_there(policies: Path, red: Write, opa_binary: str) -> None:
    red("more.rego", HEAD + "p if mine.hours.open\n\nq if lib.reads\n")
    assert [one.rule for one in await examined(policies, opa_binary)] == [Rule.NAME]
    red("mcp/grants/red/hours/data.json", '{"open": true}')
    assert await examined(policies, opa_binary) == []


async def test_a_rule_that_is_nearly_called_deny_is_a_warning(policies: Path, red: Write, opa_binary: str) -> None:
    red("more.rego", 'package mcp.teams.red\n\ndenny contains "x" if input.access.kind == "read"\n')
    (found,) = await examined(policies, opa_binary)
    assert (found.line, found.severity) == (3, Severity.WARNING)
    assert found.message == "nothing reads the rule denny: did you mean deny?"
    red("more.rego", 'package mcp.teams.red\n\ndenny if true\n\ndeny contains "x" if denny\n')
    assert await examined(policies, opa_binary) == []


async def test_a_set_with_such_a_name_is_not_served(policies: Path, red: Write, opa_binary: str) -> None:
    red("more.rego", HEAD + 'deny contains "x" if lib.write\n\np if mine.readers\n')
    async with workshop(opa_binary) as checker:
        with pytest.raises(ConfigurationError, match=r"teams/red/more.rego:6: nothing defines data.mcp.lib.write"):
            await checker.vet(PolicySet.read(policies))


# --- the platform's tables --------------------------------------------------------------------------------------------

DANGLING = {
    "a route's server": (
        '"server": "demo-rw"',
        '"server": "demo-wr"',
        "no server demo-wr: did you mean demo-rw?",
        True,
    ),
    "a server's deployment": ('{"deployment": "demo"}', '{"deployment": "demi"}', "did you mean demo?", True),
    "a route's scope": ('"mongodb:write", "', '"mongodb:rite", "', "did you mean mongodb:write?", False),
    "an owner": ('"owner": "red"', '"owner": "redd"', "no folder teams/redd: did you mean red?", False),
    "an owner like none": ('"owner": "red"', '"owner": "zzz"', "no folder teams/zzz, so nothing is granted", False),
    "an agent's server": ('"servers": ["*"]', '"servers": ["demo"]', "no server demo", False),
    "an agent like a pattern": ('"nightly-loader": {', '"nightly-*": {', "no agent has this id: only https://", False),
    "an origin in the clear": ('"nightly-loader": {', '"http://a.example/*": {', "no agent has this id", False),
    "an origin with a path": ('"nightly-loader": {', '"https://a.example/b/*": {', "no agent has this id", False),
    "a grant's deployment": ('"deployments": ["demo"]', '"deployments": ["demos"]', "did you mean demo?", False),
}


@pytest.mark.parametrize("name", DANGLING)
async def test_a_table_that_names_what_no_table_has_is_told_with_its_line(
    policies: Path, opa_binary: str, name: str
) -> None:
    before, after, said, refused = DANGLING[name]
    file = policies / "platform/data.json"
    flat = json.dumps(json.loads(file.read_text()))  # noqa: TID251 - the repository's own file
    assert before in flat
    file.write_text(flat.replace(before, after, 1))
    found = await examined(policies, opa_binary)
    assert found
    assert {one.file for one in found} == {"platform/data.json"}
    assert {one.rule for one in found} == {Rule.OWNER if "owner" in name else Rule.NAME}
    assert said in found[0].message
    assert (found[0].severity is Severity.ERROR) is refused


async def test_an_agent_may_be_registered_by_its_origin(policies: Path, opa_binary: str) -> None:
    file = policies / "platform/data.json"
    flat = json.dumps(json.loads(file.read_text()))  # noqa: TID251 - the repository's own file
    file.write_text(flat.replace('"nightly-loader": {', '"https://a.example/*": {', 1))
    assert await examined(policies, opa_binary) == []


async def test_a_pattern_of_servers_may_match_none(policies: Path, opa_binary: str) -> None:
    file = policies / "platform/data.json"
    flat = json.dumps(json.loads(file.read_text()))  # noqa: TID251 - the repository's own file
    file.write_text(flat.replace('"servers": ["*"]', '"servers": ["later-*", "demo-ro"]', 1))
    assert await examined(policies, opa_binary) == []


async def test_a_window_that_break_glass_names_is_looked_up(policies: Path, opa_binary: str) -> None:
    file = policies / "platform/data.json"
    document = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    glass = {"issuer": "https://idp.example", "subject": "ann", "until": "2030-01-01T00:00:00Z", "windows": ["nights"]}
    document["mcp"]["platform"]["break_glass"] = [glass]
    file.write_text(json.dumps(document))
    (found,) = await examined(policies, opa_binary)
    assert "there is no window nights" in found.message


# --- a name twice -----------------------------------------------------------------------------------------------------

TWICE = {
    "the platform's tables": ("platform/data.json", '{"mcp": {"platform": {}}, "x": [{"a": 1,\n"a": 2}]}', 2),
    "a table below": ("platform/mcp/platform/x/data.json", '{"a": 1,\n\n"a": 2}', 3),
    "the platform's manifest": ("platform/.manifest", '{"roots": ["mcp/main"],\n"roots": ["mcp/platform"]}', 2),
    "a team's data": ("teams/red/data.json", '{"mcp": {"grants": {"red": {"a": 1,\n"b": "\\"a\\"", "a": 2}}}}', 2),
    "a team's manifest": ("teams/red/.manifest", '{"rego_version": 1,\n"rego_version": 1}', 2),
    "the list of builtins": ("capabilities.json", '{"builtins": [],\n"builtins": []}', 2),
    "a schema": ("schema/platform.json", '{"type": "object",\n"type": "object"}', 2),
    "the same name, escaped": ("platform/data.json", '{"suspended": {},\n"suspende\\u0064": {}}', 2),
}


@pytest.mark.parametrize("name", TWICE)
async def test_a_name_twice_in_one_object_is_refused_wherever_it_stands(
    policies: Path, opa_binary: str, name: str
) -> None:
    file, text, line = TWICE[name]
    (policies / file).parent.mkdir(parents=True, exist_ok=True)
    (policies / file).write_text(text)
    found = await examined(policies, opa_binary)
    assert (file, line) in [(one.file, one.line) for one in found if "occurs twice" in one.message], found


async def test_the_platforms_data_is_json_because_yaml_keeps_the_last_of_two(policies: Path, opa_binary: str) -> None:
    beside = policies / "platform/mcp/platform/windows"
    beside.mkdir(parents=True)
    (beside / "data.yaml").write_text("a: 1\na: 2\n")
    found = await examined(policies, opa_binary)
    assert [(one.file, one.rule) for one in found] == [("platform/mcp/platform/windows/data.yaml", Rule.FILE)]


_NAMES = st.sampled_from(["a", "b", 'q"', "{", "é", "\\"])
_JSON = st.recursive(
    st.one_of(st.integers(), st.sampled_from(["a", '"', "{,", "]"])),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(_NAMES, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def _written(value: object) -> str:
    """JSON of lists, and of tuples of pairs, which may have a name twice."""
    if isinstance(value, tuple):
        return "{" + ",\n".join(f"{json.dumps(name)}: {_written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)


@given(_JSON)
def test_a_duplicate_is_found_exactly_where_the_strict_reader_refuses(value: object) -> None:
    text = _written(value)
    try:
        DECODER.decode(text)
    except DuplicateName:
        assert first_duplicate(text) is not None
    else:
        assert first_duplicate(text) is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('lib.in_group("red")', "no route names the group red: did you mean reds?"),
        ('lib.in_any_group({"loaders", "bleus"})', "no route names the group bleus: did you mean blues?"),
        ('lib.in_group_of("https://a.example", "redss")', "no route names the group redss: did you mean reds?"),
        ('lib.in_group("reds")', None),
        ('lib.in_group("cleared-for-secrets")', None),  # a second group of somebody whose first one has a route
        ("some group in mine.readers\n\tlib.in_group(group)", None),
    ],
    ids=["nearly", "nearly, of several", "nearly, of an issuer", "routed", "another group", "by a variable"],
)
async def test_a_group_that_is_nearly_a_routed_one_is_warned_of(
    policies: Path, red: Write, opa_binary: str, condition: str, said: str | None
) -> None:
    red("more.rego", HEAD + f'used if mine.readers\n\ngrant contains {{"id": "g"}} if {{\n\t{condition}\n}}\n')
    found = [(one.line, one.severity, one.message) for one in await examined(policies, opa_binary)]
    assert found == ([] if said is None else [(9, Severity.WARNING, said)])


async def test_no_group_is_warned_of_where_routes_name_them_by_patterns(
    policies: Path, red: Write, opa_binary: str
) -> None:
    data = json.loads((policies / "platform/data.json").read_text())  # noqa: TID251 - the repository's own file
    data["mcp"]["platform"]["routes"][0]["groups"].append("red*")
    (policies / "platform/data.json").write_text(json.dumps(data))
    red("more.rego", HEAD + 'used if mine.readers\n\ngrant contains {"id": "g"} if lib.in_group("red")\n')
    assert await examined(policies, opa_binary) == []
