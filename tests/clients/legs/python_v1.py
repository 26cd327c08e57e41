"""Run by the Python of another environment: the official client 1.x, once through every leg of the protocol.

Arguments: URL and token, or ``--`` and a command to launch; the calls on standard input. Prints what came of each leg.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

WAIT_S = 240


class Client:
    """What the server says without being asked, and what its user says."""

    def __init__(self) -> None:
        self.asked = 0
        self.progress = 0
        self.told = asyncio.Event()

    async def confirms(self, _context: Any, _params: Any) -> types.ElicitResult:
        self.asked += 1
        return types.ElicitResult(action="accept", content={"confirmation": "Yes"})

    async def hears(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification) and isinstance(
            message.root, types.ToolListChangedNotification
        ):
            self.told.set()

    async def counts(self, *_: Any) -> None:
        self.progress += 1


@asynccontextmanager
async def connected(arguments: list[str]) -> Any:
    if arguments[0] == "--":
        launched = StdioServerParameters(command=arguments[1], args=arguments[2:])
        async with stdio_client(launched) as (read, write):
            yield read, write
    else:
        headers = {"Authorization": f"Bearer {arguments[1]}"}
        async with streamablehttp_client(arguments[0], headers=headers) as (read, write, _):
            yield read, write


async def main(arguments: list[str], calls: dict[str, Any]) -> dict[str, str]:
    client, found = Client(), {}
    async with (
        connected(arguments) as (read, write),
        ClientSession(
            read,
            write,
            read_timeout_seconds=timedelta(seconds=WAIT_S),
            elicitation_callback=client.confirms,
            message_handler=client.hears,
        ) as session,
    ):
        found["open"] = (await session.initialize()).protocolVersion
        found["tools"] = "listed" if "find" in [tool.name for tool in (await session.list_tools()).tools] else "none"
        for leg, work in LEGS.items():
            try:
                found[leg] = await asyncio.wait_for(work(session, client, calls), WAIT_S)
            except Exception as error:  # noqa: BLE001 - whatever the client makes of it is the finding
                found[leg] = f"{type(error).__name__}: {error}"[:200]
    return found


async def call(session: ClientSession, one: dict[str, Any], **more: Any) -> str:
    result = await session.call_tool(one["name"], one["arguments"], **more)
    return "refused" if result.isError else "answered"


async def plain(session: ClientSession, _client: Client, calls: dict[str, Any]) -> str:
    return await call(session, calls["call"])


async def refusal(session: ClientSession, _client: Client, calls: dict[str, Any]) -> str:
    return await call(session, calls["refusal"])


async def stream(session: ClientSession, client: Client, calls: dict[str, Any]) -> str:
    said = await call(session, calls["stream"], progress_callback=client.counts)
    return f"{said}, {client.progress} reports"


async def resume(session: ClientSession, client: Client, calls: dict[str, Any]) -> str:
    return await call(session, calls["resume"], progress_callback=client.counts)


async def cancel(session: ClientSession, _client: Client, calls: dict[str, Any]) -> str:
    number = session._request_id
    held = asyncio.create_task(call(session, calls["cancel"]))
    await asyncio.sleep(calls["cancel_after_s"])
    params = types.CancelledNotificationParams(requestId=number, reason="no longer wanted")
    note = types.CancelledNotification(method="notifications/cancelled", params=params)
    await session.send_notification(types.ClientNotification(note))
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    return "sent"


async def news(session: ClientSession, client: Client, calls: dict[str, Any]) -> str:
    await call(session, calls["news"])
    await client.told.wait()
    return "told"


async def ping(session: ClientSession, _client: Client, _calls: dict[str, Any]) -> str:
    await session.send_ping()
    return "answered"


async def level(session: ClientSession, _client: Client, _calls: dict[str, Any]) -> str:
    await session.set_logging_level("warning")
    return "set"


async def resources(session: ClientSession, _client: Client, calls: dict[str, Any]) -> str:
    await call(session, calls["export"])
    (listed,) = (await session.list_resources()).resources
    text = (await session.read_resource(listed.uri)).contents[0].text
    while "still being generated" in text:
        text = (await session.read_resource(listed.uri)).contents[0].text
    return "listed, read" if "EU" in text else "another content"


async def confirmation(session: ClientSession, client: Client, calls: dict[str, Any]) -> str:
    said = await call(session, calls["confirmation"])
    return f"{said}, asked {client.asked} times"


LEGS = {
    "call": plain,
    "refusal": refusal,
    "stream": stream,
    "resume": resume,
    "cancel": cancel,
    "news": news,
    "ping": ping,
    "level": level,
    "resources": resources,
    "confirmation": confirmation,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1:], json.load(sys.stdin)))))
