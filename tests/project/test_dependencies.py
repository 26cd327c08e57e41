"""Every dependency is asked for with a reason, and no reason outlives its dependency."""

import re
import tomllib

from packaging.requirements import Requirement

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


def test_the_stand_in_for_the_database_is_no_dependency_and_is_imported_nowhere() -> None:
    assert "secantus" not in (ROOT / "pyproject.toml").read_text().lower()
    assert "secantus" not in (ROOT / "requirements.lock").read_text().lower()
    assert "secantus" not in (ROOT / "Dockerfile").read_text().lower()
    sources = [path.read_text() for room in ("sidecar", "tests") for path in (ROOT / room).rglob("*.py")]
    assert not any(re.search(r"^\s*(?:import|from) secantus", source, re.MULTILINE) for source in sources)
