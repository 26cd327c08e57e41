"""What a team's folder may not hold: refused before it is served, with file and line. The near miss loads."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.policyset.containment import MAX_MODULE_BYTES, MAX_TEAM_DATA_BYTES, misplaced
from sidecar.policyset.finding import Rule, Severity
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.module_lint import lint
from sidecar.policyset.workshop import examine, workshop
from tests.parts import ROOT

pytestmark = pytest.mark.real

HEAD = "package mcp.teams.red\n\n"
Write = Callable[[str, str], Path]

REFUSED_MODULES = {
    "the platform's entrypoint": ("package mcp.main\n\nallow := true\n", 1, Rule.PACKAGE),
    "a package of the platform": ("package mcp.platform.guardrails\n\nx := 1\n", 1, Rule.PACKAGE),
    "a new package of the platform": ("package mcp.platform.more\n\nx := 1\n", 1, Rule.PACKAGE),
    "the library": ("package mcp.lib\n\nreads := true\n", 1, Rule.PACKAGE),
    "another team": ('package mcp.teams.blue\n\ngrant contains {"id": "x"}\n', 1, Rule.PACKAGE),
    "a team that is not there": ("package mcp.teams.redder\n\nx := 1\n", 1, Rule.PACKAGE),
    "all teams": ("package mcp.teams\n\nred := 1\n", 1, Rule.PACKAGE),
    "mcp": ("package mcp\n\nmain := 1\n", 1, Rule.PACKAGE),
    "the guard of OPA's API": ("package system.authz\n\nallow := true\n", 1, Rule.PACKAGE),
    "OPA's log mask": ("package system.log\n\nmask := []\n", 1, Rule.PACKAGE),
    "our own package": ("package sidecar.managed\n\ndrop := false\n", 1, Rule.PACKAGE),
    "a package on another line": ("# x\n\npackage mcp.main\n\nx := 1\n", 3, Rule.PACKAGE),
    "its data's place": ("package mcp.grants.red\n\nx := 1\n", 1, Rule.PACKAGE),
    "quoted names": ('package mcp["main"]\n\nx := 1\n', 1, Rule.PACKAGE),
    "with input": (HEAD + 'deny contains "x" if input.a with input as {}\n', 3, Rule.WITH),
    "with data": (HEAD + "p := 1\n\nq if p == 1 with data.mcp.platform.agents as {}\n", 5, Rule.WITH),
    "with a builtin": (HEAD + 'p if upper("a") == "b" with upper as "b"\n', 3, Rule.WITH),
    "with in a comprehension": (HEAD + "p := [x | x := input.a with input as {}]\n", 3, Rule.WITH),
    "with in every": (HEAD + "p if {\n\tevery x in [1] {\n\t\tinput.a == x with input as {}\n\t}\n}\n", 5, Rule.WITH),
    "with in else": (HEAD + "p if input.a\nelse := 1 if input.b with input as {}\n", 4, Rule.WITH),
    "the platform's data": (HEAD + "p := data.mcp.platform.agents\n", 3, Rule.REFERENCE),
    "another team's data": (HEAD + "p := data.mcp.grants.blue\n", 3, Rule.REFERENCE),
    "another team's rules": (HEAD + "p := data.mcp.teams.blue.grant\n", 3, Rule.REFERENCE),
    "everything": (HEAD + "p := count(data)\n", 3, Rule.REFERENCE),
    "everything of mcp": (HEAD + "p := count(data.mcp)\n", 3, Rule.REFERENCE),
    "everything of the grants": (HEAD + "p := count(data.mcp.grants)\n", 3, Rule.REFERENCE),
    "a walk over everything": (HEAD + "p contains x if walk(data, [_, x])\n", 3, Rule.REFERENCE),
    "a name from the input after data": (HEAD + "p := data[input.x]\n", 3, Rule.REFERENCE),
    "a name from the input after mcp": (HEAD + "p := data.mcp[input.x]\n", 3, Rule.REFERENCE),
    "a name from the input after grants": (HEAD + "p := data.mcp.grants[input.x]\n", 3, Rule.REFERENCE),
    "a name from the input after teams": (HEAD + "p := data.mcp.teams[input.x].grant\n", 3, Rule.REFERENCE),
    "a wildcard after grants": (HEAD + "p contains x if some x in data.mcp.grants[_]\n", 3, Rule.REFERENCE),
    "data in an index": (HEAD + "p := input.a[data.mcp.revision]\n", 3, Rule.REFERENCE),
    "data in a head": (HEAD + "p[data.mcp.revision] := 1\n", 3, Rule.REFERENCE),
    "data in a default argument": (HEAD + "f(x) := x\n\np := f(data.system)\n", 5, Rule.REFERENCE),
    "data in a text template": (HEAD + 'p := $"{data.mcp.revision}"\n', 3, Rule.REFERENCE),
    "data in some": (HEAD + "p if some x in data.mcp.platform.grants\n", 3, Rule.REFERENCE),
    "the bundles' manifests": (HEAD + "p := data.system.bundles\n", 3, Rule.REFERENCE),
    "an alias of everything": (HEAD + "import data as d\n\np := d.mcp.platform\n", 3, Rule.REFERENCE),
    "an alias of mcp": (HEAD + "import data.mcp as m\n\np := m.platform\n", 3, Rule.REFERENCE),
    "an alias of the platform": (HEAD + "import data.mcp.platform as lib\n\np := lib.agents\n", 3, Rule.REFERENCE),
    "an import of another team": (HEAD + "import data.mcp.teams.blue\n\np := blue.grant\n", 3, Rule.REFERENCE),
    "an alias called data": (HEAD + "import input.subject as data\n\np := data.mcp\n", 3, Rule.SYNTAX),
    "Rego to come": (HEAD + "import rego.v2\n\np := 1\n", 3, Rule.IMPORT),
    "logical or": (HEAD + "import future.keywords.or\n\np if { (input.x or input.y) }\n", 3, Rule.IMPORT),
    "a default for the platform": (HEAD + "default data.mcp.main.allow := true\n", 3, Rule.REFERENCE),
    "a rule on data": (HEAD + "data.mcp.main.allow := true\n", 3, Rule.REFERENCE),
    "http.send": (HEAD + 'p := http.send({"url": "http://127.0.0.1", "method": "get"})\n', 3, Rule.BUILTIN),
    "a name look-up": (HEAD + 'p := net.lookup_ip_addr("x")\n', 3, Rule.BUILTIN),
    "the environment": (HEAD + "p := opa.runtime()\n", 3, Rule.BUILTIN),
    "randomness": (HEAD + 'p := rand.intn("x", 2)\n', 3, Rule.BUILTIN),
    "a random name": (HEAD + 'p := uuid.rfc4122("x")\n', 3, Rule.BUILTIN),
    "the clock": (HEAD + "p := time.now_ns()\n", 3, Rule.BUILTIN),
    "the parser": (HEAD + 'p := rego.parse_module("x", "package x")\n', 3, Rule.BUILTIN),
    "the metadata of others": (HEAD + "p := rego.metadata.chain()\n", 3, Rule.BUILTIN),
    "trace": (HEAD + 'p if trace("x")\n', 3, Rule.BUILTIN),
    "print": (HEAD + "p if print(input)\n", 3, Rule.BUILTIN),
    "a range without end": (HEAD + "p := numbers.range(1, 1000000000)\n", 3, Rule.BUILTIN),
    "a number without end": (HEAD + "p := bits.lsh(1, 100000000000)\n", 3, Rule.BUILTIN),
    "a builtin in a comprehension": (HEAD + "p := [x | x := 1; time.now_ns() > 0]\n", 3, Rule.BUILTIN),
    "a negated builtin": (HEAD + "p if not trace(input.x)\n", 3, Rule.BUILTIN),
    "a quoted builtin": (HEAD + 'p := time["now_ns"]()\n', 3, Rule.BUILTIN),
    "no end": (HEAD + "grant contains {\n", 4, Rule.SYNTAX),
    "no package": ("p := 1\n", 1, Rule.SYNTAX),
    "nothing": ("", 1, Rule.SYNTAX),
    "deep nesting": (HEAD + "p := " + "[" * 150 + "1" + "]" * 150 + "\n", 3, Rule.DEPTH),
}


@pytest.mark.parametrize("name", REFUSED_MODULES)
async def test_a_module_out_of_bounds_is_refused_at_its_line(
    policies: Path, team_file: Write, opa_binary: str, name: str
) -> None:
    text, line, rule = REFUSED_MODULES[name]
    team_file("more.rego", text)
    found = await examine(policies, opa_binary)
    assert ("teams/red/more.rego", line, rule) in [(each.file, each.line, each.rule) for each in found], found
    assert all(each.severity is Severity.ERROR and each.file == "teams/red/more.rego" for each in found)


ALLOWED_MODULES = {
    "its own package": HEAD + "p := data.mcp.teams.red.q\n\nq := 1\n",
    "a package below": "package mcp.teams.red.helpers\n\np := 1\n",
    "its own data": HEAD + "p := data.mcp.grants.red[input.access.database]\n",
    "its own data by import": HEAD + "import data.mcp.grants.red as mine\n\np := mine[input.x]\n",
    "the library": HEAD + "import data.mcp.lib\n\np if lib.reads\n",
    "the input, dynamic": HEAD + "p contains x if some x in input[input.y]\n",
    "names that only look alike": HEAD + 'p := {"data": input.data, "http": input["http.send"], "x": "data.mcp"}\n',
    "a local of the same word": HEAD + "p if {\n\ttime_now := 1\n\ttime_now == 1\n}\n",
    "the clock of the question": HEAD + "p := time.weekday(input.context.time_ns)\n",
    "Rego v1 said twice": HEAD + "import rego.v1\n\np := 1\n",
    "comprehensions and functions": HEAD + "f(x) := [y | some y in x]\n\np := {k: f(v) | some k, v in input.z}\n",
    "a text template": HEAD + 'p := $"{input.x}"\n',
    "nesting as people write it": HEAD + "p := " + "[" * 12 + "1" + "]" * 12 + "\n",
}


@pytest.mark.parametrize("name", ALLOWED_MODULES)
async def test_a_module_within_bounds_passes(policies: Path, team_file: Write, opa_binary: str, name: str) -> None:
    team_file("more.rego", ALLOWED_MODULES[name])
    assert await examine(policies, opa_binary) == []


async def test_a_test_may_use_with_and_see_everything_and_is_never_served(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    text = "package mcp.teams.red.policy_test\n\ntest_x if data.mcp.main.decision.allow == false with input as {}\n"
    team_file("policy_test.rego", text)
    assert await examine(policies, opa_binary) == []
    assert "policy_test" not in str(PolicySet.read(policies).files)
    team_file("other_test.rego", text.replace("mcp.teams.red.policy_test", "mcp.main"))
    [found] = await examine(policies, opa_binary)
    assert (found.file, found.line, found.rule) == ("teams/red/other_test.rego", 1, Rule.PACKAGE)


async def test_a_negated_call_in_a_deny_is_a_warning_and_not_a_refusal(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    team_file("more.rego", HEAD + 'deny contains "x" if not startswith(input.access.collection, "a")\n')
    [found] = await examine(policies, opa_binary)
    assert (found.line, found.rule, found.severity) == (3, Rule.NEGATED_CALL, Severity.WARNING)
    async with workshop(opa_binary) as vetting:
        assert (await vetting.vet(PolicySet.read(policies))).warnings == (found,)
    team_file("more.rego", HEAD + 'deny contains "x" if not input.access.collection == "a"\n')
    assert [each.rule for each in await examine(policies, opa_binary)] in ([], [Rule.NEGATED_CALL])
    team_file("more.rego", HEAD + 'deny contains "x" if not input.access.collection\n')
    assert await examine(policies, opa_binary) == []


REFUSED_FILES = {
    "data of the platform": ("data.json", '{"mcp": {"platform": {"refused_kinds": []}}}', Rule.DATA),
    "data of another team": ("data.json", '{"mcp": {"grants": {"blue": {}}}}', Rule.DATA),
    "data at a rule's path": ("data.json", '{"mcp": {"teams": {"red": {"grant": []}}}}', Rule.DATA),
    "data at another team's rule": ("data.json", '{"mcp": {"teams": {"blue": {"deny": []}}}}', Rule.DATA),
    "data at the entrypoint": ("data.json", '{"mcp": {"main": {"allow": true}}}', Rule.DATA),
    "a forged revision": ("data.json", '{"mcp": {"revision": "x"}}', Rule.DATA),
    "data of the system": ("data.json", '{"system": {"authz": {"allow": true}}}', Rule.DATA),
    "own data beside": ("data.json", '{"mcp": {"grants": {"red": {}}}, "x": 1}', Rule.DATA),
    "two of a name": ("data.json", '{"mcp": {"platform": {}}, "mcp": {"grants": {"red": {}}}}', Rule.DATA),
    "no object": ("data.json", '{"mcp": {"grants": {"red": []}}}', Rule.DATA),
    "a list": ("data.json", "[]", Rule.DATA),
    "NaN": ("data.json", '{"mcp": {"grants": {"red": {"x": NaN}}}}', Rule.DATA),
    "no JSON": ("data.json", "{", Rule.DATA),
    "a folder that is a path": ("mcp/platform/data.json", "{}", Rule.DATA),
    "a folder of another team": ("mcp/grants/blue/data.json", "{}", Rule.DATA),
    "too deep": ("data.json", '{"mcp": {"grants": {"red": {"x": ' + "[" * 40 + "]" * 40 + "}}}}", Rule.DATA),
    "deeper than any parser": (
        "data.json",
        '{"mcp": {"grants": {"red": ' + "[" * 99_999 + "]" * 99_999 + "}}}",
        Rule.DATA,
    ),
    "too much": ("data.json", '{"mcp": {"grants": {"red": {"x": "' + "x" * MAX_TEAM_DATA_BYTES + '"}}}}', Rule.SIZE),
    "a huge module": ("more.rego", HEAD + "# " + "x" * MAX_MODULE_BYTES, Rule.SIZE),
    "YAML": ("data.yaml", "mcp: {grants: {red: {}}}", Rule.FILE),
    "YAML by its other name": ("data.yml", "mcp: {grants: {red: {}}}", Rule.FILE),
    "WebAssembly": ("policy.wasm", "x", Rule.FILE),
    "a plan": ("plan.json", "{}", Rule.FILE),
    "a patch": ("patch.json", "{}", Rule.FILE),
    "a signature": (".signatures.json", "{}", Rule.FILE),
    "a second manifest": ("below/.manifest", '{"roots": ["mcp/main"]}', Rule.MANIFEST),
    "the platform's root": (".manifest", '{"roots": ["mcp/teams/red", "mcp/main"]}', Rule.MANIFEST),
    "everything as root": (".manifest", '{"roots": [""]}', Rule.MANIFEST),
    "no roots, which is everything": (".manifest", "{}", Rule.MANIFEST),
    "one root only": (".manifest", '{"roots": ["mcp/teams/red"]}', Rule.MANIFEST),
    "a longer name": (".manifest", '{"roots": ["mcp/teams/red", "mcp/grants/redder"]}', Rule.MANIFEST),
    "another Rego": (".manifest", '{"roots": ["mcp/teams/red", "mcp/grants/red"], "rego_version": 0}', Rule.MANIFEST),
    "another Rego for one file": (
        ".manifest",
        '{"roots": ["mcp/teams/red", "mcp/grants/red"], "file_rego_versions": {"/policy.rego": 0}}',
        Rule.MANIFEST,
    ),
    "an engine of its own": (
        ".manifest",
        '{"roots": ["mcp/teams/red", "mcp/grants/red"], "wasm": [{"entrypoint": "mcp/main", "module": "/x.wasm"}]}',
        Rule.MANIFEST,
    ),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_a_file_out_of_bounds_is_refused(policies: Path, team_file: Write, name: str) -> None:
    file, text, rule = REFUSED_FILES[name]
    team_file(file, text)
    found = list(misplaced(PolicySet.read(policies)))
    assert rule in {each.rule for each in found}, found
    assert all(each.file.startswith("teams/red/") and each.line == 1 for each in found)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.json", "{}"),
        ("data.json", '{"mcp": {"grants": {"red": {"x": [1, {"y": null}]}}}}'),
        ("mcp/grants/red/data.json", '{"x": 1}'),
        ("README.md", "# Ours"),
        (".gitkeep", ""),
        (".manifest", '{"roots": ["mcp/grants/red", "mcp/teams/red"]}'),
    ],
)
def test_a_file_within_bounds_passes(policies: Path, team_file: Write, file: str, text: str) -> None:
    team_file(file, text)
    assert list(misplaced(PolicySet.read(policies))) == []


def test_a_link_out_of_the_folder_is_refused_unread_and_one_inside_is_followed(
    policies: Path, tmp_path: Path, team_file: Write
) -> None:
    secret = tmp_path / "secret.rego"
    secret.write_text("package mcp.teams.red\n\nsecret := 1\n")
    link = policies / "teams" / "red" / "more.rego"
    for target in (secret, Path("../blue/policy.rego"), Path("/etc/hostname")):
        link.symlink_to(target)
        read = PolicySet.read(policies)
        [found] = misplaced(read)
        assert (found.file, found.rule) == ("teams/red/more.rego", Rule.FILE)
        assert "teams/red/more.rego" not in dict(read.files)
        link.unlink()
    link.symlink_to("policy.rego")
    assert list(misplaced(PolicySet.read(policies))) == []


def test_a_pipe_does_not_keep_the_reader_waiting(policies: Path) -> None:
    os.mkfifo(policies / "teams" / "red" / "more.rego")
    with pytest.raises(ConfigurationError, match="regular file"):
        PolicySet.read(policies)


@pytest.mark.parametrize(
    "name", ["platform", "Red", "red team", "-red", "red.tar.gz", "r\N{LATIN SMALL LETTER E WITH ACUTE}d"]
)
def test_a_folder_that_cannot_be_a_team_is_refused(policies: Path, name: str) -> None:
    folder = (policies / "teams" / "red").rename(policies / "teams" / name)
    (folder / ".manifest").write_text(json.dumps({"roots": [f"mcp/teams/{name}", f"mcp/grants/{name}"]}))
    assert [each.rule for each in misplaced(PolicySet.read(policies))] == [Rule.TEAM_NAME]


@pytest.mark.parametrize(
    ("bundle", "roots"),
    [
        ("platform", ["mcp"]),
        ("platform", ["mcp/main", "mcp/teams"]),
        ("platform", ["mcp/main", "mcp/teams/red"]),
        ("platform", ["mcp/main", "system/authz"]),
        ("platform", ["mcp/mainland"]),
        ("platform", []),
        ("system", ["system/authz", "mcp/main"]),
        ("system", ["sidecar"]),
    ],
)
def test_the_trusted_folders_stay_where_they_belong(policies: Path, bundle: str, roots: list[str]) -> None:
    (policies / bundle / ".manifest").write_text(json.dumps({"roots": roots}))
    assert [each.rule for each in misplaced(PolicySet.read(policies))] == [Rule.MANIFEST]


async def test_the_repositorys_policies_are_contained(opa_binary: str) -> None:
    assert await examine(ROOT / "policies", opa_binary) == []


async def test_a_failing_test_of_a_team_keeps_the_set_from_being_served(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    team_file("policy_test.rego", "package mcp.teams.red.policy_test\n\ntest_it if false == true\n")
    async with workshop(opa_binary) as vetting:
        with pytest.raises(ConfigurationError, match=r"teams/red/policy_test\.rego:3: the test test_it fails"):
            await vetting.vet(PolicySet.read(policies))
        team_file("policy_test.rego", "package mcp.teams.red.policy_test\n\ntest_it if true == true\n")
        await vetting.vet(PolicySet.read(policies))


COMPILE_ERRORS = {
    "recursion": ("p if q\n\nq if p\n", "rego_recursion_error"),
    "an unsafe variable": ("p := x\n", "rego_unsafe_var_error"),
    "a type error": ('p if 1 + "a" == 2\n', "rego_type_error"),
    "two complete values": ("p := 1\n\np(x) := 2\n", "rego_"),
    "an unknown function": ("import data.mcp.lib\n\np := lib.nothing(1)\n", "nothing defines data.mcp.lib.nothing"),
}


@pytest.mark.parametrize("name", COMPILE_ERRORS)
async def test_what_does_not_compile_is_refused_at_its_line(
    policies: Path, team_file: Write, opa_binary: str, name: str
) -> None:
    text, code = COMPILE_ERRORS[name]
    team_file("more.rego", HEAD + text)
    async with workshop(opa_binary) as vetting:
        with pytest.raises(ConfigurationError, match=rf"teams/red/more\.rego:\d+: .*{code}"):
            await vetting.vet(PolicySet.read(policies))


async def test_no_check_fetches_a_schema(policies: Path, team_file: Write, opa_binary: str, free_port: int) -> None:
    capabilities = policies / "capabilities.json"
    listed = json.loads(capabilities.read_text())  # noqa: TID251 - our own file
    del listed["allow_net"]
    capabilities.write_text(json.dumps(listed))
    schema = f'# METADATA\n# schemas:\n#   - input: {{"$ref": "http://127.0.0.1:{free_port}/x"}}\np if input.v\n'
    team_file("more.rego", HEAD + schema)
    async with workshop(opa_binary) as checker:
        with pytest.raises(ConfigurationError, match="remote reference loading disabled"):
            await checker.vet(PolicySet.read(policies))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["data", "ref", "var", "call"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "value", "terms", "with", "head", "ref", "location", "path", "negated", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_any_tree_is_judged_without_an_error(package: object, imports: list[object], rules: list[object]) -> None:
    for tree in ({"package": package, "imports": imports, "rules": rules}, package):
        list(lint(tree, team="red", file="teams/red/x.rego"))
