"""Headers that repeat parts of a request of 2026-07-28, for routers that do not read bodies.

They decide nothing here: policy is asked about the body. But a peer that read only the headers must not have seen
another request than the one that is decided, so each is held against the body (MCP 2026-07-28, transports, server
validation). Names are case-insensitive, values are not.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.mcp.revision import HeaderMismatch
from sidecar.model import JsonObject, JsonValue

NAMED_BY: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Methods with ``Mcp-Name``, and the parameter that it repeats (standard request headers; tasks: SEP-2663)."""

PARAMETER_PREFIX: Final = "mcp-param-"
"""What the names of headers that repeat arguments begin with, in lower case."""

ANNOTATION: Final = "x-mcp-header"
"""The key of a property's schema that names its header (custom headers from tool parameters)."""

_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=", re.ASCII | re.DOTALL)
"""The markers are exact and in lower case; anything else is the value itself (value encoding)."""
_PRINTABLE: Final = re.compile(r"[\x20-\x7e\t]*", re.ASCII)
_WHOLE: Final = re.compile(r"(-?(?:0|[1-9][0-9]{0,15}))(?:\.0{1,16})?", re.ASCII)
"""An integer as a header may have it; ``42.0`` is 42 (server behavior for custom headers)."""
_MAX_LEVELS: Final = 16
"""Of properties within properties that are looked at for annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredHeaders:
    """What came; each is None where it did not."""

    method: str | None = None
    name: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    """The headers that repeat arguments: names in lower case without the prefix, in the order in which they came."""


def check_revision(header: str | None, claimed: JsonValue) -> None:
    """Return if ``MCP-Protocol-Version`` is what the body says.

    Raises:
        HeaderMismatch: it is not.
    """
    if header is None or header != claimed:
        raise HeaderMismatch("MCP-Protocol-Version is not the body's")


def check_request(headers: MirroredHeaders, method: str, params: JsonObject) -> None:
    """Return if ``Mcp-Method`` and ``Mcp-Name`` are there where they must be, and say what the body says.

    Raises:
        HeaderMismatch: they do not.
    """
    if headers.method != method:
        raise HeaderMismatch("Mcp-Method is not the body's method")
    key = NAMED_BY.get(method)
    said = params.get(key) if key is not None else None
    if isinstance(said, str) and (headers.name is None or decoded(headers.name) != said):
        raise HeaderMismatch("Mcp-Name is not the body's name")


def check_parameters(headers: MirroredHeaders, schema: JsonValue, arguments: JsonObject) -> None:
    """Return if the headers that a tool's schema asks for repeat its arguments; others are not looked at.

    Raises:
        HeaderMismatch: one is missing, differs, is there twice, or has no argument.
    """
    for path, token in annotated(schema):
        found = [value for name, value in headers.parameters if name == token.lower()]
        said = _at(arguments, path)
        if said is None or isinstance(said, dict | list):
            if found:
                raise HeaderMismatch("a header repeats an argument that is not there")
        elif len(found) != 1 or not _same(found[0], said):
            raise HeaderMismatch("a header and its argument differ")


def decoded(value: str) -> str | None:
    """Return what a header says, or None where it is not what its form promises.

    Base64 that is not canonical counts as malformed: two texts would stand for one value.
    """
    if not _PRINTABLE.fullmatch(value):
        return None
    match = _ENCODED.fullmatch(value)
    if match is None:
        return value
    try:
        content = base64.b64decode(match[1], validate=True)
        return content.decode() if base64.b64encode(content).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def annotated(schema: JsonValue) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and the header's token of every annotated property that is reached by properties alone."""
    pending: list[tuple[tuple[str, ...], JsonValue]] = [((), schema)]
    while pending:
        path, node = pending.pop()
        if not isinstance(node, dict):
            continue
        token = node.get(ANNOTATION)
        if path and isinstance(token, str):
            yield path, token
        properties = node.get("properties")
        if isinstance(properties, dict) and len(path) < _MAX_LEVELS:
            pending += [((*path, name), inner) for name, inner in properties.items()]


def _at(arguments: JsonObject, path: tuple[str, ...]) -> JsonValue:
    node: JsonValue = arguments
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _same(header: str, said: str | float | bool) -> bool:  # noqa: FBT001 - a JSON value
    value = decoded(header)
    if value is None:
        return False
    if isinstance(said, bool):
        return value == ("true" if said else "false")
    if isinstance(said, str):
        return value == said
    match = _WHOLE.fullmatch(value)
    return match is not None and int(match[1]) == said
