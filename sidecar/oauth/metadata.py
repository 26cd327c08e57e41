"""An issuer's own metadata (RFC 8414, OpenID Connect Discovery): where it says that its keys are."""

import re
from typing import Final
from urllib.parse import SplitResult

import aiohttp

from sidecar.addresses import is_loopback
from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.model import JsonObject
from sidecar.oauth.fetch import FetchLimits, check_address, fetch_object
from sidecar.oauth.jwk import NotAKeySet

_PUBLIC_NAME: Final = re.compile(r"([a-z0-9_-]+\.)+[a-z][a-z0-9-]*", re.ASCII)


class Discovery:
    """Finds ``jwks_uri`` in the issuer's own metadata (RFC 8414 section 3.1, else OpenID Connect Discovery section 4).

    Args:
        issuer: the issuer exactly as tokens name it.
        session: makes the requests; its owner closes it.
        limits: see ``FetchLimits``.

    Raises:
        ConfigurationError: the issuer is not an address that keys may come from.
    """

    def __init__(self, issuer: str, session: aiohttp.ClientSession, limits: FetchLimits | None = None) -> None:
        try:
            parts = check_address(issuer)
        except ValueError as error:
            raise ConfigurationError(f"issuer: {error}") from error
        if parts.query:
            raise ConfigurationError("issuer: an issuer has no query (RFC 8414 section 2)")
        self._issuer = issuer
        self._host = parts.hostname
        self._loopback = is_loopback(parts.hostname or "")
        self._session = session
        self._limits = limits or FetchLimits()
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        self._addresses = (
            f"{origin}/.well-known/oauth-authorization-server{path}",
            f"{origin}{path}/.well-known/openid-configuration",
        )

    async def __call__(self) -> str:
        """Return the address of the JWK set.

        Raises:
            KeysUnavailable: no metadata, or metadata that is not this issuer's.
        """
        problem = KeysUnavailable("no metadata")
        for address in self._addresses:
            try:
                return self._jwks_uri(await fetch_object(self._session, address, self._limits))
            except KeysUnavailable as error:
                problem = error
        raise problem

    def _jwks_uri(self, metadata: JsonObject) -> str:
        """RFC 8414 section 3.3: the issuer in the metadata must be identical to the one asked for."""
        uri = metadata.get("jwks_uri")
        if metadata.get("issuer") != self._issuer or not isinstance(uri, str):
            raise NotAKeySet("the metadata is not this issuer's")
        try:
            parts = check_address(uri)
        except ValueError as error:
            raise NotAKeySet(f"jwks_uri: {error}") from error
        if parts.hostname != self._host and not self._loopback and not _is_public_name(parts):
            raise NotAKeySet("jwks_uri: a public issuer's keys are not at an internal address")
        return uri


def _is_public_name(parts: SplitResult) -> bool:
    """Whether the host is a name of the public DNS by its form.

    No address literals in any spelling (``2130706433``, ``0x7f.1``, NAT64): GO-2026-5996, GO-2026-6002.
    """
    host = (parts.hostname or "").rstrip(".")
    return _PUBLIC_NAME.fullmatch(host) is not None and not host.endswith((".localhost", ".local", ".internal"))
