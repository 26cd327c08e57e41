"""Policy sets that served: kept as they were, for their user only, and no more of them than may be."""

import os
from pathlib import Path

import pytest

from sidecar.policyset import PolicySet
from sidecar.store import KeptPolicySets


def policies(text: str) -> PolicySet:
    return PolicySet(bundles=("platform",), files=(("platform/main.rego", text.encode()),))


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def aged(folder: Path, one: PolicySet, seconds: int) -> None:
    path = folder / f"{one.revision.removeprefix('sha256:')}.msgpack"
    os.utime(path, (seconds, seconds))


def test_a_set_that_served_is_found_by_its_revision_and_is_its_users_only(tmp_path: Path) -> None:
    folder, one = tmp_path / "sets", policies("package a")
    sets = KeptPolicySets(folder)
    sets.keep(one)
    assert sets.find(one.revision) == one
    assert sets.find(policies("package b").revision) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("revision", ["", "sha256:", "sha256:../../etc/passwd", f"sha256:{'0' * 33}", "0" * 32])
def test_what_is_no_revision_names_no_file(tmp_path: Path, revision: str) -> None:
    assert KeptPolicySets(tmp_path).find(revision) is None


def test_a_file_that_holds_another_set_than_its_name_says_is_none(tmp_path: Path) -> None:
    one, other = policies("package a"), policies("package b")
    sets = KeptPolicySets(tmp_path)
    sets.keep(one)
    sets.keep(other)
    first, second = sorted(tmp_path.iterdir())
    second.write_bytes(first.read_bytes())
    found = [sets.find(each.revision) for each in (one, other)]
    assert sorted(each is None for each in found) == [False, True]
    first.write_bytes(b"no set")
    assert [sets.find(each.revision) for each in (one, other)] == [None, None]


def test_what_served_longest_ago_makes_room(tmp_path: Path) -> None:
    sets = KeptPolicySets(tmp_path, most=2)
    first, second, third = (policies(f"package {name}") for name in "abc")
    for age, one in enumerate((first, second)):
        sets.keep(one)
        aged(tmp_path, one, 1_000 + age)
    sets.keep(first)  # it serves again
    sets.keep(third)
    assert [sets.find(one.revision) is not None for one in (first, second, third)] == [True, False, True]


def test_their_bytes_are_bounded_too_and_one_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    sets = KeptPolicySets(tmp_path, most_bytes=2_000)
    small, other, large = policies("a" * 1_200), policies("b" * 1_200), policies("c" * 2_000)
    sets.keep(small)
    sets.keep(large)
    assert [sets.find(one.revision) is not None for one in (small, large)] == [True, False]
    aged(tmp_path, small, 1_000)
    sets.keep(other)
    assert [sets.find(one.revision) is not None for one in (small, other)] == [False, True]
    assert len(kept(tmp_path)) == 1


def test_other_files_stay_and_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    KeptPolicySets(tmp_path, most=1).keep(policies("package a"))
    KeptPolicySets(tmp_path, most=1).keep(policies("package b"))
    assert "notes" in kept(tmp_path)
    assert len(kept(tmp_path)) == 2
    KeptPolicySets(tmp_path / "notes").keep(policies("package a"))
    KeptPolicySets(tmp_path / "missing" / "sets").keep(policies("package a"))
