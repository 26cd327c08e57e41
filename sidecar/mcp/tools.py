"""The parameters and results of ``initialize``, ``tools/list`` and ``tools/call``.

Parameters are read strictly: a key that MCP does not define is refused, because a key that is ignored here might not be
ignored by a later reader. Results are built here and in ``sidecar.mcp.denials``.

What does not live here: the tools themselves and their arguments (``sidecar.commands``).
"""

import re
from collections.abc import Sequence
from typing import Final

from sidecar.errors import InvalidParams
from sidecar.mcp.jsonrpc import MAX_ID_CHARACTERS, RequestId, encode
from sidecar.mcp.revision import McpRevision
from sidecar.model import JsonObject, JsonValue, ToolCall

SERVER_NAME: Final = "mcp-sidecar"

MAX_TOOL_NAME_CHARACTERS: Final = 128
"""Length of a tool's name (MCP 2025-11-25, tools, tool names: 1 to 128)."""

MAX_CLIENT_CHARACTERS: Final = 128
"""Length of a client's self-reported name, and of its version."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Severities of log messages (RFC 5424; MCP 2025-11-25, logging), the least severe first."""

_CALL_KEYS: Final = frozenset({"name", "arguments", "_meta"})

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context level 1, section 3.2: version ff and all-zero ids are invalid."""


def parse_call(params: JsonObject) -> ToolCall:
    """Return the call. What is in ``_meta`` is dropped: the call that is forwarded is the call that was decided.

    Raises:
        InvalidParams: not of the form; ``task`` (2025-11-25, experimental), ``inputResponses`` and ``requestState``
            (2026-07-28; ``input_required`` takes them out first) count as unknown, for each is another way to a result.
    """
    if not _CALL_KEYS.issuperset(params):
        raise InvalidParams("an unknown key beside name and arguments")
    name = params.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TOOL_NAME_CHARACTERS:
        raise InvalidParams("name is not a tool's name")
    arguments = params.get("arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise InvalidParams("arguments is not an object")
    _check_meta(params)
    return ToolCall(name=name, arguments=arguments)


def check_list_params(params: JsonObject) -> None:
    """Return if these are parameters of ``tools/list``, or of the list of resources, their templates or prompts.

    Raises:
        InvalidParams: not of the form, or a cursor: the sidecar never issues one (MCP 2025-11-25, pagination: an
            invalid cursor is -32602). Some clients send null where they have none.
    """
    if not params.keys() <= {"_meta", "cursor"} or params.get("cursor") is not None:
        raise InvalidParams("a cursor that was never issued, or an unknown key")
    _check_meta(params)


def parse_initialize(params: JsonObject) -> tuple[JsonValue, str]:
    """Return the requested revision, unchecked, and the client's self-reported name.

    Its version, which MCP requires, is checked and goes nowhere. Other keys are not looked at and go nowhere: the
    sidecar's own handshake with the server is separate.

    Raises:
        InvalidParams: ``clientInfo`` or ``capabilities`` is missing or not of the form.
    """
    client = params.get("clientInfo")
    if not isinstance(client, dict) or not isinstance(params.get("capabilities"), dict):
        raise InvalidParams("clientInfo and capabilities are objects")
    label(client.get("version"))
    return params.get("protocolVersion"), label(client.get("name"))


def label(value: JsonValue) -> str:
    """Return a self-reported name as people read it: one line of printable characters, empty where there is none."""
    if not isinstance(value, str):
        return ""
    shown = "".join(char if char.isprintable() else " " for char in value[: 4 * MAX_CLIENT_CHARACTERS])
    return " ".join(shown.split())[:MAX_CLIENT_CHARACTERS].rstrip()


def traceparent(params: JsonObject) -> str | None:
    """Return the remote parent of the trace, if a well-formed one is in ``params._meta`` (SEP-414).

    Never raises: a malformed one counts as none (W3C Trace Context, section 4.3), and the parameters of a message that
    will be refused have a trace too.
    """
    meta = params.get("_meta")
    value = meta.get("traceparent") if isinstance(meta, dict) else None
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def progress_token(params: JsonObject) -> RequestId | None:
    """Return the token under which the client wants progress (MCP 2025-11-25, progress: a string or an integer).

    One of another form counts as none, and the call goes on without: it is a wish, not a part of what is decided.
    """
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    if isinstance(token, bool) or not isinstance(token, int | str):
        return None
    return token if isinstance(token, int) or len(token) <= MAX_ID_CHARACTERS else None


def parse_level(params: JsonObject) -> str:
    """Return the level of ``logging/setLevel``.

    Raises:
        InvalidParams: not of the form, or no level of RFC 5424 (MCP 2025-11-25, logging, error handling).
    """
    level = params.get("level")
    if not params.keys() <= {"_meta", "level"} or not isinstance(level, str) or level not in LOG_LEVELS:
        raise InvalidParams("level is not a level of RFC 5424")
    _check_meta(params)
    return level


def _check_meta(params: JsonObject) -> None:
    if not isinstance(params.get("_meta"), dict | None):
        raise InvalidParams("_meta is not an object")


def server_info(server_version: str) -> JsonObject:
    """Return how the sidecar calls itself."""
    return {"name": SERVER_NAME, "version": server_version}


def capabilities(further: JsonObject | None = None) -> JsonObject:
    """Return what is offered, in every era: tools, what a server logs of a call, and ``further``."""
    return {"tools": {"listChanged": True}, "logging": {}, **(further or {})}


def initialize_result(
    revision: McpRevision, server_version: str, instructions: str | None, further: JsonObject | None = None
) -> JsonObject:
    """Return the result of ``initialize``."""
    result: JsonObject = {
        "protocolVersion": revision.value,
        "capabilities": capabilities(further),
        "serverInfo": server_info(server_version),
    }
    if instructions:
        result["instructions"] = instructions
    return result


def tools_list_result(tools: Sequence[JsonObject]) -> bytes:
    """Return the JSON text of a ``tools/list`` result: all of ``tools``, in their order, on one page."""
    return encode({"tools": list(tools)})
