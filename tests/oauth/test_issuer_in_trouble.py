"""Issuers that rotate keys, go away, are slow or lie: real HTTP servers, real signatures, many callers at once.

Times are short and real: an issuer may be asked every 0.2 seconds, and its keys outlive it by 1.5 seconds.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.errors import KeysUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.oauth import FetchLimits, JwtVerifier, RemoteKeySet
from sidecar.oauth.key_sets import at
from sidecar.system import SystemClock
from tests.oauth.test_introspection import ACTIVE, Asker, asker, endpoint, session  # noqa: F401 - fixtures
from tests.oauth.test_introspection import present as present_opaque
from tests.oauth.test_jwt_verification import ABSENT, identified, issuer, jwk
from tests.oauth.test_jwt_verification import token as access_token
from tests.patience import HANG_S

COOL_S, STALE_S, CACHE_S = 0.2, 1.5, 0.1
LIMITS = FetchLimits(timeout_s=20, cooldown_s=COOL_S, retry_s=0.1, max_age_s=0.4, max_stale_s=STALE_S)
NUMBERS = itertools.count()


class Authority:
    """A real key server of an issuer with as many keys as it likes."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.published: list[str] = []
        self.asked = 0
        self.pause_s = 0.0
        self.text: str | None = None

    def make(self, name: str, *, publish: bool = True) -> None:
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        if publish:
            self.published.append(name)

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        body = {"keys": [jwk(self.keys[name], kid=name) for name in self.published]}
        await asyncio.sleep(self.pause_s)
        return web.Response(text=self.text if self.text is not None else json.dumps(body))

    def token(self, name: str) -> Any:
        """A token like no other, signed with this key."""
        now = int(time.time())
        claims = {"jti": str(next(NUMBERS)), "iat": now, "exp": now + 60}
        return access_token(claims, {"alg": "ES256", "kid": name}, self.keys[name])


