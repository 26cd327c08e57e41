"""The MCP Inspector's command line, which opens a session for each thing that it is told to do.

Usage: ``inspector_cli.py COMMAND… URL TOKEN``, with the calls on standard input; prints what came of each leg as JSON.
"""

import json
import subprocess
import sys
from typing import Any


def main() -> None:
    *command, url, token = sys.argv[1:]
    calls = json.load(sys.stdin)
    server = [url, "--transport", "http", "--header", f"Authorization: Bearer {token}"]

    def inspector(method: str, *words: str) -> dict[str, Any]:
        told = [*command, *server, "--method", method, *words]
        done = subprocess.run(told, capture_output=True, text=True, check=False)
        if not done.stdout:
            raise SystemExit(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)  # noqa: TID251 - the program's own answer
        return found

    def call(leg: str) -> str:
        one = calls[leg]
        words = [f"{name}={value}" for name, value in one["arguments"].items()]
        found = inspector("tools/call", "--tool-name", one["name"], "--tool-arg", *words)
        return "refused" if found.get("isError") else "answered"

    legs = {
        "tools": lambda: "listed" if inspector("tools/list")["tools"] else "none",
        "call": lambda: call("call"),
        "refusal": lambda: call("refusal"),
        "level": lambda: "set" if inspector("logging/setLevel", "--log-level", "warning") == {} else "not set",
    }
    json.dump({leg: go() for leg, go in legs.items()}, sys.stdout)


if __name__ == "__main__":
    main()
