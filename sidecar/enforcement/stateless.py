"""The revision without a handshake: every request says all that is to be known of it, and nothing outlives it."""

from dataclasses import replace

from sidecar.enforcement.turn import Caller, Exchange
from sidecar.mcp import (
    Conversation,
    Era,
    McpRevision,
    MirroredHeaders,
    Request,
    claimed_revision,
    mirrored,
    read_request_meta,
    stateless_results,
)
from sidecar.model import UpstreamResult


def conversation(message: Request, exchange: Exchange, caller: Caller) -> Conversation:
    """Return the conversation that one request is.

    The order is that of the official SDK, so that a client which contradicts itself is told so before it is told that
    the revision or the method is unknown.

    Raises:
        InvalidParams: the envelope lacks a field.
        HeaderMismatch: a header says something else than the body, or is missing.
        UnsupportedMcpRevision: the revision is not spoken here.
    """
    claimed = claimed_revision(message.params)
    if exchange.over_http:
        mirrored.check_revision(exchange.protocol, claimed)
        mirrored.check_request(exchange.mirrored or MirroredHeaders(), message.method, message.params)
    meta = read_request_meta(message.params)
    return Conversation(
        era=Era.STATELESS,
        revision=meta.revision,
        client_name=meta.client_name,
        key=caller.identity.key,
        log_level=meta.log_level,
        answers=meta.answers,
    )


def unread(exchange: Exchange, caller: Caller) -> Conversation:
    """Return the conversation of a body that could not be read; the header alone tells the revision."""
    told = McpRevision(exchange.protocol or "")
    return Conversation(era=Era.STATELESS, revision=told, client_name="", key=caller.identity.key)


def shaped(answer: UpstreamResult, era: Era, method: str, server_version: str) -> UpstreamResult:
    """Return a result as the client's revision has it; the server may have answered in another one.

    Raises:
        UpstreamProtocolViolation: it has no such form.
    """
    if era is Era.HANDSHAKE:
        return answer
    kept = method == "resources/read"
    return replace(answer, result=stateless_results.completed(answer.result, server_version, kept=kept))
