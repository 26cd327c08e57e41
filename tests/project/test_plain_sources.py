"""Strangers read source files too: docstrings, comments, METADATA, messages and the titles of golden cases."""

import re
import subprocess

import pytest

from tests.parts import ROOT
from tests.project.test_pages import TICS

FOLDERS = ("sidecar", "policies", "bench", "tools", "scripts", "deploy")
KINDS = frozenset({"", ".js", ".json", ".py", ".rego", ".sh", ".toml", ".yaml", ".yml"})

READ = re.compile(r"\n[ \t]*(?:#|//)+[ \t]*|\s+")
"""What separates words: white space, and the marks of a comment that goes on in the next line."""


def sources() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(name for name in listed.split("\0") if (ROOT / name).is_file() and (ROOT / name).suffix in KINDS)


def tics(text: str) -> list[str]:
    plain = READ.sub(" ", text)
    return [
        f"…{plain[max(0, found.start() - 40) : found.end() + 20]}…: {instead}"
        for tic, instead in TICS.items()
        for found in re.finditer(tic, plain, re.IGNORECASE)
    ]


def test_there_are_sources_of_each_kind() -> None:
    assert {"sidecar/app.py", "policies/platform/main.rego", "scripts/check", "tools/pin_tools.py"} <= set(sources())


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_tic_is_left(folder: str) -> None:
    read = {name: (ROOT / name).read_text(encoding="utf-8") for name in sources() if name.startswith(f"{folder}/")}
    assert read
    assert {name: found for name, text in read.items() if (found := tics(text))} == {}


def test_a_tic_is_found_across_the_lines_of_a_comment() -> None:
    assert len(tics("x = 1\n# what is\n# said of it, by whoever\n//  made it anew\n")) == 3


def test_the_near_miss_is_fine() -> None:
    assert tics("said = is_said(whatever_else)  # who\n# ever; a renewal\n") == []
