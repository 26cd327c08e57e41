"""The revision without a handshake (MCP 2026-07-28), as a client speaks it to a server: every request says everything.

The capabilities that are declared are those of the client whose call it is, as far as its server may ask it anything.
"""

import base64
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec

from sidecar import __version__
from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused
from sidecar.mcp import questions
from sidecar.model import JsonObject, JsonValue
from sidecar.questions import QuestionKind

REVISION: Final = "2026-07-28"
DISCOVER: Final = "server/discover"
LISTEN: Final = "subscriptions/listen"
CHANGES_OF_LISTS: Final[JsonObject] = {"notifications": {"toolsListChanged": True, "promptsListChanged": True}}
"""What is listened to, over standard streams (basic, patterns, subscriptions)."""

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
"""The first message of a stream that is listened to: what of it is honoured."""

UNSUPPORTED_REVISION: Final = -32022
OF_ANOTHER_ERA: Final = frozenset({UNSUPPORTED_REVISION, -32601})
"""Errors of a server that does not speak this revision any more: unsupported revision, no such method."""

_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose ``Mcp-Name`` repeats a parameter (transports, standard request headers)."""

_DEEPEST: Final = 16
_TOKEN_CHARACTERS: Final = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class _Discovered(msgspec.Struct, gc=False, rename="camel"):
    supported_versions: list[str]
    capabilities: dict[str, msgspec.Raw]


class _Typed(msgspec.Struct, gc=False, rename="camel"):
    result_type: str = "complete"


class _SubscriptionMeta(msgspec.Struct, gc=False):
    id: int | str = msgspec.field(name="io.modelcontextprotocol/subscriptionId")


class _OfSubscription(msgspec.Struct, gc=False):
    meta: _SubscriptionMeta = msgspec.field(name="_meta")


class _Filter(msgspec.Struct, gc=False, rename="camel"):
    resource_subscriptions: list[str] = []


class _Acknowledged(msgspec.Struct, gc=False):
    notifications: _Filter


class RevisionRefused(UpstreamRefused):
    """The server speaks without a handshake, but not this revision.

    Args:
        detail: its words.
        supported: the revisions that it names.
    """

    def __init__(self, detail: str, supported: Collection[str]) -> None:
        super().__init__(detail)
        self.supported = frozenset(supported)


_decode_acknowledged = msgspec.json.Decoder(_Acknowledged).decode
_decode_of_subscription = msgspec.json.Decoder(_OfSubscription).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_discovered = msgspec.json.Decoder(_Discovered).decode


def with_envelope(params: JsonObject, kinds: frozenset[QuestionKind] = frozenset()) -> JsonObject:
    """Return the parameters of a request with what 2026-07-28 asks of each (basic, ``_meta``).

    Args:
        params: the request's.
        kinds: what its client can be asked.
    """
    meta = params.get("_meta")
    envelope: JsonObject = {
        **(meta if isinstance(meta, dict) else {}),
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientCapabilities": questions.declared(kinds),
        "io.modelcontextprotocol/clientInfo": {"name": "mcp-sidecar", "version": __version__},
    }
    return {**params, "_meta": envelope}


def mirrored_headers(method: str, params: JsonObject, tools: Sequence[JsonObject]) -> dict[str, str]:
    """Return the headers that repeat parts of a request (transports, standard request headers, custom headers).

    Args:
        method: the request's.
        params: the request's.
        tools: the server's live tools; the schema of the called one says which arguments are repeated.
    """
    headers = {"MCP-Protocol-Version": REVISION, "Mcp-Method": method}
    name = params.get(_NAMED.get(method, ""))
    if isinstance(name, str):
        headers["Mcp-Name"] = _header_value(name)
    if method == "tools/call":
        tool = next((tool for tool in tools if tool.get("name") == name), {})
        for token, value in _repeated(tool.get("inputSchema"), params.get("arguments"), _DEEPEST):
            headers[f"Mcp-Param-{token}"] = _header_value(value)
    return headers


def check_discovered(result: bytes) -> None:
    """Return if a server says that it speaks this revision and has tools.

    Raises:
        UpstreamProtocolViolation: it does not.
    """
    try:
        found = _decode_discovered(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the answer to server/discover is not valid") from error
    if REVISION not in found.supported_versions or "tools" not in found.capabilities:
        raise UpstreamProtocolViolation(f"the server does not speak MCP {REVISION}, or offers no tools")


def told_of(params: bytes) -> int | str | None:
    """Return the request to listen that a notification belongs to; None where it names none."""
    try:
        return _decode_of_subscription(params).meta.id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def listening(uris: Sequence[str]) -> JsonObject:
    """Return the parameters of a request to be told of changes: of tools, prompts, and these resources."""
    wanted: JsonObject = {"toolsListChanged": True, "promptsListChanged": True}
    if uris:
        wanted["resourceSubscriptions"] = [*uris]
    return {"notifications": wanted}


def honoured(params: bytes) -> frozenset[str]:
    """Return the resources that a server says it will tell of; none where it says something else."""
    try:
        return frozenset(_decode_acknowledged(params).notifications.resource_subscriptions)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()


def check_complete(result: bytes) -> bytes:
    """Return a result that is the whole answer.

    Raises:
        UpstreamProtocolViolation: the server wants more of a client that offered nothing, or made a task of it.
    """
    try:
        kind = _decode_typed(result).result_type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the result is not an object") from error
    if kind != "complete":
        raise UpstreamProtocolViolation("the result is not complete, and nothing more was offered")
    return result


def _repeated(schema: JsonValue, value: JsonValue, depth: int) -> Iterator[tuple[str, str]]:
    """Find the arguments that a schema annotates with ``x-mcp-header``, along chains of ``properties`` only."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not isinstance(value, dict) or depth == 0:
        return
    for name, inner in properties.items():
        if not isinstance(inner, dict) or name not in value:
            continue
        token = inner.get("x-mcp-header")
        text = _text(value[name])
        if isinstance(token, str) and token and _TOKEN_CHARACTERS.issuperset(token) and text is not None:
            yield token, text
        yield from _repeated(inner, value[name], depth - 1)


def _text(value: JsonValue) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            return None


def _header_value(text: str) -> str:
    """Return a value as a header can carry it: as it is, or base64 between marks (transports, value encoding)."""
    plain = all(" " <= character <= "~" for character in text) and text == text.strip()
    if plain and text and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    return f"=?base64?{base64.b64encode(text.encode('utf-8', 'surrogatepass')).decode()}?="
