"""The lock files are whole: they satisfy what was asked for, name a hash for everything, and no address at all."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parts import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.lock", *sorted(f"parts/{path.name}" for path in (ROOT / "parts").glob("*.lock"))]
PAIRS = {path.with_suffix(".in"): path for path in (ROOT / "parts").glob("*.lock")}


def entries(lock: Path) -> list[str]:
    """One text per pinned package: its line, its hashes, and who asked for it."""
    return re.split(r"\n(?=[A-Za-z0-9])", lock.read_text())


def pins(lock: Path) -> dict[str, set[str]]:
    """Package name → every version that the lock pins (several where markers choose between them)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def unmet(asked: Iterator[Requirement], locked: dict[str, set[str]]) -> list[str]:
    """The requirements that some pin does not satisfy, or that no pin mentions."""
    return [
        str(requirement)
        for requirement in asked
        if not (versions := locked.get(canonicalize_name(requirement.name)))
        or not all(requirement.specifier.contains(version, prereleases=True) for version in versions)
    ]


def asked_by_the_project() -> Iterator[Requirement]:
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    yield from map(Requirement, PROJECT["dependency-groups"]["dev"])


def test_the_lock_satisfies_the_project() -> None:
    assert unmet(asked_by_the_project(), pins(ROOT / "requirements.lock")) == []


@pytest.mark.parametrize(
    ("asked", "met"),
    [("aiohttp>=3.14.5", True), ("AIOHTTP", True), ("aiohttp>=3.15", False), ("aiohttp-cors", False)],
)
def test_a_requirement_that_the_lock_does_not_meet_is_found(asked: str, met: bool) -> None:
    assert (unmet(iter([Requirement(asked)]), {"aiohttp": {"3.14.5"}}) == []) is met


def test_what_the_lock_says_the_project_asked_for_is_what_it_asks_for() -> None:
    direct = {
        canonicalize_name(re.split(r"[\[=]", entry)[0])
        for entry in entries(ROOT / "requirements.lock")
        if "mcp-sidecar (pyproject.toml" in entry
    }
    assert direct == {canonicalize_name(requirement.name) for requirement in asked_by_the_project()}


@pytest.mark.parametrize(("asked", "lock"), PAIRS.items(), ids=lambda path: path.name)
def test_the_locks_of_outside_parts_satisfy_their_sources(asked: Path, lock: Path) -> None:
    wanted = [Requirement(line) for line in asked.read_text().splitlines() if line and not line.startswith("#")]
    assert wanted
    assert unmet(iter(wanted), pins(lock)) == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash(name: str) -> None:
    assert [entry.splitlines()[0] for entry in entries(ROOT / name) if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()
    assert "--index" not in (ROOT / name).read_text()


@pytest.mark.parametrize("folder", ["parts", "parts/authorization-server", "parts/clients", "parts/conformance"])
def test_every_npm_package_has_a_hash_and_no_address(folder: str) -> None:
    packages = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]  # noqa: TID251 - a file of ours
    outside = {name: package for name, package in packages.items() if name}
    assert len(outside) >= 30
    assert [
        name for name, package in outside.items() if not str(package.get("integrity", "")).startswith("sha512-")
    ] == []
    assert [name for name, package in outside.items() if "resolved" in package] == []
