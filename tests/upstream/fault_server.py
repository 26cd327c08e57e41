"""A stdio MCP server that misbehaves on request: a double of the foreign server, only to stage its faults.

The name of the called tool is the fault. Options on the command line are faults of its start and end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

options = set(sys.argv[1:])
listens: list[int] = []
received: list[str] = []
held: list[int] = []
PROMPTS = [{"name": "summary", "description": "as reviewed"}]
PLAIN = {
    "ping": {},
    "prompts/list": {"prompts": PROMPTS},
    "prompts/get": {"messages": []},
    "resources/read": {"contents": [], "pid": os.getpid()},
}
tools = [{"name": "echo", "inputSchema": {"type": "object"}}]


def option(name: str) -> str:
    """The value of an option that is written as ``NAME=VALUE``, or nothing."""
    return next((one.partition("=")[2] for one in options if one.startswith(f"{name}=")), "")


def write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def send(message: object) -> None:
    write(json.dumps(message, separators=(",", ":")))


def answer(number: object, **structured: object) -> None:
    send({"result": {"content": [], "structuredContent": structured}, "jsonrpc": "2.0", "id": number})


def read() -> dict:
    line = sys.stdin.readline()
    if not line:
        while "--stubborn" in options:
            time.sleep(60)
        sys.exit(0)
    received.append(line.rstrip("\n"))
    message: dict = json.loads(line)  # noqa: TID251 -- a process of its own, outside the package
    return message


def ask_everything(number: int) -> None:
    """Ask the client all that a server may ask, and report what it said."""
    methods = ["ping", "elicitation/create", "sampling/createMessage", "roots/list", "tools/call"]
    for index, method in enumerate(methods):
        send({"jsonrpc": "2.0", "id": f"q{index}", "method": method, "params": {}})
    answer(number, replies=[read() for _ in methods])


def call(number: int, name: str, arguments: dict) -> None:  # noqa: PLR0912 -- one table of faults
    match name:
        case "echo":
            answer(number, arguments=arguments)
        case "slow":
            time.sleep(arguments["seconds"])
            answer(number, pid=os.getpid())
        case "link":
            uri = f"exported-data://{os.getpid():024x}.json"
            link = {"type": "resource_link", "name": "n", "uri": uri}
            send({"jsonrpc": "2.0", "id": number, "result": {"content": [link], "structuredContent": {"uri": uri}}})
        case "until":
            while not Path(arguments["file"]).exists():
                time.sleep(0.01)
            answer(number, pid=os.getpid())
        case "hold":
            held.append(number)
        case "release":
            for other in reversed(held):
                answer(other, held=other)
            held.clear()
            answer(number)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "answer-and-die":
            answer(number)
            os.kill(os.getpid(), signal.SIGKILL)
        case "close-stdout":
            os.close(1)
            time.sleep(60)
        case "garbage":
            write("(node:1) Warning: something \ufffd is deprecated")
            write("")
            write("[1,2")
            send([{"jsonrpc": "2.0", "id": number, "result": {"content": [], "structuredContent": {"stolen": True}}}])
            answer(number, honest=True)
        case "bytes":
            sys.stdout.buffer.write(arguments["hex"] and bytes.fromhex(arguments["hex"]))
            sys.stdout.buffer.flush()
            answer(number, honest=True)
        case "raw":
            write(arguments["line"].replace("ID", str(number)))
        case "raw-then-answer":
            write(arguments["line"].replace("ID", str(number)))
            answer(number)
        case "ask":
            for line in arguments["lines"]:
                write(line)
            answer(number, replies=[read() for _ in arguments["lines"]])
        case "ask-anew":
            asked = {"message": f"question {number}", "requestedSchema": {}}
            send({"jsonrpc": "2.0", "id": f"q{number}", "method": "elicitation/create", "params": asked})
            answer(number, reply=read())
        case "oversize":
            size = 65 * 1024 * 1024
            send({"result": {"content": [{"type": "text", "text": "x" * size}]}, "jsonrpc": "2.0", "id": number})
        case "duplicate":
            answer(number, first=True)
            answer(number, first=False)
        case "unknown-id":
            answer(10**6, honest=False)
            answer(-1, honest=False)
            answer("1", honest=False)
            answer(None, honest=False)
            answer(number, honest=True)
        case "other-id":
            answer(number + 1000)
        case "asks":
            ask_everything(number)
        case "ask-forever":
            for index in range(10**7):
                send({"jsonrpc": "2.0", "id": index, "method": "x" * 200})
        case "say":
            sys.stderr.write(arguments["text"] + "\n")
            sys.stderr.flush()
            answer(number)
        case "flood":
            for _ in range(arguments["lines"]):
                sys.stderr.write("s" * 1023 + "\n")
            sys.stderr.write("one endless line" * 10_000)
            sys.stderr.flush()
            answer(number)
        case "change-tools":
            tools.append({"name": f"tool-{len(tools)}", "inputSchema": {"type": "object"}})
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            answer(number)
        case "grow":
            tools.append({"name": f"tool-{len(tools)}", "inputSchema": {"type": "object"}})
            named = {"io.modelcontextprotocol/subscriptionId": arguments.get("subscription", listens[0])}
            params = {"_meta": named} if arguments.get("named", True) else {}
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params})
            answer(number)
        case "end-listening":
            send({"jsonrpc": "2.0", "id": listens[0], "result": {"resultType": "complete"}})
            answer(number)
        case "environment":
            mask = os.umask(0)
            environ = dict(os.environ)  # noqa: TID251 -- what it was given is the question
            answer(number, environ=environ, cwd=str(Path.cwd()), umask=mask, group=os.getpgid(0))
        case "received":
            answer(number, lines=received)
        case "deaf":
            time.sleep(3600)
        case "grandchild":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], stdin=subprocess.DEVNULL)
            answer(number, pid=child.pid)
        case _:
            send({"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": f"Tool {name} not found"}})


def initialize(number: int) -> None:
    if "--silent" in options:
        return
    if refused := option("--no-handshake"):
        send({"jsonrpc": "2.0", "id": number, "error": {"code": int(refused), "message": "no handshake"}})
        return
    revision = "2024-11-05" if "--old" in options else "2025-11-25"
    capabilities: dict = {} if "--no-tools" in options else {"tools": {}}
    result = {"protocolVersion": revision, "capabilities": capabilities, "serverInfo": {"name": "f", "version": "0"}}
    send({"jsonrpc": "2.0", "id": number, "result": result})


def discover(number: int) -> None:
    """Speak MCP 2026-07-28, in a way of its own where an option says so."""
    if supported := option("--revisions"):
        data = {"supported": supported.split(","), "requested": "2026-07-28"}
        send({"jsonrpc": "2.0", "id": number, "error": {"code": -32022, "message": "another one", "data": data}})
    elif refused := option("--no-discovery"):
        send({"jsonrpc": "2.0", "id": number, "error": {"code": int(refused), "message": "no discovery"}})
    elif "--stateless" in options:
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
        send({"jsonrpc": "2.0", "id": number, "result": result})


def list_tools(number: int, cursor: str | None) -> None:
    """One tool a page."""
    index = int(cursor or 0)
    result: dict = {"tools": tools[index : index + 1]}
    if index + 1 < len(tools) or "--endless-pages" in options:
        result["nextCursor"] = str(index + 1)
    send({"jsonrpc": "2.0", "id": number, "result": result})


def main() -> None:
    if "--exit" in options:
        sys.exit(3)
    if "--stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        message = read()
        params = message.get("params", {})
        match message.get("method"):
            case "initialize":
                initialize(message["id"])
            case "server/discover":
                discover(message["id"])
            case "subscriptions/listen":
                listens.append(message["id"])
            case method if method in PLAIN:
                send({"jsonrpc": "2.0", "id": message["id"], "result": PLAIN[method]})
            case "tools/list":
                list_tools(message["id"], params.get("cursor"))
            case "tools/call":
                call(message["id"], params["name"], params["arguments"])
            case _:
                pass


main()
