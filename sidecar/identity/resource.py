"""The URI of this endpoint as an OAuth 2.0 protected resource: one value, made once from the settings.

The same URI is the audience of tokens (RFC 8707), the ``resource`` of the metadata (RFC 9728), the origin that browsers
may call from, and the path that is served. So the rule for it is here and nowhere else.
"""

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728 section 3."""

APPROVALS_SEGMENT: Final = "/approvals"
"""Below the MCP endpoint, where second persons see the calls that wait."""

_URI: Final = re.compile(r"(https?)://([a-z0-9.:_\[\]-]+)((?:/[A-Za-z0-9._~-]+)*/?)", re.ASCII)
"""Scheme, authority and path in the spelling that needs no normalisation: lower case (MCP 2025-11-25, canonical server
URI), no user, query or fragment (RFC 9728 section 1.2), and a path that no proxy rewrites, because the endpoint is
matched by exact comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUri:
    """The canonical URI of the MCP endpoint as clients dial it."""

    text: str
    """As it was configured; this spelling is the one that clients are told."""
    origin: str
    """Scheme and authority, as browsers send it in ``Origin``."""
    authority: str
    """Host and, where it is not the scheme's own, port: what clients send in ``Host``."""
    path: str
    """The path that is served; ``/`` where the URI has none."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a resource URI.

        Raises:
            ValueError: it is not an http(s) URL of the form above; the detail says what is needed.
        """
        match = _URI.fullmatch(text)
        if match is None or not urlsplit(text).hostname:
            msg = (
                "an http(s) URL with a lower-case host, a plain path, and no user, query or fragment is needed "
                "(RFC 9728 section 1.2)"
            )
            raise ValueError(msg)
        _ = urlsplit(text).port  # raises ValueError where it is not a port
        scheme, authority, path = match.groups()
        return cls(text=text, origin=f"{scheme}://{authority}", authority=authority, path=path or "/")

    @property
    def metadata_path(self) -> str:
        """Where the metadata is: the well-known path before the endpoint's own (RFC 9728 section 3.1)."""
        return f"{WELL_KNOWN}{self.path.rstrip('/')}"

    @property
    def metadata_url(self) -> str:
        """The URL of the metadata."""
        return f"{self.origin}{self.metadata_path}"


def spellings(audience: str) -> frozenset[str]:
    """Return the ways to write one audience: an http(s) URL without a path may end in a slash or not.

    RFC 3986 section 6.2.3: an empty path of such a URL is equivalent to ``/``. Nothing else is equated: case, ports and
    longer paths are compared as they are written, because a token for ``https://host/a`` is not for ``https://host/a/``.
    """
    match = re.fullmatch(r"(https?://[^/?#\s]+)/?", audience)
    return frozenset({audience}) if match is None else frozenset({match[1], f"{match[1]}/"})
