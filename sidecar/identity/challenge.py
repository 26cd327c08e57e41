"""What an unauthenticated client is told: the ``WWW-Authenticate`` challenge and the protected resource metadata.

Everything put into a header here is checked against the grammar of RFC 6750 section 3 first; a value outside it is a
mistake in the configuration or in the code, never a caller's, so it is a ``ValueError``.
"""

import re
from collections.abc import Sequence
from typing import Final

from sidecar.identity.resource import ResourceUri
from sidecar.model import JsonObject

ERRORS: Final = frozenset({"invalid_request", "invalid_token", "insufficient_scope"})
"""RFC 6750 section 3.1; MCP adds none."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_DESCRIPTION: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
_URL: Final = re.compile(r"https?://[\x21\x23-\x5b\x5d-\x7e]+")


def challenge(
    metadata_url: str, scopes: Sequence[str], error: str | None = None, description: str | None = None
) -> str:
    """Return the value of a ``WWW-Authenticate`` header (RFC 6750 section 3, RFC 9728 section 5.1).

    Args:
        metadata_url: where the protected resource metadata is.
        scopes: what a token needs for this operation; none leaves the parameter out.
        error: only where a token was presented (RFC 6750 section 3.1).
        description: a constant sentence for developers.

    Raises:
        ValueError: a value that the header's grammar does not allow, a line break or a quote above all.
    """
    parameters = {"resource_metadata": _checked(_URL, metadata_url)}
    if scopes:
        parameters["scope"] = " ".join(_checked(_SCOPE_TOKEN, scope) for scope in scopes)
    if error is not None:
        if error not in ERRORS:
            raise ValueError("not an error code of RFC 6750")
        parameters["error"] = error
    if description is not None:
        parameters["error_description"] = _checked(_DESCRIPTION, description)
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def proof_challenge(algorithms: Sequence[str], metadata_url: str | None = None, error: str | None = None) -> str:
    """Return the challenge that asks for a proof of possession (RFC 9449 section 7.1).

    Args:
        algorithms: what a proof may be signed with.
        metadata_url: where the protected resource metadata is; only where no other challenge says it.
        error: only where a proof was presented or is missing.

    Raises:
        ValueError: a value that the header's grammar does not allow.
    """
    parameters = {} if metadata_url is None else {"resource_metadata": _checked(_URL, metadata_url)}
    if error is not None:
        parameters["error"] = _checked(_SCOPE_TOKEN, error)
    parameters["algs"] = " ".join(_checked(_SCOPE_TOKEN, algorithm) for algorithm in algorithms)
    return "DPoP " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())


def resource_metadata(
    resource: ResourceUri,
    authorization_servers: Sequence[str],
    scopes: Sequence[str],
    proof_algorithms: Sequence[str] = (),
    *,
    certificates: bool = False,
) -> JsonObject:
    """Return the protected resource metadata (RFC 9728 section 2).

    Args:
        resource: the canonical URI of this endpoint as clients dial it.
        authorization_servers: issuer identifiers, at least one (MCP 2025-11-25, authorization server location).
        scopes: the scopes that basic use needs, not all there are (MCP, scope selection); none leaves the member out.
        proof_algorithms: what a proof of possession may be signed with; none where there are no proofs.
        certificates: whether tokens may be bound to certificates of clients (RFC 8705 section 3.3).

    Raises:
        ValueError: no server, a server that is not a URL, or a scope of no scope's form.
    """
    if not authorization_servers:
        raise ValueError("a protected resource names an authorization server")
    metadata: JsonObject = {
        "resource": resource.text,
        "authorization_servers": [_checked(_URL, server) for server in authorization_servers],
        "bearer_methods_supported": ["header"],
    }
    if scopes:
        metadata["scopes_supported"] = [_checked(_SCOPE_TOKEN, scope) for scope in scopes]
    if proof_algorithms:
        metadata["dpop_signing_alg_values_supported"] = [*proof_algorithms]
    if certificates:
        metadata["tls_client_certificate_bound_access_tokens"] = True
    return metadata


def _checked(grammar: re.Pattern[str], value: str) -> str:
    if not grammar.fullmatch(value):
        raise ValueError("a value that the grammar does not allow")
    return value
