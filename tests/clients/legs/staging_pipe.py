"""Stands between the sidecar and the real MongoDB MCP server, and has a call of ``find`` take its time by its limit.

Usage: ``staging_pipe.py COMMAND…``. Of the limits below, the first and the last have progress reported before the call
is carried out, the second is never carried out, and before the third the server says that its tools changed.
"""

import json
import subprocess
import sys
import threading
import time
from typing import IO, Any

PROGRESS, HELD, NEWS, CUT = 3, 4, 5, 6
STALLED_S = 3.0

out = threading.Lock()


def say(message: Any) -> None:
    with out:
        sys.stdout.buffer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()


def note(method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}


def staged(message: Any, line: bytes, child: IO[bytes], held: set[Any]) -> bytes:
    """What goes on to the server now."""
    params = message.get("params") or {}
    arguments = params.get("arguments") or {}
    if message.get("method") == "notifications/cancelled" and params.get("requestId") in held:
        held.discard(params["requestId"])
        return b""
    if message.get("method") != "tools/call" or params.get("name") != "find":
        return line
    limit = arguments.get("limit")
    if limit in {PROGRESS, CUT}:
        threading.Thread(target=later, args=(params, line, child), daemon=True).start()
        return b""
    if limit == HELD:
        held.add(message["id"])
        return b""
    if limit == NEWS:
        say(note("notifications/tools/list_changed"))
    return line


def later(params: Any, line: bytes, child: IO[bytes]) -> None:
    token = (params.get("_meta") or {}).get("progressToken")
    for done in (1, 2):
        if token is not None:
            say(note("notifications/progress", {"progressToken": token, "progress": done, "total": 2}))
        time.sleep(STALLED_S / 2)
    child.write(line)
    child.flush()


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None

    def answers() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            say(line)

    threading.Thread(target=answers, daemon=True).start()
    held: set[Any] = set()
    for line in sys.stdin.buffer:
        going = staged(json.loads(line), line, child.stdin, held)  # noqa: TID251 - what the sidecar wrote
        child.stdin.write(going)
        child.stdin.flush()
    child.stdin.close()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
