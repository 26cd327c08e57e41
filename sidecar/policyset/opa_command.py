"""OPA's executable: how its processes are limited, and the one way to run one of its commands to its end."""

import asyncio
import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.system import StandardStreams, kill, spawn

_GO_SHARE = 0.7
"""Of the hard limit, what Go's collector aims at (``GOMEMLIMIT``); the rest is stacks, fragments and code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaCommand:
    """The executable and the limits that every OPA process is started with."""

    binary: str
    """Absolute path."""
    memory_limit_bytes: int

    async def start(self, *arguments: str, folder: Path, home: Path, stdin: bool = False) -> asyncio.subprocess.Process:
        """Start one OPA process with both outputs in one pipe.

        Args:
            arguments: of ``opa``, the command's name first.
            folder: where it runs.
            home: private folder of this user, OPA's own.
            stdin: whether it gets an input.

        Raises:
            ConfigurationError: it cannot be executed.
        """
        pipe = asyncio.subprocess.PIPE
        return await spawn(
            (self.binary, *arguments),
            StandardStreams(
                stdin=pipe if stdin else asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
            ),
            cwd=folder,
            environment=self._environment(home),
            memory_limit_bytes=self.memory_limit_bytes,
        )

    def _environment(self, home: Path) -> dict[str, str]:
        """Return the whole environment of an OPA process: nothing for ``opa.runtime()`` to leak."""
        return {
            "HOME": str(home),
            "TMPDIR": str(home),
            "GOMEMLIMIT": str(int(self.memory_limit_bytes * _GO_SHARE)),
            # Two at least, so that one endless evaluation does not stop the others; four at most, beside our own work.
            "GOMAXPROCS": str(max(2, min(4, os.cpu_count() or 2))),
            "GOTRACEBACK": "none",
            # Questions allocate much and keep nothing: collecting less often is a third of the CPU (measured).
            "GOGC": "400",
        }

    async def run(
        self, *arguments: str, folder: Path, home: Path, timeout_s: float, stdin: bytes = b""
    ) -> tuple[int, bytes]:
        """Run one command to its end; return its status and all that it printed.

        Args:
            arguments: of ``opa``, the command's name first.
            folder: where it runs.
            home: private folder of this user, OPA's own.
            timeout_s: seconds that it may take.
            stdin: its input; empty for none.

        Raises:
            ConfigurationError: it cannot be started, or takes longer.
        """
        process = await self.start(*arguments, folder=folder, home=home, stdin=bool(stdin))
        return await _finished(process, stdin, name=arguments[0], limit_s=timeout_s)


def installed(binary: str, *, advice: str = "") -> str:
    """Return the absolute path of the OPA executable, named as a path or as a name on ``PATH``.

    Raises:
        ConfigurationError: there is none.
    """
    path = shutil.which(binary)
    if path is None:
        raise ConfigurationError(f"the OPA program {binary} was not found{advice}")
    return str(Path(path).resolve())


async def _finished(
    process: asyncio.subprocess.Process, stdin: bytes, *, name: str, limit_s: float
) -> tuple[int, bytes]:
    """Return the status of one OPA command and all that it printed; it does not outlive this.

    Args:
        process: the command, with its input in a pipe if it takes any.
        stdin: its input.
        name: of the command, for the error.
        limit_s: seconds that it may take.

    Raises:
        ConfigurationError: it takes longer.
    """
    try:
        async with asyncio.timeout(limit_s):
            output = await converse(process, stdin)
    except TimeoutError:
        raise ConfigurationError(f"opa {name} took longer than {limit_s:g} s and was stopped") from None
    finally:
        await kill(process)
    return process.returncode or 0, output


async def converse(process: asyncio.subprocess.Process, stdin: bytes) -> bytes:
    """Give a process its input, if it takes any, and return all that it prints.

    Where the process ended before it was given anything, ``communicate`` alone loses the output and raises
    ``RuntimeError`` under uvloop; asyncio's own loop passes over it.
    """
    if process.stdin is not None:
        with contextlib.suppress(RuntimeError):
            process.stdin.write(stdin)
        process.stdin.close()
    output, _ = await process.communicate()
    return output
