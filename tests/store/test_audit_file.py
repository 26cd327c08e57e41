"""The file of evidence: a receipt means stored, and a disk that fails stops the calls, never the chain.

Faults are staged with the real file system in ways that hold for root as well: a limit on the size of files makes real
short writes and EFBIG, and files are really removed, replaced, cut and held.
"""

import asyncio
import contextlib
import errno
import os
import resource
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.audit.chain import GENESIS, Verification, verify
from sidecar.audit.record import Facts, refusal
from sidecar.errors import AuditUnavailable, ConfigurationError
from sidecar.model import JsonObject
from sidecar.ports import AuditSink
from sidecar.store.file import AuditSync, FileAuditSink, Rotation
from tests.examples import examples
from tests.patience import HANG_S


def a_record(name: str = "r") -> JsonObject:
    return refusal(Facts(request_id=name), "policy_denied", record_id=f"id-{name}", time_ns=0)


def proved(path: Path) -> Verification:
    with path.open("rb") as lines:
        return verify(lines)


@contextlib.contextmanager
def room_for(path: Path, more: int) -> Iterator[None]:
    """Let files grow at most ``more`` bytes beyond the path's length: the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def descriptors_of(path: Path) -> list[int]:
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [int(entry.name) for entry in entries if entry.resolve() == path]


def exit_status_of(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


def contents_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(params=list(AuditSync))
def sync(request: pytest.FixtureRequest) -> AuditSync:
    return AuditSync(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def test_receipts_number_and_link_the_records(path, sync):
    sink: AuditSink = FileAuditSink(path, sync=sync)
    receipts = [await sink.append(a_record(str(number))) for number in range(3)]
    assert [(receipt.id, receipt.seq) for receipt in receipts] == [("id-0", 1), ("id-1", 2), ("id-2", 3)]
    verdict = proved(path)
    assert verdict.holds
    assert verdict.records == 3
    assert verdict.head == receipts[-1].hash


async def test_a_new_file_is_for_its_owner_only_and_not_inherited(path):
    sink = FileAuditSink(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = descriptors_of(path)
    assert held
    assert not any(os.get_inheritable(fd) for fd in held)
    await sink.close()


async def test_calls_at_the_same_time_get_one_chain(path, sync):
    sink = FileAuditSink(path, sync=sync)
    receipts = await asyncio.gather(*(sink.append(a_record(str(number))) for number in range(64)))
    assert sorted(receipt.seq for receipt in receipts) == list(range(1, 65))
    assert proved(path).records == 64
    await sink.close()


async def test_calls_that_wait_at_the_same_time_share_one_flush(path):
    flushed = 0

    def counting(fd: int) -> None:
        nonlocal flushed
        flushed += 1
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=counting)
    before = flushed
    await asyncio.gather(*(sink.append(a_record(str(number))) for number in range(64)))
    assert flushed - before <= 2
    await sink.close()


async def test_a_slow_flush_does_not_hold_the_loop_and_no_receipt_comes_before_it(path):
    begun, go = threading.Event(), threading.Event()
    opened = False

    def slow(fd: int) -> None:
        if opened:
            begun.set()
            assert go.wait(HANG_S)
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=slow)
    opened = True
    append = asyncio.create_task(sink.append(a_record()))
    await asyncio.to_thread(begun.wait, HANG_S)
    for _ in range(100):
        await asyncio.sleep(0)  # the loop turns
    assert not append.done()
    go.set()
    assert (await append).seq == 1
    await sink.close()


async def test_a_chain_goes_on_after_a_restart(path, sync):
    for number in range(3):
        sink = FileAuditSink(path, sync=sync)
        assert sink.head[0] == number
        await sink.append(a_record(str(number)))
        await sink.close()
    assert proved(path).records == 3


async def test_a_last_record_longer_than_a_block_is_found(path):
    sink = FileAuditSink(path)
    await sink.append(a_record())
    await sink.append({**a_record(), "arguments": {"a": "x" * 300_000}})
    head = sink.head
    await sink.close()
    assert FileAuditSink(path).head == head


async def test_two_sidecars_never_share_a_chain(path):
    sink = FileAuditSink(path)
    with pytest.raises(ConfigurationError, match="in use by another"):
        FileAuditSink(path)
    await sink.close()
    await FileAuditSink(path).close()


async def test_another_process_is_kept_out_and_let_in_when_this_one_ends(path):
    program = textwrap.dedent(f"""
        from pathlib import Path
        from sidecar.errors import ConfigurationError
        from sidecar.store.file import AuditSync, FileAuditSink, Rotation
        try:
            FileAuditSink(Path({str(path)!r}))
        except ConfigurationError:
            raise SystemExit(7)
    """)
    sink = FileAuditSink(path)
    assert exit_status_of(program) == 7
    await sink.close()
    assert exit_status_of(program) == 0


@pytest.mark.parametrize("more", [0, 1, 100])
async def test_a_full_disk_stores_nothing_and_works_again_by_itself(path, sync, more):
    sink = FileAuditSink(path, sync=sync)
    await sink.append(a_record("before"))
    size, head = path.stat().st_size, sink.head
    with room_for(path, more):
        for _ in range(3):
            with pytest.raises(AuditUnavailable):
                await sink.append(a_record("lost"))
    assert path.stat().st_size == size, "what was written of the record is cut back"
    assert sink.head == head
    assert (await sink.append(a_record("after"))).seq == 2
    assert proved(path).records == 2
    await sink.close()


async def test_a_removed_file_stops_the_evidence(path, sync):
    sink = FileAuditSink(path, sync=sync)
    await sink.append(a_record())
    path.unlink()
    with pytest.raises(AuditUnavailable, match="No such file"):
        await sink.append(a_record())
    assert not path.exists(), "nothing is created in its place"
    await sink.close()


async def test_a_file_moved_away_stops_the_evidence_until_it_is_back(path, sync):
    sink = FileAuditSink(path, sync=sync)
    await sink.append(a_record("1"))
    away = path.rename(path.with_suffix(".1"))
    path.write_bytes(b"")
    with pytest.raises(AuditUnavailable, match="another file"):
        await sink.append(a_record("lost"))
    assert path.read_bytes() == b""
    away.rename(path)
    assert (await sink.append(a_record("2"))).seq == 2
    assert proved(path).records == 2
    await sink.close()


async def test_a_directory_that_became_something_else_stops_the_evidence_until_it_is_back(tmp_path):
    directory = tmp_path / "evidence"
    directory.mkdir()
    path = directory / "audit.jsonl"
    sink = FileAuditSink(path)
    await sink.append(a_record("1"))
    away = directory.rename(tmp_path / "away")
    directory.write_text("a file where the directory was")
    with pytest.raises(AuditUnavailable, match="Not a directory"):
        await sink.append(a_record("lost"))
    directory.unlink()
    away.rename(directory)
    assert (await sink.append(a_record("2"))).seq == 2
    await sink.close()


@pytest.mark.parametrize("change", ["cut", "added"])
async def test_a_file_changed_by_somebody_else_stops_the_evidence(path, change):
    sink = FileAuditSink(path)
    await sink.append(a_record())
    whole = path.read_bytes()
    with path.open("r+b") as other:
        if change == "cut":
            other.truncate(10)
        else:
            other.seek(0, os.SEEK_END)
            other.write(b"x\n")
    with pytest.raises(AuditUnavailable, match="another program changed"):
        await sink.append(a_record())
    path.write_bytes(whole)
    assert (await sink.append(a_record())).seq == 2
    await sink.close()


async def test_a_failed_flush_refuses_everybody_who_waited_and_leaves_a_chain_without_them(path):
    broken = False

    def flush(fd: int) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=flush)
    await sink.append(a_record("kept"))
    size, head = path.stat().st_size, sink.head
    broken = True
    results = await asyncio.gather(*(sink.append(a_record(str(n))) for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, AuditUnavailable) for result in results)
    assert path.stat().st_size == size
    assert sink.head == head
    broken = False
    assert (await sink.append(a_record("again"))).seq == 2
    assert proved(path).records == 2
    await sink.close()


async def test_records_written_during_a_flush_that_fails_are_refused_too(path):
    begun, go = threading.Event(), threading.Event()
    broken = False

    def flush(fd: int) -> None:
        if broken:
            begun.set()
            assert go.wait(HANG_S)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=flush)
    broken = True
    first = asyncio.create_task(sink.append(a_record("first")))
    await asyncio.to_thread(begun.wait, HANG_S)
    second = asyncio.create_task(sink.append(a_record("second")))
    await asyncio.sleep(0)
    go.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable, AuditUnavailable]
    broken = False
    assert (await sink.append(a_record("third"))).seq == 1
    assert proved(path).records == 1
    await sink.close()


async def test_a_cancelled_caller_disturbs_neither_the_chain_nor_the_others(path):
    begun, go = threading.Event(), threading.Event()
    opened = False

    def slow(fd: int) -> None:
        if opened:
            begun.set()
            assert go.wait(HANG_S)
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=slow)
    opened = True
    leaves, stays = (asyncio.create_task(sink.append(a_record(name))) for name in ("leaves", "stays"))
    await asyncio.to_thread(begun.wait, HANG_S)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    go.set()
    assert (await stays).seq == 2
    assert proved(path).records == 2
    await sink.close()


async def test_a_record_without_a_canonical_form_is_refused_and_harms_nothing(path):
    sink = FileAuditSink(path)
    with pytest.raises(AuditUnavailable, match="canonical"):
        await sink.append({**a_record(), "tool": 2**60})
    assert (await sink.append(a_record())).seq == 1
    await sink.close()


async def test_a_closed_sink_refuses(path):
    sink = FileAuditSink(path)
    await sink.close()
    await sink.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        await sink.append(a_record())


async def a_chain_of(path: Path, count: int) -> bytes:
    sink = FileAuditSink(path)
    for number in range(count):
        await sink.append(a_record(str(number)))
    await sink.close()
    return contents_of(path)


async def test_a_line_torn_by_a_crash_is_put_aside_and_the_chain_goes_on(path, caplog):
    whole = await a_chain_of(path, 2)
    torn = whole.splitlines(keepends=True)[0][:200]
    path.write_bytes(whole + torn)
    sink = FileAuditSink(path)
    aside = path.with_name(f"audit.jsonl.torn-{len(whole)}")
    assert aside.read_bytes() == torn
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert "torn" in caplog.text
    assert path.read_bytes() == whole
    assert (await sink.append(a_record("3"))).seq == 3
    assert proved(path).records == 3
    await sink.close()


async def test_a_second_tear_at_the_same_place_keeps_the_first(path):
    whole = await a_chain_of(path, 1)
    for torn in (b'{"acc', b'{"acce'):
        path.write_bytes(whole + torn)
        await FileAuditSink(path).close()
    kept = sorted(path.parent.glob("*.torn-*"))
    assert [part.read_bytes() for part in kept] == [b'{"acc', b'{"acce']


async def test_a_file_of_nothing_but_a_torn_line_begins_a_chain(path):
    path.write_bytes(b'{"accesses":nul')
    path.chmod(0o600)
    sink = FileAuditSink(path)
    assert sink.head == (0, GENESIS)
    await sink.close()


@given(data=st.data())
@settings(max_examples=examples(60), deadline=None)
async def test_wherever_a_crash_cuts_the_file_the_chain_goes_on_from_the_last_whole_record(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "audit.jsonl"
    whole = await a_chain_of(path, 3)
    cut = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.integers(0, 20))  # what some file systems leave behind after a loss of power
    path.write_bytes(whole[:cut] + bytes(zeros))
    sink = FileAuditSink(path)
    kept = whole[:cut].count(b"\n")
    assert (await sink.append(a_record("next"))).seq == kept + 1
    verdict = proved(path)
    assert verdict.holds
    assert verdict.records == kept + 1
    await sink.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole + b"x\n",
        lambda whole: whole + b"\n",
        lambda _: b"\n",
        lambda whole: whole.replace(b"policy_denied", b"policy_ignore"),
        lambda whole: whole[:-3] + b"}\n",
        lambda whole: whole + whole[:50] + b"\n",
        lambda whole: whole + b"x",
        lambda whole: whole + b'{"v":1',
        lambda _: b"[settings]\nof = 'another program'",
        lambda _: b"[settings]\nof = 'another program'\n",
        lambda _: b"SQLite format 3\0",
    ],
)
async def test_a_last_record_that_does_not_hold_refuses_to_start_and_changes_nothing(path, damage):
    damaged = damage(await a_chain_of(path, 2))
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match=r"is not valid|not part of a record"):
        FileAuditSink(path)
    assert path.read_bytes() == damaged
    path.unlink()
    await FileAuditSink(path).close()


def test_an_endless_last_line_refuses_to_start(path):
    with path.open("wb") as file:
        file.truncate((1 << 24) + (1 << 17))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="longer"):
        FileAuditSink(path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_no_evidence(path, mode):
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="other users can write"):
        FileAuditSink(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
async def test_a_file_that_others_may_read_is(path, mode):
    path.touch()
    path.chmod(mode)
    await FileAuditSink(path).close()


def test_what_is_no_regular_file_refuses_to_start(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "file").touch()
    read_only = Path("/proc/sys/kernel/audit.jsonl")  # not even root creates files there
    in_a_file, nowhere = tmp_path / "file" / "x", tmp_path / "none" / "x"
    for target in (tmp_path, tmp_path / "fifo", Path("/dev/full"), in_a_file, nowhere, read_only):
        with pytest.raises(ConfigurationError):
            FileAuditSink(target)


def test_a_refused_start_leaks_no_descriptor(path):
    path.write_bytes(b"x\n")
    path.chmod(0o600)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(ConfigurationError):
            FileAuditSink(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_failing_disk_is_logged_when_it_begins_and_when_it_ends(path, caplog):
    sink = FileAuditSink(path)
    for _ in range(2):
        with room_for(path, 5):
            for _ in range(10):
                with pytest.raises(AuditUnavailable):
                    await sink.append(a_record())
        await sink.append(a_record())
    assert [record.getMessage() for record in caplog.records] == [
        "the audit file cannot be written",
        "the audit file can be written again",
    ] * 2
    await sink.close()


async def ready(sink: FileAuditSink) -> bool:
    await sink.look()
    return sink.ready


async def test_a_look_finds_a_full_disk_that_has_room_again_without_a_record(path, sync, caplog):
    sink = FileAuditSink(path, sync=sync)
    await sink.append(a_record("before"))
    size = path.stat().st_size
    with room_for(path, 5):
        with pytest.raises(AuditUnavailable):
            await sink.append(a_record())
        for _ in range(3):
            assert not await ready(sink)
    assert path.stat().st_size == size
    assert await ready(sink)
    assert path.stat().st_size == size, "nothing of the trial stays"
    await sink.append(a_record("after"))
    assert proved(path).records == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the audit file cannot be written",
        "the audit file can be written again",
    ]
    await sink.close()


async def test_a_look_finds_a_file_that_was_moved_away(path):
    sink = FileAuditSink(path)
    assert await ready(sink)
    aside = path.rename(path.with_name("aside"))
    assert not await ready(sink)
    aside.rename(path)
    assert await ready(sink)
    await sink.close()


async def test_a_look_while_every_flush_fails_finds_it_failing(path):
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    working = [True]
    sink = FileAuditSink(path, sync=AuditSync.GROUP, flush=lambda fd: os.fsync(fd) if working[0] else fail(fd))
    working[0] = False
    with pytest.raises(AuditUnavailable):
        await sink.append(a_record())
    assert not await ready(sink)
    working[0] = True
    assert await ready(sink)
    await sink.close()


async def test_where_no_disk_is_waited_for_a_record_is_stored_in_one_go(tmp_path: Path):
    """A call that is cancelled while its outcome is stored loses nothing: there is no moment to be cancelled in."""
    path = tmp_path / "audit.jsonl"
    sink = FileAuditSink(path, sync=AuditSync.OS, rotation=Rotation(max_bytes=1))
    for number in range(3):
        storing = sink.append(a_record(str(number)))
        with pytest.raises(StopIteration) as stored:
            storing.send(None)
        assert stored.value.value.seq == number + 1
    await sink.close()
    waiting = FileAuditSink(tmp_path / "other.jsonl", sync=AuditSync.GROUP)
    storing = waiting.append(a_record())
    storing.send(None)
    storing.close()
    await waiting.close()
