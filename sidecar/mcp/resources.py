"""Resources, prompts and completions: parameters, lists, and what is answered about something that is not there.

Parameters are read strictly, as those of tools are (``sidecar.mcp.tools``).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

import msgspec

from sidecar.errors import InvalidParams, SidecarError
from sidecar.mcp.jsonrpc import encode, encode_notification
from sidecar.model import JsonObject, JsonValue

UPDATED: Final = "notifications/resources/updated"

MAX_URI_CHARACTERS: Final = 2048
MAX_NAME_CHARACTERS: Final = 128

EXPORTED: Final = "exported-data"
"""The scheme of the MongoDB MCP server's exports."""

_EXPORT_URI: Final = re.compile(rf"{EXPORTED}://[A-Za-z0-9%._~-]{{1,256}}")
_EXPORT_FILE: Final = re.compile(r"[0-9a-f]{24}\.json")
"""How MongoDB MCP server 3.0.4 calls the file of an export (``tools/read/export.js``)."""


class ResourceNotFound(SidecarError):
    """No such resource, or none of this caller's; both are answered alike.

    Args:
        uri: as the caller wrote it.
    """

    label = "resource_not_found"
    public = "Resource not found."
    code = -32002

    def __init__(self, uri: str) -> None:
        super().__init__("no such resource, or none of this caller")
        self.data: JsonObject = {"uri": uri}


class UnknownPrompt(SidecarError):
    """No such prompt, or none that this caller may see; both are answered alike."""

    label = "unknown_prompt"
    public = "Unknown prompt."
    code = -32602


class ExportLink(NamedTuple):
    """An export that the result of a call links to."""

    uri: str
    name: str


class _ResultPart(msgspec.Struct, gc=False):
    type: str
    uri: str = ""
    name: str = ""


class _ExportResult(msgspec.Struct, gc=False):
    content: list[_ResultPart]


_decode = msgspec.json.Decoder(_ExportResult).decode


def export_links(result: bytes) -> tuple[ExportLink, ...]:
    """Return the exports that the result of a call of ``export`` links to; a result of another form has none."""
    try:
        parts = _decode(result).content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    return tuple(
        ExportLink(part.uri, part.name)
        for part in parts
        if part.type == "resource_link" and _EXPORT_URI.fullmatch(part.uri)
    )


def export_file(uri: str) -> str:
    """Return the name of the file that an export's URI means; empty where it is none that the server makes."""
    scheme, _, name = normalised(uri).partition("://")
    return name if scheme == EXPORTED and _EXPORT_FILE.fullmatch(name) else ""


def normalised(uri: str) -> str:
    """Return a URI as it is compared: RFC 3986 section 6.2.2, scheme in lower case and percent-encoding decoded.

    The server compares that way too: two spellings are one export.
    """
    scheme, separator, rest = uri.partition("://")
    return f"{scheme.lower()}{separator}{unquote(rest)}"


def parse_read(params: JsonObject) -> str:
    """Return the URI of ``resources/read``, ``resources/subscribe`` or ``resources/unsubscribe``.

    Raises:
        InvalidParams: not of the form.
    """
    _keys(params, "uri")
    return _text(params.get("uri"), MAX_URI_CHARACTERS)


def is_uri(value: JsonValue) -> bool:
    """Whether a value can name a resource."""
    return isinstance(value, str) and 0 < len(value) <= MAX_URI_CHARACTERS


def parse_prompt(params: JsonObject) -> tuple[str, JsonObject]:
    """Return name and arguments of ``prompts/get``; arguments are texts (MCP 2025-11-25, prompts).

    Raises:
        InvalidParams: not of the form.
    """
    _keys(params, "name", "arguments")
    arguments = _texts(params.get("arguments"))
    return _text(params.get("name"), MAX_NAME_CHARACTERS), arguments


def parse_completion(params: JsonObject) -> tuple[str, str, JsonObject]:
    """Return what is completed (``ref/prompt`` or ``ref/resource``), its name or URI, and the parameters to send.

    Raises:
        InvalidParams: not of the form.
    """
    _keys(params, "ref", "argument", "context")
    reference, argument, context = params.get("ref"), params.get("argument"), params.get("context")
    if not isinstance(reference, dict) or not isinstance(argument, dict):
        raise InvalidParams("ref and argument are objects")
    value = argument.get("value")
    if argument.keys() != {"name", "value"} or not isinstance(value, str):
        raise InvalidParams("an argument has a name and a value")
    sent: JsonObject = {"argument": {"name": _text(argument["name"], MAX_NAME_CHARACTERS), "value": value}}
    if context is not None:
        if not isinstance(context, dict) or not context.keys() <= {"arguments"}:
            raise InvalidParams("a context has arguments")
        sent["context"] = {"arguments": _texts(context.get("arguments"))}
    match reference:
        case {"type": "ref/prompt", "name": name, **rest} if rest.keys() <= {"title"}:
            named = _text(name, MAX_NAME_CHARACTERS)
            return "ref/prompt", named, {"ref": {"type": "ref/prompt", "name": named}, **sent}
        case {"type": "ref/resource", "uri": uri, **rest} if not rest:
            named = _text(uri, MAX_URI_CHARACTERS)
            return "ref/resource", named, {"ref": {"type": "ref/resource", "uri": named}, **sent}
        case _:
            raise InvalidParams("ref is neither a prompt nor a resource")


def updated(uri: str) -> bytes:
    """Return the notification that a resource may have changed (MCP 2025-11-25, resources, subscriptions)."""
    return encode_notification(UPDATED, {"uri": uri})


def listed(member: str, entries: Sequence[Mapping[str, JsonValue]]) -> bytes:
    """Return the JSON text of a list result: all entries, in their order, on one page."""
    return encode({member: [dict(entry) for entry in entries]})


def _keys(params: JsonObject, *known: str) -> None:
    if not params.keys() <= {"_meta", *known} or not isinstance(params.get("_meta"), dict | None):
        raise InvalidParams("an unknown key, or a _meta that is no object")


def _text(value: JsonValue, longest: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise InvalidParams(f"a text of 1 to {longest} characters is missing")
    return value


def _texts(value: JsonValue) -> JsonObject:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise InvalidParams("arguments are texts by name")
    return value
