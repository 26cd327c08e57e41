"""A policy folder as one value: what is in it, what names it, and which folders are none."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.policyset.folder import PolicySet
from tests.parts import ROOT


def test_the_set_is_what_opa_would_load(make_policies: Callable[..., Path]) -> None:
    root = make_policies()
    unloaded = ("README.md", "platform/main_test.rego", "platform/notes.json", "platform/.hidden.rego")
    for name in unloaded:
        (root / name).write_text("x")
    (root / "teams" / "note.txt").write_text("x")
    (root / "teams" / ".git").mkdir()
    (root / "platform" / ".git").mkdir()
    (root / "platform" / ".git" / "a.rego").write_text("x")
    (root / "platform" / "lib").mkdir()
    (root / "platform" / "lib" / "a.rego").write_text("package mcp.platform.lib")
    (root / "teams" / "red" / "data.json").write_text("{}")
    policies = PolicySet.read(root)
    assert policies.bundles == ("platform", "system", "teams/red")
    assert [path for path, _ in policies.files] == [
        "capabilities.json",
        "platform/.manifest",
        "platform/facts.rego",
        "platform/lib/a.rego",
        "platform/main.rego",
        "system/.manifest",
        "system/authz.rego",
        "teams/red/.manifest",
        "teams/red/data.json",
        "teams/red/policy.rego",
    ]


def test_the_repositorys_policies_are_a_set() -> None:
    policies = PolicySet.read(ROOT / "policies")
    assert policies.bundles[:2] == ("platform", "system")
    assert not [path for path, _ in policies.files if path.endswith("_test.rego")]


def test_the_copy_is_the_same_set_and_private(make_policies: Callable[..., Path], tmp_path: Path) -> None:
    policies = PolicySet.read(make_policies())
    policies.write(tmp_path / "copy")
    assert PolicySet.read(tmp_path / "copy") == policies
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "copy").rglob("*")}
    assert modes == {0o600, 0o700}


def changed(policies: PolicySet, index: int, file: tuple[str, bytes]) -> PolicySet:
    files = list(policies.files)
    files[index] = file
    return PolicySet(bundles=policies.bundles, files=tuple(files))


def test_the_revision_names_paths_and_contents(make_policies: Callable[..., Path]) -> None:
    policies = PolicySet.read(make_policies())
    prefix, digits = policies.revision.split(":")
    assert prefix == "sha256"
    assert len(bytes.fromhex(digits)) == 16
    path, content = policies.files[-1]
    others = (changed(policies, -1, (path, content + b" ")), changed(policies, -1, (path + "x", content)))
    assert len({policies.revision, *(other.revision for other in others)}) == 3
    assert PolicySet(bundles=policies.bundles, files=policies.files).revision == policies.revision


FILES = st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=3).map(tuple)


@given(FILES, FILES)
def test_different_files_have_different_revisions(one: tuple, other: tuple) -> None:
    revisions = {PolicySet(bundles=(), files=files).revision for files in (one, other)}
    assert len(revisions) == len({one, other})


@pytest.mark.parametrize(
    "missing", ["platform/.manifest", "system/.manifest", "teams/red/.manifest", "capabilities.json"]
)
def test_an_incomplete_folder_is_refused(make_policies: Callable[..., Path], missing: str) -> None:
    root = make_policies()
    (root / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing):
        PolicySet.read(root)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigurationError):
            PolicySet.read(root)


def test_a_mounted_configuration_map_loads_each_file_once(make_policies: Callable[..., Path]) -> None:
    plain = PolicySet.read(make_policies())
    red = make_policies() / "teams" / "red"
    (red / "..2026_01").mkdir()
    (red / "policy.rego").rename(red / "..2026_01" / "policy.rego")
    (red / "..data").symlink_to("..2026_01")
    (red / "policy.rego").symlink_to("..data/policy.rego")
    assert PolicySet.read(red.parent.parent) == plain


def test_a_linked_folder_is_refused_because_leaving_it_out_could_lose_a_deny(
    make_policies: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_policies()
    (tmp_path / "elsewhere").mkdir()
    (root / "teams" / "red" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="teams/red/more"):
        PolicySet.read(root)


def test_a_dangling_link_is_refused(make_policies: Callable[..., Path]) -> None:
    root = make_policies()
    (root / "teams" / "red" / "more.rego").symlink_to("nowhere")
    with pytest.raises(ConfigurationError):
        PolicySet.read(root)


@pytest.mark.parametrize("name", ["data.json", "policy.rego", "policy_test.rego", "note.txt"])
def test_no_team_takes_the_memory_of_the_process_that_reads_it(make_policies: Callable[..., Path], name: str) -> None:
    """Files of nothing but holes cost their author nothing; neither do many small ones."""
    for count, size in ((64, 2**20), (1, 16 * 2**20), (1025, 0)):
        root = make_policies()
        red = root / "teams" / "red"
        for number in range(count):
            folder = red / f"{count}" / f"{number}"
            folder.mkdir(parents=True)
            with (folder / name).open("wb") as file:
                file.truncate(size)
        tracemalloc.start()
        try:
            if name == "note.txt" and size:
                PolicySet.read(root)
            else:
                with pytest.raises(ConfigurationError, match=r"teams/red.* is larger than"):
                    PolicySet.read(root)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 32_000_000, "of 64 MB"
        for number in range(count):
            (red / f"{count}" / f"{number}" / name).unlink()
            (red / f"{count}" / f"{number}").rmdir()
