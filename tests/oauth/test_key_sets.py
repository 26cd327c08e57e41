"""Where keys come from: rules for a key, files that change, and a real key server that is slow, broken or flooded."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.oauth.fetch import FetchLimits, check_address
from sidecar.oauth.jwk import ASYMMETRIC_ALGORITHMS, MAX_KEYS, NotAKeySet, parse_key_set
from sidecar.oauth.key_sets import MAX_WAITING, FileKeySet, RemoteKeySet, at
from sidecar.oauth.metadata import Discovery

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_PUBLIC: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True)
RSA_PRIVATE: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True)
RSA_SHORT: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(
    rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(),  # noqa: S505 - it is the point
    as_dict=True,
)


def ec_jwk(curve: ec.EllipticCurve) -> dict[str, Any]:
    return jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True)


RSA_PUBLIC = {name: RSA_PUBLIC[name] for name in ("kty", "n", "e")}
P256, P384, P521 = (ec_jwk(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()))
ED25519: dict[str, Any] = jwt.algorithms.OKPAlgorithm.to_jwk(
    ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True
)
ED448: dict[str, Any] = jwt.algorithms.OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)

USABLE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "RSA": (RSA_PUBLIC, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "RSA for one algorithm": ({**RSA_PUBLIC, "alg": "PS256"}, {"PS256"}),
    "RSA for signatures": ({**RSA_PUBLIC, "use": "sig", "key_ops": ["verify"], "alg": "RS256"}, {"RS256"}),
    "P-256": (P256, {"ES256"}),
    "P-384": (P384, {"ES384"}),
    "P-521": (P521, {"ES512"}),
    "Ed25519": (ED25519, {"EdDSA"}),
}

UNUSABLE: dict[str, Any] = {
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "a"},
    "a shared secret that calls itself RSA": {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"},
    "a private key": RSA_PRIVATE,
    "a short modulus": RSA_SHORT,
    "for encryption": {**RSA_PUBLIC, "use": "enc"},
    "for signing only": {**RSA_PUBLIC, "key_ops": ["sign"]},
    "operations that are no list": {**RSA_PUBLIC, "key_ops": "verify"},
    "an algorithm of another type": {**RSA_PUBLIC, "alg": "ES256"},
    "a secret's algorithm": {**RSA_PUBLIC, "alg": "HS256"},
    "no algorithm at all": {**RSA_PUBLIC, "alg": "none"},
    "an algorithm that is no string": {**RSA_PUBLIC, "alg": ["RS256"]},
    "a curve under RSA": {**RSA_PUBLIC, "crv": "P-256"},
    "a curve that is not used here": {**P256, "crv": "secp256k1"},
    "Ed448": ED448,
    "a point that is not on the curve": {**P256, "x": P256["y"]},
    "coordinates of another curve": {**P256, "crv": "P-384"},
    "a modulus that is a number": {**RSA_PUBLIC, "n": 17},
    "no modulus": {"kty": "RSA", "e": "AQAB"},
    "an even exponent": {**RSA_PUBLIC, "e": "Ag"},
    "a key id that is a number": {**RSA_PUBLIC, "kid": 1},
    "not an object": "key",
    "nothing": None,
}


@pytest.mark.parametrize("case", USABLE)
def test_a_key_verifies_the_algorithms_of_its_type_and_no_others(case: str) -> None:
    member, algorithms = USABLE[case]

    [key] = parse_key_set({"keys": [{**member, "kid": "a"}]})

    assert key.algorithms == algorithms
    assert key.id == "a"


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_member_is_skipped_and_alone_makes_no_key_set(case: str) -> None:
    with pytest.raises(KeysUnavailable):
        parse_key_set({"keys": [UNUSABLE[case]]})
    assert len(parse_key_set({"keys": [UNUSABLE[case], RSA_PUBLIC]})) == 1


@pytest.mark.parametrize(
    "document", [{}, {"keys": []}, {"keys": {}}, {"keys": None}, RSA_PUBLIC, {"keys": [RSA_PUBLIC] * (MAX_KEYS + 1)}]
)
def test_a_document_without_keys_is_unavailable_not_empty(document: dict[str, Any]) -> None:
    with pytest.raises(KeysUnavailable):
        parse_key_set(document)


def test_no_algorithm_with_a_shared_secret_can_be_configured() -> None:
    assert not {name for name in ASYMMETRIC_ALGORITHMS if name.startswith("HS") or name == "none"}


fields = st.dictionaries(
    st.sampled_from(["kty", "crv", "n", "e", "x", "y", "d", "use", "alg", "kid", "key_ops", "k"]),
    st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "RS256", "AQAB", "", "*", "sig"])
    | st.text(max_size=12)
    | st.integers()
    | st.none()
    | st.lists(st.text(max_size=3), max_size=2),
)


@given(fields)
def test_any_member_is_a_key_or_is_skipped(member: dict[str, Any]) -> None:
    assert len(parse_key_set({"keys": [member, P256]})) in {1, 2}


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


def key_set(*ids: str) -> str:
    return json.dumps({"keys": [{**P256, "kid": key_id} for key_id in ids]})


class TestFile:
    async def test_a_changed_file_is_read_again_after_a_second(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        path.write_text(key_set("old"))
        keys = FileKeySet(path, clock)

        assert await keys.candidates("old", "ES256")
        path.write_text(key_set("new", "newer"))
        clock.now += 0.9
        assert await keys.candidates("old", "ES256")
        clock.now += 0.2
        assert await keys.candidates("new", "ES256")
        assert not await keys.candidates("old", "ES256")

    async def test_a_key_that_is_withdrawn_under_a_restored_date_is_gone(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        path.write_text(key_set("old"))
        keys = FileKeySet(path, clock)
        assert await keys.candidates("old", "ES256")
        before = path.stat()
        with path.open("r+") as file:
            file.write(key_set("new"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        clock.now += 2
        assert not await keys.candidates("old", "ES256")

    async def test_a_key_that_is_newer_than_the_last_look_is_found_at_once(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        path.write_text(key_set("old"))
        keys = FileKeySet(path, clock)
        assert await keys.candidates("old", "ES256")
        path.write_text(key_set("old", "new"))
        assert await keys.candidates("new", "ES256")
        assert not await keys.candidates("invented", "ES256")

    @pytest.mark.parametrize("content", ["", "{}", '{"keys":[]}', '{"keys":[', "null", "\udcff", "x" * 300_000])
    async def test_a_broken_file_does_not_replace_a_good_one(self, tmp_path: Path, content: str) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        path.write_text(key_set("good"))
        keys = FileKeySet(path, clock)

        assert await keys.candidates("good", "ES256")
        path.write_text(content, errors="surrogateescape")
        clock.now += 2
        assert await keys.candidates("good", "ES256")
        path.unlink()
        clock.now += 2
        assert await keys.candidates("good", "ES256")

    async def test_without_a_good_file_keys_are_unavailable_until_there_is_one(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        keys = FileKeySet(path, clock)

        with pytest.raises(KeysUnavailable):
            await keys.candidates("any", "ES256")
        path.write_text(key_set("any"))
        clock.now += 1
        assert await keys.candidates("any", "ES256")

    async def test_a_key_answers_only_to_its_exact_name_and_algorithm(self, tmp_path: Path) -> None:
        path = tmp_path / "jwks.json"
        path.write_text(key_set("one"))
        keys = FileKeySet(path, ManualClock())

        assert await keys.candidates("one", "ES256")
        assert await keys.candidates(None, "ES256")
        assert not await keys.candidates("one", "RS256")
        assert not await keys.candidates("ONE", "ES256")
        assert not await keys.candidates("", "ES256")
        path.write_text(key_set("one", "two"))
        assert not await FileKeySet(path, ManualClock()).candidates(None, "ES256")

    async def test_a_file_that_breaks_and_is_mended_is_one_line_each_way(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, clock = tmp_path / "jwks.json", ManualClock()
        path.write_text(key_set("good"))
        keys = FileKeySet(path, clock)
        await keys.look()
        assert (keys.usable, keys.fault) == (True, "")
        good = path.rename(tmp_path / "aside")
        for _ in range(3):
            clock.now += 2
            await keys.look()
        assert keys.usable, "the last good set serves on"
        assert keys.fault
        good.rename(path)
        for _ in range(3):
            clock.now += 2
            await keys.look()
        assert keys.fault == ""
        assert ["again" in record.getMessage() for record in caplog.records] == [False, True]


@dataclass
class KeyServer:
    """A real HTTP server; what it answers can be changed, what it was asked is kept."""

    url: str = ""
    answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = self.answers.get(request.path)
        return await answer(request) if answer else web.Response(status=404)

    def text(self, path: str, body: str, status: int = 200, **headers: str) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=body, headers=headers)

        self.answers[path] = answer


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    made = KeyServer()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


LIMITS = FetchLimits(timeout_s=5, cooldown_s=10, retry_s=2, max_age_s=600, max_stale_s=3600)


class TestRemote:
    async def test_an_issuer_that_goes_and_comes_is_one_line_each_way(
        self, server: KeyServer, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", "", status=503)
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS, issuer="https://idp.example")
        for _ in range(3):
            with pytest.raises(KeysUnavailable, match="503") as refused:
                await keys.look()
            assert not isinstance(refused.value, NotAKeySet), "it may come back"
            with pytest.raises(KeysUnavailable):
                await keys.candidates("a", "ES256")
            clock.now += 3
        assert (keys.usable, keys.fault) == (False, "status 503")
        server.text("/jwks", key_set("a"))
        for _ in range(3):
            await keys.look()
            clock.now += 3
        assert (keys.usable, keys.fault) == (True, "")
        assert [record.getMessage() for record in caplog.records] == [
            "the keys of https://idp.example cannot be fetched: status 503",
            "the keys of https://idp.example can be fetched again",
        ]

    async def test_what_is_no_key_set_is_told_from_an_issuer_that_is_away(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        server.text("/jwks", "<html>")
        with pytest.raises(NotAKeySet):
            await RemoteKeySet(at(server.url + "/jwks"), session, ManualClock(), LIMITS).look()

    async def test_a_fetch_that_failed_is_tried_again_though_the_keys_are_not_old(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("a"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        await keys.look()
        server.text("/jwks", "", status=500)
        clock.now += 20
        with pytest.raises(KeysUnavailable):
            await keys.candidates("unknown", "ES256")
        assert keys.fault
        server.text("/jwks", key_set("a"))
        clock.now += 3
        await keys.look()
        assert keys.fault == ""

    async def test_many_callers_cause_one_fetch(self, server: KeyServer, session: aiohttp.ClientSession) -> None:
        server.text("/jwks", key_set("a"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, ManualClock(), LIMITS)

        found = await asyncio.gather(*(keys.candidates("a", "ES256") for _ in range(50)))

        assert all(found)
        assert server.asked == ["/jwks"]

    async def test_a_flood_of_unknown_key_ids_causes_one_fetch_per_cool_down(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("a"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        assert await keys.candidates("a", "ES256")

        for round_ in range(3):
            clock.now += 10
            unknown = [keys.candidates(f"unknown-{round_}-{n}", "ES256") for n in range(100)]
            assert not any(await asyncio.gather(*unknown))
            assert len(server.asked) == 2 + round_

    async def test_a_rotated_key_is_found_after_the_cool_down(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("old"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        assert await keys.candidates("old", "ES256")

        server.text("/jwks", key_set("old", "new"))
        assert not await keys.candidates("new", "ES256")
        clock.now += 10
        assert await keys.candidates("new", "ES256")

    async def test_a_key_that_is_newer_than_the_last_fetch_is_waited_for(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock, slept = ManualClock(), []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.now += seconds

        server.text("/jwks", key_set("old"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS, sleep=sleep)
        assert await keys.candidates("old", "ES256")
        clock.now += 3
        server.text("/jwks", key_set("new"))
        assert await keys.candidates("new", "ES256")
        assert (slept, len(server.asked)) == ([7], 2), "no sooner than the issuer may be asked again"
        clock.now += 3
        assert not await keys.candidates("invented", "ES256")
        assert (slept, len(server.asked)) == ([7, 7], 3), "and once: what is not there then is not there"

    async def test_a_timer_that_wakes_too_early_does_not_cost_the_new_key(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()

        async def sleep(seconds: float) -> None:
            clock.now += seconds - 0.5 if seconds > 0.5 else seconds

        server.text("/jwks", key_set("old"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS, sleep=sleep)
        assert await keys.candidates("old", "ES256")
        clock.now += 3
        server.text("/jwks", key_set("new"))
        assert await keys.candidates("new", "ES256")
        assert len(server.asked) == 2

    async def test_only_so_many_wait_and_one_fetch_is_theirs(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock, over = ManualClock(), asyncio.Event()

        async def sleep(_seconds: float) -> None:
            await over.wait()

        server.text("/jwks", key_set("old"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS, sleep=sleep)
        await keys.candidates("old", "ES256")
        clock.now += 3
        waiting = [asyncio.create_task(keys.candidates(f"invented-{n}", "ES256")) for n in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(KeysUnavailable, match="too many"):
            await keys.candidates("one too many", "ES256")
        assert await keys.candidates("old", "ES256"), "a known key waits for nothing"
        clock.now += 7
        over.set()
        assert not any(await asyncio.gather(*waiting))
        assert len(server.asked) == 2

    async def test_a_known_key_id_with_a_wrong_algorithm_causes_no_fetch(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("a"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        await keys.candidates("a", "ES256")
        clock.now += 100

        assert not await keys.candidates("a", "RS256")
        assert not await keys.candidates(None, "RS256")
        assert len(server.asked) == 1

    async def test_an_old_set_is_fetched_anew_and_withdrawn_keys_go(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("a", "b"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        assert await keys.candidates("b", "ES256")
        server.text("/jwks", key_set("a"))

        clock.now += 599
        assert await keys.candidates("b", "ES256")
        clock.now += 1
        assert not await keys.candidates("b", "ES256")

    async def test_a_good_set_outlives_a_broken_server_but_not_forever(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        server.text("/jwks", key_set("a"))
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)
        assert await keys.candidates("a", "ES256")
        server.text("/jwks", '{"keys":[]}')

        clock.now += 3599
        assert await keys.candidates("a", "ES256")
        with pytest.raises(KeysUnavailable):
            await keys.candidates("unknown", "ES256")
        clock.now += 2
        with pytest.raises(KeysUnavailable):
            await keys.candidates("a", "ES256")
        server.text("/jwks", key_set("a"))
        clock.now += 2
        assert await keys.candidates("a", "ES256")

    async def test_a_server_that_was_never_up_is_asked_again_after_a_pause(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        clock = ManualClock()
        keys = RemoteKeySet(at(server.url + "/jwks"), session, clock, LIMITS)

        for _ in range(20):
            with pytest.raises(KeysUnavailable):
                await keys.candidates("a", "ES256")
        assert len(server.asked) == 1
        server.text("/jwks", key_set("a"))
        clock.now += 2
        assert await keys.candidates("a", "ES256")

    async def test_a_caller_that_gives_up_does_not_take_the_fetch_with_it(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        arrived, proceed = asyncio.Event(), asyncio.Event()

        async def held(_request: web.Request) -> web.StreamResponse:
            arrived.set()
            await proceed.wait()
            return web.Response(text=key_set("a"))

        server.answers["/jwks"] = held
        keys = RemoteKeySet(at(server.url + "/jwks"), session, ManualClock(), LIMITS)
        first = asyncio.create_task(keys.candidates("a", "ES256"))
        await arrived.wait()
        second = asyncio.create_task(keys.candidates("a", "ES256"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        proceed.set()

        assert await second
        assert server.asked == ["/jwks"]

    async def test_what_is_not_a_plain_answer_is_no_key_set(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        server.text("/elsewhere", key_set("a"))
        server.text("/moved", key_set("a"), status=302, Location="/elsewhere")
        server.text("/created", key_set("a"), status=201)
        server.text("/large", " " * 300_000 + key_set("a"))
        server.text("/twice", '{"keys":[],"keys":[]}')
        server.text("/html", "<html>")

        for path in ("/moved", "/created", "/large", "/twice", "/html", "/missing"):
            keys = RemoteKeySet(at(server.url + path), session, ManualClock(), LIMITS)
            with pytest.raises(KeysUnavailable):
                await keys.candidates("a", "ES256")
        assert "/elsewhere" not in server.asked

    async def test_a_server_that_never_ends_its_answer_is_given_up(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        released = asyncio.Event()

        async def trickle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"{")
            await released.wait()
            return response

        server.answers["/jwks"] = trickle
        keys = RemoteKeySet(at(server.url + "/jwks"), session, ManualClock(), FetchLimits(timeout_s=0.1))

        with pytest.raises(KeysUnavailable):
            await keys.candidates("a", "ES256")
        released.set()

    async def test_nobody_listens(self, session: aiohttp.ClientSession, free_port: int) -> None:
        keys = RemoteKeySet(at(f"http://127.0.0.1:{free_port}/jwks"), session, ManualClock(), LIMITS)

        with pytest.raises(KeysUnavailable):
            await keys.candidates("a", "ES256")


class TestDiscovery:
    OAUTH = "/.well-known/oauth-authorization-server"

    def found(self, server: KeyServer, session: aiohttp.ClientSession, path: str = "") -> RemoteKeySet:
        return RemoteKeySet(Discovery(server.url + path, session), session, ManualClock(), LIMITS)

    async def test_keys_are_found_through_the_issuers_metadata(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        server.text(self.OAUTH, json.dumps({"issuer": server.url, "jwks_uri": server.url + "/k"}))
        server.text("/k", key_set("a"))

        assert await self.found(server, session).candidates("a", "ES256")
        assert server.asked == [self.OAUTH, "/k"]

    async def test_an_issuer_with_a_path_is_asked_in_both_forms(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        metadata = {"issuer": server.url + "/realm", "jwks_uri": server.url + "/k"}
        server.text("/realm/.well-known/openid-configuration", json.dumps(metadata))
        server.text("/k", key_set("a"))

        assert await self.found(server, session, "/realm").candidates("a", "ES256")
        assert server.asked == [f"{self.OAUTH}/realm", "/realm/.well-known/openid-configuration", "/k"]

    async def test_metadata_of_somebody_else_is_not_used(
        self, server: KeyServer, session: aiohttp.ClientSession
    ) -> None:
        server.text("/k", key_set("a"))
        for issuer in (server.url + "/", server.url.upper(), "https://evil.example", None):
            server.text(self.OAUTH, json.dumps({"issuer": issuer, "jwks_uri": server.url + "/k"}))
            with pytest.raises(KeysUnavailable):
                await self.found(server, session).candidates("a", "ES256")
        assert "/k" not in server.asked

    @pytest.mark.parametrize("uri", ["http://keys.example/k", "file:///etc/passwd", "/k", "", 7, None])
    async def test_metadata_cannot_send_us_just_anywhere(
        self, server: KeyServer, session: aiohttp.ClientSession, uri: object
    ) -> None:
        server.text(self.OAUTH, json.dumps({"issuer": server.url, "jwks_uri": uri}))

        with pytest.raises(KeysUnavailable):
            await self.found(server, session).candidates("a", "ES256")

    @pytest.mark.parametrize(
        "uri",
        [
            "https://169.254.169.254/k",
            "https://10.0.0.1/k",
            "https://[::1]/k",
            "https://[fd00::1]/k",
            "https://localhost/k",
            "https://127.0.0.1/k",
            "https://0.0.0.0/k",
            "https://[::ffff:10.0.0.1]/k",
            "https://[64:ff9b::a00:1]/k",
            "https://2130706433/k",
            "https://0x7f000001/k",
            "https://127.1/k",
            "https://127.0.0.0x1/k",
            "https://localhost./k",
            "https://a.localhost./k",
            "https://metadata.google.internal/k",
        ],
    )
    async def test_a_public_issuers_metadata_cannot_point_inside(
        self, session: aiohttp.ClientSession, uri: str
    ) -> None:
        discovery = Discovery("https://idp.example", session)

        with pytest.raises(KeysUnavailable):
            discovery._jwks_uri({"issuer": "https://idp.example", "jwks_uri": uri})
        assert discovery._jwks_uri({"issuer": "https://idp.example", "jwks_uri": "https://keys.example/k"})

    async def test_an_internal_issuers_keys_may_be_at_its_own_address(self, session: aiohttp.ClientSession) -> None:
        discovery = Discovery("https://keycloak:8443", session)
        metadata: dict[str, Any] = {"issuer": "https://keycloak:8443", "jwks_uri": "https://keycloak:8443/k"}

        assert discovery._jwks_uri(metadata) == "https://keycloak:8443/k"
        with pytest.raises(KeysUnavailable):
            discovery._jwks_uri({**metadata, "jwks_uri": "https://vault:8443/k"})


GOOD_ADDRESSES = ["https://idp.example/jwks", "http://127.0.0.1:80/k", "http://[::1]:1/k", "http://localhost/k"]
BAD_ADDRESSES = [
    "http://idp.example/jwks",
    "http://127.0.0.1.evil.example/k",
    "http://localhost.evil.example/k",
    "http://10.0.0.1/k",
    "https://user@idp.example/k",
    "https://user:pass@idp.example/k",
    "https://idp.example/k#x",
    "https://idp.example:99999/k",
    "https://idp.ex\u00e4mple/k",
    "https:///k",
    "ftp://idp.example/k",
    "file:///k",
    "idp.example/k",
    "",
]


@pytest.mark.parametrize("address", GOOD_ADDRESSES)
def test_keys_may_come_over_https_or_from_this_machine(address: str) -> None:
    assert check_address(address)


@pytest.mark.parametrize("address", BAD_ADDRESSES)
async def test_keys_come_from_nowhere_else(address: str, session: aiohttp.ClientSession) -> None:
    with pytest.raises(ConfigurationError):
        at(address)
    with pytest.raises(ConfigurationError):
        Discovery(address, session)


async def test_an_issuer_has_no_query(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ConfigurationError):
        Discovery("https://idp.example/?x=1", session)
