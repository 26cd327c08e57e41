"""From the settings of an issuer to how its tokens are read."""

from typing import TYPE_CHECKING

from sidecar.identity import ClaimMap, IdentityRules, PersonRule

if TYPE_CHECKING:  # commands that work without settings import this too
    from sidecar.issuer_settings import Issuer
    from sidecar.settings import Settings


def identity_rules(entry: "Issuer", config: "Settings", agent: str = "") -> IdentityRules:
    """Return how the tokens of one issuer of these settings are read; ``agent`` acts where a token names none."""
    return IdentityRules(
        claims=ClaimMap(**entry.claims.model_dump()),
        person=PersonRule(**entry.person.model_dump()),
        services=frozenset(entry.services),
        several_issuers=len(config.issuers) > 1,
        scope_prefix=entry.scope_prefix,
        agent=agent,
    )
