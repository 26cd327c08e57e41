"""Whatever OPA finds wrong with a set has a file and a line: at load, in ``policy check`` and in ``policy test``."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from sidecar.authoring.checking import check, run_tests
from sidecar.authoring.engine import engine
from sidecar.errors import ConfigurationError
from sidecar.policyset.compile_errors import complaints
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.opa_command import converse
from sidecar.policyset.workshop import workshop
from tests.policy_sets import quick_copy

pytestmark = pytest.mark.real

Loop = Callable[[], asyncio.AbstractEventLoop]

OURS = "platform/more.rego"
TEAMS = "teams/people/more.rego"
OURS_IS = "package mcp.platform.more\n\n"
TEAMS_IS = "package mcp.teams.people\n\n"
BAD_JSON = '{\n  "mcp": {\n    "platform": nope\n  }\n}\n'
METADATA = "# METADATA\n# schemas:\n#   - input: schema.{}\nx if input.{}.id\n"

LANGUAGE: dict[str, tuple[str, str, int, str]] = {
    # file, text, line, what is said
    "no end": (OURS, OURS_IS + "x := {\n", 4, "rego_parse_error: unexpected eof token"),
    "no value": (OURS, OURS_IS + "x := ]\n", 3, "rego_parse_error: unexpected ] token"),
    "no `if`": (OURS, OURS_IS + "x { true }\n", 3, "rego_parse_error: `if` keyword is required"),
    "no package": (OURS, "x := 1\n", 1, "rego_parse_error: package expected"),
    "nothing": (OURS, "", 1, "rego_parse_error: empty module"),
    "metadata that is none": (OURS, OURS_IS + "# METADATA\n# title: [\nx := 1\n", 4, "rego_parse_error: yaml"),
    "an unknown name": (OURS, OURS_IS + "x := nowhere\n", 3, "rego_unsafe_var_error: var nowhere is unsafe"),
    "a recursion": (OURS, OURS_IS + "x := y\n\ny := x\n", 3, "rego_recursion_error: rule"),
    "another type": (OURS, OURS_IS + "x := 1 + true\n", 3, "rego_type_error: plus: invalid argument(s)"),
    "arguments too many": (OURS, OURS_IS + "x := count(1, 2)\n", 3, "rego_type_error: count: arity mismatch"),
    "a builtin that is not open": (OURS, OURS_IS + "x := http.send({})\n", 3, "undefined function http.send"),
    "an import for nothing": (OURS, OURS_IS + "import data.mcp.lib\n\nx := 1\n", 3, "import data.mcp.lib unused"),
    "a variable for nothing": (OURS, OURS_IS + "x if {\n\ty := 1\n}\n", 4, "assigned var y unused"),
    "two kinds of one rule": (OURS, OURS_IS + "x := 1\n\nx contains 1\n", 3, "rego_type_error: conflicting rules"),
    "two defaults": (OURS, OURS_IS + "default x := 1\n\ndefault x := 2\n", 1, "multiple default rules"),
    "a key that the schema has not": (
        OURS,
        OURS_IS + METADATA.format("input", "subjekt"),
        6,
        "undefined ref: input.subj",
    ),
    "a schema that is not there": (OURS, OURS_IS + METADATA.format("none", "subject"), 6, "undefined schema"),
    "a name with blanks": ("platform/a b.rego", OURS_IS + "x := nowhere\n", 3, "var nowhere is unsafe"),
    "a name with colons": ("platform/a:7: b.rego", OURS_IS + "x := nowhere\n", 3, "var nowhere is unsafe"),
    "a team's unknown name": (TEAMS, TEAMS_IS + "x := nowhere\n", 3, "rego_unsafe_var_error: var nowhere is unsafe"),
    "a team's missing end": (TEAMS, TEAMS_IS + "x := {\n", 4, "rego_parse_error: unexpected eof token"),
    "a team's test's unknown name": (
        "teams/people/more_test.rego",
        "package mcp.teams.people.more_test\n\ntest_it if nowhere\n",
        3,
        "var nowhere is unsafe",
    ),
}

SET: dict[str, tuple[str, str, int, str]] = {
    "data that is no JSON": ("platform/data.json", BAD_JSON, 3, ""),
    "data that ends too soon": ("platform/data.json", '{\n"mcp": {', 2, ""),
    "data that is a list": ("platform/data.json", "[]", 1, ""),
    "a manifest with a version that is none": (
        "platform/.manifest",
        '{"roots": ["mcp/main"], "rego_version": "x"}',
        1,
        "",
    ),
    "a manifest with a root twice": (
        "platform/.manifest",
        '{"roots": ["mcp/lib", "mcp/lib/x"]}',
        1,
        "overlapped roots",
    ),
    "data outside of the roots": ("platform/data.json", '{"elsewhere": {}}', 1, "data at path '/elsewhere'"),
    "a schema that is no JSON": ("schema/input.json", '{\n"x": [', 2, ""),
    "capabilities that are no JSON": ("capabilities.json", '{\n"builtins": [', 2, ""),
    "a package outside of the roots": (OURS, "# first\n\npackage elsewhere\n\nx := 1\n", 3, "package elsewhere"),
    "a rule in the place of data": (
        "platform/more.rego",
        "package mcp.platform\n\nimport data.mcp.lib\n\nroutes := [] if lib.reads\n",
        5,
        "conflicting rule for data path mcp/platform/routes",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The repository's policies with one of the teams."""
    root = tmp_path / "policies"
    quick_copy(root)
    for left_out in ("cases", "teams/analytics", "teams/loading", "teams/support"):
        shutil.rmtree(root / left_out)
    return root