class Served:
    """The authority at an address, and the verifier that asks it."""

    def __init__(self, authority: Authority, checker: JwtVerifier, close: Callable[[], Any]) -> None:
        self.authority, self.checker, self.close = authority, checker, close

    async def accepted(self, name: str) -> bool:
        return (await identified(self.checker, self.authority.token(name))).principal.subject == "alice"

    async def last_accepted(self, name: str, until: float) -> float:
        """When the last call began that was accepted before one was refused because there are no keys."""
        found = 0.0
        while (began := time.monotonic()) < until:
            try:
                await self.accepted(name)
            except KeysUnavailable:
                break
            found = began
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    authority = Authority()
    authority.make("first")
    application = web.Application()
    application.router.add_get("/jwks", authority.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:  # noqa: F811
        keys = RemoteKeySet(at(url), session, clock, LIMITS)
        yield Served(authority, JwtVerifier([issuer(keys=keys)], clock, cache_s=CACHE_S), runner.cleanup)
        await runner.cleanup()


async def test_no_call_fails_while_keys_are_rotated_at_once_and_again_and_again() -> None:
    async with served() as here:
        current, stop, calls = "first", asyncio.Event(), 0

        async def caller() -> None:
            nonlocal calls
            while not stop.is_set():
                assert await here.accepted(current)
                calls += 1
                await asyncio.sleep(0.01)

        began = time.monotonic()
        callers = [asyncio.create_task(caller()) for _ in range(10)]
        for turn in range(5):
            await asyncio.sleep(0.15)
            here.authority.make(f"key-{turn}")
            current = f"key-{turn}"  # signed with at the moment at which it is published
            here.authority.published = here.authority.published[-2:]
        await asyncio.sleep(0.3)
        stop.set()
        await asyncio.gather(*callers)
        assert calls > 20
        assert here.authority.asked <= (time.monotonic() - began) / COOL_S + 2


async def test_many_tokens_of_a_new_key_are_one_question_to_a_slow_issuer() -> None:
    async with served() as here:
        assert await here.accepted("first")
        await asyncio.sleep(COOL_S)
        here.authority.make("second")
        here.authority.pause_s = 0.3
        asked = here.authority.asked
        assert all(await asyncio.gather(*(here.accepted("second") for _ in range(50))))
        assert here.authority.asked == asked + 1


async def test_invented_keys_do_not_keep_a_new_one_out_and_ask_no_more_often() -> None:
    async with served() as here:
        assert await here.accepted("first")
        here.authority.make("invented", publish=False)
        stop, refused = asyncio.Event(), 0

        async def attacker() -> None:
            nonlocal refused
            while not stop.is_set():
                with pytest.raises(TokenRejected) as why:
                    await here.accepted("invented")
                assert why.value.fault == TokenFault.KEY
                refused += 1

        began = time.monotonic()
        attackers = [asyncio.create_task(attacker()) for _ in range(20)]
        await asyncio.sleep(2 * COOL_S)
        here.authority.make("second")
        assert await here.accepted("second")
        stop.set()
        await asyncio.gather(*attackers)
        assert refused >= 20
        assert here.authority.asked <= (time.monotonic() - began) / COOL_S + 2


async def test_an_outage_is_outlived_for_as_long_as_is_set_and_no_longer() -> None:
    async with served() as here:
        assert await here.accepted("first")
        fetched = time.monotonic()
        await here.close()
        accepted_at = await here.last_accepted("first", fetched + 100 * STALE_S)
        assert fetched < accepted_at < fetched + STALE_S
        here.authority.make("second")
        with pytest.raises(KeysUnavailable):
            await here.accepted("second")


async def test_a_withdrawn_key_stops_counting_when_the_set_is_fetched_again() -> None:
    async with served() as here:
        here.authority.make("second")
        assert await here.accepted("first")
        here.authority.published.remove("first")
        await asyncio.sleep(LIMITS.max_age_s)
        with pytest.raises(TokenRejected):
            await here.accepted("first")
        assert await here.accepted("second")


async def test_a_slow_issuer_that_failed_before_holds_up_nobody_whose_key_is_known() -> None:
    async with served() as here:
        assert await here.accepted("first")
        here.authority.text = "no keys"
        await asyncio.sleep(LIMITS.max_age_s)
        assert await here.accepted("first")
        here.authority.pause_s = 3600
        await asyncio.sleep(LIMITS.retry_s)
        asked = here.authority.asked
        for _ in range(20):
            assert await here.accepted("first"), "while the question to the issuer is not answered"
            await asyncio.sleep(0)
        async with asyncio.timeout(HANG_S):
            while here.authority.asked == asked:  # noqa: ASYNC110 - a server's own counter
                await asyncio.sleep(0.01)
        assert await here.accepted("first")


LIES: dict[str, str] = {
    "a page": "<html>maintenance</html>",
    "nothing": "",
    "no keys": '{"keys": []}',
    "a secret": '{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "first"}]}',
    "names twice": '{"keys": [], "keys": []}',
    "too much": json.dumps({"keys": [], "x": "x" * 300_000}),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_issuer_changes_no_key_and_is_not_believed_for_ever(lie: str) -> None:
    async with served() as here:
        assert await here.accepted("first")
        here.authority.text = LIES[lie]
        await asyncio.sleep(LIMITS.max_age_s)
        assert await here.accepted("first")
        await asyncio.sleep(STALE_S)
        with pytest.raises(KeysUnavailable):
            await here.accepted("first")
        here.authority.text = None
        await asyncio.sleep(LIMITS.retry_s)
        assert await here.accepted("first"), "and it is believed again when it says the truth"


async def test_an_issuer_that_gives_a_known_name_to_another_key_takes_the_name_away_from_the_old_one() -> None:
    async with served() as here:
        assert await here.accepted("first")
        old = here.authority.token("first")
        here.authority.make("first", publish=False)
        await asyncio.sleep(LIMITS.max_age_s)
        with pytest.raises(TokenRejected) as why:
            await identified(here.checker, old)
        assert why.value.fault == TokenFault.SIGNATURE
        assert await here.accepted("first")


async def test_an_opaque_token_outlives_its_issuer_by_what_is_remembered_and_no_longer(asker: Asker) -> None:  # noqa: F811
    checker = asker.verifier(cache_s=20)
    await present_opaque(checker)
    asker.endpoint.status = 503
    asker.clock.now += 19
    assert (await present_opaque(checker)).principal.subject == "alice"
    with pytest.raises(KeysUnavailable):
        await present_opaque(checker, "opaque-2")
    asker.clock.now += 1
    with pytest.raises(KeysUnavailable):
        await present_opaque(checker)
    asker.endpoint.status = 200
    assert (await present_opaque(checker)).principal.subject == "alice", "nothing of the outage is remembered"


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        ({"active": "true"}, TokenFault.INACTIVE),
        ({"active": 1}, TokenFault.INACTIVE),
        ({"iss": "https://idp.corp.example."}, TokenFault.ISSUER),
        ({"aud": "https://mcp.corp.example"}, TokenFault.AUDIENCE),
        ({"aud": ABSENT}, TokenFault.AUDIENCE),
        ({"token_type": "refresh_token"}, TokenFault.TYPE),
        ({"exp": "4102444800"}, TokenFault.CLAIM),
        ({"sub": ""}, TokenFault.CLAIM),
        ({"cnf": {"x5t#S256": "A" * 43}}, TokenFault.BOUND),
    ],
)
async def test_a_lying_introspection_vouches_for_nobody(asker: Asker, lie: dict[str, Any], fault: TokenFault) -> None:  # noqa: F811
    checker = asker.verifier()
    asker.endpoint.answer = {name: value for name, value in {**ACTIVE, **lie}.items() if value is not ABSENT}
    with pytest.raises(TokenRejected) as why:
        await present_opaque(checker)
    assert why.value.fault == fault
    asker.endpoint.answer = ACTIVE
    assert (await present_opaque(checker)).principal.subject == "alice", "a refusal is not remembered"
