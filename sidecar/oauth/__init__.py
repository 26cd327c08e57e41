"""Access tokens: verification with PyJWT and the issuers' key sets."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.oauth import key_sets
    from sidecar.oauth.client_authentication import AuthMethod, ClientAuthentication
    from sidecar.oauth.confirmation import Binding
    from sidecar.oauth.dpop import PROOF_ALGORITHMS
    from sidecar.oauth.fetch import FetchLimits, check_address
    from sidecar.oauth.introspection import Introspection
    from sidecar.oauth.jwk import NotAKeySet
    from sidecar.oauth.jwt_tokens import MAX_LEEWAY_S, TrustedIssuer
    from sidecar.oauth.key_sets import FileKeySet, KeySet, RemoteKeySet, WatchedKeySet
    from sidecar.oauth.metadata import Discovery
    from sidecar.oauth.nonces import LEAST_KEY_BYTES, Nonces
    from sidecar.oauth.proof_maker import ProofMaker
    from sidecar.oauth.proof_memory import ProofsInMemory
    from sidecar.oauth.verifier import JwtVerifier
else:
    __getattr__ = by_need(
        __name__,
        {
            "LEAST_KEY_BYTES": "nonces",
            "MAX_LEEWAY_S": "jwt_tokens",
            "PROOF_ALGORITHMS": "dpop",
            "AuthMethod": "client_authentication",
            "Binding": "confirmation",
            "ClientAuthentication": "client_authentication",
            "Discovery": "metadata",
            "FetchLimits": "fetch",
            "FileKeySet": "key_sets",
            "Introspection": "introspection",
            "JwtVerifier": "verifier",
            "KeySet": "key_sets",
            "Nonces": "nonces",
            "NotAKeySet": "jwk",
            "ProofMaker": "proof_maker",
            "ProofsInMemory": "proof_memory",
            "RemoteKeySet": "key_sets",
            "TrustedIssuer": "jwt_tokens",
            "WatchedKeySet": "key_sets",
            "check_address": "fetch",
            "key_sets": "key_sets",
        },
    )

__all__ = [
    "LEAST_KEY_BYTES",
    "MAX_LEEWAY_S",
    "PROOF_ALGORITHMS",
    "AuthMethod",
    "Binding",
    "ClientAuthentication",
    "Discovery",
    "FetchLimits",
    "FileKeySet",
    "Introspection",
    "JwtVerifier",
    "KeySet",
    "Nonces",
    "NotAKeySet",
    "ProofMaker",
    "ProofsInMemory",
    "RemoteKeySet",
    "TrustedIssuer",
    "WatchedKeySet",
    "check_address",
    "key_sets",
]
