"""Nonces of proofs (RFC 9449 section 9): which count, for how long, and that processes can share a key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.faults import TokenFault
from sidecar.issuers import trusted
from sidecar.model import AuthScheme
from sidecar.oauth import Binding, FileKeySet, JwtVerifier, Nonces
from sidecar.oauth.nonces import STRETCH_S
from tests.oauth.proofs import proof
from tests.oauth.test_dpop import BOUND, PLAIN, fault, present
from tests.oauth.test_jwt_verification import NOW, ManualClock, issuer
from tests.settings.test_settings_sources import loaded

KEY = bytes(range(32))


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
