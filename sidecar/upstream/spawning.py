"""Starting the process of a MongoDB MCP server: its pipes, its session, its directory."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from typing_extensions import override

from sidecar.system import StandardStreams, start_tied

READ_BYTES: Final = 256 * 1024


class ProcessStreams(asyncio.subprocess.SubprocessStreamProtocol):
    """Says when the process has exited; ``Process.wait`` also waits for other holders of its pipes (CPython 3.11).

    Args:
        exports: its own folder, which goes with it; a process that is killed deletes nothing.
    """

    def __init__(self, exports: Path) -> None:
        self._loop_of_exit = asyncio.get_running_loop()
        super().__init__(limit=READ_BYTES, loop=self._loop_of_exit)
        self.exited = asyncio.Event()
        self._exports = exports
        self._deleting: asyncio.Future[None] | None = None

    @override
    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()
        self._deleting = self._loop_of_exit.run_in_executor(
            None, partial(shutil.rmtree, self._exports, ignore_errors=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcess:
    """A started process: its pipes and its exit."""

    transport: asyncio.SubprocessTransport
    protocol: ProcessStreams


async def spawn(command: Sequence[str], environment: Mapping[str, str], home: Path, exports: Path) -> ChildProcess:
    """Start a process with pipes, in its own session, tied to the life of this one (``sidecar.system``).

    Args:
        command: as ``resolved`` gives it.
        environment: all that the child sees.
        home: its working directory.
        exports: a folder that is deleted when it has exited.

    Raises:
        OSError: the command cannot be executed.
    """
    pipe = asyncio.subprocess.PIPE
    transport, protocol = await start_tied(
        partial(ProcessStreams, exports),
        command,
        streams=StandardStreams(stdin=pipe, stdout=pipe, stderr=pipe),
        cwd=home,
        environment=environment,
    )
    return ChildProcess(transport=transport, protocol=protocol)


def resolved(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command with a relative path to its executable made absolute: the child has its own directory."""
    executable = command[0]
    if "/" in executable:
        executable = str(Path(executable).absolute())
    return (executable, *command[1:])
