"""What runs between fork and exec of a managed OPA: the process ties itself down, then becomes what it was meant to be.

Run as a script (``python -I -S tied_process.py PARENT LIMIT COMMAND…``), never imported for its
effects. A script of its own and not ``preexec_fn``: Python code between fork and exec of a process with threads (ours
exports telemetry on one) can deadlock (``subprocess`` documentation, *preexec_fn*). It costs 16 ms once per start.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_EX_OSERR = 71


def main(arguments: list[str]) -> NoReturn:
    """Apply the limits, tie the process to its parent, and exec.

    - ``RLIMIT_DATA`` is the hard memory limit. Go reserves address space far beyond what it uses, so ``RLIMIT_AS``
      would hit an idle OPA; ``RLIMIT_DATA`` counts writable private pages only (``getrlimit(2)``, Linux 4.7).
      Measured with OPA 1.22.2: 135 MB idle, of which 40 MB resident; over the limit the process dies at once.
    - ``RLIMIT_CORE`` is 0: a core file would hold questions, and so claims.
    - ``PR_SET_PDEATHSIG`` (Linux) kills OPA when the thread that started it ends, ``SIGKILL`` of the sidecar included.
      It survives exec. Elsewhere there is nothing like it: there OPA outlives a *killed* sidecar (not a stopped one),
      on a socket that only the same user can reach, and has to be ended by hand.

    Args:
        arguments: the parent's process id, the limit in bytes, then the command with an absolute path.
    """
    parent, limit, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if sys.platform == "linux":
        _tie_to(parent)
    try:
        os.execv(command[0], command)  # noqa: S606  # no shell is the point; the caller names an executable
    except OSError as error:
        sys.exit(f"cannot execute {command[0]}: {error.strerror}")


def tied(limit_bytes: int, *command: str) -> tuple[str, ...]:
    """Return a command that runs ``command`` (an absolute path first) through this script.

    Args:
        limit_bytes: writable memory; ``resource.RLIM_INFINITY`` for no limit.
        command: what is run.
    """
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit_bytes), *command)


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
