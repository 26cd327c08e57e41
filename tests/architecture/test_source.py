"""Rules of structure that no linter has: read from the syntax tree, each with a planted violation beside it."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.parts import ROOT

FUNCTION_LINES = 60
"""Hard cap of one function, without its docstring; the aim is a screen."""

FILE_LINES = 420
"""Hard cap of one file."""

LONGER = {"sidecar/settings.py": 500}
"""The one list of all settings."""

DRAWER_NAMES = frozenset(
    {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager", "managers", "service"}
)
"""Names that say nothing about what is inside, so everything ends up inside."""

SOURCES = sorted((ROOT / "sidecar").rglob("*.py"))
PROGRAMS = sorted(path for room in ("sidecar", "bench", "tools") for path in (ROOT / room).rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def constructions(tree: ast.AST, wanted: str) -> list[str]:
    """Qualified names of the functions in which ``wanted(…)`` is called, one per call; ``<module>`` outside of any."""
    found: list[str] = []

    def visit(node: ast.AST, inside: str) -> None:
        if isinstance(node, ast.Call) and _called(node) == wanted:
            found.append(inside)
        name = node.name if isinstance(node, Function) else inside
        for child in ast.iter_child_nodes(node):
            visit(child, name)

    visit(tree, "<module>")
    return found


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def environment_reads(tree: ast.AST) -> list[int]:
    """Lines that reach for the process environment."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in names:
                lines.append(node.lineno)
            case ast.ImportFrom(module="os", names=imported) if names & {alias.name for alias in imported}:
                lines.append(node.lineno)
            case _:
                pass
    return lines


def body_lines(function: Function) -> int:
    """Lines of one function without its docstring."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as docstring:
            return total - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)
        case _:
            return total


def oversized(source: str, lines: int = FILE_LINES) -> Iterator[str]:
    """Every breach of the size budget in one file."""
    if (count := len(source.splitlines())) > lines:
        yield f"{count} lines in the file"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and (count := body_lines(node)) > FUNCTION_LINES:
            yield f"{count} lines in {node.name}"


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 10


def test_one_function_builds_permits_and_it_is_in_enforcement() -> None:
    places = [
        f"{name_of(path)}:{name}" for path in SOURCES for name in constructions(ast.parse(path.read_text()), "Permit")
    ]
    assert len(places) == 1, places
    assert places[0].startswith("sidecar/enforcement/")


@pytest.mark.parametrize("text", ["Permit(call=c)", "model.Permit(call=c)", "x = [Permit(call=c) for c in calls]"])
def test_a_permit_built_elsewhere_would_be_found(text: str) -> None:
    assert constructions(ast.parse(f"def forge():\n    {text}\n"), "Permit") == ["forge"]


def test_a_permit_that_is_only_named_is_not_a_construction() -> None:
    assert constructions(ast.parse("def forward(permit: Permit) -> Permit:\n    return permit\n"), "Permit") == []


def test_only_settings_reads_the_environment() -> None:
    readers = {name_of(path) for path in SOURCES if environment_reads(ast.parse(path.read_text()))}
    assert readers == {"sidecar/settings.py", "sidecar/os_environment.py"}


@pytest.mark.parametrize(
    "line", ["os.environ['X']", "os.getenv('X')", "from os import environ as e", "dict(os.environb)"]
)
def test_a_read_of_the_environment_would_be_found(line: str) -> None:
    assert environment_reads(ast.parse(f"import os\n{line}\n")) == [2]


def test_other_uses_of_os_are_not_reads_of_the_environment() -> None:
    assert environment_reads(ast.parse("import os\nos.fsync(1)\nfrom os import path\n")) == []


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_files_and_functions_stay_within_budget(path: Path) -> None:
    assert list(oversized(path.read_text(), LONGER.get(name_of(path), FILE_LINES))) == []


def test_the_budget_is_exact() -> None:
    function = "def long():\n    '''Says\n    why.'''\n" + "    x = 1\n" * (FUNCTION_LINES - 1)
    assert list(oversized(function)) == []
    assert list(oversized(f"{function}    y = 2\n")) == [f"{FUNCTION_LINES + 1} lines in long"]
    assert list(oversized("x = 1\n" * FILE_LINES)) == []
    assert list(oversized("x = 1\n" * (FILE_LINES + 1))) == [f"{FILE_LINES + 1} lines in the file"]


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_no_module_is_a_drawer(path: Path) -> None:
    assert not DRAWER_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


RECORDED = "sidecar/authoring/records.py"
"""Reads audit records into structs that are named, with an underscore, after the thing whose record they read."""


def types_of(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """The files that define each class and alias of types, by its name without an underscore in front."""
    found: dict[str, list[str]] = {}
    for file, text in sources.items():
        tree = ast.parse(text)
        classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for name in [*classes, *_aliases(tree)]:
            if not (file == RECORDED and name.startswith("_")):
                found.setdefault(name.lstrip("_"), []).append(file)
    return found


def _aliases(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if re.match("_?[A-Z][a-z]", name):
                    yield name
            case _:
                pass


def test_the_name_of_a_type_has_one_meaning() -> None:
    found = types_of({name_of(path): path.read_text() for path in SOURCES})
    assert len(found) > 300
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_two_meanings_of_the_name_of_a_type_would_be_found() -> None:
    sources = {
        "a.py": "class Place: ...",
        "b.py": "class _Place: ...",
        "c.py": "def f():\n    class Place: ...",
        "d.py": "_Place = tuple[str, str]\nPlace: TypeAlias = str\nPLACE = 1",
    }
    assert types_of(sources) == {"Place": ["a.py", "b.py", "c.py", "d.py", "d.py"]}


def test_a_struct_that_reads_a_record_is_named_after_the_thing() -> None:
    assert types_of({RECORDED: "class _Access: ...\nclass Access: ..."}) == {"Access": [RECORDED]}


def without_change_time(source: str) -> list[int]:
    """The lines of tuples that tell states of a file apart by a time that its writer can set, and not by the other."""
    named = [
        (node.lineno, {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)})
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Tuple)
    ]
    return [line for line, names in named if "st_mtime_ns" in names and "st_ctime_ns" not in names]


def test_no_edit_under_a_restored_date_is_missed() -> None:
    assert without_change_time("seen = (status.st_mtime_ns, status.st_size)") == [1]
    assert without_change_time("seen = (status.st_mtime_ns, status.st_ctime_ns)") == []
    found = {name_of(path): lines for path in SOURCES if (lines := without_change_time(path.read_text()))}
    assert found == {}
    assert sum("st_ctime_ns" in path.read_text() for path in SOURCES) > 3
