"""Verified claims to an Identity: who the user is and which agent acts.

The claims given here have been verified (signature, issuer, audience, time) by ``sidecar.oauth``; what they say is
still judged strictly. A claim of the wrong type rejects the token: ignoring it would silently make another identity of
the caller, one without the group that a deny stands on, for example.

What does not live here: tokens and keys (``sidecar.oauth``), and what an identity may do (policy).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity.person import Claims, PersonRule, doubt, find
from sidecar.model import Actor, Identity, JsonObject, JsonValue, Principal, PrincipalKind

MAX_ID_CHARACTERS: Final = 1_024
"""Length of an issuer, subject or agent. OpenID Connect stops subjects at 255; a client id may be a URL (CIMD)."""

MAX_NAME_CHARACTERS: Final = 512
"""Length of a group, role or scope; directories use distinguished names."""

MAX_NAMES: Final = 512
"""Entries of a list of groups, roles or scopes. Issuers switch to a reference well below (Entra ID: 200)."""

MAX_ACTORS: Final = 8
"""Nested ``act`` claims. Delegation through more hands than this is not traceable for a person."""

MAX_EXTRA_DEPTH: Final = 8
"""Nesting of one claim passed on under ``extra``."""

MAX_EXTRA_VALUES: Final = 1_000
"""Values in one claim passed on under ``extra``."""

MAX_EXPIRY: Final = 253_402_300_800
"""Seconds since the epoch at the end of the year 9999; beyond it an ``exp`` is milliseconds or nonsense."""

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, direction marks (which make one name look like another in a log) and surrogates
(which cannot be encoded)."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 section 3.3."""

