"""Does a person speak in a token, or only software?

Delegated authorization lends an agent what a *user* may do. With the client credentials grant a client gets a token for
itself; taken for a user it would be its own user and pass wherever a user and an agent are both asked for. Issuers mark
such tokens each in its own way, and some hardly: so there are two rules, and both must hold.

- Marks of software: known shapes of the issuers in use (``_marks``). They always count; no setting turns them off.
- A ``PersonRule`` is what an operator knows of an issuer's tokens: what people's tokens have and others have not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import JsonValue

Claims: TypeAlias = Mapping[str, JsonValue]

CLIENT_CLAIMS: Final = ("client_id", "azp", "cid", "appid", "clientId")
"""Where issuers put the client, in this order: RFC 9068 and Cognito; OpenID Connect, Keycloak, Entra ID v2 and Auth0;
Okta; Entra ID v1; older Keycloak."""

_GRANT_CLAIMS: Final = ("gty", "grant_type", "grantType")
"""Where issuers put the grant: Auth0, Kinde; others."""

_CLIENT_CREDENTIALS: Final = frozenset({"client-credentials", "client_credentials"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRule:
    """What the tokens of people have, at one issuer. An empty rule asks for nothing beyond the marks of software.

    Claims are paths as in ``ClaimMap``. Values compare exactly; a number or a boolean compares as JSON writes it.
    Patterns are globs of ``*`` only, in the letters' own case.
    """

    claims: tuple[str, ...] = ()
    """Each must be there."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each must be there, as one text of the list."""
    subjects: tuple[str, ...] = ()
    """``sub`` must match one of them."""
    not_claims: tuple[str, ...] = ()
    """None may be there."""
    not_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """None may be there with one of these values, or with a list that holds one."""
    not_subjects: tuple[str, ...] = ()
    """``sub`` must match none of them."""

    def __post_init__(self) -> None:
        listed = [*self.values.values(), *self.not_values.values()]
        texts = (*self.claims, *self.subjects, *self.not_claims, *self.not_subjects, *self.values, *self.not_values)
        if not all(listed) or not all((*texts, *(text for values in listed for text in values))):
            raise ValueError("a rule about persons has no empty claim, value or pattern")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Why a token is not taken for a person's. The detail may name a claim, never its value."""

    fault: TokenFault
    detail: str


def doubt(claims: Claims, rule: PersonRule, subject: str, agent: str) -> Doubt | None:
    """Return why no person speaks here, or None where one does.

    Args:
        claims: verified claims.
        rule: what the issuer's tokens for people have.
        subject: the user as the claim map finds it; ``sub`` itself is looked at too.
        agent: the agent as the claim map finds it.

    Raises:
        TokenRejected: a path of the rule leads through something that is no object.
    """
    mark = next(_marks(claims, subject, agent), None) or _excluded(claims, rule)
    if mark is not None:
        return Doubt(fault=TokenFault.NO_PERSON, detail=f"token has no user: {mark}")
    missing = _missing(claims, rule)
    if missing is not None:
        return Doubt(fault=TokenFault.PERSON_NOT_PROVEN, detail=f"token does not prove a user: {missing}")
    return None


def _missing(claims: Claims, rule: PersonRule) -> str | None:
    for claim in (*rule.claims, *rule.values):
        if find(claims, claim) is None:
            return f"people's tokens have the claim {claim}"
    for claim, values in rule.values.items():
        if _text(find(claims, claim)) not in values:
            return f"the claim {claim} is another than in people's tokens"
    if rule.subjects and not _matches(rule.subjects, claims.get("sub")):
        return "sub is not of the form that people's tokens have"
    return None


def _excluded(claims: Claims, rule: PersonRule) -> str | None:
    for claim in rule.not_claims:
        if find(claims, claim) is not None:
            return f"people's tokens do not have the claim {claim}"
    for claim, values in rule.not_values.items():
        if set(_texts(find(claims, claim))) & set(values):
            return f"the claim {claim} is as in software's tokens"
    if _matches(rule.not_subjects, claims.get("sub")):
        return "sub is of the form that software's tokens have"
    return None


def find(claims: Claims, path: str) -> JsonValue:
    """Return the claim at ``path``, or None where there is none.

    A path with dots is a nested claim, unless a claim of exactly that name exists; one with ``://`` is always a name.

    Raises:
        TokenRejected: the path leads through something that is no object.
    """
    if path in claims:
        return claims[path]
    head, dot, rest = path.partition(".")
    if "://" in path or not dot or claims.get(head) is None:
        return None
    nested = claims[head]
    if not isinstance(nested, dict):
        raise TokenRejected(f"claim {head} is not an object", fault=TokenFault.CLAIM)
    return find(nested, rest)


def _marks(claims: Claims, subject: str, agent: str) -> Iterator[str]:
    """Yield every known mark that the token bears, most telling first."""
    own = claims.get("sub")
    subjects = {subject, own} if isinstance(own, str) else {subject}
    if subject == agent or subjects & {text for claim in CLIENT_CLAIMS for text in _texts(claims.get(claim))}:
        yield "the subject is the client"  # RFC 9068 section 2.2; also Okta and Cognito
    if any(_CLIENT_CREDENTIALS.intersection(_texts(claims.get(claim))) for claim in _GRANT_CLAIMS):
        yield "the grant is client credentials"  # Auth0 access token profiles, gty
    if isinstance(own, str) and own.endswith("@clients"):
        yield "the subject is a client of Auth0"  # Auth0 access token profiles, sub; the RFC 9068 profile has no gty
    yield from _keycloak(claims)
    yield from _entra(claims)
    if claims.get("aut") == "APPLICATION":
        yield "the token is an application's"  # WSO2 Identity Server; a person's says APPLICATION_USER


def _keycloak(claims: Claims) -> Iterator[str]:
    """Service accounts: a user of fixed name, and the claims of the built-in client scope ``service_account``."""
    username = claims.get("preferred_username")
    if isinstance(username, str) and username.startswith("service-account-"):
        yield "a service account of Keycloak"
    if claims.get("clientHost") is not None or claims.get("clientAddress") is not None:
        yield "a service account of Keycloak, by where the client is"


def _entra(claims: Claims) -> Iterator[str]:
    """Entra ID, access token claims reference: ``scp`` is in users' tokens only; ``sub`` is a pairwise id for users.

    ``idtyp`` is an optional claim that must be asked for, so its absence says nothing.
    """
    if claims.get("idtyp") not in (None, "user"):  # a tuple: the claim can be of any type
        yield "not a user by idtyp"
    if claims.get("oid") is None:
        return
    if claims["oid"] == claims.get("sub"):
        yield "the subject is the object of Entra ID"
    if claims.get("tid") is not None and claims.get("scp") is None:
        yield "a token of Entra ID without scp"


def _text(value: JsonValue) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return None


def _texts(value: JsonValue) -> list[str]:
    members = value if isinstance(value, list) else [value]
    return [text for text in map(_text, members) if text is not None]


def _matches(patterns: tuple[str, ...], subject: JsonValue) -> bool:
    if not isinstance(subject, str):
        return False
    return any(re.fullmatch(_expression(pattern), subject, re.DOTALL) for pattern in patterns)


def _expression(pattern: str) -> str:
    return ".*".join(map(re.escape, re.split(r"\*+", pattern)))
