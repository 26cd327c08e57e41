"""How every child process is started: through the script that ties it down, on both event loops."""

import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import psutil
import pytest

from sidecar.errors import ConfigurationError
from sidecar.system.process import StandardStreams, kill, spawn

PIPES = StandardStreams(stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
LIMIT = 256 * 1024 * 1024
SHOW = (
    "import os, resource as r; print(r.getrlimit(r.RLIMIT_DATA)[1], r.getrlimit(r.RLIMIT_CORE)[1],"
    " oct(os.umask(0)), sorted(map(int, os.listdir('/dev/fd')))[:-1], os.getpgid(0) == os.getpid())"
)


async def shown(limit: int = resource.RLIM_INFINITY) -> str:
    process = await spawn((sys.executable, "-I", "-c", SHOW), PIPES, memory_limit_bytes=limit)
    output, _ = await process.communicate()
    return output.decode().strip()


async def test_a_child_has_its_limit_and_no_core_file_and_no_descriptor_of_ours() -> None:
    theirs, ours = os.pipe()
    try:
        os.set_inheritable(ours, True)
        assert await shown(LIMIT) == f"{LIMIT} 0 0o77 [0, 1, 2] True"
    finally:
        os.close(theirs)
        os.close(ours)


async def test_a_child_without_a_limit_of_its_own_keeps_the_present_one() -> None:
    assert (await shown()).split()[0] == str(resource.getrlimit(resource.RLIMIT_DATA)[1])


@pytest.mark.parametrize(
    ("asked", "present", "left"), [(LIMIT, LIMIT * 2, LIMIT), (LIMIT * 2, LIMIT, LIMIT), (-1, LIMIT, LIMIT)]
)
async def test_a_limit_from_outside_is_lowered_and_never_raised(asked: int, present: int, left: int) -> None:
    script = Path(spawn.__code__.co_filename).with_name("tied_process.py")
    code = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({present}, {present}))\n"
        f"os.execv(sys.executable, [sys.executable, '-I', '-S', {str(script)!r}, str(os.getppid()), '{asked}', '2',"
        f" sys.executable, '-I', '-c', {SHOW!r}])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert output.split()[0] == str(left).encode()


async def test_what_cannot_be_executed_is_said_with_its_reason_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    descriptors = []
    for _ in range(3):  # the first start also opens what the loop keeps
        with pytest.raises(
            ConfigurationError, match=f"^{tmp_path}/absent cannot be executed: No such file or directory$"
        ):
            await spawn((f"{tmp_path}/absent",), PIPES)
        descriptors.append(psutil.Process().num_fds())
    assert descriptors[-1] <= descriptors[0]
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    starting = asyncio.create_task(spawn(("/bin/sleep", "1000"), PIPES))
    while not set(psutil.Process().children(recursive=True)) - before:  # noqa: ASYNC110 -- it is there before its end
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(psutil.Process().children(recursive=True)) <= before, "its end was noticed before the start was over"


async def test_a_start_that_is_cancelled_at_once_leaves_no_process() -> None:
    before = set(psutil.Process().children(recursive=True))
    for turns in range(6):
        starting = asyncio.create_task(spawn(("/bin/sleep", "1000"), PIPES))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert set(psutil.Process().children(recursive=True)) <= before


PARENT = """
import asyncio
from sidecar.system import StandardStreams, spawn
async def main():
    print((await spawn(("/bin/sleep", "1000"), StandardStreams())).pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else ties a child to a parent that is killed")
async def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert psutil.Process(child).cmdline() == ["/bin/sleep", "1000"]
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_kill_ends_what_the_child_started_as_well() -> None:
    process = await spawn(("/bin/sh", "-c", "sleep 1000 & echo $!; wait"), PIPES)
    assert process.stdout is not None
    grandchild = int(await process.stdout.readline())
    await kill(process)
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
