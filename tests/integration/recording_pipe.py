"""Stands between the sidecar and the real MongoDB MCP server and writes down what reaches the server.

Usage: ``recording_pipe.py FILE COMMAND…``. Every line of standard input goes to FILE first, then on unchanged; the
server answers on the standard output that it inherits. When the server ends, so does this.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have Linux end the server with this, as the sidecar has it done with a server of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def main() -> int:
    with open(sys.argv[1], "ab", buffering=0) as record:  # noqa: PTH123 - read by the test while it grows
        # No thread yet, so nothing can be held that the child would wait for.
        child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, preexec_fn=end_with_parent)  # noqa: PLW1509
        threading.Thread(target=lambda: os._exit(child.wait() & 0xFF), daemon=True).start()
        assert child.stdin is not None
        for line in sys.stdin.buffer:
            record.write(line)
            child.stdin.write(line)
            child.stdin.flush()
        child.stdin.close()
        return child.wait()


if __name__ == "__main__":
    sys.exit(main())
