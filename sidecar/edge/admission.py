"""What an HTTP request must look like before anybody asks who sent it: pure checks of target and headers.

Each check returns or raises; nothing is repaired. A header that two parsers could read differently is refused rather
than interpreted (duplicates, control characters, absolute targets), because the sidecar is the one place where every
request is still one request.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion, HttpVersion10, HttpVersion11
from multidict import MultiMapping

from sidecar.edge.origins import HOST, MAX_PORT, origin
from sidecar.errors import (
    DatabaseCredentials,
    HostRefused,
    InvalidRequest,
    MalformedAuthorization,
    MediaTypeRefused,
    NotAcceptable,
    OriginRefused,
)
from sidecar.identity import ResourceUri
from sidecar.mcp import MirroredHeaders
from sidecar.mcp import mirrored as mcp_mirrored
from sidecar.model import AuthScheme, Credential, UnverifiedToken

Headers = MultiMapping[str]

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

SINGLE_HEADERS: Final = (
    "Authorization",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "DPoP",
    "Host",
    "Last-Event-ID",
    "MCP-Protocol-Version",
    "Mcp-Method",
    "Mcp-Name",
    "Mcp-Session-Id",
    "Origin",
    "Transfer-Encoding",
)
"""Headers that decide something here or upstream. Two copies are refused (V-07): the Python SDK routes on the first
MCP-Protocol-Version, others on the last, and CVE-2025-69224 is what becomes of two framings."""

_SINGLE: Final = {name.lower(): name for name in SINGLE_HEADERS}

MAX_NAME_CHARACTERS: Final = 256
"""Longest session id and protocol version that is looked at; both are written into evidence."""

MAX_ACCEPT_CHARACTERS: Final = 2_048
"""Length of an Accept header; browsers send 150. Bounds the work of reading quoted texts that do not end."""

_CONNECTION_STRING: Final = re.compile(r"mongodb(?:\+srv)?://", re.IGNORECASE)
"""How a connection string begins (MongoDB Connection String specification)."""
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
"""MCP 2025-11-25, session management: the characters of a session id."""
_CREDENTIAL: Final = re.compile(r"(bearer|dpop) +([A-Za-z0-9\-._~+/]+=*)", re.ASCII | re.IGNORECASE)
"""RFC 6750 section 2.1 (b64token), RFC 9449 section 7.1; the scheme is case-insensitive (RFC 9110 section 11.1)."""
_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_VALUE: Final = rf'(?:{_NAME}|"(?:[^"\\]|\\.)*+")'
_PARAMETERS: Final = rf"(?:[ \t]*+;[ \t]*+(?:{_NAME}={_VALUE})?+)*+[ \t]*+"
_MEDIA_TYPE: Final = re.compile(rf"({_NAME}/{_NAME})({_PARAMETERS})", re.ASCII)
"""RFC 9110 sections 5.6.6 and 8.3.1: a type, then parameters, of which any may be empty."""
_UTF8: Final = {("charset", "utf-8"), ("charset", "utf8")}
"""The one parameter that a JSON body may have (RFC 8259 section 11 defines none)."""
_PARAMETER: Final = re.compile(rf"({_NAME})=({_VALUE})", re.ASCII)
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+")++')
"""One element of a list: what stands between commas that are not quoted (RFC 9110 section 5.6.1)."""
_PARAMETER_HEADER: Final = re.compile(rf"{re.escape(mcp_mirrored.PARAMETER_PREFIX)}{_NAME}", re.ASCII)
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", re.ASCII)
"""RFC 9110 section 12.4.2."""


def check_version(version: HttpVersion, headers: Headers) -> None:
    """Refuse what a proxy in front that goes by the version would have seen as another request.

    A request line without one is HTTP/0.9, which has no headers; HTTP/1.0 has no transfer codings, so that one is a
    faulty framing (RFC 9112 section 6.1).

    Raises:
        InvalidRequest: it is neither HTTP/1.0 nor HTTP/1.1, or that.
    """
    if version not in {HttpVersion10, HttpVersion11}:
        raise InvalidRequest("neither HTTP/1.0 nor HTTP/1.1")
    if version == HttpVersion10 and "Transfer-Encoding" in headers:
        raise InvalidRequest("a transfer coding in HTTP/1.0")


def check_target(raw_target: str, paths: Collection[str]) -> None:
    """Refuse a request target that is not exactly a path of the endpoint.

    No query: nothing in MCP uses one, and a token in a query string is forbidden (A-20). No absolute form, no
    percent-encoding of what needs none: a target that a proxy in front may have read differently.

    Raises:
        InvalidRequest: any other target.
    """
    if raw_target not in paths:
        raise InvalidRequest("the request target is not exactly the endpoint's path")


def check_headers(headers: Headers) -> None:
    """Refuse duplicates of headers that decide something, values that are not printable ASCII, and connection strings.

    Raises:
        DatabaseCredentials: a header of any name has a connection string in it.
        InvalidRequest: any other of these.
    """
    for value in headers.values():
        if "://" in value and _CONNECTION_STRING.search(value):
            raise DatabaseCredentials("a connection string in a header")
    seen = set()
    for written, value in headers.items():
        name = _SINGLE.get(written.lower())
        if name is None:
            continue
        if name in seen:
            raise InvalidRequest(f"more than one {name} header")
        if not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"{name} has characters outside printable ASCII")
        seen.add(name)
    for name in ("Mcp-Session-Id", "MCP-Protocol-Version"):
        if name in headers and token_header(headers, name) is None:
            raise InvalidRequest(f"{name} is malformed")


def token_header(headers: Headers, name: str) -> str | None:
    """Return the one well-formed value of a header, or None; never raises, so that refusals can be described."""
    values = headers.getall(name, ())
    if len(values) != 1 or len(values[0]) > MAX_NAME_CHARACTERS or not _VISIBLE.fullmatch(values[0]):
        return None
    return values[0]


def mirrored(headers: Headers) -> MirroredHeaders:
    """Return the headers that repeat parts of the body (MCP 2026-07-28, transports, standard request headers)."""
    named = ((name.lower(), value) for name, value in headers.items())
    return MirroredHeaders(
        method=headers.get("Mcp-Method"),
        name=headers.get("Mcp-Name"),
        parameters=tuple(
            (name.removeprefix(mcp_mirrored.PARAMETER_PREFIX), value)
            for name, value in named
            if name.startswith(mcp_mirrored.PARAMETER_PREFIX)
        ),
    )


def requested_parameters(headers: Headers) -> list[str]:
    """Return which headers that repeat arguments a page wants to send; their names depend on the tool (Fetch, CORS)."""
    wanted = headers.get("Access-Control-Request-Headers", "")[:MAX_ACCEPT_CHARACTERS].lower().split(",")
    return [name for one in wanted if _PARAMETER_HEADER.fullmatch(name := one.strip(" \t"))]


def check_host(headers: Headers, allowed: Collection[str]) -> None:
    """Refuse a Host that is not this endpoint's: DNS rebinding (M-03, CVE-2025-66414), routing tricks (CVE-2026-48710).

    Args:
        headers: the request's.
        allowed: lower-case ``name`` (any port) or ``name:port``.

    Raises:
        HostRefused: absent, malformed, or not allowed.
    """
    if not any(spelling in allowed for spelling in _spellings(headers.get("Host", "").lower())):
        raise HostRefused("host not allowed")


@lru_cache(maxsize=64)
def _spellings(host: str) -> tuple[str, ...]:
    """Return a host with and without its port; nothing if it is malformed."""
    match = HOST.fullmatch(host)
    if match is None or int((match[3] or ":0")[1:]) > MAX_PORT:
        return ()
    return match[0], match[1]


def check_origin(headers: Headers, allowed: Collection[str]) -> str | None:
    """Refuse an Origin that is not allowed (M-02); absent is accepted, since only browsers send it.

    Args:
        headers: the request's.
        allowed: as ``sidecar.edge.origins`` spells them.

    Returns:
        The origin as the browser spelt it, or None where there is none.

    Raises:
        OriginRefused: present and not allowed; ``null`` (a sandboxed page or a file) never is.
    """
    said = headers.get("Origin")
    if said is None:
        return None
    try:
        spellings = origin(said)
    except ValueError as error:
        raise OriginRefused("origin malformed") from error
    if not set(spellings) & set(allowed):
        raise OriginRefused("origin not allowed")
    return said


def credential(headers: Headers, method: str, uri: ResourceUri, certificate: str | None = None) -> Credential | None:
    """Return what the request proves itself with, or None where there is no Authorization header.

    Args:
        headers: the request's.
        method: the request's.
        uri: this endpoint's as clients dial it, which proofs name; a proxy in front may have changed the target.
        certificate: thumbprint of the client's, which TLS saw proven.

    Raises:
        MalformedAuthorization: there is one, but it is not exactly one credential of a known scheme.
    """
    value = headers.get("Authorization")
    if value is None:
        return None
    match = _CREDENTIAL.fullmatch(value)
    if match is None:
        raise MalformedAuthorization("not one credential of a known scheme")
    return Credential(
        scheme=AuthScheme.DPOP if match[1].lower() == "dpop" else AuthScheme.BEARER,
        token=UnverifiedToken(match[2]),
        proof=headers.get("DPoP"),
        certificate=certificate,
        method=method,
        uri=uri.text,
    )


def check_content(headers: Headers) -> None:
    """Refuse a body that is not plain JSON in UTF-8.

    A gateway that skips what it does not recognise as JSON can be walked around (ToolHive before 0.42.1), and a
    compressed body is a bomb or a second parser.

    Raises:
        MediaTypeRefused: as said.
        InvalidRequest: a transfer coding beside chunked, which would be one more.
    """
    if headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        # RFC 9112 section 6.1; llhttp would take "gzip, chunked" and leave the gzip in place
        raise InvalidRequest("a transfer coding other than chunked")
    name, parameters = _media_type(headers.get("Content-Type", ""))
    if name != JSON or len(parameters) > 1 or not set(parameters) <= _UTF8:
        raise MediaTypeRefused("not application/json")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaTypeRefused("a content encoding")


def check_accept(headers: Headers, *needed: str) -> None:
    """Refuse a client that could not read the answer (M-04).

    Raises:
        NotAcceptable: one of the needed media types is not accepted; also where there is no Accept header, since MCP
            says that clients MUST send it.
    """
    accept = ",".join(headers.getall("Accept", ()))
    if len(accept) > MAX_ACCEPT_CHARACTERS:
        raise NotAcceptable("Accept is longer than anybody's list of media types")
    ranges = _accepted_ranges(accept)
    for media_type in needed:
        main, _, _ = media_type.partition("/")
        quality = next((ranges[name] for name in (media_type, f"{main}/*", "*/*") if name in ranges), 0.0)
        if quality <= 0:
            raise NotAcceptable(f"{media_type} is not accepted")


@lru_cache(maxsize=64)
def _accepted_ranges(accept: str) -> Mapping[str, float]:
    """Read an Accept header (RFC 9110 section 12.5.1): media range → quality.

    Elements that are not well-formed count for nothing. Parameters other than ``q`` are not looked at: what is sent
    here has one form only.
    """
    ranges: dict[str, float] = {}
    for element in _ELEMENT.findall(accept):
        name, parameters = _media_type(element.strip(" \t"))
        qualities = [value for key, value in parameters if key == "q"] or ["1"]
        if name and len(qualities) == 1 and _QUALITY.fullmatch(qualities[0]):
            ranges[name] = float(qualities[0])
    return ranges


@lru_cache(maxsize=64)
def _media_type(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a media type and its parameters in lower case, without quotes; an empty type if it is not well-formed."""
    match = _MEDIA_TYPE.fullmatch(text)
    if match is None:
        return "", ()
    found = _PARAMETER.findall(match[2])
    return match[1].lower(), tuple((key.lower(), value.strip('"').lower()) for key, value in found)
