"""JWT access tokens (RFC 9068, RFC 8725): what a signed token must be before one of its claims counts.

The order is the whole point: the unverified issuer chose a configured issuer, that issuer's keys and nothing else check
the signature, and only then are the claims read. Every PyJWT option is spelled out, also where it is the default: the
list states what is verified and where.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import jwt

from sidecar.errors import ConfigurationError, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity import CLIENT_CLAIMS, IdentityRules
from sidecar.model import JsonObject, JsonValue, UnverifiedToken
from sidecar.oauth.confirmation import Binding, confirmation
from sidecar.oauth.jwk import ASYMMETRIC_ALGORITHMS, VerificationKey
from sidecar.oauth.key_sets import KeySet
from sidecar.oauth.unverified import UnverifiedJwt
from sidecar.ports import Clock

ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
"""RFC 9068 section 4: the types of an access token. This is what keeps ID tokens, ID-JAGs and DPoP proofs out."""

MAX_LEEWAY_S: Final = 120
"""Clocks that differ by more are broken; the settings have the same bound."""
MAX_CANDIDATES: Final = 4
"""Keys with one key id that are tried for one token; more is not rotation."""
MAX_NUMERIC_DATE: Final = 253_402_300_799
"""The end of the year 9999: later dates are mistakes or attacks on date arithmetic."""

_REQUIRED_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat")
"""RFC 9068 section 2.2, without ``jti`` (not tracked) and ``client_id`` (the claim map says where the agent is)."""
_ID_TOKEN_CLAIMS: Final = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
"""OpenID Connect Core sections 2 and 3.1.3.6, RFC 8417 section 2.2: ID tokens and events carry them. Matters where
other types than RFC 9068's are accepted and nothing is required: older Keycloak has ``nonce`` in access tokens too."""
_OTHER_TYPES: Final = frozenset({"id", "refresh", "offline", "logout", "serialized-id"})
"""Values of a claim ``typ`` by which Keycloak tells its other tokens from access tokens (``Bearer``, ``DPoP``)."""
_IDENTITY_ASSERTION: Final = "oauth-id-jag+jwt"
"""An identity assertion for an authorization grant: for the authorization server, never for a resource (MCP extension
enterprise-managed authorization, section 4)."""
_NEVER_TYPES: Final = frozenset(
    {"dpop+jwt", "logout+jwt", _IDENTITY_ASSERTION, "oauth-authz-req+jwt", "secevent+jwt", "token-introspection+jwt"}
)
"""Header types of JWTs that are something else by their own specifications; no setting makes access tokens of them."""
_ALWAYS_CLAIMS: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "jti"})
"""Claims that tokens of every kind have, so that they tell nothing."""

