"""Child processes with their output in one pipe, the private folders that they work in, and work done in threads."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from sidecar.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")


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
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


async def remove(home: Path) -> None:
    """Remove a folder with everything in it."""
    await in_thread(shutil.rmtree, home, ignore_errors=True)


async def spawn(
    command: Sequence[str], cwd: Path, environment: dict[str, str], *, stdin: bool = False
) -> asyncio.subprocess.Process:
    """Start one process with both outputs in one pipe.

    Raises:
        ConfigurationError: it cannot be started.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=environment,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Its own session: Ctrl-C on a terminal ends us first, and calls in flight still get their decision.
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(f"OPA cannot be started: {error}") from error


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process and what it started, at once; nothing where it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
