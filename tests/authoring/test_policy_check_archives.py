"""``mcp-sidecar policy check`` on archives, as a pipeline runs it before it puts them on a file server."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sidecar.opa import bundles
from tests.authoring.test_policy_folder_commands import POLICIES, answer, run
from tests.opa.outside import replaced, unpacked

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``policy bundle`` writes of the repository's policies."""
    out = tmp_path_factory.mktemp("built") / "out"
    done = run("policy", "bundle", str(POLICIES), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def spoil(archive: Path, **changes: Any) -> None:
    """Write an archive by hand: files by name with ``_`` for the dot, and ``manifest`` members."""
    manifest = json.loads(dict(unpacked(archive))[".manifest"]) | changes.pop("manifest", {})  # noqa: TID251 - our own
    del manifest["metadata"]
    files = {name: text for name, text in unpacked(archive) if name != ".manifest"}
    files |= {name.replace("_", "."): text.encode() for name, text in changes.items()}
    archive.write_bytes(bundles.archive([(".manifest", json.dumps(manifest).encode()), *files.items()]))


def findings(*arguments: str | Path, cwd: Path) -> tuple[int, list[tuple[str, int, str]]]:
    done = run("policy", "check", *map(str, arguments), "--json", cwd=cwd)
    assert done.stderr == ""
    found = answer(done)
    assert found["ok"] is (done.returncode == 0)
    return done.returncode, [(one["file"], one["line"], one["rule"]) for one in found["findings"]]


def test_a_folder_of_archives_is_fine_like_the_folder_that_it_was_made_of(out: Path) -> None:
    assert findings(out, cwd=out) == (0, [])
    assert run("policy", "check", str(out)).stdout == "fine\n"


def test_archives_can_be_named_one_by_one(out: Path) -> None:
    assert findings("platform.tar.gz", "teams/people.tar.gz", cwd=out) == (0, [])
    assert findings("platform.tar.gz", cwd=out) == (0, [])


def test_a_teams_archive_alone_is_held_to_containment_and_said_not_to_be_compiled(out: Path) -> None:
    assert findings("teams/people.tar.gz", cwd=out) == (0, [(".", 1, "compile")])
    spoil(out / "teams/people.tar.gz", more_rego="package mcp.teams.people\n\nx := nowhere\n")
    assert findings("teams/people.tar.gz", cwd=out) == (0, [(".", 1, "compile")])
    assert findings("platform.tar.gz", "teams/people.tar.gz", cwd=out) == (
        1,
        [("teams/people.tar.gz/more.rego", 3, "compile")],
    )


@pytest.mark.parametrize(
    ("changes", "file", "line", "rule"),
    [
        ({"more_rego": "package mcp.main\n\nallow if true\n"}, "more.rego", 1, "package"),
        ({"more_rego": "package mcp.teams.people\n\nx := data.mcp.platform.routes\n"}, "more.rego", 3, "reference"),
        ({"more_rego": "package mcp.teams.people\n\nx if input with input as {}\n"}, "more.rego", 3, "with"),
        ({"more_rego": "package mcp.teams.people\n\nx := {\n"}, "more.rego", 4, "syntax"),
        ({"data_json": '{"mcp": {"platform": {}}}'}, "data.json", 1, "data"),
        ({"policy_wasm": "x"}, "policy.wasm", 1, "file"),
        ({"manifest": {"roots": ["mcp/teams/people"]}}, ".manifest", 1, "manifest"),
    ],
)
def test_a_problem_has_an_archive_a_member_and_a_line(
    out: Path, changes: dict[str, Any], file: str, line: int, rule: str
) -> None:
    spoil(out / "teams/people.tar.gz", **changes)
    status, found = findings(".", cwd=out)
    assert (status, found[0]) == (1, (f"teams/people.tar.gz/{file}", line, rule))
    assert (
        f"teams/people.tar.gz/{file}:{line}: error: "
        in run("policy", "check", "platform.tar.gz", "teams/people.tar.gz", cwd=out).stdout
    )


def test_a_member_out_of_bounds_is_the_whole_answer(out: Path) -> None:
    archive = out / "teams/people.tar.gz"
    archive.write_bytes(bundles.archive([*unpacked(archive), ("../../platform/platform/main.rego", b"package x")]))
    status, found = findings(out, cwd=out)
    assert (status, found) == (1, [(f"{archive}/../../platform/platform/main.rego", 1, "file")])


def test_the_platforms_archive_is_held_to_its_roots_its_listing_and_the_schema_of_its_data(
    out: Path, tmp_path: Path
) -> None:
    archive = out / "platform.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(replaced(archive, "platform/main.rego", lambda text: f"{text}\n"))
    assert findings(archive, cwd=out) == (1, [(f"{archive}/.manifest", 1, "manifest")])
    archive.write_bytes(whole)
    archive.write_bytes(
        replaced(archive, "data.json", lambda text: text.replace('"id": "writers"', '"idd": "writers"'))
    )
    status, found = findings(archive, cwd=out)
    assert (status, {(file, rule) for file, _, rule in found}) == (1, {(f"{archive}/data.json", "data")})
    archive.write_bytes(replaced(archive, "data.json", lambda _: "{}"))
    assert findings(archive, cwd=out) == (1, [(f"{archive}/data.json", 1, "data")])
    archive.write_bytes(whole)
    spoil(archive, manifest={"roots": ["mcp", "system"]})
    assert findings(archive, cwd=out) == (1, [(f"{archive}/.manifest", 1, "manifest")])


def test_wrong_usage_and_what_cannot_be_read_have_their_own_status(out: Path, tmp_path: Path) -> None:
    assert run("policy", "check").returncode == 2
    assert run("policy", "check", str(tmp_path / "nowhere.tar.gz")).returncode == 2
    other = tmp_path / "red.zip"
    other.write_bytes(b"PK")
    done = run("policy", "check", str(other))
    assert (done.returncode, "is not the one archive" in done.stderr) == (78, True)
    done = run("policy", "check", str(POLICIES), str(out / "platform.tar.gz"))
    assert (done.returncode, "is no folder of archives" in done.stderr) == (78, True)
    assert run("policy", "check", str(out), "--opa", "no-such-opa").returncode == 78
    broken = tmp_path / "red.tar.gz"
    broken.write_bytes(b"\x1f\x8b")
    assert findings(broken, cwd=out) == (1, [(str(broken), 1, "file")])
