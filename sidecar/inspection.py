"""What a tool call would touch, for people and scripts."""

import json
from collections.abc import Iterable
from typing import TextIO

from sidecar.commands import derive
from sidecar.errors import CallRefused, MessageError, UnknownTool
from sidecar.mcp import jsonrpc, tools
from sidecar.model import JsonObject
from sidecar.policy import command_document
from sidecar.printing import escaped

_BEFORE, _AFTER = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":', b"}"
"""The text is read inside a message, so that it passes the very decoder that serves."""


def inspect(text: bytes) -> JsonObject:
    """Return the derived command of ``tools/call`` params, or ``{"refused": {"code", "message", "path"}}``."""
    try:
        message = jsonrpc.decode(_BEFORE + text.strip() + _AFTER)
        if not isinstance(message, jsonrpc.Request):
            return _refused("invalid_request", "Not the params of one tools/call.", "")
        call = tools.parse_call(message.params)
        return command_document(derive(call).command)
    except CallRefused as error:
        return _refused(error.reason, error.message, error.path)
    except UnknownTool as error:
        return _refused(error.label, error.public, "/name")
    except MessageError as error:
        return _refused(error.label, error.public, "")


def inspect_lines(lines: Iterable[bytes], out: TextIO) -> bool:
    """Answer each line with one line; return whether no call was refused. Empty lines are passed over."""
    ok = True
    for line in lines:
        if line.strip():
            found = inspect(line)
            ok = ok and "refused" not in found
            out.write(escaped(json.dumps(found, ensure_ascii=False)) + "\n")
    return ok


def _refused(code: str, message: str, path: str) -> JsonObject:
    return {"refused": {"code": code, "message": message, "path": path}}
