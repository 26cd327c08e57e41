"""Results as clients of 2026-07-28 read them: ``resultType``, who answers, and how long an answer may be kept."""

from typing import Final

import msgspec

from sidecar.errors import UpstreamProtocolViolation
from sidecar.mcp.jsonrpc import encode
from sidecar.mcp.revision import SUPPORTED
from sidecar.mcp.tools import capabilities, server_info
from sidecar.model import JsonObject

SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"

DISCOVERED_TTL_MS: Final = 300_000
"""How long a client may keep what ``server/discover`` says; it changes with an upgrade only."""

LISTED_TTL_MS: Final = 5_000
"""How long a client may keep its list of tools. Policy may change it at any time; each call is decided by itself."""

COMPLETE: Final = "complete"

_FOREIGN: Final = frozenset({"inputRequests", "requestState", "task", "ttlMs", "cacheScope"})
"""Members of results that mean something in this revision, and that no result of an earlier one has."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode_raw = msgspec.json.Encoder().encode


def discovered(server_version: str, instructions: str, further: JsonObject | None = None) -> bytes:
    """Return the JSON text of the result of ``server/discover``; ``further`` capabilities are offered too."""
    return encode(
        {
            "supportedVersions": [*SUPPORTED],
            "capabilities": capabilities(further),
            "instructions": instructions,
            **_kept(DISCOVERED_TTL_MS),
            **_complete(server_version),
        }
    )


def listed(result: bytes, server_version: str) -> bytes:
    """Return a list of the sidecar's own, which is this caller's and nobody else's, as this revision has it."""
    extra = encode({**_kept(LISTED_TTL_MS), **_complete(server_version)})
    return b"%b,%b" % (result[:-1], extra[1:])


def ending(server_version: str, meta: JsonObject) -> JsonObject:
    """Return the result of a request that only had to last: there is nothing in it but who answers."""
    return {"resultType": COMPLETE, "_meta": {SERVER_KEY: server_info(server_version), **meta}}


def completed(result: bytes, server_version: str, *, kept: bool = False) -> bytes:
    """Return the result of a call as this revision has it.

    What stands in a server's result where this revision has a meaning for it is not passed on: a server that answered
    in an earlier revision did not mean it, and it would make the client ask the user, or call again, in the name of the
    sidecar.

    Args:
        result: the server's.
        server_version: the sidecar's.
        kept: say for how long it may be kept: not at all, for each read is decided by itself.

    Raises:
        UpstreamProtocolViolation: it is no JSON object, or says that it is no complete result.
    """
    try:
        members = _decode_members(result)
        meta = _decode_members(members["_meta"]) if "_meta" in members else {}
        kind = msgspec.json.decode(members.get("resultType", b'"complete"'))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the result is not a JSON object") from error
    if kind != COMPLETE:
        raise UpstreamProtocolViolation("the result is not a complete one")
    passed = {name: value for name, value in members.items() if name not in _FOREIGN}
    own = {SERVER_KEY: msgspec.Raw(encode(server_info(server_version)))}
    hints = _kept(0) if kept else {}
    return _encode_raw({**passed, **hints, "resultType": COMPLETE, "_meta": {**meta, **own}})


def _complete(server_version: str) -> JsonObject:
    return {"resultType": COMPLETE, "_meta": {SERVER_KEY: server_info(server_version)}}


def _kept(ttl_ms: int) -> JsonObject:
    return {"ttlMs": ttl_ms, "cacheScope": "private"}
