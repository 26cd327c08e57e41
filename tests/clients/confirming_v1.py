"""Run by the Python of another environment: the official client 1.x, whose user answers what the server asks.

Arguments: URL, token; calls and their users' answers on standard input. Prints what was asked and what came of it.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client

asked: list[str] = []
answers: list[dict[str, Any]] = []


async def answer(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    asked.append(params.message)
    return types.ElicitResult(**answers.pop(0))


async def main(url: str, token: str, steps: list[Any]) -> list[Any]:
    done = []
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write, read_timeout_seconds=timedelta(seconds=300), elicitation_callback=answer) as session,
    ):
        await session.initialize()
        for call, given in steps:
            answers[:] = [given]
            result = await session.call_tool(call["name"], call["arguments"])
            done.append([result.isError, result.content[0].text])
    return [asked, done]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
