"""Every row of what MCP asks is held by tests that there are, or says openly why not."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.mcp.requirements import REQUIREMENTS, Held, Hole, NotServed
from tests.parts import ROOT

PAGE = ROOT / "docs/reference/mcp-requirements.md"
FORM = re.compile(r"(?P<path>[a-z_0-9/]+\.py)::(?P<name>test_\w+)")
LEAST_ROWS = 82
"""Of the tables when this was written; a page that lost a table would leave nothing to hold."""


def rows_of(page: str) -> list[str]:
    """The ids of the tables V, M, L, S and G, in their order."""
    return re.findall(r"^\| ([VMLSG]-\d\d) \|", page, re.MULTILINE)


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def is_there(test: str, folder: Path = ROOT / "tests") -> bool:
    found = FORM.fullmatch(test)
    if found is None:
        return False
    path = folder / found["path"]
    return path.is_file() and found["name"] in names_in(path)


def test_every_row_of_the_page_is_in_the_table_once_and_no_other() -> None:
    rows = rows_of(PAGE.read_text())
    assert len(rows) >= LEAST_ROWS
    assert sorted(rows) == sorted(REQUIREMENTS)


@pytest.mark.parametrize("row", REQUIREMENTS)
def test_every_test_that_a_row_names_is_there(row: str) -> None:
    tests = REQUIREMENTS[row].tests
    assert [test for test in tests if not is_there(test)] == []
    assert len(set(tests)) == len(tests)


def test_no_row_is_held_by_nothing() -> None:
    bare = [row for row, held in REQUIREMENTS.items() if isinstance(held, Held) and not held.tests]
    assert bare == []
    assert all(held.reason.endswith(".") for held in REQUIREMENTS.values() if isinstance(held, NotServed))


def test_holes_are_few_and_say_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints them, so that nobody takes the table for more than it is."""
    holes = {row: held.missing for row, held in REQUIREMENTS.items() if isinstance(held, Hole)}
    with capsys.disabled():
        sys.stdout.writelines(f"\nnot held by a test: {row}: {missing}" for row, missing in holes.items())
    assert all(missing.endswith(".") for missing in holes.values())


@pytest.mark.parametrize(
    "test",
    [
        "mcp/test_requirements.py::test_that_is_not_there",
        "mcp/test_not_there.py::test_no_row_is_held_by_nothing",
        "mcp/test_requirements.py",
        "mcp/test_requirements.py::is_there",
        "../tests/mcp/test_requirements.py::test_no_row_is_held_by_nothing",
        "",
    ],
)
def test_a_test_that_is_not_there_would_be_seen(test: str) -> None:
    assert not is_there(test)
    assert is_there("mcp/test_requirements.py::test_no_row_is_held_by_nothing")


def test_a_row_that_is_new_on_the_page_would_be_seen() -> None:
    page = PAGE.read_text()
    assert rows_of(page + "\n| V-99 | MUST | something | here |\n") == [*rows_of(page), "V-99"]
