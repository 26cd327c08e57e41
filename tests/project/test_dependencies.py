"""Every dependency is asked for with a reason and is used; what is imported is asked for."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parts import ROOT

TEXT = (ROOT / "docs/dependencies.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def section(title: str) -> list[str]:
    """Names in the first column of the table below one heading, in the order of the page."""
    body = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = [part for part in body if part.startswith(f"{title}\n")]
    return [name for name in re.findall(r"^\| ([^|]+?) \|", found, re.MULTILINE) if name not in {"package", "program"}]


def names(requirements: list[str]) -> list[str]:
    return sorted(Requirement(text).name for text in requirements)


def test_each_dependency_at_run_time_has_its_line() -> None:
    assert section("At run time") == names(PROJECT["project"]["dependencies"])


def test_each_dependency_for_development_has_its_line() -> None:
    assert section("For development") == names(PROJECT["dependency-groups"]["dev"])


# --- what is imported -------------------------------------------------------------------------------------------------

OWN = frozenset({"sidecar", "tests", "tools", "bench"})

NOT_IMPORTED = {
    "check-jsonschema": ("scripts/check", "check-jsonschema --quiet"),
    "codespell": ("scripts/check", "xargs -0 codespell"),
    "coverage": ("pyproject.toml", "[tool.coverage.run]"),
    "hatchling": ("tests/project/test_wheel.py", '"hatchling", "build"'),
    "import-linter": ("scripts/check", "lint-imports"),
    "mypy": ("scripts/check", "mypy --no-error-summary"),
    "pytest-timeout": ("pyproject.toml", "--timeout="),
    "pytest-xdist": ("Makefile", "pytest -n"),
    "ruff": ("scripts/check", "ruff check"),
    "types-psutil": ("pyproject.toml", '"psutil>='),
}
"""Programs, plugins and types: not imported, and where each is used."""


def imports(source: str) -> Iterator[str]:
    """Full names of the modules of others that a file imports, and of what it takes from packages."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                found = [f"{module}.{alias.name}" for alias in names]
            case _:
                continue
        yield from (name for name in found if name.partition(".")[0] not in {*sys.stdlib_module_names, *OWN})


@cache
def package_of(name: str) -> str:
    """The package that a module came with; of several that share its first name, the one that has its file."""
    top = name.partition(".")[0]
    packages = sorted(set(_packages().get(top, ())))
    if len(packages) <= 1:
        return canonicalize_name(packages[0]) if packages else top
    file = _file(name)
    owners = [each for each in packages if file in _files_of(each)]
    assert len(owners) == 1, (name, owners)
    return canonicalize_name(owners[0])


_packages = cache(packages_distributions)


@cache
def _files_of(package: str) -> frozenset[Path | None]:
    found = distribution(package)
    return frozenset(Path(str(found.locate_file(file))) for file in found.files or ())


def _file(name: str) -> Path | None:
    while True:
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:
            spec = None  # a name inside a module
        if spec is not None and spec.origin:
            return Path(spec.origin)
        name = name.rpartition(".")[0]


ELSEWHERE = {ROOT / "tests/clients/legs/langchain_adapters.py": ROOT / "parts/langchain.lock"}
"""Scripts that an environment of their own runs, and what is in it."""


def imported_in(*rooms: str) -> set[str]:
    paths = {path for room in rooms for path in (ROOT / room).rglob("*.py")} - ELSEWHERE.keys()
    return {package_of(name) for path in paths for name in imports(path.read_text())}


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(name) for name in names(requirements)}


RUN_TIME = declared(PROJECT["project"]["dependencies"])
DEVELOPMENT = declared(PROJECT["dependency-groups"]["dev"])


def test_the_package_declares_what_it_imports_and_imports_what_it_declares() -> None:
    assert imported_in("sidecar") == RUN_TIME


def test_what_only_tests_and_tools_import_is_declared_for_development() -> None:
    assert imported_in("tests", "tools", "bench") - RUN_TIME == DEVELOPMENT - NOT_IMPORTED.keys()


def test_what_another_environment_runs_imports_what_is_in_it() -> None:
    for script, lock in ELSEWHERE.items():
        packages = {canonicalize_name(name.partition(".")[0]) for name in imports(script.read_text())}
        assert packages
        assert [name for name in packages if f"\n{name}==" not in f"\n{lock.read_text()}"] == []


@pytest.mark.parametrize("name", NOT_IMPORTED)
def test_what_nothing_imports_is_used_where_it_is_said_to_be(name: str) -> None:
    file, text = NOT_IMPORTED[name]
    assert name in DEVELOPMENT
    assert text in (ROOT / file).read_text()


def test_the_package_of_an_import_is_found_by_its_file() -> None:
    lines = ("import bson, os.path", "from opentelemetry import trace", "from opentelemetry.sdk.trace import Span")
    source = "\n".join([*lines, "import sidecar.model", "from tests import parts"])
    assert [package_of(name) for name in imports(source)] == ["pymongo", "opentelemetry-api", "opentelemetry-sdk"]
    assert [package_of(name) for name in imports("import no_such_package.x")] == ["no_such_package"]


def test_the_stand_in_for_the_database_is_no_dependency_and_is_imported_nowhere() -> None:
    packaged = (
        '"parts/secantusdb.lock" = "sidecar/_parts/secantusdb.lock"'  # names and hashes: the demo installs from it
    )
    assert "secantus" not in (ROOT / "pyproject.toml").read_text().lower().replace(packaged, "")
    assert "secantus" not in (ROOT / "requirements.lock").read_text().lower()
    assert "secantus" not in (ROOT / "Dockerfile").read_text().lower()
    sources = [path.read_text() for room in ("sidecar", "tests") for path in (ROOT / room).rglob("*.py")]
    assert not any(re.search(r"^\s*(?:import|from) secantus", source, re.MULTILINE) for source in sources)
