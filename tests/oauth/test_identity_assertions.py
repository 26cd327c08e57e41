"""Identity assertions of an enterprise's identity provider (ID-JAG): grants, which are no access tokens."""

from typing import Any

import pytest

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.oauth import JwtVerifier
from tests.oauth.test_jwt_verification import ABSENT, ISSUER, RESOURCE, ManualClock, identified, issuer, token

ASSERTION: dict[str, Any] = {"aud": ISSUER, "resource": RESOURCE, "scope": "mongodb:read", "auth_time": 1}
"""What an ID-JAG says: it is for the authorization server, and names the resource besides."""


async def fault(text: Any, **changes: Any) -> TokenFault:
    with pytest.raises(TokenRejected) as refused:
        await identified(JwtVerifier([issuer(**changes)], ManualClock()), text)
    return refused.value.fault


@pytest.mark.parametrize("kind", ["oauth-id-jag+jwt", "application/oauth-id-jag+jwt", "OAuth-ID-JAG+jwt"])
async def test_an_identity_assertion_is_no_access_token(kind: str) -> None:
    assert await fault(token(ASSERTION, {"typ": kind})) == TokenFault.ASSERTION
    assert await fault(token({**ASSERTION, "aud": [ISSUER, RESOURCE]}, {"typ": kind})) == TokenFault.ASSERTION


async def test_nor_under_another_type_because_it_is_for_the_issuer() -> None:
    assert await fault(token(ASSERTION)) == TokenFault.AUDIENCE
    lenient = {"token_types": frozenset({"jwt"})}
    assert await fault(token(ASSERTION, {"typ": "JWT"}), **lenient) == TokenFault.AUDIENCE


async def test_a_token_that_was_obtained_with_one_is_an_ordinary_token() -> None:
    claims = {**ASSERTION, "aud": RESOURCE, "resource": ABSENT, "act": ABSENT}
    found = await identified(JwtVerifier([issuer()], ManualClock()), token(claims))
    assert (found.principal.subject, found.actor.id) == ("alice", "claude-desktop")
