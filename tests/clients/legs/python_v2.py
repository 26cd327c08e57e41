"""Run as a process of its own: the official client 2.x, once through every leg of the protocol.

Arguments: mode, URL, token; the calls on standard input. Prints what came of each leg.
"""

# mypy: disable-error-code="deprecated"
# later revisions have other words for it; this one is spoken

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client

WAIT_S = 240


class Talk:
    """One client, what the server says to it without being asked, and what its user says."""

    def __init__(self, mode: str, calls: dict[str, Any]) -> None:
        self.stateless = mode != "legacy"
        self.calls = calls
        self.asked = 0
        self.reports = 0
        self.told = asyncio.Event()
        self.client: Any = None

    async def confirms(self, _context: Any, _params: Any) -> Any:
        self.asked += 1
        return types.ElicitResult(action="accept", content={"confirmation": "Yes"})

    async def hears(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.told.set()

    async def counts(self, *_: Any) -> None:
        self.reports += 1

    async def call(self, leg: str, **more: Any) -> str:
        one = self.calls[leg]
        result = await self.client.call_tool(one["name"], one["arguments"], **more)
        return "refused" if result.is_error else "answered"

    async def plain(self) -> str:
        return await self.call("call")

    async def refusal(self) -> str:
        return await self.call("refusal")

    async def stream(self) -> str:
        said = await self.call("stream", progress_callback=self.counts)
        return f"{said}, {self.reports} reports"

    async def resume(self) -> str:
        return await self.call("resume", progress_callback=self.counts)

    async def cancel(self) -> str:
        held = asyncio.create_task(self.call("cancel"))
        await asyncio.sleep(self.calls["cancel_after_s"])
        held.cancel()
        with suppress(asyncio.CancelledError):
            await held
        return "sent"

    async def news(self) -> str:
        if not self.stateless:
            await self.call("news")
            await self.told.wait()
            return "told"
        async with self.client.listen(tools_list_changed=True) as listening:
            await self.call("news")
            async for event in listening:
                return "told" if "ToolsListChanged" in type(event).__name__ else type(event).__name__
        return "the stream ended"

    async def ping(self) -> str:
        await self.client.send_ping()
        return "answered"

    async def level(self) -> str:
        await self.client.set_logging_level("warning")
        return "set"

    async def resources(self) -> str:
        await self.call("export")
        (listed,) = (await self.client.list_resources()).resources
        text = (await self.client.read_resource(listed.uri)).contents[0].text
        while "still being generated" in text:
            text = (await self.client.read_resource(listed.uri)).contents[0].text
        return "listed, read" if "EU" in text else "another content"

    async def confirmation(self) -> str:
        said = await self.call("confirmation")
        return f"{said}, asked {self.asked} times"


async def main(mode: str, url: str, token: str, calls: dict[str, Any]) -> dict[str, str]:
    talk = Talk(mode, calls)
    legs = {
        "call": talk.plain,
        "refusal": talk.refusal,
        "stream": talk.stream,
        "resume": talk.resume,
        "cancel": talk.cancel,
        "news": talk.news,
        "ping": talk.ping,
        "level": talk.level,
        "resources": talk.resources,
        "confirmation": talk.confirmation,
    }
    if talk.stateless:
        del legs["resume"]  # this revision has none
    found = {}
    hears: Any = talk.hears
    confirms: Any = talk.confirms
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=WAIT_S) as http,
        Client(
            streamable_http_client(url, http_client=http),
            mode=mode,
            elicitation_callback=confirms,
            message_handler=hears,
        ) as client,
    ):
        talk.client = client
        found["open"] = client.protocol_version
        found["tools"] = "listed" if "find" in [tool.name for tool in (await client.list_tools()).tools] else "none"
        for leg, work in legs.items():
            try:
                found[leg] = await asyncio.wait_for(work(), WAIT_S)
            except Exception as error:  # noqa: BLE001 - whatever the client makes of it is the finding
                found[leg] = f"{type(error).__name__}: {error}"[:200]
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.load(sys.stdin)))))
