"""The file of suspensions: what it survives, and what it is refused for."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError, SuspensionsUnavailable
from sidecar.identity.suspension import Suspendable, Suspension, SuspensionTarget
from sidecar.store.suspensions import FileSuspensions


def user(name: str) -> Suspension:
    target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject=name)
    return Suspension(target=target, until=None, reason="r", operator="o", since=1)


ANN, BOB = user("ann"), user("bøb\u202e")


def reopened(path: Path) -> tuple[Suspension, ...]:
    store = FileSuspensions(path)
    try:
        return asyncio.run(store.load())
    finally:
        store.close()


def saved(path: Path, *suspensions: Suspension) -> None:
    store = FileSuspensions(path)
    asyncio.run(store.save(suspensions))
    store.close()


def test_what_was_saved_is_read_again_and_only_its_owner_can(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)
    saved(path, ANN, BOB)
    assert reopened(path) == (ANN, BOB)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_first_start_has_none_and_makes_the_file(tmp_path: Path) -> None:
    assert reopened(tmp_path / "kept") == ()
    assert (tmp_path / "kept").exists()


def test_a_suspended_session_does_not_outlive_the_process(tmp_path: Path) -> None:
    target = SuspensionTarget(kind=Suspendable.SESSION, digest="a" * 16)
    saved(tmp_path / "kept", ANN, Suspension(target=target, until=None, reason="r", operator="o", since=1))
    assert reopened(tmp_path / "kept") == (ANN,)


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)
    whole = path.read_bytes()
    for position in range(len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(SuspensionsUnavailable):
            reopened(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"{" * 5000, b'{"v":1,"sha256":"","suspensions":"[]"}'])
def test_another_file_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "kept").write_bytes(text)
    with pytest.raises(SuspensionsUnavailable):
        reopened(tmp_path / "kept")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)
    whole = path.read_bytes()
    for size in range(len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SuspensionsUnavailable):
            reopened(path)


def test_what_others_may_write_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)
    path.chmod(0o620)
    with pytest.raises(SuspensionsUnavailable, match="other users"):
        reopened(path)
    path.chmod(0o640)
    assert reopened(path) == (ANN,)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SuspensionsUnavailable):
        reopened(link)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SuspensionsUnavailable, match="regular"):
        reopened(tmp_path / "pipe")


def test_a_disk_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)

    def failing(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    store = FileSuspensions(path, flush=failing)
    with pytest.raises(SuspensionsUnavailable, match="No space"):
        asyncio.run(store.save((BOB,)))
    store.close()
    assert reopened(path) == (ANN,)


def test_a_crash_before_the_rename_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    saved(path, ANN)
    (tmp_path / "kept.new").write_bytes(b"half")
    assert reopened(path) == (ANN,)
    saved(path, BOB)
    assert reopened(path) == (BOB,)


def test_two_processes_cannot_have_one_file(tmp_path: Path) -> None:
    store = FileSuspensions(tmp_path / "kept")
    with pytest.raises(ConfigurationError, match="another process"):
        FileSuspensions(tmp_path / "kept")
    store.close()


async def test_an_edit_of_equal_size_under_a_restored_date_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    store = FileSuspensions(path)
    try:
        await store.save((ANN,))
        assert await store.intact()
        before = path.stat()
        with path.open("r+b") as file:
            file.write(path.read_bytes().replace(b"ann", b"bob"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns
        assert path.stat().st_size == before.st_size
        assert not await store.intact()
    finally:
        store.close()


async def test_what_is_kept_is_watched_while_the_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    store = FileSuspensions(path)
    try:
        assert not await store.intact(), "nothing is known before it was loaded"
        await store.load()
        assert await store.intact()
        await store.save((ANN,))
        assert await store.intact()
        whole = path.read_bytes()
        for changed in (b"", whole[:-2], whole.replace(b"ann", b"bob"), whole + b"\n"):
            path.write_bytes(changed)
            assert not await store.intact(), changed
            path.write_bytes(whole)
            assert await store.intact(), "put back, it is what was saved"
        path.unlink()
        assert not await store.intact()
        path.write_bytes(whole)
        path.chmod(0o620)
        assert not await store.intact(), "others can write it"
        path.chmod(0o600)
        assert await store.intact()
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert not await store.intact(), "a link can lead elsewhere tomorrow"
        await store.save((ANN, BOB))
        assert await store.intact()
    finally:
        store.close()


async def test_another_good_file_is_not_what_was_saved(tmp_path: Path) -> None:
    store = FileSuspensions(tmp_path / "kept")
    try:
        await store.load()
        await store.save(())
        fewer = (tmp_path / "kept").read_bytes()
        await store.save((ANN,))
        (tmp_path / "kept").write_bytes(fewer)
        assert not await store.intact()
    finally:
        store.close()


async def test_a_file_that_was_damaged_at_the_start_is_not_known_by_being_looked_at(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("{}")
    store = FileSuspensions(tmp_path / "kept")
    try:
        with pytest.raises(SuspensionsUnavailable):
            await store.load()
        assert not await store.intact()
    finally:
        store.close()
