"""What a team's folder is full of does nothing to the terminal of whoever checks, tests or bundles it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.authoring.test_policy_folder_commands import run
from tests.policy_sets import quick_copy
from tests.terminal import ACTS, on_a_terminal

pytestmark = pytest.mark.real

EVIL = "\x1b[2K\x1b[1A\r\nfine\x1b[8m\x9b31m\u202e\u2028fine\n\x1b]0;owned\x07"
WRITTEN = EVIL.encode("unicode_escape").decode().replace(r"\x", r"\u00")
HEAD = "package mcp.teams.people\n\n"
Spoil = Callable[[Path], object]


def module(text: str) -> Spoil:
    return lambda team: (team / "more.rego").write_text(text)


def linked(team: Path) -> None:
    (team / f"x{EVIL}").symlink_to("/")


CHECKED: dict[str, tuple[Spoil, int]] = {
    "file": (lambda team: (team / f"x{EVIL}.rego").write_text(HEAD), 1),
    "file that is no text": (lambda team: (team / os.fsdecode(b"x\xffowned.rego")).write_text(HEAD), 1),
    "stray": (lambda team: (team / f"x{EVIL}.txt").write_text(""), 1),
    "stray that is no text": (lambda team: (team / os.fsdecode(b"x\xffowned.txt")).write_text(""), 1),
    "folder": (lambda team: shutil.copytree(team, team / f"x{EVIL}"), 1),
    "folder that is no text": (lambda team: shutil.copytree(team, team.parent / os.fsdecode(b"\xffowned")), 1),
    "team": (lambda team: shutil.copytree(team, team.parent / f"x{EVIL}"), 1),
    "team without manifest": (lambda team: (team.parent / f"x{EVIL}").mkdir(), 78),
    "link": (linked, 78),
    "pipe": (lambda team: os.mkfifo(team / f"x{EVIL}.rego"), 78),
    "package": (module(f'package mcp.teams["{WRITTEN}"]\n'), 1),
    "rule": (module(f'{HEAD}x["{WRITTEN}"](_) := 1\n\nx["{WRITTEN}"](_, _) := 2\n'), 1),
    "reference": (module(f'{HEAD}x := data["{WRITTEN}"]\n'), 1),
    "syntax": (module(f"{HEAD}x := \u202e{{ \x1b[2J owned\n"), 1),
    "call": (module(f'{HEAD}x := {{}}["{WRITTEN}"](1)\n'), 1),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the repository's policies that a test may spoil."""
    return quick_copy(tmp_path / "policies")


def harmless(shown: str) -> bool:
    """Whether it holds nothing that acts, and no line that seems to be ours."""
    lines = shown.replace("\r\n", "\n").split("\n")
    assert [sequence for sequence in (*ACTS, "\udcff") if sequence in shown] == []
    assert "\r" not in shown.replace("\r\n", "\n")
    assert [line for line in lines if line.startswith("fine")] == []
    return True


@pytest.mark.parametrize("name", CHECKED)
def test_a_check_shows_names_and_does_nothing(folder: Path, name: str) -> None:
    spoil, expected = CHECKED[name]
    spoil(folder / "teams" / "people")
    status, shown = on_a_terminal("policy", "check", str(folder), columns=60)
    assert (status, harmless(shown)) == (expected, True), shown
    assert "owned" in shown or name in {"call", "syntax"}, shown
    if status == 1:
        assert "refused: " in shown
        status, shown = on_a_terminal("policy", "check", str(folder), "--json")
        assert (status, harmless(shown)) == (1, True)
        assert msgspec.json.decode(shown)["ok"] is False


@pytest.mark.parametrize("command", ["test", "bundle"])
@pytest.mark.parametrize("name", ["file", "file that is no text", "rule", "pipe"])
def test_so_do_tests_and_bundles(folder: Path, tmp_path: Path, command: str, name: str) -> None:
    CHECKED[name][0](folder / "teams" / "people")
    out = ("--out", str(tmp_path / "out")) if command == "bundle" else ()
    status, shown = on_a_terminal("policy", command, str(folder), *out)
    assert harmless(shown), shown
    assert "Traceback" not in shown
    assert status == (78 if command == "bundle" or name in {"rule", "pipe"} else 0)
    assert not (tmp_path / "out").exists()


def test_a_failing_test_is_named_without_effect(folder: Path) -> None:
    tests = folder / "teams" / "people" / "more_test.rego"
    tests.write_text(f'package mcp.teams.people.more_test\n\ntest_x["{WRITTEN}"] if 1 == 2\n\ntest_y if 1 == 2\n')
    for arguments in (("test",), ("test", "--json")):
        status, shown = on_a_terminal("policy", arguments[0], str(folder), *arguments[1:])
        assert (status, harmless(shown)) == (1, True), shown


def test_an_honest_name_in_other_letters_is_shown_as_it_is_written(folder: Path) -> None:
    (folder / "teams/people/größe 東京.rego").write_text(f"{HEAD}x := nowhere\n")
    done = run("policy", "check", str(folder))
    assert (done.returncode, "teams/people/größe 東京.rego:3: error: " in done.stdout) == (1, True)
    (folder / "teams/people/größe 東京.rego").write_text(HEAD)
    assert run("policy", "check", str(folder)).stdout == "fine\n"
