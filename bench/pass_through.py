"""The least that stands between a client and a server: a body is read, sent on, and its answer sent back.

    python bench/pass_through.py UPSTREAM_URL

aiohttp on both sides, as the sidecar has it; no token, no parsing, no policy, no evidence. ``bench/calls.py`` puts it
beside the sidecar, to say how many times as much a call costs there. Prints its port.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


async def main(upstream: str) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:

        async def pass_on(request: web.BaseRequest) -> web.Response:
            async with session.post(upstream, data=await request.read(), headers=HEADERS) as answer:
                return web.Response(
                    body=await answer.read(),
                    status=answer.status,
                    headers={"Mcp-Session-Id": "one"},
                    content_type="application/json",
                )

        server = web.Server(pass_on, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        print(listening.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
