"""What runs between fork and exec of every child: the process ties itself down, then becomes what it was meant to be.

Run as a script (``python -I -S tied_process.py PARENT LIMIT REPORT COMMAND…``), never imported for its effects;
``sidecar.system.process`` starts it. A script of its own and not ``preexec_fn``: Python code between fork and exec of a
process with threads (ours exports telemetry on one) can deadlock (``subprocess`` documentation, *preexec_fn*). It costs
16 ms once per start.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_EX_OSERR = 71
_STANDARD_ERROR = 2


def main(arguments: list[str]) -> NoReturn:
    """Apply the limits, tie the process to its parent, and exec.

    - ``RLIMIT_DATA`` is the hard memory limit. Go reserves address space far beyond what it uses, so ``RLIMIT_AS``
      would hit an idle OPA; ``RLIMIT_DATA`` counts writable private pages only (``getrlimit(2)``, Linux 4.7).
      Measured with OPA 1.22.2: 135 MB idle, of which 40 MB resident; over the limit the process dies at once.
    - ``RLIMIT_CORE`` is 0: a core file would hold questions, and so claims.
    - ``PR_SET_PDEATHSIG`` (Linux) kills the child when the thread that started it ends, ``SIGKILL`` of the sidecar
      included. It survives exec. Elsewhere there is nothing like it: there OPA outlives a *killed* sidecar (not a
      stopped one), on a socket that only the same user can reach, and has to be ended by hand; the MongoDB MCP server
      ends by itself when its standard input does.
    - ``PR_SET_NO_NEW_PRIVS`` (Linux): nothing the child executes gains a privilege, by ``sudo`` for example
      (``prctl(2)``). Such a program would also lose the tie.
    - Every descriptor but the standard streams is closed by exec. ``close_fds`` does not do it: uvloop 0.22 does not
      honour it, and hands the child a second copy of its pipes besides (seen in ``/proc/<pid>/fd``).

    Args:
        arguments: the parent's process id; the limit in bytes; the descriptor that is told the error number where the
            command cannot be executed, and nothing where it can; then the command. A name without a slash is looked
            for in the child's own ``PATH``.
    """
    parent, limit, report, command = int(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3:]
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(limit)
    _close_on_exec()
    if sys.platform == "linux":
        _tie_to(parent)
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell is the point; the caller names an executable
    except OSError as error:
        os.write(report, str(error.errno).encode())
        sys.exit(_EX_OSERR)


def tied(limit_bytes: int, report: int, *command: str) -> tuple[str, ...]:
    """Return a command that runs ``command`` through this script.

    Args:
        limit_bytes: writable memory; ``resource.RLIM_INFINITY`` for no limit.
        report: the descriptor that the script writes to if the command cannot be executed.
        command: what is run.
    """
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit_bytes), str(report), *command)


def _limit_memory(limit: int) -> None:
    """Set the hard limit, or leave the present one where it is lower: only root may raise it."""
    _, present = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY and (present == resource.RLIM_INFINITY or limit < present):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _close_on_exec() -> None:
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 -- pathlib would be loaded for this line alone
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            if int(name) > _STANDARD_ERROR:
                os.set_inheritable(int(name), False)  # noqa: FBT003 -- positional only


def _tie_to(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, int(value), 0, 0, 0) != 0:
            sys.exit(_EX_OSERR)
    if os.getppid() != parent:
        # The parent died before the line above; its death will not be signalled any more.
        sys.exit(_EX_OSERR)


if __name__ == "__main__":
    main(sys.argv[1:])
