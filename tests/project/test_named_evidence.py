"""Pages that name a test or a setting as evidence name one that is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.parts import ROOT

PAGES = ("docs/security-guidance.md", "docs/delegation.md", "docs/yardsticks.md")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_ROW = re.compile(r"^\|(?!---)(.+)\|$", re.MULTILINE)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of each table, without the rows that only draw lines."""
    for found in _ROW.finditer(text):
        cells = [cell.strip() for cell in found[1].split(" | ")]
        if not all(set(cell) <= {"-", "|"} for cell in cells):
            yield cells


@cache
def functions_of(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def missing(text: str) -> list[str]:
    """Tests that are named and are not there."""
    named = _TEST.findall(text)
    return [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or name not in functions_of(ROOT / path)
    ]


def settings() -> set[str]:
    """Every setting, with its group."""
    group, found = "", set()
    for line in (ROOT / "docs/reference/settings.md").read_text().splitlines():
        if heading := re.match(r"#+ `?\[*([a-z_.]+)\]*`?", line):
            group = heading[1]
        elif name := re.match(r"\| (?:`SIDECAR_[A-Z0-9_]+` \| )?`([a-z_0-9]+)` \|", line):
            found |= {name[1], f"{group}.{name[1]}"}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    assert len(_TEST.findall(text)) >= 15
    assert missing(text) == []


def test_every_recommendation_names_a_setting_and_a_test() -> None:
    header, *table = rows((ROOT / "docs/security-guidance.md").read_text())
    assert header == ["recommendation", "where it is met", "setting", "test"]
    assert len(table) >= 15
    known = settings()
    assert {"servers.read_only", "audit.store", "listen"} <= known, "the settings' page is read"
    for cells in table:
        assert len(cells) == 4, cells
        assert cells[2].strip("`") in known, cells
        assert _TEST.fullmatch(cells[3]), cells


def test_every_attack_names_a_test() -> None:
    text = (ROOT / "docs/delegation.md").read_text()
    header, *table = rows(text[text.index("## Which attack ends where") :])
    assert header == ["attack", "ends at", "test"]
    assert all(_TEST.fullmatch(cells[-1]) for cells in table)


def test_every_kind_of_shared_state_says_what_happens_without_its_store() -> None:
    text = (ROOT / "docs/replicas.md").read_text()
    header, *table = rows(text[text.index("| kind of state |") :])
    assert header == ["kind of state", "while the store does not answer", "test"]
    assert missing(text) == []
    assert [cells[0] for cells in table if not _TEST.fullmatch(cells[-1])] == ["streams and subscriptions"]


def test_a_test_that_is_not_there_would_be_found() -> None:
    here = f"tests/project/{Path(__file__).name}"
    assert missing(f"`{here}::test_every_attack_names_a_test`") == []
    assert missing(f"`{here}::test_nothing` `tests/none.py::test_every_attack_names_a_test`") == [
        f"{here}::test_nothing",
        "tests/none.py::test_every_attack_names_a_test",
    ]


# --- the yardsticks ---------------------------------------------------------------------------------------------------

REQUIREMENTS = {
    *(f"MCP{number:02}" for number in range(1, 11)),
    *(f"9.{section}.{number}" for section, last in enumerate((3, 10, 8, 4, 6, 3), 1) for number in range(1, last + 1)),
    *(f"10.{section}.{number}" for section, last in enumerate((3, 7, 5, 8), 1) for number in range(1, last + 1)),
}
"""Every line of the OWASP MCP Top 10 (2025) and of chapters C9 and C10 of AISVS 1.0."""

_ID = re.compile(r"MCP\d\d|\d+\.\d+\.\d+")


def judged(text: str) -> Iterator[tuple[list[str], str, str, str]]:
    """The ids of each row, how it is met, what is said of it, and its tests."""
    for cells in rows(text):
        if ids := _ID.findall(cells[0]):
            yield ids, cells[1], cells[2], cells[3] if len(cells) > 3 else ""


def unsound(text: str) -> list[str]:
    """Rows that claim something without a test, or a test where nothing is claimed."""
    found = []
    for ids, how, what, tests in judged(text):
        claims = how in {"met", "in part"}
        if not what or how not in {"met", "in part", "not met", "elsewhere"} or claims is not bool(_TEST.search(tests)):
            found.append(ids[0])
    return found


def test_each_line_of_the_yardsticks_is_judged_once_and_a_claim_has_its_test() -> None:
    text = (ROOT / "docs/yardsticks.md").read_text()
    ids = [one for row in judged(text) for one in row[0]]
    assert sorted(ids) == sorted(REQUIREMENTS)
    assert unsound(text) == []
    hows = [row[1] for row in judged(text)]
    assert min(hows.count(how) for how in ("met", "in part", "not met", "elsewhere")) >= 4, "nothing is glossed over"


@pytest.mark.parametrize(
    ("row", "sound"),
    [
        ("| 9.1.1 x | met | done | `tests/a/test_b.py::test_c` |", True),
        ("| 9.1.1 x | met | done | |", False),
        ("| 9.1.1 x | in part | done | |", False),
        ("| 9.1.1 x | not met | nothing | |", True),
        ("| 9.1.1 x | not met | nothing | `tests/a/test_b.py::test_c` |", False),
        ("| 9.1.1 x | mostly | done | `tests/a/test_b.py::test_c` |", False),
    ],
)
def test_a_row_that_claims_without_a_test_is_found(row: str, sound: bool) -> None:
    assert (unsound(row) == []) is sound
