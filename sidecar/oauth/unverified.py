"""What a token says about itself before anybody believed it.

Everything here is named unverified and serves two ends only: to choose the key set, and to refuse early what could
never be accepted. The claims that count are read again, after the signature was checked, from the same bytes.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from sidecar import strict_json
from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject, JsonValue, UnverifiedToken

_COMPACT_JWS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
"""RFC 7515 section 3.1. Five segments would be a JWE; an empty third one is ``alg: none`` (RFC 8725 section 3.1)."""

_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "zip", "enc"})
"""Header parameters that change what the signed bytes mean: RFC 7515 section 4.1.11 (extensions that are not understood
must be refused; none is), RFC 7797 (unencoded payload), RFC 7516 (compression and encryption)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedHeader:
    """The three JOSE header parameters that are used; ``jku``, ``x5u``, ``jwk`` and ``x5c`` are never read."""

    algorithm: str
    key_id: str | None
    type: str
    """Lower case, as media types compare (RFC 7515 section 4.1.9); empty where absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedJwt:
    """A compact JWS, split and decoded, not verified."""

    header: UnverifiedHeader
    issuer: str


def peek(token: UnverifiedToken, longest: int) -> UnverifiedJwt:
    """Split and decode a token without believing it.

    Args:
        token: what was presented.
        longest: characters of a token that is looked at.

    Raises:
        TokenRejected: the token is not a compact JWS whose header and payload are strict JSON objects, or its header
            asks for something that is never done here.
    """
    if len(token) > longest:
        raise TokenRejected(f"token of more than {longest} characters", fault=TokenFault.TOO_LONG)
    header, payload = split(token)
    issuer = payload.get("iss")
    if not isinstance(issuer, str):
        raise TokenRejected("token names no issuer", fault=TokenFault.MALFORMED)
    return UnverifiedJwt(header=_header(header), issuer=issuer)


def is_jws(token: str) -> bool:
    """Whether a token has the form of a JWT: what has not is opaque, and means nothing without its issuer."""
    return _COMPACT_JWS.fullmatch(token) is not None


def split(token: str) -> tuple[JsonObject, JsonObject]:
    """Return header and payload of a compact JWS.

    Raises:
        TokenRejected: it is none, or its header asks for an extension.
    """
    segments = _COMPACT_JWS.fullmatch(token)
    if segments is None:
        raise TokenRejected("token is not a compact JWS", fault=TokenFault.MALFORMED)
    header = _segment(segments[1])
    payload = _segment(segments[2])
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise TokenRejected("token header asks for an extension", fault=TokenFault.MALFORMED)
    return header, payload


def _header(header: JsonObject) -> UnverifiedHeader:
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str) or not isinstance(kind, str):
        raise TokenRejected("token header is malformed", fault=TokenFault.MALFORMED)
    if "kid" in header and not isinstance(key_id, str):
        raise TokenRejected("token header has a key id that is not a string", fault=TokenFault.MALFORMED)
    return UnverifiedHeader(algorithm=algorithm, key_id=key_id if isinstance(key_id, str) else None, type=kind.lower())


def _segment(text: str) -> JsonObject:
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return strict_object(decoded)
    except (binascii.Error, ValueError) as error:
        raise TokenRejected("token segment is not base64url of strict JSON", fault=TokenFault.MALFORMED) from error


def strict_object(data: bytes) -> JsonObject:
    """Decode one JSON object strictly: no duplicate names (RFC 8725 section 2.6), NaN, infinity or lone surrogate.

    Raises:
        ValueError: ``data`` is not such an object.
    """
    try:
        value: JsonValue = strict_json.DECODER.decode(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the caller's data is wrong, not the caller's type
    jsonrpc.encode(value)  # a lone surrogate has no UTF-8 and raises here
    return value
