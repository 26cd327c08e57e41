"""Several files, one chain: nothing is lost, doubled or forked when the file is full, old, or the process dies."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.audit import ChainReport
from sidecar.audit.record import Facts, refusal
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from sidecar.store.audit_proof import verify_chain
from sidecar.store.audit_segments import name_of, rotated
from sidecar.store.file import AuditSync, FileAuditSink, Rotation

SMALL = Rotation(max_bytes=2_000)
"""Some three records."""


@pytest.fixture(params=list(AuditSync))
def sync(request: pytest.FixtureRequest) -> AuditSync:
    return AuditSync(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def a_record(name: str = "r", *, time_ns: int = 0) -> JsonObject:
    return refusal(Facts(request_id=name), "policy_denied", record_id=f"id-{name}", time_ns=time_ns)


@asynccontextmanager
async def opened(path: Path, sync: AuditSync, rotation: Rotation = SMALL) -> AsyncIterator[FileAuditSink]:
    sink = FileAuditSink(path, sync=sync, rotation=rotation)
    yield sink
    await sink.close()


def proved(path: Path) -> ChainReport:
    report = verify_chain(path)
    assert report.findings == ()
    return report


async def test_a_full_file_is_rotated_and_the_chain_goes_on(path, sync):
    async with opened(path, sync) as sink:
        receipts = [await sink.append(a_record(f"{number}")) for number in range(20)]
    assert [receipt.seq for receipt in receipts] == list(range(1, 21))
    report = proved(path)
    assert (report.records, report.last, report.head) == (20, 20, receipts[-1].hash)
    assert len(report.files) > 3
    assert report.files == (*(each.name for each in rotated(path)), path.name)


async def test_calls_that_wait_together_are_in_one_chain_across_files(path, sync):
    async with opened(path, sync) as sink:
        receipts = await asyncio.gather(*(sink.append(a_record(f"{number}")) for number in range(60)))
        more = await asyncio.gather(*(sink.append(a_record(f"m{number}")) for number in range(60)))
    assert sorted(receipt.seq for receipt in [*receipts, *more]) == list(range(1, 121))
    assert proved(path).records == 120
    assert rotated(path)


async def test_every_file_is_for_its_owner_only(path, sync):
    old = os.umask(0)
    try:
        async with opened(path, sync) as sink:
            for number in range(12):
                await sink.append(a_record(f"{number}"))
    finally:
        os.umask(old)
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


async def test_an_old_file_is_rotated_by_the_time_of_its_first_record(path, sync):
    hour_ns = 3600 * 10**9
    async with opened(path, sync, Rotation(max_age_s=3600)) as sink:
        for number in range(6):
            await sink.append(a_record(f"{number}", time_ns=number * hour_ns // 2))
    async with opened(path, sync, Rotation(max_age_s=3600)) as sink:
        await sink.append(a_record("late", time_ns=50 * hour_ns))
        await sink.append(a_record("later", time_ns=50 * hour_ns))
    report = proved(path)
    assert report.records == 8
    assert len(report.files) >= 3, "a restart does not make a file young"


async def test_without_rotation_there_is_one_file(path, sync):
    async with opened(path, sync, Rotation()) as sink:
        for number in range(30):
            await sink.append(a_record(f"{number}"))
    assert rotated(path) == []


async def test_a_chain_goes_on_after_a_restart_with_an_empty_file(path, sync):
    async with opened(path, sync) as sink:
        for number in range(9):
            await sink.append(a_record(f"{number}"))
    path.write_bytes(b"")
    last = verify_chain(path).last
    async with opened(path, sync) as sink:
        assert (await sink.append(a_record("next"))).seq == last + 1


async def test_a_crash_between_the_steps_of_a_rotation_is_taken_back(path, sync):
    async with opened(path, sync, Rotation()) as sink:
        for number in range(5):
            await sink.append(a_record(f"{number}"))
    os.link(path, name_of(path, 1))
    path.with_name("audit.jsonl.next").write_bytes(b"")
    async with opened(path, sync) as sink:
        assert rotated(path) == []
        for number in range(5, 12):
            await sink.append(a_record(f"{number}"))
    report = proved(path)
    assert report.records == 12
    assert rotated(path)


async def test_where_rotation_fails_the_chain_goes_on_in_the_file_that_is_there(path, sync, caplog):
    async with opened(path, sync) as sink:
        name_of(path, 1).write_bytes(b"somebody's file")
        for number in range(12):
            await sink.append(a_record(f"{number}"))
        assert "cannot be rotated" in caplog.text
        assert caplog.text.count("cannot be rotated") <= 4, "it is not tried with every record"
        assert sink.ready
        name_of(path, 1).unlink()
        for number in range(12, 30):
            await sink.append(a_record(f"{number}"))
    assert proved(path).records == 30
    assert rotated(path)


async def test_a_second_process_finds_no_moment_at_which_the_file_is_free(path, sync):
    refused = 0
    async with opened(path, sync) as sink:
        for number in range(40):
            await sink.append(a_record(f"{number}"))
            with pytest.raises(ConfigurationError, match="in use"):
                FileAuditSink(path)
            refused += 1
    assert refused == 40
    assert proved(path).records == 40


async def test_a_failing_disk_at_a_rotation_refuses_who_waited_and_forks_nothing(path):
    failing = False

    def flush(fd: int) -> None:
        if failing:
            raise OSError(5, "Input/output error")
        os.fsync(fd)

    sink = FileAuditSink(path, sync=AuditSync.GROUP, rotation=SMALL, flush=flush)
    for number in range(3):
        await sink.append(a_record(f"{number}"))
    failing = True
    found = await asyncio.gather(*(sink.append(a_record(f"x{number}")) for number in range(5)), return_exceptions=True)
    assert all(isinstance(each, Exception) for each in found)
    failing = False
    for number in range(3, 9):
        await sink.append(a_record(f"{number}"))
    await sink.close()
    assert proved(path).records == 9


@pytest.mark.parametrize(
    "name", ["audit.jsonl.12", "audit.jsonl.000000000001.gz", "audit.jsonl.00000000000x", "b.jsonl"]
)
def test_what_is_named_otherwise_is_no_file_of_the_chain(path, name):
    path.write_bytes(b"")
    path.with_name(name).write_bytes(b"{}\n")
    assert rotated(path) == []
    assert verify_chain(path).holds
