"""Messages to and from the MongoDB MCP server, as bytes; shared by both transports and free of I/O.

The sidecar speaks the legacy era (MCP 2025-11-25, initialize handshake): on stdio and over HTTP it costs the server
less than 2026-07-28 (measured: 1.5 times less CPU on ``find``). Callers do not depend on the era of the upstream leg.

Only the envelope of an answer is read, and the ``result`` travels on as the bytes that came: re-parsing every answer
cost ``find`` a fifth of its rate (measured).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from sidecar import __version__, compact_json
from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused
from sidecar.mcp import McpRevision, questions
from sidecar.model import JsonObject, JsonValue, Permit, Tell, UpstreamResult
from sidecar.questions import CallQuestions, QuestionKind

PROTOCOL_VERSION = McpRevision.V2025_11_25.value

ACCEPTED_VERSIONS = frozenset({PROTOCOL_VERSION, McpRevision.V2025_06_18.value})
"""Earlier revisions allow batch arrays, which this client does not read (removed by MCP 2025-06-18, changelog)."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The longest answer. The server caps documents at 16 MiB (``maxBytesPerQuery``), but sends them twice and escaped."""

METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
CAPABILITY_MISSING = -32021

_REQUIRED = {"resources/read": "contents", "prompts/get": "messages", "completion/complete": "completion"}
"""The member without which a result of the method says nothing."""
_EMPTY = frozenset({"resources/subscribe"})
"""Methods whose result says nothing but that there is one."""

_MAX_FOREIGN_ID = 256
_MAX_ERROR_TEXT = 500
_ENDING_ID = re.compile(rb'[,{]"id":([0-9]{1,15})\}\s*\Z')


class _MessageEnvelope(msgspec.Struct, gc=False):
    jsonrpc: Literal["2.0"]
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _ErrorObject(msgspec.Struct, gc=False):
    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw()


class _Supported(msgspec.Struct, gc=False):
    supported: list[str]


class _CapabilitiesMissing(msgspec.Struct, gc=False, rename="camel"):
    required_capabilities: dict[str, dict[str, msgspec.Raw]]


class _ToolResult(msgspec.Struct, gc=False):
    content: list[msgspec.Raw]
    isError: bool = False  # noqa: N815 -- the wire's name
    structuredContent: msgspec.Raw = msgspec.Raw()  # noqa: N815 -- the wire's name


class _Counted(msgspec.Struct, gc=False, rename="camel"):
    documents: list[msgspec.Raw] | None = None
    inserted_count: int | None = None
    deleted_count: int | None = None
    modified_count: int | None = None
    upserted_count: int = 0
    count: int | str | None = None
    """A number, or ``"indeterminate"`` from an aggregate."""


class _ServerCapabilities(msgspec.Struct, gc=False):
    tools: msgspec.Raw


class _Initialized(msgspec.Struct, gc=False):
    protocolVersion: str  # noqa: N815 -- the wire's name
    capabilities: _ServerCapabilities


class _ToolsPage(msgspec.Struct, gc=False, rename={"entries": "tools"}):
    entries: list[dict[str, msgspec.Raw]]
    nextCursor: str | None = None  # noqa: N815 -- the wire's name


class _PromptsPage(msgspec.Struct, gc=False, rename={"entries": "prompts"}):
    entries: list[dict[str, msgspec.Raw]]
    nextCursor: str | None = None  # noqa: N815 -- the wire's name


_decode_page: dict[str, Callable[[bytes], _ToolsPage | _PromptsPage]] = {
    "tools/list": msgspec.json.Decoder(_ToolsPage).decode,
    "prompts/list": msgspec.json.Decoder(_PromptsPage).decode,
}
_decode_envelope = msgspec.json.Decoder(_MessageEnvelope).decode
_decode_error = msgspec.json.Decoder(_ErrorObject).decode
_decode_missing = msgspec.json.Decoder(_CapabilitiesMissing).decode
_decode_supported = msgspec.json.Decoder(_Supported).decode
_decode_tool_result = msgspec.json.Decoder(_ToolResult).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode
_decode_initialized = msgspec.json.Decoder(_Initialized).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResult:
    """A response with a result."""

    id: int
    result: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A response with a JSON-RPC error."""

    id: int
    code: int
    message: str
    """The server's words, shortened; they may quote data, so they go to the log at most."""
    supported: tuple[str, ...] = ()
    """The revisions that it names instead of the one that it was sent (MCP 2026-07-28, versioning)."""
    lacks: frozenset[QuestionKind] = frozenset()
    """What its client would have to answer, where that is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRequest:
    """The server asks its client something (ping, elicitation, sampling, roots)."""

    id: int | str
    method: str
    params: bytes = b""
    """As for ``ServerNotification``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerNotification:
    """The server tells its client something."""

    method: str
    params: bytes = b""
    """As they came, not yet read; empty where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedMessage:
    """Bytes that are not a message; ``id`` is the request that they seem to answer, if that is known."""

    reason: str
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request to a server, before it has an id."""

    method: str
    params: JsonObject
    leaving: Callable[[], None] | None = None
    """Called right before it is written; what it raises keeps it from being written."""
    tell: Tell | None = None
    """Takes what the server tells of it before it answers; None asks for nothing."""
    paused: Callable[[int], None] | None = None
    """Told that the server ended the stream of the call, and goes on with it when it is asked in so many ms."""
    reviewed: tuple[JsonObject, ...] | None = None
    """The tools that the server must have still."""
    questions: CallQuestions | None = None
    """What the server may ask meanwhile; None is nothing."""


