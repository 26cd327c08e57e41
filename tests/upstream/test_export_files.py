"""Files of exports are deleted by their own names, in the folders of children, and through no link."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from sidecar.upstream import export_files
from sidecar.upstream.export_files import MAX_FOLDERS, MAX_WAITING, ExportFiles, delete

OWN = "6a0000000000000000000001.json"
OTHER = "6a0000000000000000000002.json"
IN_CHILD = "6b0000000000000000000001"


def uri(name: str) -> str:
    return f"exported-data://{name}"


def written(place: Path, *names: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_text("[]")


@pytest.fixture
async def files(tmp_path) -> AsyncIterator[ExportFiles]:
    found = ExportFiles()
    found.of_a_child(tmp_path)
    yield found
    await found.stop()


def test_each_child_has_a_folder_of_its_own_in_the_private_one(tmp_path):
    found = ExportFiles()
    first, second = found.of_a_child(tmp_path), found.of_a_child(tmp_path)
    assert first != second
    assert first.parent == second.parent == tmp_path / "exports"


async def test_a_file_goes_and_no_other_does(files, tmp_path, until):
    place = tmp_path / "exports" / "1" / IN_CHILD
    written(place, OWN, OTHER)
    files.discard(uri(OWN))
    await until(lambda: not (place / OWN).exists())
    assert (place / OTHER).exists()


async def test_it_goes_in_whichever_spelling_the_server_linked_it(files, tmp_path, until):
    place = tmp_path / "exports" / "1" / IN_CHILD
    written(place, OWN)
    files.discard(uri(OWN).replace(".", "%2E"))
    await until(lambda: not (place / OWN).exists())


async def test_a_file_that_its_server_has_not_opened_yet_goes_when_it_is_there(files, tmp_path, until):
    place = tmp_path / "exports" / "1" / IN_CHILD
    files.discard(uri(OWN))
    await asyncio.sleep(0.1)
    written(place, OWN)
    await until(lambda: not (place / OWN).exists())
    await until(lambda: not files._doomed)


async def test_what_never_comes_is_not_waited_for_without_end(files, monkeypatch, until):
    monkeypatch.setattr(export_files, "PATIENCE_S", 0.01)
    files.discard(uri(OWN))
    await until(lambda: not files._doomed)
    assert files._deleting is not None
    await until(files._deleting.done)


async def test_what_is_waited_for_is_bounded(files):
    for number in range(MAX_WAITING + 5):
        files.discard(uri(f"{number:024x}.json"))
    assert len(files._doomed) == MAX_WAITING


async def test_nothing_is_deleted_after_the_end(files, tmp_path):
    await files.stop()
    written(tmp_path / "exports" / "1" / IN_CHILD, OWN)
    files.discard(uri(OWN))
    assert files._deleting is None
    assert (tmp_path / "exports" / "1" / IN_CHILD / OWN).exists()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "*",
            "../../secret.json",
            "..%2F..%2Fsecret.json",
            f"../{IN_CHILD}/{OWN}",
            f"/{OWN}",
            f"{OWN}/",
        ),
        *(OWN.upper(), OWN.replace(".json", ""), f"x{OWN}", f"{OWN}\0", f"{OWN}\n", f"{OWN}.bak", "secret.json"),
    ],
)
async def test_what_is_not_the_name_of_an_export_deletes_nothing(files, tmp_path, name):
    place = tmp_path / "exports" / "1" / IN_CHILD
    written(place, OWN, "secret.json")
    written(tmp_path, "secret.json")
    files.discard(uri(name))
    assert not files._doomed
    assert {one.name for one in place.iterdir()} == {OWN, "secret.json"}


async def test_another_scheme_means_no_file(files):
    for wrong in (f"file://{OWN}", f"exported-data:{OWN}", OWN, f"exported-data:///{OWN}", f"x-exported-data://{OWN}"):
        files.discard(wrong)
    assert not files._doomed


@pytest.mark.parametrize("level", ["exports", "child", "own"])
def test_no_link_to_a_folder_is_followed(tmp_path, level):
    elsewhere = tmp_path / "elsewhere"
    written(elsewhere / "1" / IN_CHILD, OWN)
    exports = tmp_path / "exports"
    match level:
        case "exports":
            exports.symlink_to(elsewhere)
        case "child":
            exports.mkdir()
            (exports / "1").symlink_to(elsewhere / "1")
        case _:
            (exports / "1").mkdir(parents=True)
            (exports / "1" / IN_CHILD).symlink_to(elsewhere / "1" / IN_CHILD)
    assert delete(exports, [OWN]) == set()
    assert (elsewhere / "1" / IN_CHILD / OWN).exists()


def test_a_link_in_place_of_a_file_goes_and_what_it_leads_to_stays(tmp_path):
    written(tmp_path, "precious")
    place = tmp_path / "exports" / "1" / IN_CHILD
    place.mkdir(parents=True)
    (place / OWN).symlink_to(tmp_path / "precious")
    assert delete(tmp_path / "exports", [OWN]) == {OWN}
    assert (tmp_path / "precious").exists()
    assert not (place / OWN).is_symlink()


def test_a_folder_in_place_of_a_file_stays(tmp_path):
    place = tmp_path / "exports" / "1" / IN_CHILD / OWN
    place.mkdir(parents=True)
    assert delete(tmp_path / "exports", [OWN]) == set()
    assert place.exists()


def test_only_files_two_folders_down_are_of_exports(tmp_path):
    exports = tmp_path / "exports"
    for place in (exports, exports / "1", exports / "1" / IN_CHILD / "deeper"):
        written(place, OWN)
    assert delete(exports, [OWN]) == set()


def test_where_no_child_has_written_there_is_nothing_to_delete(tmp_path):
    assert delete(tmp_path / "exports", [OWN]) == set()


def test_a_child_that_makes_folders_without_end_takes_no_descriptors(tmp_path):
    for number in range(MAX_FOLDERS + 10):
        (tmp_path / "exports" / "1" / f"{number}").mkdir(parents=True)
    before = psutil.Process().num_fds()
    assert delete(tmp_path / "exports", [OWN]) == set()
    assert psutil.Process().num_fds() == before
