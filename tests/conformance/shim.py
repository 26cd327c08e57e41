"""Adds an access token to each request on its way to the sidecar: the suite has no option for one.

Everything else goes through as it comes, ``Host`` and ``Origin`` included, and answers are passed on as they arrive.
"""

from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"})
"""Headers of one connection (RFC 9110 section 7.6.1)."""


@asynccontextmanager
async def shim(target: str, token: str, address: tuple[str, int]):
    """Serve at the address while the context lasts; yields the URL."""
    async with aiohttp.ClientSession(
        auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
    ) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP]
            headers.append(("Authorization", f"Bearer {token}"))
            async with session.request(request.method, target, headers=headers, data=await request.read()) as answer:
                passed = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP]
                response = web.StreamResponse(status=answer.status)
                for name, value in passed:
                    response.headers.add(name, value)
                with suppress(aiohttp.ClientConnectionResetError):  # the suite has gone
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                    await response.write_eof()
                return response

        application = web.Application(client_max_size=16 * 1024 * 1024)
        application.router.add_route("*", "/mcp", forward)
        runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, *address).start()
            yield f"http://{address[0]}:{address[1]}/mcp"
        finally:
            await runner.cleanup()
