"""Run as a process of its own: one session of the official Python client 2.x over every refusal."""

# mypy: disable-error-code="deprecated"
# later revisions have other words for it; this one is spoken

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(mode: str, url: str, token: str, steps: list[dict[str, Any]]) -> list[Any]:
    done: list[Any] = []
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=300) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        done.append(client.protocol_version)
        done.append(sorted(tool.name for tool in (await client.list_tools()).tools))
        done += [await outcome(client, step) for step in steps]
        if client.protocol_version != "2026-07-28":  # which has no notifications of clients
            await client.session.send_roots_list_changed()
        await client.session.send_progress_notification("nobody-asked", 0.5)
        done.append(await outcome(client, steps[0]))
    return done


async def outcome(client: Client, step: dict[str, Any]) -> str:
    await asyncio.sleep(step.get("after_s", 0))
    try:
        result = await client.call_tool(step["name"], step["arguments"])
    except Exception as error:  # noqa: BLE001 - whatever the client makes of it is the finding
        return f"raised {type(error).__name__}: {error}"[:200]
    return "refused" if result.is_error else "answered"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.load(sys.stdin)))))
