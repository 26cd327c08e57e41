"""An MCP server that answers at once, so that what is measured is the gateway: ``bench/calls.py`` puts it behind one.

    python bench/zero_upstream.py TOOLS_JSON

TOOLS_JSON is the result of ``tools/list`` of the real server, since the sidecar refuses tools that were not reviewed.
Prints its port. It speaks just enough HTTP/1.1 and MCP 2025-11-25 for one client that is known.
"""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import uvloop
from typing_extensions import override

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_ID = re.compile(rb'"id":([0-9]+)')
_INITIALIZED = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"zero","version":"0"}}'
)
_RESULT = b'{"content":[{"type":"text","text":"Found 3 documents"}],"structuredContent":{"count":3}}'


class _Connection(asyncio.Protocol):
    tools = b"{}"

    def __init__(self) -> None:
        self._pending = bytearray()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._pending, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._pending) < whole:
                return
            body = bytes(self._pending[end + 4 : whole])
            del self._pending[:whole]
            self._transport.write(self._answer(body))

    def _answer(self, body: bytes) -> bytes:
        head, tail = body[:200], body[-200:]
        found = _ID.search(head) or _ID.search(tail)
        if found is None:
            return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        result = _RESULT
        if b'"initialize"' in head:
            result = _INITIALIZED
        elif b'"tools/list"' in head:
            result = self.tools
        text = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (found[1], result)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    _Connection.tools = Path(sys.argv[1]).read_bytes()
    uvloop.run(main())
