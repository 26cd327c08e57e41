"""Run by the Python of another environment: the adapters for LangChain, once through the legs that they have.

Arguments: URL, token; the calls on standard input. Prints what came of each leg.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import sys
from typing import Any

from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.resources import load_mcp_resources
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp import types

WAIT_S = 240
reports: list[Any] = []
asked: list[str] = []


async def count(*said: Any) -> None:
    reports.append(said)


async def confirm(_mcp_context: Any, params: Any, _context: Any) -> types.ElicitResult:
    asked.append(params.message)
    return types.ElicitResult(action="accept", content={"confirmation": "Yes"})


async def main(url: str, token: str, calls: dict[str, Any]) -> dict[str, str]:
    connection = {"transport": "streamable_http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}
    callbacks = Callbacks(on_progress=count, on_elicitation=confirm)
    client = MultiServerMCPClient({"mongodb": connection}, callbacks=callbacks)
    found = {}
    async with client.session("mongodb") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session, callbacks=callbacks, server_name="mongodb")}
        found["tools"] = "listed" if "find" in tools else "none"

        async def call(leg: str) -> str:
            one = calls[leg]
            answer = await tools[one["name"]].ainvoke(
                {"type": "tool_call", "id": leg, "name": one["name"], "args": one["arguments"]}
            )
            return "refused" if answer.status == "error" else "answered"

        async def stream() -> str:
            return f"{await call('stream')}, {len(reports)} reports"

        async def resources() -> str:
            await call("export")
            (blob,) = await load_mcp_resources(session)
            while "still being generated" in blob.as_string():
                (blob,) = await load_mcp_resources(session)
            return "listed, read" if "EU" in blob.as_string() else "another content"

        async def confirmation() -> str:
            return f"{await call('confirmation')}, asked {len(asked)} times"

        legs = {
            "call": lambda: call("call"),
            "refusal": lambda: call("refusal"),
            "stream": stream,
            "resources": resources,
            "confirmation": confirmation,
        }
        for leg, work in legs.items():
            try:
                found[leg] = await asyncio.wait_for(work(), WAIT_S)
            except Exception as error:  # noqa: BLE001 - whatever the adapters make of it is the finding
                found[leg] = f"{type(error).__name__}: {error}"[:200]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
