"""Run as a process of its own: the official Python client 2.x, whose user answers what the server asks."""

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client

asked: list[str] = []
answers: list[dict[str, Any]] = []


async def answer(_context: Any, params: Any) -> Any:
    asked.append(params.message)
    return types.ElicitResult(**answers.pop(0))


async def main(url: str, token: str, steps: list[Any], mode: str) -> list[Any]:
    done: list[Any] = []
    callback: Any = answer
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=300) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, elicitation_callback=callback) as client,
    ):
        for call, given in steps:
            answers[:] = [given]
            result: Any = await client.call_tool(call["name"], call["arguments"])
            done.append([result.is_error, result.content[0].text])
    return [asked, done]


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin), (*sys.argv[3:], "legacy")[0])))
    )
