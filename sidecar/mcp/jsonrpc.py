"""Bytes to JSON-RPC 2.0 messages and back, strictly.

The value that ``decode`` returns is the only form of a message that the rest of the sidecar sees, and ``encode`` of
that value is the only thing that ever leaves (law 1). So ``decode`` accepts exactly the JSON that every peer reads
alike: what two parsers could read differently (duplicate keys, numbers that a double cannot hold, lone surrogates,
NaN) is refused here, once, and never met again.

What does not live here: which methods exist (``sidecar.mcp.methods``) and what their parameters mean
(``sidecar.mcp.tools``).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isinf
from typing import ClassVar, TypeAlias

from sidecar import compact_json, strict_json
from sidecar.errors import InvalidRequest, ParseError
from sidecar.mcp import quick_json
from sidecar.model import JsonObject, JsonValue

RequestId: TypeAlias = int | str

MAX_DEPTH = 112
"""Nested arrays and objects in a whole message; settings can lower it. MongoDB stops at 100 levels of BSON; the MCP
envelope takes up to six more, and the spelling of a typed value two. Far enough under Python's limit of 1,000 frames
for every recursive walk over a message (pipelines, schemas, ``json``'s own encoder)."""

MAX_VALUES = 250_000
"""Values in a whole message: what 1 MB holds at four bytes a value. Bounds the work of every later walk."""

MAX_INTEGER = 2**53 - 1
"""Largest magnitude of an integer. The MongoDB MCP server is JavaScript and rounds what lies beyond (ECMA-262
``Number.MAX_SAFE_INTEGER``, RFC 8259 section 6), so it would act on another number than the one authorised."""

MAX_NUMBER_CHARACTERS = 1_024
"""Length of one number's text. Python refuses to convert integers of more than 4,300 digits; doubles need 17."""

MAX_ID_CHARACTERS = 256
"""Length of a request id that is a string. SDKs send integers or UUIDs."""

MAX_METHOD_CHARACTERS = 128
"""Length of a method name; the longest that MCP defines has 36."""

MAX_BATCH = 64
"""Members of one batch, where settings say nothing else: each is authorised singly, so a batch is a multiplier on the
PDP."""

_BOM = b"\xef\xbb\xbf"

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")

_NUMBER_SHAPE = bytes.maketrans(b"123456789E", b"000000000e")
"""Translation table: every digit looks like 0 and E like e, so that a substring search finds a shape of number. Fifteen
times faster than a regular expression on 1 MB."""

_SUSPECT_NUMBERS = (b"0" * 16, b"e000", b"e+000")
"""Shapes without which no number in a body can exceed MAX_INTEGER (16 digits) or overflow a double (three digits of
exponent, or 300 digits)."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_REQUEST_KEYS = frozenset({"jsonrpc", "id", "method", "params"})
_RESPONSE_KEYS = frozenset({"jsonrpc", "id", "result", "error"})


class InvalidMessage(InvalidRequest):
    """An InvalidRequest that still knows which request it answers.

    Args:
        detail: for the log; never a value from the body.
        request_id: the request's id, or None where it could not be read (JSON-RPC 2.0 section 5; MCP 2026-07-28 basic,
            error responses: every error carries the id unless it could not be read).
    """

    def __init__(self, detail: str = "", *, request_id: RequestId | None = None) -> None:
        super().__init__(detail)
        self.request_id = request_id


class NumberRefused(InvalidMessage):
    """A number that JavaScript would round or that overflows a double."""

    label: ClassVar[str] = "number_range"
    public: ClassVar[str] = (
        "A number in the message cannot be carried exactly: write integers beyond ±(2^53-1) as "
        '{"$numberLong": "…"} and larger or longer numbers as {"$numberDecimal": "…"}.'
    )


class NotANumberRefused(ParseError):
    """NaN or an infinity, which some encoders write and JSON does not have."""

    public: ClassVar[str] = (
        'The message holds NaN or Infinity, which JSON does not have: leave it out, or write {"$numberDouble": "NaN"}.'
    )


class MessageTooComplex(InvalidMessage):
    """Deeper than it may be, or more than MAX_VALUES values."""

    label: ClassVar[str] = "too_complex"
    public: ClassVar[str] = (
        f"The message nests too deeply or has more than {MAX_VALUES} values; make it flatter or smaller."
    )


class BatchTooLarge(InvalidMessage):
    """More members than a batch may have."""

    label: ClassVar[str] = "too_many_members"
    public: ClassVar[str] = "The batch has too many members; send them in several."


@dataclass(frozen=True, slots=True)
class Request:
    """A message that expects a reply."""

    id: RequestId
    method: str
    params: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that expects none."""

    method: str
    params: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """A client's answer to a request that the sidecar sent it."""

    id: RequestId | None
    result: JsonObject | None = None
    """None where it answers with an error."""


