"""Access tokens: verification with PyJWT and the issuers' key sets."""

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
