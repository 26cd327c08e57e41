"""Documents that trust stands on, fetched over HTTP: from configured addresses, without redirects, within limits."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp

from sidecar.addresses import is_loopback
from sidecar.errors import KeysUnavailable
from sidecar.model import JsonObject
from sidecar.oauth.jwk import NotAKeySet
from sidecar.oauth.unverified import strict_object

MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""Of a key set or of an issuer's metadata."""


ProxyFor = Callable[[str], str | None]
"""The URL of the proxy that an address is fetched through, or None for none."""


def no_proxy(_uri: str) -> None:
    """Fetch directly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How a key server is reached, and how much it may cost; seconds and bytes."""

    proxy_for: ProxyFor = no_proxy
    """Not asked for this machine's own addresses, which no proxy could reach."""

    timeout_s: float = 5.0
    max_bytes: int = MAX_DOCUMENT_BYTES
    max_age_s: float = 600.0
    """A set older than this is fetched again before it is used."""
    max_stale_s: float = 86_400.0
    """How long a good set outlives a key server that is down; afterwards tokens of this issuer are refused."""
    cooldown_s: float = 5.0
    """Shortest time between two fetches: a flood of unknown key ids must not become a flood of requests to the issuer
    (the rule of Warehouse's ``oidc/`` room). A token with a key that is newer than the last fetch waits that long."""
    retry_s: float = 2.0
    """The same after a failure, so that an issuer's restart is not felt for a whole cool-down."""


async def fetch_object(session: aiohttp.ClientSession, uri: str, limits: FetchLimits) -> JsonObject:
    """GET one strict JSON object: no redirect, no cookie, a time and a size limit.

    Raises:
        KeysUnavailable: anything else than status 200 with such a body in time.
    """
    return await _object(session.get, uri, limits, {})


async def post_object(
    session: aiohttp.ClientSession,
    uri: str,
    form: Mapping[str, str],
    limits: FetchLimits,
    headers: Mapping[str, str],
    context: SSLContext | None,
) -> JsonObject:
    """POST a form and return one strict JSON object, within the same limits.

    Args:
        session: makes the request.
        uri: where to.
        form: the parameters; some are secret.
        limits: time and size.
        headers: further headers; some are secret.
        context: with the client's certificate, where it has one.

    Raises:
        KeysUnavailable: as for ``fetch_object``.
    """
    return await _object(partial(session.post, data=form, ssl=context or True), uri, limits, headers)


async def _object(
    send: Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]],
    uri: str,
    limits: FetchLimits,
    headers: Mapping[str, str],
) -> JsonObject:
    try:
        async with send(
            uri,
            proxy=None if is_loopback(urlsplit(uri).hostname or "") else limits.proxy_for(uri),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=limits.timeout_s),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **headers},
        ) as response:
            if response.status != 200:  # noqa: PLR2004 - the one status that means "here it is"
                raise KeysUnavailable(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise NotAKeySet("answer too large")
            return strict_object(bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise KeysUnavailable(f"{type(error).__name__}") from error
    except ValueError as error:
        raise NotAKeySet("answer is not a strict JSON object") from error


def check_address(uri: str) -> SplitResult:
    """Return the parts of an address that trust anchors may come from: HTTPS, or plain HTTP on this machine.

    Raises:
        ValueError: it is not one.
    """
    parts = urlsplit(uri)
    if not parts.hostname or parts.username is not None or parts.fragment or not uri.isascii():
        raise ValueError("an absolute address without user and fragment is needed")
    _ = parts.port  # a port that is none raises ValueError
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise ValueError("HTTPS is required for anything but loopback")
    return parts