ClientMessage: TypeAlias = Request | Notification | Response


@dataclass(frozen=True, slots=True)
class Batch:
    """Several messages in one array (MCP 2025-03-26 only); never empty, no id twice."""

    members: tuple[ClientMessage, ...]


def decode(body: bytes, *, depth: int = MAX_DEPTH, members: int = MAX_BATCH) -> ClientMessage | Batch:
    """Return the one message, or the one batch, that ``body`` is.

    Args:
        body: as it came.
        depth: levels of arrays and objects, at most; never more than ``MAX_DEPTH``.
        members: of a batch, at most.

    Raises:
        ParseError: not strict JSON in UTF-8 (RFC 8259 with I-JSON's rules, RFC 7493 section 2).
        InvalidMessage: JSON, but no JSON-RPC 2.0 message that MCP allows; ``request_id`` is set where it was readable.
    """
    suspect, numbers_hold = _has_suspect_numbers(body), True
    value = None if suspect else quick_json.read(body, depth, MAX_VALUES)
    if value is None:
        _check_complexity(body, depth)
        value, numbers_hold = _parse(body, suspect=suspect)
    if not numbers_hold:
        raise NumberRefused("a number cannot be carried exactly", request_id=_readable_id(value))
    if isinstance(value, list):
        return _batch(value, members)
    return _message(value)


def _check_complexity(body: bytes, most: int) -> None:
    """Refuse depth and size before the parser spends memory or stack on them.

    Brackets inside of strings count for nothing. Up to the first syntax error this reads a body exactly as the parser
    does, so the parser never descends further than what is measured here.
    """
    openers = body.count(b"[") + body.count(b"{")
    if openers <= most and len(body) <= MAX_VALUES:
        return
    structure = _outside_of_strings(body)
    openers = structure.count(b"[") + structure.count(b"{")
    if structure.count(b",") + openers + 1 > MAX_VALUES:
        raise MessageTooComplex("too many values")
    depth = max(accumulate(map(_STEP.__getitem__, structure.translate(None, _NOT_BRACKETS)), initial=0))
    if depth > most:
        raise MessageTooComplex(f"nested deeper than {most} levels")


