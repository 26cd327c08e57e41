"""Opaque access tokens: their issuer is asked what they are worth (RFC 7662).

Only an issuer that is configured for it is asked, and only about what is no JWT. What it says goes the same way as the
claims of a JWT, after the checks that a signature would otherwise stand for.
"""

import asyncio
import logging
from typing import Final

import aiohttp

from sidecar.errors import KeysUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import JsonObject, UnverifiedToken
from sidecar.oauth.client_authentication import ClientAuthentication
from sidecar.oauth.fetch import FetchLimits, post_object
from sidecar.oauth.jwt_tokens import TrustedIssuer, check_claims, check_client, check_times
from sidecar.ports import Clock
from sidecar.system import Outage

_log = logging.getLogger(__name__)

MAX_ASKING: Final = 64
"""Questions under way. Tokens are invented for nothing; more at once are refused before the issuer hears of them."""

_TOKEN_TYPES: Final = frozenset({"bearer", "dpop"})
"""RFC 6750, RFC 9449. What else is active is a refresh token (RFC 7662 section 2.1), or of a kind not known here."""


class Introspection:
    """Asks one issuer about tokens; several who ask about one token are one question.

    Args:
        issuer: what is demanded of its tokens; its keys are not used.
        uri: the introspection endpoint, checked by ``fetch.check_address``.
        client: proves that we may ask.
        session: makes the requests; its owner closes it.
        clock: the only source of time.
        limits: time and size.
        cache_s: how long an answer is remembered at most.
    """

    def __init__(
        self,
        issuer: TrustedIssuer,
        uri: str,
        client: ClientAuthentication,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        limits: FetchLimits,
        cache_s: float,
    ) -> None:
        self.issuer = issuer
        self.cache_s = cache_s
        self._uri = uri
        self._client = client
        self._session = session
        self._clock = clock
        self._limits = limits
        self._asking: dict[bytes, asyncio.Task[JsonObject]] = {}
        what = f"the issuer {issuer.issuer}"
        self._outage = Outage(
            _log, what, lost="does not say what a token is worth", found="says again what a token is worth"
        )

    async def claims(self, token: UnverifiedToken, digest: bytes) -> JsonObject:
        """Return what the issuer says of a token that is good here and now.

        Args:
            token: what was presented.
            digest: of the token.

        Raises:
            TokenRejected: it is not active, or not for this resource.
            KeysUnavailable: the issuer gives no answer.
        """
        asking = self._asking.get(digest)
        if asking is None:
            if len(self._asking) >= MAX_ASKING:
                raise KeysUnavailable("too many tokens are being asked about")
            # A task of its own: who began may be cancelled, the others still want the answer.
            asking = asyncio.create_task(self._ask(token, digest), name="introspect")
            asking.add_done_callback(_seen)
            self._asking[digest] = asking
        return self._checked(await asyncio.shield(asking))

    async def _ask(self, token: UnverifiedToken, digest: bytes) -> JsonObject:
        try:
            proof = self._client.proof()
            form = {"token": token, "token_type_hint": "access_token", **proof.parameters}
            answer = await post_object(self._session, self._uri, form, self._limits, proof.headers, proof.context)
        except KeysUnavailable as error:
            self._outage.begins(error.detail)
            raise
        else:
            self._outage.ends()
            return answer
        finally:
            del self._asking[digest]

    def _checked(self, answer: JsonObject) -> JsonObject:
        if answer.get("active") is not True:
            raise TokenRejected("not active", fault=TokenFault.INACTIVE)
        if answer.get("iss", self.issuer.issuer) != self.issuer.issuer:
            raise TokenRejected("active at another issuer", fault=TokenFault.ISSUER)
        kind = answer.get("token_type")
        if not isinstance(kind, str) or kind.lower() not in _TOKEN_TYPES:
            raise TokenRejected("not an access token by its type", fault=TokenFault.TYPE)
        claims = {**answer, "iss": self.issuer.issuer}
        if claims.get("sub") is None and isinstance(claims.get("client_id"), str):
            # RFC 7662 makes ``sub`` optional, and oidc-provider leaves it out of what a client got for itself. Nobody
            # but the client can be meant: software, as RFC 9068 section 2.2 has a JWT say it.
            claims["sub"] = claims["client_id"]
        check_claims(claims, self.issuer)
        if not self.issuer.clients:
            check_client(claims, self.issuer)
        check_times(claims, self.issuer, self._clock.time_ns() / 1e9)
        return claims


def _seen(asking: asyncio.Task[JsonObject]) -> None:
    """Look at what a question ended in, because everybody who waited for it may have left."""
    if not asking.cancelled():
        asking.exception()
