"""How every child process is started and ended, the private folders that they work in, and work done in threads."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sidecar.errors import ConfigurationError
from sidecar.system.tied_process import tied

P = ParamSpec("P")
T = TypeVar("T")
ChildProtocol = TypeVar("ChildProtocol", bound=asyncio.subprocess.SubprocessStreamProtocol)

_MOST_OF_A_REPORT = 16
"""Bytes; an error number is shorter."""
_LINE_BYTES = 64 * 1024
"""What asyncio reads ahead of a stream (its own default)."""


def make_home(directory: Path, prefix: str) -> Path:
    """Make a folder that only this user can enter (``mkdtemp`` gives mode 0700).

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        # On the loop: one system call, and nothing that a cancellation could leave behind unnamed.
        return Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    except OSError as error:
        raise ConfigurationError(f"the runtime directory is not usable: {error}") from error


async def in_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run blocking work in a thread, and wait for its end even if cancelled: none may write into a removed folder."""
    return await to_its_end(asyncio.to_thread(work, *arguments, **named))


async def to_its_end(work: Awaitable[T]) -> T:
    """Do work to its end even if cancelled, however often; that is raised then, in place of what the work raises."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await ended(running)
        raise


async def ended(*tasks: "asyncio.Future[Any]") -> None:
    """Wait for the end of tasks even if cancelled, so that they clear up; their errors are not raised."""
    cancelled = False
    while pending := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it as lost
    if cancelled:
        raise asyncio.CancelledError


async def remove(home: Path) -> None:
    """Remove a folder with everything in it."""
    await in_thread(shutil.rmtree, home, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardStreams:
    """The three standard streams of a child: ``DEVNULL``, ``PIPE`` or ``STDOUT`` of ``asyncio.subprocess``."""

    stdin: int = asyncio.subprocess.DEVNULL
    stdout: int = asyncio.subprocess.DEVNULL
    stderr: int = asyncio.subprocess.DEVNULL


async def start_tied(
    protocol: Callable[[], ChildProtocol],
    command: Sequence[str],
    *,
    streams: StandardStreams,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    memory_limit_bytes: int = resource.RLIM_INFINITY,
) -> tuple[asyncio.SubprocessTransport, ChildProtocol]:
    """Start a child through ``tied_process.py``; return when the command itself runs.

    Its own session: Ctrl-C on a terminal ends us first, and calls in flight still get their answer.

    Args:
        protocol: makes what receives the child's output and its exit.
        command: executable and arguments.
        streams: its standard streams.
        cwd: where it runs; None for where this process runs.
        environment: the whole of its environment; None for the one of this process.
        memory_limit_bytes: the hard limit of writable memory.

    Raises:
        OSError: the command cannot be executed; nothing of it is left.
    """
    with ExitStack() as ours, ExitStack() as passed:
        report, reported = os.pipe()
        ours.callback(os.close, report)
        passed.callback(os.close, reported)
        creating = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                protocol,
                *tied(memory_limit_bytes, reported, *command),
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                cwd=cwd,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                pass_fds=(reported,),
            )
        )
        try:
            transport, made = await asyncio.shield(creating)
            passed.close()
            error = await _reported(report)
        except BaseException:
            await ended(asyncio.ensure_future(_given_up(creating)))
            raise
    if error:
        await _given_up(creating)
        raise OSError(error, os.strerror(error))
    return transport, made


async def _given_up(creating: "asyncio.Future[tuple[asyncio.SubprocessTransport, ChildProtocol]]") -> None:
    """End what was started, and return once its end was noticed: its loop may be closed next."""
    [made] = await asyncio.gather(creating, return_exceptions=True)
    if not isinstance(made, BaseException):
        await kill(asyncio.subprocess.Process(*made, asyncio.get_running_loop()))
        made[0].close()


async def spawn(
    command: Sequence[str],
    streams: StandardStreams,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    memory_limit_bytes: int = resource.RLIM_INFINITY,
) -> asyncio.subprocess.Process:
    """Start a child as ``start_tied`` does, as a process to talk to.

    Raises:
        ConfigurationError: it cannot be executed.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await start_tied(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=_LINE_BYTES, loop=loop),
            command,
            streams=streams,
            cwd=cwd,
            environment=environment,
            memory_limit_bytes=memory_limit_bytes,
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be executed: {error.strerror}") from error
    return asyncio.subprocess.Process(transport, protocol, loop)


async def _reported(descriptor: int) -> int:
    """Return the error number that ``tied_process.py`` writes, or 0: exec has closed the other end."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(descriptor, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(descriptor)
    return int(os.read(descriptor, _MOST_OF_A_REPORT) or 0)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process and what it started, at once; nothing where it has ended."""
    if process.returncode is None:
        _kill_group(process.pid)
    await process.wait()
