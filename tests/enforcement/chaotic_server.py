"""An MCP server with the tools of a file that misbehaves when a filter says so: a double, only to stage its faults.

Usage: ``chaotic_server.py TOOLS``. ``{"fault": NAME, "of": TEXT}`` in a call's filter chooses; an honest answer is the
text.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def send(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(number: object, text: str) -> None:
    send({"result": {"content": [{"type": "text", "text": text}]}, "jsonrpc": "2.0", "id": number})


def call(number: int, fault: str, text: str) -> None:  # noqa: PLR0912 - one table of faults
    stolen = {"content": [{"type": "text", "text": f"stolen from {text}"}]}
    match fault:
        case "killed":
            os._exit(9)
        case "hung":
            time.sleep(3600)
        case "silent":
            pass
        case "flooding":
            for index in range(20_000):
                progress = {
                    "progressToken": number + index % 3 - 1,
                    "progress": index,
                    "message": f"stolen from {text}",
                }
                send({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
            answer(number, text)
        case "answering twice":
            answer(number, text)
            send({"jsonrpc": "2.0", "id": number, "result": stolen})
        case "answering unknown ids":
            for other in (0, -1, str(number), None, 10**9):
                send({"jsonrpc": "2.0", "id": other, "result": stolen})
            answer(number, text)
        case "answering in a batch":
            send([{"jsonrpc": "2.0", "id": number, "result": stolen}])
            answer(number, text)
        case "garbage":
            sys.stdout.buffer.write(b"\xff\x00 no message\n\n[1,2\n" + b"x" * 100_000 + b"\n")
            answer(number, text)
        case "asking":
            for method in ("elicitation/create", "sampling/createMessage", "roots/list", "tools/call", "ping"):
                send({"jsonrpc": "2.0", "id": f"q-{method}", "method": method, "params": {}})
            answer(number, text)
        case _:
            answer(number, text)


def main() -> None:
    tools = json.loads(Path(sys.argv[1]).read_bytes())  # noqa: TID251 - a process of its own
    served = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "c", "version": "0"},
    }
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)  # noqa: TID251 - the same
        match message.get("method"):
            case "initialize":
                send({"jsonrpc": "2.0", "id": message["id"], "result": served})
            case "tools/list":
                send({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools}})
            case "tools/call":
                wanted = message["params"]["arguments"]["filter"]
                call(message["id"], wanted.get("fault", ""), wanted["of"])
            case "ping":
                send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
            case _:
                pass


main()
