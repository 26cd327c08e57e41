"""The life of the process: its event loop, the signals that end it, its descriptors, its background tasks."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Coroutine
from typing import Final, TypeVar

import uvloop

from sidecar.errors import ConfigurationError

SIGNAL_STATUS: Final = 128
"""Exit status of a process that a signal ended, less the signal's number."""

RESERVED_DESCRIPTORS: Final = 288
"""File descriptors that clients' connections never take: 128 for connections that are accepted and not yet ended again
(``ServerLimits.backlog``), 64 for the admin listener, the rest for OPA and MCP servers (six each), reloads of policies
(measured: 20), key fetches, the database that views are learned from, and the audit file."""

LEAST_CONNECTIONS: Final = 64

T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    """Run the program's one coroutine to its end.

    A signal before or after the time in which it is awaited (``interrupted``) cancels the coroutine, so that everything
    comes down in order, and ends the process with the status that shells expect.
    """

    async def main() -> T:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(main())
        except KeyboardInterrupt:
            raise SystemExit(SIGNAL_STATUS + signal.SIGINT) from None
        except asyncio.CancelledError:
            raise SystemExit(SIGNAL_STATUS + signal.SIGTERM) from None


def allow_descriptors() -> None:
    """Take all file descriptors that this process may have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a hard limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections_allowed(asked: int) -> int:
    """Return how many connections of clients leave enough descriptors for everything else.

    Raises:
        ConfigurationError: the process may have so few descriptors that hardly any connection would be left.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return asked
    if allowed - RESERVED_DESCRIPTORS < LEAST_CONNECTIONS:
        least = RESERVED_DESCRIPTORS + LEAST_CONNECTIONS
        raise ConfigurationError(f"the process may open {allowed} files (ulimit -n); at least {least} are needed")
    return min(asked, allowed - RESERVED_DESCRIPTORS)


async def interrupted() -> None:
    """Return when the process is asked to stop (SIGINT, SIGTERM)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def cancelled(task: "asyncio.Task[None]") -> None:
    """End a background task."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