def spoil(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)


async def said_at_load(folder: Path, opa_binary: str) -> str:
    async with workshop(opa_binary) as vetting:
        with pytest.raises(ConfigurationError) as caught:
            await vetting.vet(PolicySet.read(folder))
    return caught.value.detail


@pytest.mark.parametrize("name", [*LANGUAGE, *SET])
async def test_a_set_that_is_wrong_is_refused_with_file_and_line(folder: Path, opa_binary: str, name: str) -> None:
    file, text, line, what = {**LANGUAGE, **SET}[name]
    spoil(folder, file, text)
    said = await said_at_load(folder, opa_binary)
    assert said.startswith(f"the policy set is refused: {file}:{line}: "), said
    assert what in said


@pytest.mark.parametrize("name", [*LANGUAGE, *SET])
async def test_a_check_that_fails_has_file_and_line(folder: Path, opa_binary: str, name: str) -> None:
    file, text, line, what = {**LANGUAGE, **SET}[name]
    spoil(folder, file, text)
    first, *_ = (await check(PolicySet.read(folder), opa_binary)).findings
    assert (first.file, first.line) == (file, line), str(first)
    assert what in first.message


@pytest.mark.parametrize("name", ["no end", "an unknown name", "data that is no JSON"])
async def test_tests_that_do_not_run_say_where(folder: Path, opa_binary: str, name: str) -> None:
    file, text, line, _ = {**LANGUAGE, **SET}[name]
    spoil(folder, file, text)
    async with engine(opa_binary, folder) as held:
        with pytest.raises(ConfigurationError, match="the tests do not run: ") as caught:
            await run_tests(held)
    assert f"{file}:{line}: " in caught.value.detail


TESTS = {
    "a test that fails": ("test_it if false\n", 3),
    "a test that ends in an error": ("y := 1 if true\n\ny := 2 if true\n\ntest_it if y == 1\n", 7),
}


@pytest.mark.parametrize("name", TESTS)
async def test_a_test_that_fails_has_file_and_line(folder: Path, opa_binary: str, name: str) -> None:
    text, line = TESTS[name]
    file = "teams/people/more_test.rego"
    spoil(folder, file, "package mcp.teams.people.more_test\n\n" + text)
    said = await said_at_load(folder, opa_binary)
    assert said == f"the policy set is refused: {file}:{line}: the test test_it fails"
    async with engine(opa_binary, folder) as held:
        [failure] = (await run_tests(held)).failures
    assert (failure.file, failure.line) == (file, line)


async def test_all_errors_are_said_and_the_same_set_without_them_loads(folder: Path, opa_binary: str) -> None:
    spoil(folder, OURS, OURS_IS + "x := nowhere\n\ny := elsewhere\n")
    said = await said_at_load(folder, opa_binary)
    assert f"{OURS}:3: rego_unsafe_var_error: var nowhere is unsafe; {OURS}:5: " in said
    spoil(folder, OURS, OURS_IS + "x := 1\n")
    async with workshop(opa_binary) as vetting:
        warnings = (await vetting.vet(PolicySet.read(folder))).warnings
    assert not [one for one in warnings if one.file == OURS]


async def test_the_limit_of_errors_is_no_error_of_its_own(folder: Path, opa_binary: str) -> None:
    spoil(folder, OURS, OURS_IS + "".join(f"x{number} := nowhere{number}\n" for number in range(15)))
    found = (await check(PolicySet.read(folder), opa_binary)).findings
    assert [one.line for one in found] == [*range(3, 13)]


@pytest.mark.parametrize("output", [b"", b"Killed\n", b"\xff", b"[]", b"{}", b'{"errors": null}', b'{"errors": [{}]}'])
def test_what_says_nothing_is_no_complaint(output: bytes) -> None:
    """Whoever asked then says that OPA failed, with what it printed."""
    assert complaints(output, PolicySet(bundles=(), files=())) == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("given", [b"", b"x"])
def test_a_program_that_ended_before_it_was_given_anything_is_still_heard(loop: Loop, given: bytes) -> None:
    """uvloop, which serves, raises where asyncio's own loop does not; it ended a start and the watch over a folder."""

    async def late() -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("echo", "over", stdin=pipe, stdout=pipe)
        await process.wait()
        await asyncio.sleep(0)
        return await converse(process, given)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(late()) == b"over\n"