_ABSENT: Final = None
"""A claim that is null counts as absent, as some introspection endpoints write it (RFC 7662); ``act`` excepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMap:
    """Which claims of an issuer say what.

    A path with dots is a nested claim (``realm_access.roles``), unless a claim of exactly that name exists. A path with
    ``://`` is always a name (``https://corp.example/groups``).
    """

    subject: str = "sub"
    groups: str = "groups"
    roles: str = "roles"
    scope: str = "scope"
    agent: tuple[str, ...] = ("act.sub", "client_id", "azp")
    """The first of these that the token has is the agent."""
    extra: tuple[str, ...] = ()
    """Claims passed on to policy, each under its path as configured."""

    def __post_init__(self) -> None:
        if not self.agent or not all((self.subject, self.groups, self.roles, self.scope, *self.agent, *self.extra)):
            raise ValueError("a claim map names a claim for each part and at least one for the agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """How the tokens of one issuer are read."""

    claims: ClaimMap = field(default_factory=ClaimMap)
    person: PersonRule = field(default_factory=PersonRule)
    services: frozenset[str] = frozenset()
    """Agents that may speak for themselves: software that needs no person behind it."""
    several_issuers: bool = False
    """Whether other issuers are trusted too."""
    scope_prefix: str = ""
    """What clients put before a scope to ask for it; policies have the name without, and most tokens."""
    agent: str = ""
    """The agent of a token that names none; empty: such a token is refused. It proves nothing, so it is no service."""


def identify(claims: Claims, rules: IdentityRules) -> Identity:
    """Return the user and the agent that verified claims speak of.

    Raises:
        TokenRejected: there is no user, no agent, or a claim is not of its form. The detail names the claim, never
            its value.
    """
    names = rules.claims
    issuer = _identifier(claims, "iss")
    subject = _identifier(claims, names.subject)
    chain = _actors(claims, issuer, names)
    named = _agent(claims, names, needed=not rules.agent)
    actor = named or rules.agent
    _require_claims_here(claims, names)
    return Identity(
        principal=Principal(
            issuer=issuer,
            subject=subject,
            several_issuers=rules.several_issuers,
            kind=_kind(claims, subject, named, rules),
            groups=_names(find(claims, names.groups), names.groups),
            roles=_names(find(claims, names.roles), names.roles),
            scopes=_scopes(claims, names.scope, rules.scope_prefix),
            claims=_extra(claims, names.extra),
            scope_prefix=rules.scope_prefix,
        ),
        actor=Actor(id=actor, chain=chain[1:] if chain and chain[0] == actor else chain),
        expires_at=_expiry(claims),
    )


def _kind(claims: Claims, subject: str, agent: str, rules: IdentityRules) -> PrincipalKind:
    """Return whether a person or a registered service speaks.

    A service speaks for itself: a token with ``act`` says that an agent acts for a subject, so it needs a person.

    Raises:
        TokenRejected: neither does.
    """
    found = doubt(claims, rules.person, subject, agent)
    if found is None:
        return PrincipalKind.USER
    if agent in rules.services and "act" not in claims:
        return PrincipalKind.SERVICE
    raise TokenRejected(found.detail, fault=found.fault)


def _text(value: JsonValue, claim: str, limit: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or _UNPRINTABLE.search(value):
        raise TokenRejected(f"claim {claim} is not a plain string", fault=TokenFault.CLAIM)
    return value


def _identifier(claims: Claims, path: str) -> str:
    value = find(claims, path)
    if value is _ABSENT:
        raise TokenRejected(f"claim {path} is missing", fault=TokenFault.CLAIM)
    return _text(value, path, MAX_ID_CHARACTERS)


def _agent(claims: Claims, claim_map: ClaimMap, *, needed: bool) -> str:
    """Return the first of the configured claims that the token has; empty where it has none and none is needed."""
    for path in claim_map.agent:
        value = find(claims, path)
        if value is not _ABSENT and value != "":
            return _text(value, path, MAX_ID_CHARACTERS)
    if not needed:
        return ""
    raise TokenRejected("token has no agent", fault=TokenFault.NO_AGENT)


def _actors(claims: Claims, issuer: str, claim_map: ClaimMap) -> tuple[str, ...]:
    """Return the actors of the ``act`` claim, outermost (current) first (RFC 8693 section 4.1).

    An actor that the claim attributes to another issuer is refused: policy compares agents by id alone, and under
    another issuer the same id is another agent.
    """
    keys = tuple(path.removeprefix("act.") for path in claim_map.agent if path.startswith("act.")) or ("sub",)
    actors: list[str] = []
    for act in _levels(claims):
        if act.get("iss", issuer) != issuer:
            raise TokenRejected("claim act names another issuer", fault=TokenFault.CLAIM)
        name = next((act[key] for key in keys if act.get(key) is not _ABSENT), _ABSENT)
        actors.append(_text(name, "act", MAX_ID_CHARACTERS))
    return tuple(actors)


def _levels(claims: Claims) -> Iterator[JsonObject]:
    level: Claims = claims
    count = 0
    while "act" in level:
        act = level["act"]
        count += 1
        if not isinstance(act, dict) or count > MAX_ACTORS:
            raise TokenRejected("claim act is not an object, or nested too deeply", fault=TokenFault.CLAIM)
        yield act
        level = act


def _names(value: JsonValue, claim: str) -> tuple[str, ...]:
    """Return a list of names, each once; a single string is a list of one."""
    if value is _ABSENT:
        return ()
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or len(entries) > MAX_NAMES:
        raise TokenRejected(f"claim {claim} is not a list of names", fault=TokenFault.CLAIM)
    return tuple(dict.fromkeys(_text(entry, claim, MAX_NAME_CHARACTERS) for entry in entries))


def _require_claims_here(claims: Claims, names: ClaimMap) -> None:
    """Refuse a token that only refers to a claim which counts (OpenID Connect Core section 5.6.2).

    Entra ID does so for users with more than 200 groups (``_claim_names``, or ``hasgroups`` in tokens of the implicit
    flow). Without its groups the caller would be another identity: one that a deny about a group does not meet.
    """
    elsewhere = claims.get("_claim_names")
    referred = elsewhere.keys() if isinstance(elsewhere, dict) else ()
    for path in (names.groups, names.roles, names.scope, *names.extra):
        if path in referred:
            raise TokenRejected(f"claim {path} is only referred to", fault=TokenFault.GROUPS_ELSEWHERE)
    if claims.get("hasgroups") not in _NOTHING and find(claims, names.groups) is _ABSENT:
        raise TokenRejected(f"claim {names.groups} is too long for the token", fault=TokenFault.GROUPS_ELSEWHERE)


_NOTHING: Final = (_ABSENT, False, "false")


def _scopes(claims: Claims, path: str, prefix: str) -> tuple[str, ...]:
    """Return the scopes: a string split at spaces (RFC 6749 section 3.3), or a list; else the same of ``scp``.

    One with the prefix is the one without: some issuers repeat in tokens what they were asked for.
    """
    value = find(claims, path)
    if value is _ABSENT:
        path, value = "scp", claims.get("scp")
    entries: JsonValue = [*filter(None, value.split(" "))] if isinstance(value, str) else value
    scopes = _names(entries, path)
    if not all(_SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise TokenRejected(f"claim {path} is not a list of scopes", fault=TokenFault.CLAIM)
    return tuple(dict.fromkeys(scope.removeprefix(prefix) or scope for scope in scopes)) if prefix else scopes


def _extra(claims: Claims, paths: tuple[str, ...]) -> dict[str, JsonValue]:
    """Return the claims that policy may see; a missing one is left out, so that a rule on it is undefined."""
    found = {path: find(claims, path) for path in paths}
    return {path: _plain(value, path) for path, value in found.items() if value is not _ABSENT}


def _plain(value: JsonValue, claim: str) -> JsonValue:
    """Check that a claim is bounded JSON that can be encoded again."""
    level: list[JsonValue] = [value]
    count = 0
    for _ in range(MAX_EXTRA_DEPTH):
        count += len(level)
        if count > MAX_EXTRA_VALUES or not all(_encodable(member) for member in level):
            break
        level = [nested for member in level for nested in _members(member)]
        if not level:
            return value
    raise TokenRejected(f"claim {claim} is too large or not plain JSON", fault=TokenFault.CLAIM)


def _members(value: JsonValue) -> list[JsonValue]:
    match value:
        case dict():
            return [*value.keys(), *value.values()]
        case list():
            return value
        case _:
            return []


def _encodable(value: JsonValue) -> bool:
    match value:
        case str():
            return len(value) <= MAX_ID_CHARACTERS and not _UNPRINTABLE.search(value)
        case float():
            return isfinite(value)
        case _:
            return True


def _expiry(claims: Claims) -> float:
    """Return ``exp`` (RFC 7519 section 4.1.4: a number, possibly with a fraction)."""
    value = claims.get("exp")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_EXPIRY:
        raise TokenRejected("claim exp is missing or not a date", fault=TokenFault.CLAIM)
    return float(value)
