"""Work on a large message, which goes on beside the event loop.

To read, derive and digest 900 kB takes 15 ms where every part is compiled, and four times that where a number or an
escape needs a closer look (measured). In a thread it hands over to the loop between two compiled parts, and after 5 ms
of any other (``sys.getswitchinterval``), so that other callers are answered meanwhile. All of it is pure, and takes as
long as the message is. A message that is not large is worked on where it is, for nothing.
"""

import asyncio
from typing import Final

from sidecar.commands import GenericTools, derive
from sidecar.enforcement.bounds import Bounds
from sidecar.enforcement.turn import Turn
from sidecar.mcp import Batch, ClientMessage, jsonrpc
from sidecar.model import ToolCall
from sidecar.sites import Derivation

LARGE_BYTES: Final = 65_536
"""A smaller message takes the loop less than three milliseconds."""


async def decoded(body: bytes, bounds: Bounds) -> ClientMessage | Batch:
    """Return what a body is; raises as ``jsonrpc.decode``."""
    if len(body) < LARGE_BYTES:
        return jsonrpc.decode(body, depth=bounds.nesting, members=bounds.batch_members)
    return await asyncio.to_thread(jsonrpc.decode, body, depth=bounds.nesting, members=bounds.batch_members)


async def derived(call: ToolCall, tools: GenericTools, turn: Turn) -> Derivation:
    """Return what a call would touch, and have its arguments digested with it; raises as ``derive``."""
    if turn.channel is None or not turn.channel.takes_turns:
        return derive(call, tools)
    return await asyncio.to_thread(_derived, call, tools, turn)


def _derived(call: ToolCall, tools: GenericTools, turn: Turn) -> Derivation:
    found = derive(call, tools)
    _ = turn.arguments_sha256  # is kept, for the records
    return found
