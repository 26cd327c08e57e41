"""Run by the Python of another environment: one session of the official client 1.x over every refusal.

Arguments: URL, token; the steps on standard input. Prints what came of each step as JSON.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

WAIT = timedelta(seconds=300)


async def main(url: str, token: str, steps: list[dict[str, Any]]) -> list[Any]:
    done: list[Any] = []
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write, read_timeout_seconds=WAIT) as session,
    ):
        opened = await session.initialize()
        done.append(opened.protocolVersion)
        done.append(sorted(tool.name for tool in (await session.list_tools()).tools))
        done += [await outcome(session, step) for step in steps]
        await session.send_roots_list_changed()
        await session.send_progress_notification("nobody-asked", 0.5)
        done.append(await outcome(session, steps[0]))
    return done


async def outcome(session: ClientSession, step: dict[str, Any]) -> str:
    await asyncio.sleep(step.get("after_s", 0))
    try:
        result = await session.call_tool(step["name"], step["arguments"])
    except Exception as error:  # noqa: BLE001 - whatever the client makes of it is the finding
        return f"raised {type(error).__name__}: {error}"[:200]
    return "refused" if result.isError else "answered"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