def _outside_of_strings(body: bytes) -> bytes:
    """Return a body without its strings, in a few passes of compiled code, for any content.

    A backslash stands in a string, or else is a syntax error. So pairs of them, and then what is left of escaped
    quotes, can be taken out wherever they are, and every quote that remains begins or ends a string.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _has_suspect_numbers(body: bytes) -> bool:
    shape = body.translate(_NUMBER_SHAPE)
    return any(suspect in shape for suspect in _SUSPECT_NUMBERS)


def _parse(body: bytes, *, suspect: bool) -> tuple[JsonValue, bool]:
    """Return the JSON value and whether all its numbers, among which some are suspect, can be carried exactly."""
    if body.startswith(_BOM):
        raise ParseError("the body starts with a byte order mark")
    numbers = _Numbers() if suspect else None
    decoder = strict_json.DECODER if numbers is None else numbers.decoder()
    try:
        value: JsonValue = decoder.decode(body.decode())
        if b"\\u" in body and _SURROGATE_ESCAPE.search(body):
            encode(value)
    except strict_json.DuplicateName:
        raise ParseError("a key occurs twice in one object") from None
    except strict_json.NotANumber:
        raise NotANumberRefused("NaN and Infinity are not JSON") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"{error.msg} at character {error.pos}") from None  # the cause would keep the body alive
    except UnicodeDecodeError as error:
        raise ParseError(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise ParseError("a lone surrogate") from None
    return value, numbers is None or numbers.hold


class _Numbers:
    """Reads the numbers of one suspect body and remembers whether all of them hold.

    Remembering instead of raising lets the error carry the request's id.
    """

    def __init__(self) -> None:
        self.hold = True

    def decoder(self) -> json.JSONDecoder:
        return strict_json.decoder(parse_int=self._integer, parse_float=self._real)

    def _integer(self, text: str) -> int | None:
        if len(text) <= MAX_NUMBER_CHARACTERS and -MAX_INTEGER <= (value := int(text)) <= MAX_INTEGER:
            return value
        self.hold = False
        return None

    def _real(self, text: str) -> float | None:
        if len(text) <= MAX_NUMBER_CHARACTERS and not isinf(value := float(text)):
            return value
        self.hold = False
        return None


def _batch(values: list[JsonValue], most: int) -> Batch:
    if not values:
        raise InvalidMessage("an empty batch")
    if len(values) > most:
        raise BatchTooLarge(f"more than {most} members in a batch")
    members = tuple(_message(value) for value in values)
    ids = [(type(member.id), member.id) for member in members if isinstance(member, Request)]
    if len(set(ids)) != len(ids):
        raise InvalidMessage("an id occurs twice in one batch")
    return Batch(members)


def _message(value: JsonValue) -> ClientMessage:
    if not isinstance(value, dict):
        raise InvalidMessage("not an object")
    request_id = _readable_id(value)
    if value.get("jsonrpc") != "2.0":
        raise InvalidMessage("jsonrpc is not 2.0", request_id=request_id)
    if "id" in value and request_id is None and not _answers_nothing(value):
        raise InvalidMessage("id is not a string or an integer")
    if "method" not in value:
        return _response(value, request_id)
    return _call(value, request_id)


def _readable_id(value: JsonValue) -> RequestId | None:
    """Return the id if it is one: an integer (not a boolean) or a string, never null (MCP basic, requests)."""
    match value:
        case {"id": bool()}:
            return None
        case {"id": int(number)}:
            return number
        case {"id": str(text)} if len(text) <= MAX_ID_CHARACTERS:
            return text
        case _:
            return None


def _answers_nothing(value: JsonObject) -> bool:
    """Whether this is an error response to a request whose id could not be read (JSON-RPC 2.0 section 5)."""
    return value["id"] is None and "method" not in value and "error" in value


def _call(value: JsonObject, request_id: RequestId | None) -> Request | Notification:
    if not _REQUEST_KEYS.issuperset(value):
        raise InvalidMessage("an unknown key beside method", request_id=request_id)
    method = value["method"]
    if not isinstance(method, str) or not 0 < len(method) <= MAX_METHOD_CHARACTERS or not method.isprintable():
        raise InvalidMessage("method is not a name", request_id=request_id)
    params = value.get("params")
    if params is None:
        params = {}  # some encoders write null for a member that is absent
    if not isinstance(params, dict):
        raise InvalidMessage("params is not an object", request_id=request_id)
    if request_id is None:
        return Notification(method, params)
    return Request(request_id, method, params)


def _response(value: JsonObject, request_id: RequestId | None) -> Response:
    one_of_both = ("result" in value) != ("error" in value)
    if not _RESPONSE_KEYS.issuperset(value) or "id" not in value or not one_of_both:
        raise InvalidMessage("neither a request, a notification nor a response", request_id=request_id)
    content = value.get("result", value.get("error"))
    if not isinstance(content, dict):
        raise InvalidMessage("result and error are objects", request_id=request_id)
    return Response(request_id, content if "result" in value else None)


def encode(value: JsonValue) -> bytes:
    """Return ``value`` as compact JSON in UTF-8.

    Raises:
        ValueError: NaN, an infinity or a lone surrogate; ``decode`` lets none of them in.
    """
    return compact_json.encode(value)


_NEWLINES_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def encode_result(request_id: RequestId, result: bytes) -> bytes:
    """Return a response around ``result``, the JSON text of one object, which is not parsed again.

    Newlines in it become spaces: in valid JSON they stand only between tokens, and on stdio and in server-sent events
    they would end the message (MCP 2025-11-25, transports, stdio).

    Raises:
        ValueError: ``result`` is not in braces.
    """
    if not (result.startswith(b"{") and result.endswith(b"}")):
        raise ValueError("a result is one JSON object")
    if b"\n" in result or b"\r" in result:
        result = result.translate(_NEWLINES_TO_SPACES)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(request_id), result)


def encode_error(request_id: RequestId | None, code: int, message: str, data: JsonObject | None = None) -> bytes:
    """Return an error response; ``request_id`` is None only where the request's own could not be read."""
    error: JsonObject = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def encode_request(request_id: RequestId, method: str, params: JsonObject) -> bytes:
    """Return a request to a client."""
    return encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def encode_notification(method: str, params: JsonObject) -> bytes:
    """Return a notification; empty ``params`` are left out, as MCP's schema has them optional."""
    message: JsonObject = {"jsonrpc": "2.0", "method": method}
    if params:
        message["params"] = params
    return encode(message)


def encode_batch(members: Sequence[bytes]) -> bytes:
    """Return the responses to a batch as one array.

    Raises:
        ValueError: there are none; a batch of notifications is answered with no body (JSON-RPC 2.0 section 6).
    """
    if not members:
        raise ValueError("a batch without a response has no body")
    return b"[%b]" % b",".join(members)
