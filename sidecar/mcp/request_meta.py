"""The envelope of a request of 2026-07-28: ``params._meta``, which says all that a handshake would have said."""

from dataclasses import dataclass

from sidecar.errors import InvalidParams
from sidecar.mcp.questions import answerable
from sidecar.mcp.revision import PROTOCOL_VERSION_KEY, STATELESS, McpRevision, UnsupportedMcpRevision
from sidecar.mcp.tools import LOG_LEVELS, label
from sidecar.model import JsonObject, JsonValue
from sidecar.questions import QuestionKind

CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
CLIENT_KEY = "io.modelcontextprotocol/clientInfo"
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMeta:
    """What is read of it. Nothing of an earlier request counts (MCP 2026-07-28, basic, statelessness)."""

    revision: McpRevision
    client_name: str
    """Self-reported; empty where it is not told."""
    log_level: str | None
    """None where the request wants no log messages, or says so in no known way."""
    answers: frozenset[QuestionKind] = frozenset()
    """What its client can be asked, for this request."""


def claimed_revision(params: JsonObject) -> JsonValue:
    """Return the revision that a body says it is of.

    Raises:
        InvalidParams: a field is missing that every request has (MCP 2026-07-28, basic, ``_meta``: -32602).
    """
    meta = params.get("_meta")
    if not isinstance(meta, dict) or PROTOCOL_VERSION_KEY not in meta or CAPABILITIES_KEY not in meta:
        raise InvalidParams("_meta lacks the protocol version or the client's capabilities")
    return meta[PROTOCOL_VERSION_KEY]


def read_request_meta(params: JsonObject) -> RequestMeta:
    """Return the envelope of a request.

    Raises:
        InvalidParams: it is not of the form.
        UnsupportedMcpRevision: it is of a revision that is not spoken here without a handshake.
    """
    claimed = claimed_revision(params)
    meta = params["_meta"]
    if not isinstance(claimed, str) or not isinstance(meta, dict) or not isinstance(meta[CAPABILITIES_KEY], dict):
        raise InvalidParams("the protocol version is a string and the client's capabilities an object")
    if claimed not in STATELESS:
        raise UnsupportedMcpRevision(claimed)
    client = meta.get(CLIENT_KEY)
    name = client.get("name") if isinstance(client, dict) else None
    level = meta.get(LOG_LEVEL_KEY)
    return RequestMeta(
        revision=McpRevision(claimed),
        client_name=label(name),
        log_level=level if isinstance(level, str) and level in LOG_LEVELS else None,
        answers=answerable(meta[CAPABILITIES_KEY]),
    )