_JWT_OPTIONS: Final[jwt.types.Options] = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    "require": list(_REQUIRED_CLAIMS),
    "verify_iss": True,
    "verify_aud": True,
    "strict_aud": False,  # RFC 7519 section 4.1.3: a string or an array; A-23
    "verify_sub": True,
    "verify_jti": True,
    # times are checked by check_times, on the injected clock and without PyJWT's coercion of strings and booleans
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}
_NO_AUDIENCE: Final[jwt.types.Options] = {
    **_JWT_OPTIONS,
    "require": [name for name in _REQUIRED_CLAIMS if name != "aud"],
    "verify_aud": False,  # check_client does
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """An authorization server that is trusted to say who is calling.

    Raises:
        ConfigurationError: a field that would make a check vacuous or unsafe.
    """

    issuer: str
    """Compared exactly; no normalisation (A-24)."""
    audiences: frozenset[str]
    """Any one of these must be in ``aud``."""
    keys: KeySet
    rules: IdentityRules = field(default_factory=IdentityRules)
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})
    token_types: frozenset[str] = ACCESS_TOKEN_TYPES
    """Lower case; the empty one stands for a header without ``typ``. ``jwt`` admits issuers older than RFC 9068."""
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What marks an access token where the type does not: claims that must be there, as one of the texts; no text at
    all lets every value count."""
    clients: frozenset[str] = frozenset()
    """Clients whose tokens need no ``aud``; empty: every token needs one."""
    leeway_s: float = 30.0
    dpop: Binding = Binding.OFF
    """Tokens bound to a key of the client (RFC 9449)."""
    dpop_nonce: bool = False
    """Whether proofs have to carry a nonce (RFC 9449 section 9)."""
    mtls: Binding = Binding.OFF
    """Tokens bound to a certificate of the client (RFC 8705)."""

    def __post_init__(self) -> None:
        if not self.issuer or not self.audiences or "" in self.audiences:
            raise ConfigurationError("an issuer has a name and at least one audience")
        if not self.algorithms or not self.algorithms <= ASYMMETRIC_ALGORITHMS:
            raise ConfigurationError(f"algorithms of {self.issuer}: only {sorted(ASYMMETRIC_ALGORITHMS)}")
        if not self.token_types or any(kind != kind.lower() for kind in self.token_types):
            raise ConfigurationError(f"token types of {self.issuer}: at least one, lower case")
        if not _NEVER_TYPES.isdisjoint(kind.removeprefix("application/") for kind in self.token_types):
            raise ConfigurationError(f"token types of {self.issuer}: {sorted(_NEVER_TYPES)} are no access tokens")
        if "" in self.token_types and not self.required:
            raise ConfigurationError(f"{self.issuer}: tokens without typ need `required`, which marks access tokens")
        if not _ALWAYS_CLAIMS.isdisjoint(self.required) or "" in self.required:
            raise ConfigurationError(f"{self.issuer}: `required` names a claim that tokens of every kind have")
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise ConfigurationError(f"leeway of {self.issuer}: between 0 and {MAX_LEEWAY_S} seconds")
        if Binding.REQUIRED in (self.dpop, self.mtls) and Binding.OFF not in (self.dpop, self.mtls):
            raise ConfigurationError(f"{self.issuer}: what is required in one of dpop and mtls is off in the other")


async def verified_claims(
    token: UnverifiedToken, unverified: UnverifiedJwt, issuer: TrustedIssuer, clock: Clock
) -> JsonObject:
    """Return the claims of a token that this issuer signed for this resource and that is valid now.

    Args:
        token: the token that ``unverified`` was read from.
        unverified: its header; the issuer that it names is ``issuer``.
        issuer: what is demanded of its tokens.
        clock: read after the keys are there, which can take a while.

    Raises:
        TokenRejected: the token proves nothing here.
        KeysUnavailable: the issuer's keys cannot be had.
    """
    _check_header(unverified, issuer)
    algorithm = unverified.header.algorithm
    candidates = await issuer.keys.candidates(unverified.header.key_id, algorithm)
    claims = _signed_claims(token, algorithm, candidates, issuer)
    check_times(claims, issuer, clock.time_ns() / 1e9)
    return claims


def _check_header(unverified: UnverifiedJwt, issuer: TrustedIssuer) -> None:
    if unverified.header.algorithm not in issuer.algorithms:
        raise TokenRejected("algorithm not allowed for this issuer", fault=TokenFault.ALGORITHM)
    if unverified.header.type.removeprefix("application/") == _IDENTITY_ASSERTION:
        raise TokenRejected("an identity assertion, which the issuer exchanges", fault=TokenFault.ASSERTION)
    if unverified.header.type not in issuer.token_types:
        raise TokenRejected("not an access token by its type", fault=TokenFault.TYPE)


def _signed_claims(
    token: UnverifiedToken, algorithm: str, candidates: tuple[VerificationKey, ...], issuer: TrustedIssuer
) -> JsonObject:
    """Return the claims of a token that one of ``candidates`` signed.

    ``algorithm`` comes from the token's header, but has passed the issuer's allow-list, and every candidate is a key of
    exactly that algorithm's type: neither ``none`` nor a shared-secret algorithm can get here (RFC 8725 section 3.1).
    """
    if not candidates or len(candidates) > MAX_CANDIDATES:
        raise TokenRejected("no key, or too many keys, for this key id and algorithm", fault=TokenFault.KEY)
    options, audiences = (_JWT_OPTIONS, sorted(issuer.audiences)) if not issuer.clients else (_NO_AUDIENCE, None)
    for key in candidates:
        try:
            claims: JsonObject = jwt.decode(
                token,
                key.public_key,
                algorithms=[algorithm],
                options=options,
                issuer=issuer.issuer,
                audience=audiences,
                subject=None,
                leeway=0,
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.PyJWTError as error:
            raise TokenRejected(type(error).__name__, fault=_fault(error)) from error
        check_claims(claims, issuer)
        return claims
    raise TokenRejected("signature does not match", fault=TokenFault.SIGNATURE)


def check_claims(claims: JsonObject, issuer: TrustedIssuer) -> None:
    """Refuse claims by which a token is bound to what is not checked here, or is no access token.

    Raises:
        TokenRejected: so it is.
    """
    bound = confirmation(claims)
    if (bound.key and issuer.dpop is Binding.OFF) or (bound.certificate and issuer.mtls is Binding.OFF):
        # A-45, RFC 9449 section 7.1: a bound token is no bearer token, and this kind of proof is not checked
        raise TokenRejected("the token is bound to a key or a certificate", fault=TokenFault.BOUND)
    if issuer.clients:
        check_client(claims, issuer)
    for name, values in issuer.required.items():
        value = claims.get(name)
        if value is None or (values and value not in values):
            raise TokenRejected(f"claim {name} does not mark an access token", fault=TokenFault.TYPE)
    marked = bool(issuer.required) or issuer.token_types <= ACCESS_TOKEN_TYPES
    if (not marked and not _ID_TOKEN_CLAIMS.isdisjoint(claims)) or _is_other_kind(claims):
        raise TokenRejected("another token than an access token", fault=TokenFault.TYPE)


def _is_other_kind(claims: JsonObject) -> bool:
    """Whether a claim says that this is not an access token (Keycloak's ``typ``, Cognito's ``token_use``)."""
    kind = claims.get("typ")
    return claims.get("token_use") == "id" or (isinstance(kind, str) and kind.lower() in _OTHER_TYPES)


def check_client(claims: JsonObject, issuer: TrustedIssuer) -> None:
    """Demand an audience or, where the token has none, one of the accepted clients (Cognito: ``client_id`` only).

    Raises:
        TokenRejected: the token is for another resource.
    """
    if "aud" in claims:
        audience = claims["aud"]
        members = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(member, str) for member in members) or issuer.audiences.isdisjoint(members):
            raise TokenRejected("the token is for another resource", fault=TokenFault.AUDIENCE)
        return
    client = next((claims[name] for name in CLIENT_CLAIMS if claims.get(name) is not None), None)
    if not isinstance(client, str) or client not in issuer.clients:
        raise TokenRejected("no audience, and the client is not accepted", fault=TokenFault.AUDIENCE)


def _fault(error: jwt.PyJWTError) -> TokenFault:
    match error:
        case jwt.InvalidAudienceError():
            return TokenFault.AUDIENCE
        case jwt.MissingRequiredClaimError(claim="aud"):
            return TokenFault.AUDIENCE
        case jwt.DecodeError():
            return TokenFault.SIGNATURE  # of a form that is none; header and payload were decoded before
        case jwt.InvalidIssuerError():
            return TokenFault.ISSUER
        case _:
            return TokenFault.CLAIM


def check_times(claims: JsonObject, issuer: TrustedIssuer, now: float) -> None:
    """RFC 7519 sections 4.1.4 to 4.1.6, with the issuer's leeway; a missing ``iat`` was refused before where it counts.

    Raises:
        TokenRejected: not now.
    """
    if _numeric_date(claims, "exp") + issuer.leeway_s <= now:
        raise TokenRejected("expired", fault=TokenFault.EXPIRED)
    if "iat" in claims and _numeric_date(claims, "iat") - issuer.leeway_s > now:
        raise TokenRejected("issued in the future", fault=TokenFault.NOT_YET)
    if "nbf" in claims and _numeric_date(claims, "nbf") - issuer.leeway_s > now:
        raise TokenRejected("not yet valid", fault=TokenFault.NOT_YET)


def _numeric_date(claims: JsonObject, name: str) -> float:
    """RFC 7519 section 2 NumericDate: a JSON number; a string or a boolean is not one."""
    value: JsonValue = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"{name} is not a number", fault=TokenFault.CLAIM)
    if not 0 <= value <= MAX_NUMERIC_DATE:  # compared before it becomes a float, which a long integer cannot
        raise TokenRejected(f"{name} is out of range", fault=TokenFault.CLAIM)
    return float(value)
