"""The index in docs/architecture.md leads somewhere: each file exists, and has what it is said to have."""

import ast
import re

import pytest

from tests.parts import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
ROW = re.compile(r"^\| ([^|*]+) \| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)


RULE = re.compile(r"^(?:default )?([a-z_]+)", re.MULTILINE)


def defined(file: str) -> set[str]:
    """Names that the top of a module defines."""
    source = (ROOT / file).read_text()
    return defined_in_rego(source) if file.endswith(".rego") else defined_in_python(source)


def defined_in_rego(source: str) -> set[str]:
    return set(RULE.findall(source)) - {"package", "import"}


def defined_in_python(source: str) -> set[str]:
    names = set()
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case _:
                pass
    return names


def test_the_index_is_long_enough_to_be_one() -> None:
    assert len(ROWS) >= 40
    assert len({rule for rule, _, _ in ROWS}) == len(ROWS)


def test_every_row_of_the_index_is_read() -> None:
    section = PAGE.partition("## Where is the rule for")[2].partition("\n## ")[0]
    rows = [
        line for line in section.splitlines() if line.startswith("| ") and not line.startswith(("| rule |", "| **"))
    ]
    assert len(rows) == len(ROWS)


@pytest.mark.parametrize(("file", "name"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_rule_is_where_the_index_says(file: str, name: str) -> None:
    assert name in defined(file)


def test_a_name_that_moved_away_would_be_found() -> None:
    assert defined_in_rego("package a\n\nimport b\n\ndefault c := 1\n\nd contains x if {\n\te\n}\n") == {"c", "d"}
    assert defined_in_python("def f(): ...\nX: int = 1\nY = 2\nclass C:\n    def g(self): ...\n") == {
        "f",
        "X",
        "Y",
        "C",
    }
