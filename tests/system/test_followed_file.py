"""Secrets that are replaced while a sidecar runs: the new one is used, and one that cannot be used changes nothing."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.system import FollowedFiles, follow_connection, follow_files, followed_file
from tests.patience import until


def number(path: Path) -> Callable[[], int]:
    def read() -> int:
        try:
            return int(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path.name}: {type(error).__name__}") from None

    return read


def replaced(path: Path, text: str) -> None:
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    monkeypatch.setattr(followed_file, "LOOK_S", 0.01)
    monkeypatch.setattr(followed_file, "_LONGEST_PAUSE_S", 0.04)
    caplog.set_level(logging.INFO, "sidecar")
    (tmp_path / "secret").write_text("1")
    return tmp_path / "secret"


def test_a_file_that_cannot_be_used_at_first_is_refused(path: Path) -> None:
    path.write_text("x")
    with pytest.raises(ConfigurationError):
        FollowedFiles("a.file", [path], number(path))


def test_a_changed_file_is_taken_up_and_a_damaged_one_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, told = FollowedFiles("a.file", [path], number(path)), list[int]()
    files.taken_up = told.append
    files.refresh()
    assert not caplog.records, "nothing changed"
    replaced(path, "2")
    files.refresh()
    replaced(path, "x")
    for _ in range(3):
        files.refresh()
    path.unlink()
    for _ in range(3):
        files.refresh()
    assert (files.value, told) == (2, [2])
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "ERROR"]
    assert all("a.file" in record.getMessage() for record in caplog.records)
    replaced(path, "3")
    files.refresh()
    assert (files.value, told) == (3, [2, 3])


def test_one_whose_time_was_put_back_has_changed_too(path: Path) -> None:
    files = FollowedFiles("a.file", [path], number(path))
    before = path.stat()
    path.write_text("2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    files.refresh()
    assert files.value == 2


def test_what_could_not_be_read_for_a_moment_is_taken_up_at_the_next_look(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the process has no descriptors left: the file does not change again."""
    busy = False

    def read() -> int:
        if busy:
            raise ConfigurationError("too many open files")
        return int(path.read_text())

    files = FollowedFiles("a.file", [path], read)
    replaced(path, "2")
    busy = True
    files.refresh()
    files.refresh()
    assert files.value == 1
    busy = False
    files.refresh()
    assert files.value == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_what_its_user_does_not_take_is_not_the_value(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = FollowedFiles("a.file", [path], number(path))

    def refuse(_: int) -> None:
        raise ConfigurationError("too small")

    files.taken_up = refuse
    replaced(path, "2")
    files.refresh()
    assert files.value == 1
    assert "too small" in caplog.text


async def test_files_are_followed(path: Path) -> None:
    files = FollowedFiles("a.file", [path], number(path))
    following = asyncio.create_task(follow_files(files))
    replaced(path, "2")
    await until(lambda: files.value == 2)
    replaced(path, "x")
    replaced(path, "3")
    await until(lambda: files.value == 3)
    following.cancel()


async def test_an_error_that_is_no_report_ends_no_following_and_is_told_without_its_text(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read() -> int:
        if (text := path.read_text()) == "x":
            raise RuntimeError("the secret is x")
        return int(text)

    async def renew(found: int) -> None:
        if found == 2:
            raise RuntimeError("the secret is 2")
        renewed.append(found)

    renewed = list[int]()
    files = FollowedFiles("a.file", [path], read)
    following = (
        asyncio.create_task(follow_files(files)),
        asyncio.create_task(follow_connection("a.uri_file", 1, read, renew)),
    )
    replaced(path, "x")
    await until(lambda: caplog.text.count("RuntimeError") >= 2)
    assert files.value == 1
    replaced(path, "2")
    await until(lambda: files.value == 2)
    replaced(path, "3")
    await until(lambda: files.value == 3 and renewed == [3])
    assert "the secret" not in caplog.text
    for task in following:
        task.cancel()


async def test_a_connection_is_tried_again_until_the_database_takes_it_and_that_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tried, good = list[int](), list[int]()

    async def renew(found: int) -> None:
        tried.append(found)
        if found not in good:
            raise ConfigurationError(f"no user {found}")

    following = asyncio.create_task(follow_connection("a.uri_file", 1, number(path), renew))
    replaced(path, "2")
    await until(lambda: len(tried) >= 3)
    good.append(2)
    await until(lambda: "used from now on" in caplog.text)
    count = len(tried)
    replaced(path, "x")
    await until(lambda: "ValueError" in caplog.text)
    replaced(path, "2")
    replaced(path, "3")
    await until(lambda: "no user 3" in caplog.text)
    replaced(path, "2")
    settled = -1
    while settled != (settled := len(tried)):  # noqa: ASYNC110 - 3 is tried until 2 was seen again
        await asyncio.sleep(0.1)
    assert set(tried[:count]) == {2}
    assert set(tried[count:]) == {3}, "what is connected with is not tried again"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR", "ERROR"]
    following.cancel()
