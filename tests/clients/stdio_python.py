"""Run by the Python of any environment: one session of the official client over standard input and output.

Arguments: the command to launch. The environment to launch it with and the steps are JSON on standard input. Prints
what came of each step as JSON.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(command: list[str], told: dict[str, Any]) -> list[Any]:
    done: list[Any] = []
    launched = StdioServerParameters(command=command[0], args=command[1:], env=told["environment"], cwd=told["cwd"])
    async with stdio_client(launched) as (read, write), ClientSession(read, write) as session:
        opened = await session.initialize()
        done.append(getattr(opened, "protocolVersion", None) or opened.protocol_version)
        done.append(sorted(tool.name for tool in (await session.list_tools()).tools))
        done += [await outcome(session, step) for step in told["steps"]]
    return done


async def outcome(session: ClientSession, step: dict[str, Any]) -> str:
    try:
        result = await session.call_tool(step["name"], step["arguments"])
    except Exception as error:  # noqa: BLE001 - whatever the client makes of it is the finding
        return f"raised {type(error).__name__}: {error}"[:200]
    failed = result.isError if hasattr(result, "isError") else result.is_error
    return "refused" if failed else "answered"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1:], json.load(sys.stdin)))))
