"""What a server says of a call that is under way, before its answer: read strictly, and only what MCP defines.

Nothing here says whose call it is; a transport knows that from the token it sent (progress) or from the stream on which
the message came (log messages over HTTP). What it cannot attribute for certain goes to nobody.
"""

from math import isfinite
from typing import Final, Literal

import msgspec

from sidecar.model import JsonObject, JsonValue

MAX_RELAYED_BYTES: Final = 16 * 1024
"""Parameters of one progress or log notification. Longer ones are dropped."""

PROGRESS: Final = "notifications/progress"
LOG: Final = "notifications/message"
CONFIRMING: Final = "elicitation/create"
"""How the MongoDB MCP server asks for a confirmation; a child asks nothing else that is taken to anybody."""


class _FormRequest(msgspec.Struct, gc=False):
    message: str
    requestedSchema: dict[str, msgspec.Raw]  # noqa: N815 -- the wire's name
    mode: Literal["form"] = "form"


class _Progress(msgspec.Struct, gc=False, rename="camel"):
    progress_token: int | str
    progress: int | float
    total: int | float | None = None
    message: str | None = None


class _LogMessage(msgspec.Struct, gc=False):
    level: Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
    data: msgspec.Raw
    logger: str | None = None


_decode_question = msgspec.json.Decoder(_FormRequest).decode
_decode_progress = msgspec.json.Decoder(_Progress).decode
_decode_log = msgspec.json.Decoder(_LogMessage).decode


def with_progress(params: JsonObject, token: int) -> JsonObject:
    """Return the parameters of a request that asks for progress under this token (MCP 2025-11-25, progress)."""
    meta = params.get("_meta")
    return {**params, "_meta": {**(meta if isinstance(meta, dict) else {}), "progressToken": token}}


def read_progress(params: bytes) -> tuple[int | str, JsonObject] | None:
    """Return the token and what is reported under it; None where it is no progress notification."""
    if len(params) > MAX_RELAYED_BYTES:
        return None
    try:
        told = _decode_progress(params)
        numbers = [told.progress] if told.total is None else [told.progress, told.total]
        finite = all(map(isfinite, numbers))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):  # no float holds 400 digits
        return None
    if not finite:
        return None
    report: JsonObject = {"progress": told.progress}
    if told.total is not None:
        report["total"] = told.total
    if told.message is not None:
        report["message"] = told.message
    return told.progress_token, report


def of_call(method: str, params: bytes, token: int) -> JsonObject | None:
    """Return what came on the stream of one call and is about it; None where it is about no call, or another one."""
    if method == PROGRESS:
        report = read_progress(params)
        return report[1] if report is not None and report[0] == token else None
    return read_log(params) if method == LOG else None


def read_question(params: bytes) -> JsonObject | None:
    """Return what the server asks the user in a form; None where it is something else (MCP 2025-11-25, elicitation).

    Questions that send the user to an address are not taken to anybody.
    """
    if len(params) > MAX_RELAYED_BYTES:
        return None
    try:
        asked = _decode_question(params)
        schema: JsonObject = {key: msgspec.json.decode(value) for key, value in asked.requestedSchema.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return {"message": asked.message, "requestedSchema": schema}


def read_log(params: bytes) -> JsonObject | None:
    """Return what a log message says; None where it is none."""
    if len(params) > MAX_RELAYED_BYTES:
        return None
    try:
        told = _decode_log(params)
        data: JsonValue = msgspec.json.decode(told.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    entry: JsonObject = {"level": told.level, "data": data}
    if told.logger is not None:
        entry["logger"] = told.logger
    return entry
