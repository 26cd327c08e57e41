"""What a person sees: a command of ``mcp-sidecar`` whose output is a terminal."""

import os
import pty
import subprocess
import sys

from tests import parts
from tests.patience import HANG_S

DEADLINE_S = HANG_S

ACTS = ("\x1b[2J", "\x1b[2K", "\x1b[1A", "\x1b[8m", "\x1b]", "\x07", "\x9b", "\u0085", "\u202e", "\u2028")
"""What does something to a terminal and is no colour of ours."""


def on_a_terminal(
    *arguments: str, stdin: bytes = b"", columns: int = 200, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a command to its end; return its status, and all that it showed on either output.

    ``environment`` is added to the search path of the real parts and what a terminal says of itself.
    """
    ours, theirs = pty.openpty()
    shown = {"PATH": str(parts.BIN), "PYTHONPATH": str(parts.ROOT), "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *arguments],
        env=shown | (environment or {}),
        cwd=parts.ROOT,
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    assert process.stdin is not None
    seen = b""
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux says so when the last writer is gone
        pass
    finally:
        os.close(ours)
        status = process.wait(DEADLINE_S)
    return status, seen.decode()
