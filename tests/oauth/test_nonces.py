"""Nonces of proofs (RFC 9449 section 9): which count, for how long, and that processes can share a key."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.faults import TokenFault
from sidecar.issuers import known, trusted
from sidecar.model import AuthScheme
from sidecar.oauth import Binding, FileKeySet, JwtVerifier, Nonces
from sidecar.oauth.nonces import STRETCH_S
from tests.oauth.proofs import proof
from tests.oauth.test_dpop import BOUND, PLAIN, fault, present
from tests.oauth.test_jwt_verification import NOW, ManualClock, issuer
from tests.settings.test_settings_sources import loaded

KEY = bytes(range(32))
OTHER = bytes(range(100, 132))


def checker(clock: ManualClock, key: bytes = KEY, **changes: Any) -> JwtVerifier:
    nonces = Nonces(clock, key)
    return JwtVerifier([issuer(dpop=Binding.ALLOWED, dpop_nonce=True, **changes)], clock, nonces=nonces)


async def test_a_proof_with_the_nonce_of_now_counts_and_without_one_it_does_not() -> None:
    clock = ManualClock()
    nonce = Nonces(clock, KEY).current()
    assert (await present(checker(clock), proof(BOUND, nonce=nonce))).principal.subject == "alice"
    assert await fault(checker(clock), proof(BOUND)) == TokenFault.PROOF_NONCE_MISSING
    assert await fault(checker(clock), proof(BOUND, nonce=None)) == TokenFault.PROOF_NONCE_MISSING
    for wrong in ("", nonce[:-1], nonce.lower(), f"{nonce} ", [nonce], 1, True, {"nonce": nonce}):
        assert await fault(checker(clock), proof(BOUND, nonce=wrong)) == TokenFault.PROOF_NONCE, wrong


async def test_a_nonce_is_no_replay_protection_and_replay_is_still_refused() -> None:
    clock = ManualClock()
    check, shown = checker(clock), proof(BOUND, nonce=Nonces(clock, KEY).current())
    await present(check, shown)
    assert await fault(check, shown) == TokenFault.PROOF_REPLAYED


async def test_a_proof_that_lacks_a_nonce_does_not_use_up_its_id() -> None:
    clock = ManualClock()
    check = checker(clock)
    assert await fault(check, proof(BOUND)) == TokenFault.PROOF_NONCE_MISSING
    await present(check, proof(BOUND, nonce=Nonces(clock, KEY).current()))


async def test_another_lie_is_told_before_the_nonce() -> None:
    """A thief learns nothing by asking, and gets no nonce in place of the reason."""
    assert await fault(checker(ManualClock()), proof(BOUND, htm="GET")) == TokenFault.PROOF_METHOD


async def test_a_bearer_token_needs_no_nonce() -> None:
    assert (await present(checker(ManualClock()), None, PLAIN, AuthScheme.BEARER)).principal.subject == "alice"


async def test_an_issuer_that_asks_for_none_takes_proofs_with_any() -> None:
    clock = ManualClock()
    lenient = JwtVerifier([issuer(dpop=Binding.ALLOWED)], clock, nonces=Nonces(clock, KEY))
    assert (await present(lenient, proof(BOUND, nonce="of long ago"))).principal.subject == "alice"


def test_a_nonce_counts_in_its_stretch_and_in_the_next_one() -> None:
    clock = ManualClock()
    nonces = Nonces(clock, KEY)
    clock.now = NOW - NOW % STRETCH_S
    first = nonces.current()
    clock.now += STRETCH_S - 1
    assert nonces.current() == first
    clock.now += 1
    assert nonces.current() != first
    assert nonces.good(first)
    clock.now += STRETCH_S - 1
    assert nonces.good(first)
    clock.now += 1
    assert not nonces.good(first)


def test_processes_with_one_key_accept_each_others_nonces_also_where_clocks_differ() -> None:
    ahead, behind = ManualClock(), ManualClock()
    ahead.now += STRETCH_S
    one, other, foreign = Nonces(ahead, KEY), Nonces(behind, KEY), Nonces(behind, KEY[::-1])
    assert other.good(one.current())
    assert one.good(other.current())
    assert not other.good(foreign.current())


# --- another key ------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 5 * STRETCH_S),
    st.integers(0, STRETCH_S - 1),
    st.lists(st.tuples(st.integers(0, STRETCH_S), st.booleans()), max_size=30),
)
def test_sidecars_that_get_a_new_key_within_a_stretch_never_refuse_each_others_nonces(
    first: int, later: int, looks: list[tuple[int, bool]]
) -> None:
    clock = ManualClock()
    begun = clock.now
    one, other = Nonces(clock, KEY), Nonces(clock, KEY)
    changes = {id(one): begun + first, id(other): begun + first + later}
    given = {id(one): list[tuple[float, str]](), id(other): list[tuple[float, str]]()}
    refused = []
    for pause, swap in looks:
        clock.now += pause
        for nonces in (one, other):
            if clock.now >= changes[id(nonces)]:
                nonces.take_up(OTHER)
            given[id(nonces)].append((clock.now, nonces.current()))
        giver, judge = (one, other) if swap else (other, one)
        fresh = [nonce for at, nonce in given[id(giver)] if clock.now // STRETCH_S - at // STRETCH_S <= 1]
        refused += [nonce for nonce in fresh if not judge.good(nonce)]
    assert refused == []


def test_a_new_key_is_accepted_at_once_given_out_later_and_ends_the_one_before() -> None:
    clock = ManualClock()
    rotated, behind, fresh = Nonces(clock, KEY), Nonces(clock, KEY), Nonces(clock, OTHER)
    rotated.take_up(OTHER)
    assert rotated.good(fresh.current()), "a sidecar that was started with the new key"
    assert rotated.current() == behind.current()
    clock.now += 2 * STRETCH_S
    assert rotated.current() == fresh.current()
    assert rotated.good(behind.current())
    clock.now += 2 * STRETCH_S
    assert not rotated.good(behind.current())
    assert rotated.good(fresh.current())


def test_a_wrong_new_key_changes_nothing_and_the_same_one_neither() -> None:
    clock = ManualClock()
    nonces, same = Nonces(clock, KEY), Nonces(clock, KEY)
    with pytest.raises(ConfigurationError):
        nonces.take_up(OTHER[:-1])
    nonces.take_up(KEY)
    for _ in range(6):
        assert nonces.current() == same.current()
        clock.now += STRETCH_S


def test_keys_that_change_all_the_time_are_few_and_the_newest_counts() -> None:
    clock = ManualClock()
    nonces = Nonces(clock, KEY)
    keys = [bytes([number]) * 32 for number in range(1, 50)]
    for key in keys:
        nonces.take_up(key)
        assert nonces.good(nonces.current())
        assert nonces.good(Nonces(clock, key).current())
    assert sum(nonces.good(Nonces(clock, key).current()) for key in [KEY, *keys]) <= 4
    clock.now += 2 * STRETCH_S
    assert nonces.current() == Nonces(clock, keys[-1]).current()


async def test_a_changed_file_is_the_key_of_proofs(tmp_path: Path) -> None:
    file = tmp_path / "nonces"
    file.write_bytes(KEY)
    (tmp_path / "keys").write_text('{"keys": []}')
    entry = {
        "issuer": "https://idp.example",
        "jwks_file": str(tmp_path / "keys"),
        "dpop": "required",
        "dpop_nonce": True,
    }
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        config = loaded(issuers=[entry], dpop_nonce_key_file=str(file))
        found = await known(config, clock, stack)
        assert found.nonces is not None
        assert found.nonce_key is not None
        for damaged in (b"", OTHER[:-1], OTHER * 200):
            file.write_bytes(damaged)
            found.nonce_key.refresh()
            assert not found.nonces.good(Nonces(clock, OTHER).current())
        file.write_bytes(OTHER)
        found.nonce_key.refresh()
        assert found.nonces.good(Nonces(clock, OTHER).current())
        assert found.nonces.good(Nonces(clock, KEY).current())
        clock.now += 2 * STRETCH_S
        assert found.nonces.current() == Nonces(clock, OTHER).current()


@given(st.text())
def test_no_text_is_a_nonce_by_chance(text: str) -> None:
    assert not Nonces(ManualClock(), KEY).good(text)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Nonces(ManualClock(), KEY[:-1])


def test_settings_say_who_asks_for_nonces(tmp_path: Path) -> None:
    entry = {"issuer": "https://idp.example", "jwks_file": "keys", "dpop": "required", "dpop_nonce": True}
    config = loaded(issuers=[entry])
    assert trusted(config.issuers[0], config, FileKeySet(tmp_path / "none", ManualClock())).dpop_nonce
    with pytest.raises(ConfigurationError, match="dpop_nonce"):
        loaded(issuers=[{**entry, "dpop": "off"}])
