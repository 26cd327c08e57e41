"""``mcp-sidecar policy check`` on archives, as a pipeline runs it before it puts them on a file server."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sidecar.authoring import checking
from sidecar.authoring.wording import print_checked, print_tested
from sidecar.policyset import bundle_writer
from sidecar.policyset.finding import Rule, Violation
from tests.authoring.test_policy_folder_commands import POLICIES, answer, run
from tests.opa.outside import replaced, unpacked
from tests.terminal import ACTS, on_a_terminal

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``policy bundle`` writes of the repository's policies."""
    out = tmp_path_factory.mktemp("built") / "out"
    done = run("policy", "bundle", str(POLICIES), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def spoil(archive: Path, **changes: Any) -> None:
    """Write an archive by hand: files by name with ``_`` for the dot, and ``manifest`` members."""
    manifest = json.loads(dict(unpacked(archive))[".manifest"]) | changes.pop("manifest", {})  # noqa: TID251 - our own
    del manifest["metadata"]
    files = {name: text for name, text in unpacked(archive) if name != ".manifest"}
    files |= {name.replace("_", "."): text.encode() for name, text in changes.items()}
    archive.write_bytes(bundle_writer.archive([(".manifest", json.dumps(manifest).encode()), *files.items()]))


def findings(*arguments: str | Path, cwd: Path) -> tuple[int, list[tuple[str, int, str]]]:
    done = run("policy", "check", *map(str, arguments), "--json", cwd=cwd)
    assert done.stderr == ""
    found = answer(done)
    assert found["ok"] is (done.returncode == 0)
    return done.returncode, [(one["file"], one["line"], one["rule"]) for one in found["findings"]]


def test_a_folder_of_archives_is_fine_like_the_folder_that_it_was_made_of(out: Path) -> None:
    assert findings(out, cwd=out) == (0, [])
    assert run("policy", "check", str(out)).stdout == "fine\n"


def test_archives_can_be_named_one_by_one(out: Path) -> None:
    assert findings("platform.tar.gz", "teams/people.tar.gz", cwd=out) == (0, [])
    assert findings("platform.tar.gz", cwd=out) == (0, [])


def test_a_teams_archive_alone_is_held_to_containment_and_said_not_to_be_compiled(out: Path) -> None:
    assert findings("teams/people.tar.gz", cwd=out) == (0, [(".", 1, "compile")])
    spoil(out / "teams/people.tar.gz", more_rego="package mcp.teams.people\n\nx := nowhere\n")
    assert findings("teams/people.tar.gz", cwd=out) == (0, [(".", 1, "compile")])
    assert findings("platform.tar.gz", "teams/people.tar.gz", cwd=out) == (
        1,
        [("teams/people.tar.gz/more.rego", 3, "compile")],
    )


@pytest.mark.parametrize(
    ("changes", "file", "line", "rule"),
    [
        ({"more_rego": "package mcp.main\n\nallow if true\n"}, "more.rego", 1, "package"),
        ({"more_rego": "package mcp.teams.people\n\nx := data.mcp.platform.routes\n"}, "more.rego", 3, "reference"),
        ({"more_rego": "package mcp.teams.people\n\nx if input with input as {}\n"}, "more.rego", 3, "with"),
        ({"more_rego": "package mcp.teams.people\n\nx := {\n"}, "more.rego", 4, "syntax"),
        ({"data_json": '{"mcp": {"platform": {}}}'}, "data.json", 1, "data"),
        ({"policy_wasm": "x"}, "policy.wasm", 1, "file"),
        ({"manifest": {"roots": ["mcp/teams/people"]}}, ".manifest", 1, "manifest"),
    ],
)
def test_a_problem_has_an_archive_a_member_and_a_line(
    out: Path, changes: dict[str, Any], file: str, line: int, rule: str
) -> None:
    spoil(out / "teams/people.tar.gz", **changes)
    status, found = findings(".", cwd=out)
    assert (status, found[0]) == (1, (f"teams/people.tar.gz/{file}", line, rule))
    assert (
        f"teams/people.tar.gz/{file}:{line}: error: "
        in run("policy", "check", "platform.tar.gz", "teams/people.tar.gz", cwd=out).stdout
    )


def test_a_member_out_of_bounds_is_the_whole_answer(out: Path) -> None:
    archive = out / "teams/people.tar.gz"
    archive.write_bytes(
        bundle_writer.archive([*unpacked(archive), ("../../platform/platform/main.rego", b"package x")])
    )
    status, found = findings(out, cwd=out)
    assert (status, found) == (1, [(f"{archive}/../../platform/platform/main.rego", 1, "file")])


def test_the_platforms_archive_is_held_to_its_roots_its_listing_and_the_schema_of_its_data(
    out: Path, tmp_path: Path
) -> None:
    archive = out / "platform.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(replaced(archive, "platform/main.rego", lambda text: f"{text}\n"))
    assert findings(archive, cwd=out) == (1, [(f"{archive}/.manifest", 1, "manifest")])
    archive.write_bytes(whole)
    archive.write_bytes(
        replaced(archive, "data.json", lambda text: text.replace('"id": "writers"', '"idd": "writers"'))
    )
    status, found = findings(archive, cwd=out)
    assert (status, {(file, rule) for file, _, rule in found}) == (1, {(f"{archive}/data.json", "data")})
    archive.write_bytes(replaced(archive, "data.json", lambda _: "{}"))
    assert findings(archive, cwd=out) == (1, [(f"{archive}/data.json", 1, "data")])
    archive.write_bytes(whole)
    spoil(archive, manifest={"roots": ["mcp", "system"]})
    assert findings(archive, cwd=out) == (1, [(f"{archive}/.manifest", 1, "manifest")])


@pytest.mark.parametrize(("pattern", "lines"), [("{a", [12]), ("{a}", [])])
def test_the_globs_of_the_platforms_archive_are_tried(out: Path, pattern: str, lines: list[int]) -> None:
    archive = out / "platform.tar.gz"
    agents = f'"agents": ["{pattern}"]'
    archive.write_bytes(replaced(archive, "data.json", lambda text: text.replace('"agents": ["*"]', agents, 1)))
    assert findings(archive, cwd=out) == (len(lines), [(f"{archive}/data.json", line, "data") for line in lines])


def test_wrong_usage_and_what_cannot_be_read_have_their_own_status(out: Path, tmp_path: Path) -> None:
    assert run("policy", "check").returncode == 2
    assert run("policy", "check", str(tmp_path / "nowhere.tar.gz")).returncode == 2
    other = tmp_path / "red.zip"
    other.write_bytes(b"PK")
    done = run("policy", "check", str(other))
    assert (done.returncode, "is not the one archive" in done.stderr) == (78, True)
    done = run("policy", "check", str(POLICIES), str(out / "platform.tar.gz"))
    assert (done.returncode, "is no folder of archives" in done.stderr) == (78, True)
    assert run("policy", "check", str(out), "--opa", "no-such-opa").returncode == 78
    broken = tmp_path / "red.tar.gz"
    broken.write_bytes(b"\x1f\x8b")
    assert findings(broken, cwd=out) == (1, [(str(broken), 1, "file")])


# --- hostile archives -------------------------------------------------------------------------------------------------

FORGED = r"red\u001b[2K\u001b[1A\r\nfine\u001b[8m\u009b31m\u202e\u2028fine\n\u001b]0;owned\u0007"
HOSTILE = {
    "package": f'package mcp.teams["{FORGED}"]\n',
    "reference": f'package mcp.teams.people\n\nx := data["{FORGED}"]\n',
}


@pytest.mark.parametrize("module", HOSTILE.values(), ids=HOSTILE.keys())
def test_names_of_a_hostile_archive_do_nothing_to_a_terminal_and_forge_no_line(out: Path, module: str) -> None:
    archive = out / "teams/people.tar.gz"
    spoil(archive, more_rego=module)
    status, shown = on_a_terminal("policy", "check", str(archive), columns=60)
    assert (status, "owned" in shown) == (1, True), "the name is there"
    assert [sequence for sequence in ACTS if sequence in shown] == []
    assert "\x1b[31merror\x1b[0m" in shown, "the colours are our own"
    piped = run("policy", "check", str(archive)).stdout
    assert "\x1b" not in piped
    for lines in (shown.split("\r\n"), piped.split("\n")):
        assert [line for line in lines if line.startswith("fine")] == []
        assert len(lines) == 4, "a finding, the warning, the verdict, and the end"
    assert "refused: 1 error" in piped


def test_an_honest_archive_in_other_letters_is_shown_as_it_is_written(out: Path) -> None:
    archive = out / "teams/people.tar.gz"
    spoil(archive, more_rego='package mcp.teams["größe 東京 [bold]x[/bold]"]\n')
    assert "größe 東京 [bold]x[/bold]" in run("policy", "check", str(archive)).stdout


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_a_finding_is_one_line_of_printable_characters(file: str, message: str) -> None:
    found = (Violation(file=file, line=1, rule=Rule.TEST, message=f"{message} {'x' * 70} fine"),)
    tested = checking.TeamTestReport(passed=1, cases=0, failures=found, coverage={})
    for show in (
        lambda to: print_checked(checking.CheckReport(findings=found), to),
        lambda to: print_tested(tested, to),
    ):
        shown = io.StringIO()
        show(Console(file=shown, width=80))
        lines = shown.getvalue().split("\n")
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)
        assert lines[0].endswith(f"{'x' * 70} fine")


def test_a_file_of_the_coverage_table_is_a_name_and_no_markup() -> None:
    shown = io.StringIO()
    name = "teams/red/[bold]\x1b[2K\nfine.rego"
    print_tested(
        checking.TeamTestReport(passed=1, cases=0, failures=(), coverage={name: (50.0, (1,))}),
        Console(file=shown, width=120),
    )
    assert r"teams/red/[bold]\u001b[2K fine.rego" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