UpstreamMessage = ServerResult | Refusal | ServerRequest | ServerNotification | MalformedMessage


def encode_request(request_id: int, method: str, params: JsonObject) -> bytes:
    """Return one request without a line end.

    Raises:
        UpstreamRefused: the parameters have no JSON form; nothing may be sent in their place.
    """
    return _encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def encode_notification(method: str, params: JsonObject | None = None) -> bytes:
    """Return one notification without a line end."""
    message: JsonObject = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return _encode(message)


def outgoing(permit: Permit) -> Outgoing:
    """Return exactly what is permitted, as it is sent."""
    return Outgoing(
        method=permit.method,
        params=call_params(permit),
        leaving=permit.leaving,
        tell=permit.tell,
        paused=permit.paused,
        reviewed=permit.reviewed,
        questions=permit.questions,
    )


def call_params(permit: Permit) -> JsonObject:
    """Return the ``tools/call`` params of a permit: exactly its call, and the trace context where there is one.

    Nothing else travels in ``_meta`` (law 1: only what was decided on; MCP 2026-07-28 names ``traceparent`` for it).
    """
    params: JsonObject = {"name": permit.call.name, "arguments": permit.call.arguments}
    if permit.method != "tools/call":
        params = dict(permit.call.arguments)
    if permit.traceparent is not None:
        params["_meta"] = {"traceparent": permit.traceparent}
    return params


def initialize_params(kinds: frozenset[QuestionKind] = frozenset()) -> JsonObject:
    """Return the ``initialize`` params of a client that can be asked ``kinds``, and else nothing."""
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "capabilities": questions.declared(kinds),
        "clientInfo": {"name": "mcp-sidecar", "version": __version__},
    }


def encode_reply(request: ServerRequest, result: JsonObject | None = None) -> bytes:
    """Answer a request of the server: ping is a duty (MCP 2025-11-25, ping), what has no result was not negotiated."""
    if result is not None:
        return _encode({"jsonrpc": "2.0", "id": request.id, "result": result})
    if request.method == "ping":
        return _encode({"jsonrpc": "2.0", "id": request.id, "result": {}})
    error: JsonObject = {"code": METHOD_NOT_FOUND, "message": "Method not found"}
    return _encode({"jsonrpc": "2.0", "id": request.id, "error": error})


def encode_unanswered(request: ServerRequest) -> bytes:
    """Answer a question that was taken to a client and has no answer."""
    error: JsonObject = {"code": INTERNAL_ERROR, "message": "The client did not answer"}
    return _encode({"jsonrpc": "2.0", "id": request.id, "error": error})


