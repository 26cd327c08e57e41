"""This endpoint as an OAuth 2.0 protected resource: its path, its metadata, and which error gets which challenge.

The texts themselves are ``sidecar.identity.challenge``'s. Everything is fixed at start from settings; nothing of a
request ever enters a challenge, because clients parse it with regular expressions (reference A-10).
"""

from dataclasses import dataclass
from typing import Final

from sidecar.errors import (
    AuthenticationError,
    ConfigurationError,
    InsufficientScope,
    MalformedAuthorization,
    NonceRequired,
    ProofRejected,
    SidecarError,
    TokenRejected,
)
from sidecar.identity import ResourceUri, challenge, proof_challenge, resource_metadata
from sidecar.mcp import jsonrpc

_ERROR_CODE: Final[dict[type[SidecarError], str]] = {
    TokenRejected: "invalid_token",
    MalformedAuthorization: "invalid_request",
    InsufficientScope: "insufficient_scope",
}
"""RFC 6750 section 3.1. Not for TokenMissing: without a token there is no error to name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedResource:
    """What clients are told about this endpoint (RFC 9728).

    Raises:
        ConfigurationError: a field that clients would stumble over.
    """

    uri: ResourceUri
    """The canonical URI as clients dial it (A-02)."""
    authorization_servers: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    """The least that is needed to begin with, not the catalogue (A-04)."""

    proof_algorithms: tuple[str, ...] = ()
    """What a proof of possession may be signed with (RFC 9449); none where no issuer's tokens may be bound."""

    certificates: bool = False
    """Whether tokens may be bound to certificates of clients (RFC 8705)."""

    def __post_init__(self) -> None:
        try:
            self.metadata()
            self.challenge(TokenRejected())
        except ValueError as error:
            raise ConfigurationError(f"protected resource: {error}") from error

    @property
    def path(self) -> str:
        """The path of the MCP endpoint."""
        return self.uri.path

    @property
    def metadata_path(self) -> str:
        """Where RFC 9728 section 3.1 puts the metadata: the endpoint's path after the well-known one."""
        return self.uri.metadata_path

    def metadata(self) -> bytes:
        """Return the metadata document."""
        return jsonrpc.encode(
            resource_metadata(
                self.uri,
                self.authorization_servers,
                self.scopes,
                self.proof_algorithms,
                certificates=self.certificates,
            )
        )

    def challenge(self, error: SidecarError) -> str | None:
        """Return the ``WWW-Authenticate`` value for an error, or None where it is not about authorization."""
        if not isinstance(error, AuthenticationError | InsufficientScope):
            return None
        if self.proof_algorithms and isinstance(error, ProofRejected):
            wrong = "use_dpop_nonce" if isinstance(error, NonceRequired) else "invalid_dpop_proof"
            return proof_challenge(self.proof_algorithms, self.uri.metadata_url, wrong)
        code = next((_ERROR_CODE[kind] for kind in type(error).__mro__ if kind in _ERROR_CODE), None)
        needed = error.scopes if isinstance(error, InsufficientScope) and error.scopes else self.scopes
        description = error.public if isinstance(error, InsufficientScope) else None
        said = challenge(self.uri.metadata_url, needed, code, description)
        # Bearer first: clients of MCP look for it at the beginning.
        return f"{said}, {proof_challenge(self.proof_algorithms)}" if self.proof_algorithms else said