def decode_message(line: bytes) -> UpstreamMessage:
    """Read the envelope of one message; anything but exactly one message is ``MalformedMessage``."""
    try:
        envelope = _decode_envelope(line)
        if envelope.method is not msgspec.UNSET:
            return _asked_or_told(envelope.method, envelope)
        return _response(envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The parser's text can quote the line, which can hold documents.
        reason = f"not a JSON-RPC message ({type(error).__name__}, {len(line)} bytes)"
        return MalformedMessage(reason=reason, id=answered_by(line[-64:]))


def answered_by(tail: bytes) -> int | None:
    """Return the id of a response from its last bytes, if they hold it.

    The server writes ``id`` last. One closing brace at the very end closes the message itself, so a match cannot come
    from inside a document.
    """
    match = _ENDING_ID.search(tail)
    return int(match[1]) if match else None


def read_tool_result(result: bytes) -> UpstreamResult:
    """Check that ``result`` is a ``CallToolResult`` and say whether it failed and how many documents it is about.

    Raises:
        UpstreamProtocolViolation: it is not.
    """
    try:
        tool_result = _decode_tool_result(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the result is not a tool result") from error
    documents = None if tool_result.isError else _count(tool_result.structuredContent)
    return UpstreamResult(result=result, failed=tool_result.isError, documents=documents)


def read_result(method: str, result: bytes) -> UpstreamResult:
    """Check that ``result`` is one of the method.

    Raises:
        UpstreamProtocolViolation: it is not.
    """
    if method == "tools/call":
        return read_tool_result(result)
    try:
        members = _decode_members(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation(f"the result of {method} is no object") from error
    if method not in _EMPTY and _REQUIRED.get(method) not in members:
        raise UpstreamProtocolViolation(f"the result of {method} lacks what it is for")
    return UpstreamResult(result=result, failed=bytes(members.get("isError", msgspec.Raw())) == b"true")


def check_initialized(result: bytes) -> str:
    """Return the negotiated revision of an ``initialize`` result.

    Raises:
        UpstreamProtocolViolation: not such a result, a revision that is not spoken here, or a server without tools.
    """
    try:
        initialized = _decode_initialized(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the answer to initialize is not valid or offers no tools") from error
    if initialized.protocolVersion not in ACCEPTED_VERSIONS:
        raise UpstreamProtocolViolation(
            f"the server speaks MCP {initialized.protocolVersion[:32]!r}, not one of {sorted(ACCEPTED_VERSIONS)}"
        )
    return initialized.protocolVersion


def read_page(method: str, result: bytes) -> tuple[list[JsonObject], str | None]:
    """Return what one page of ``tools/list`` or ``prompts/list`` lists, and the cursor of the next.

    Raises:
        UpstreamProtocolViolation: not such a page, or one entry has no name.
    """
    try:
        page = _decode_page[method](result)
        entries = [{key: _value(raw) for key, raw in entry.items()} for entry in page.entries]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation(f"the answer to {method} is not valid") from error
    if not all(isinstance(entry.get("name"), str) and entry["name"] for entry in entries):
        raise UpstreamProtocolViolation(f"{method} has an entry without a name")
    return entries, page.nextCursor


def _encode(message: JsonObject) -> bytes:
    try:
        return compact_json.encode(message)
    except (ValueError, TypeError, RecursionError) as error:
        raise UpstreamRefused("the message has no JSON form") from error


def _value(raw: msgspec.Raw) -> JsonValue:
    value: JsonValue = msgspec.json.decode(raw)
    return value


def _asked_or_told(method: str, envelope: _MessageEnvelope) -> UpstreamMessage:
    params = bytes(envelope.params)
    match envelope.id:
        case msgspec.UnsetType():
            return ServerNotification(method=method, params=params)
        case int() as number:
            return ServerRequest(id=number, method=method, params=params)
        case str() as text if len(text) <= _MAX_FOREIGN_ID:
            return ServerRequest(id=text, method=method, params=params)
        case _:
            return MalformedMessage(reason="a request with an id that MCP does not allow")


def _response(envelope: _MessageEnvelope) -> UpstreamMessage:
    if not isinstance(envelope.id, int):
        return MalformedMessage(reason="a response without the id of a request")
    result, error = bytes(envelope.result), bytes(envelope.error)
    if bool(result) == bool(error):
        return MalformedMessage(id=envelope.id, reason="a response with both or neither of result and error")
    if not error:
        # msgspec skips the inside of a Raw without looking at its encoding.
        if not result.isascii():
            str(result, "utf-8")
        return ServerResult(id=envelope.id, result=result)
    try:
        found = _decode_error(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MalformedMessage(id=envelope.id, reason="a response whose error has no code and message")
    return Refusal(
        id=envelope.id,
        code=found.code,
        message=found.message[:_MAX_ERROR_TEXT],
        supported=_supported(found.data),
        lacks=_lacks(found),
    )


def _lacks(error: _ErrorObject) -> frozenset[QuestionKind]:
    if error.code != CAPABILITY_MISSING:
        return frozenset()
    try:
        required = _decode_missing(error.data).required_capabilities
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(kind for kind in QuestionKind if kind.value in required)


def _supported(data: msgspec.Raw) -> tuple[str, ...]:
    try:
        return tuple(_decode_supported(data).supported)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def _count(structured: msgspec.Raw) -> int | None:
    """Documents returned, else written, else counted; None for every shape without such a number."""
    try:
        counted = _decode_counted(structured)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if counted.documents is not None:
        return len(counted.documents)
    updated = None if counted.modified_count is None else counted.modified_count + counted.upserted_count
    numbers = (counted.inserted_count, counted.deleted_count, updated, counted.count)
    return next((number for number in numbers if isinstance(number, int)), None)
