"""Tokens that are bound to a key: only who shows the key, for this request and once, is let in."""

import dataclasses
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ProofRejected, TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import AuthScheme, Credential, Identity, UnverifiedToken
from sidecar.oauth import Binding, JwtVerifier
from sidecar.oauth.proof_memory import SHARE, ProofsInMemory
from tests.oauth.proofs import CLIENT, ED_CLIENT, LIES, RSA_CLIENT, THIEF, Lie, proof, public, thumbprint
from tests.oauth.test_jwt_verification import NOW, RESOURCE, ManualClock, verifier
from tests.oauth.test_jwt_verification import token as access_token


def signed(cnf: Any) -> UnverifiedToken:
    """A token of the issuer that is bound so."""
    return access_token({"cnf": cnf})


BOUND = signed(cnf={"jkt": thumbprint(CLIENT)})
PLAIN = access_token()


def strict(clock: ManualClock | None = None, dpop: Binding = Binding.ALLOWED) -> JwtVerifier:
    return verifier(clock, dpop=dpop)


async def present(
    checker: JwtVerifier, shown: str | None, token: str = BOUND, scheme: AuthScheme = AuthScheme.DPOP, **changes: Any
) -> Identity:
    credential = Credential(scheme=scheme, token=UnverifiedToken(token), proof=shown, method="POST", uri=RESOURCE)
    return await checker.verify(dataclasses.replace(credential, **changes))


async def fault(checker: JwtVerifier, *arguments: Any, **changes: Any) -> TokenFault:
    with pytest.raises(TokenRejected) as refused:
        await present(checker, *arguments, **changes)
    return refused.value.fault


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.title)
async def test_a_proof_that_lies_is_refused_for_its_own_reason(lie: Lie) -> None:
    checker = strict()
    with pytest.raises(ProofRejected) as refused:
        await present(checker, lie.make(BOUND))
    assert refused.value.fault == lie.fault
    assert (await present(checker, proof(BOUND))).principal.subject == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"htu": "HTTPS://MCP.corp.example:443/mcp"},
        {"htu": f"{RESOURCE}/"},
        {"htu": f"{RESOURCE}?a=b#c"},
        {"iat": NOW - 69},
        {"iat": NOW + 9},
        {"iat": NOW + 0.5},
        {"jti": "x" * 256},
        {"jti": "ä€"},
        {"exp": 1, "nonce": "unasked", "aud": "https://elsewhere"},
        {"header": {"kid": "whatever", "jku": "https://evil.example/k", "x5u": "https://evil.example/c"}},
        {"header": {"jwk": {**public(CLIENT), "kid": "k", "use": "sig", "alg": "ES256"}}},
    ],
    ids=(str(number) for number in count()),
)
async def test_what_an_honest_client_may_write_otherwise_is_accepted(changes: dict[str, Any]) -> None:
    assert (await present(strict(), proof(BOUND, **changes))).principal.subject == "alice"


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA_CLIENT, "RS256"), (RSA_CLIENT, "PS256"), (ED_CLIENT, "EdDSA")],
    ids=["RS256", "PS256", "EdDSA"],
)
async def test_keys_of_other_types_count_for_their_own_algorithm(key: Any, alg: str) -> None:
    token = signed(cnf={"jkt": thumbprint(key)})
    assert (await present(strict(), proof(token, key=key, alg=alg), token)).actor.id == "claude-desktop"
    assert await fault(strict(), proof(token, key=CLIENT), token) == TokenFault.PROOF_KEY


async def test_a_proof_counts_once_and_another_by_the_same_key_counts_too() -> None:
    checker = strict()
    await present(checker, proof(BOUND))
    assert await fault(checker, proof(BOUND)) == TokenFault.PROOF_REPLAYED
    assert await fault(checker, proof(BOUND, iat=NOW - 1)) == TokenFault.PROOF_REPLAYED
    await present(checker, proof(BOUND, jti="2"))


async def test_the_same_id_by_another_key_is_another_proof() -> None:
    checker = strict()
    await present(checker, proof(BOUND))
    other = signed(cnf={"jkt": thumbprint(THIEF)})
    assert (await present(checker, proof(other, key=THIEF), other)).principal.subject == "alice"


async def test_a_proof_is_not_good_again_when_it_is_forgotten() -> None:
    clock = ManualClock()
    checker = strict(clock)
    shown = proof(BOUND)
    await present(checker, shown)
    for _ in range(10):
        clock.now += 10
        assert await fault(checker, shown) in {TokenFault.PROOF_REPLAYED, TokenFault.PROOF_TIME}


async def test_a_refused_proof_does_not_use_up_its_id() -> None:
    checker = strict()
    assert await fault(checker, proof(BOUND, htm="GET")) == TokenFault.PROOF_METHOD
    await present(checker, proof(BOUND))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_proof_is_for_the_method_of_the_request(method: str) -> None:
    assert await fault(strict(), proof(BOUND), method=method) == TokenFault.PROOF_METHOD
    assert (await present(strict(), proof(BOUND, htm=method), method=method)).principal.subject == "alice"


@pytest.mark.parametrize("dpop", Binding)
async def test_a_bound_token_is_no_bearer_token_with_or_without_its_proof(dpop: Binding) -> None:
    for shown in (None, proof(BOUND)):
        assert await fault(strict(dpop=dpop), shown, scheme=AuthScheme.BEARER) == TokenFault.BOUND


async def test_also_not_when_it_is_remembered() -> None:
    checker = strict()
    await present(checker, proof(BOUND))
    assert await fault(checker, None, scheme=AuthScheme.BEARER) == TokenFault.BOUND
    assert await fault(checker, None) == TokenFault.PROOF_MISSING


@pytest.mark.parametrize("dpop", [Binding.OFF, Binding.ALLOWED])
async def test_a_plain_token_is_a_bearer_token_unless_binding_is_required(dpop: Binding) -> None:
    assert (await present(strict(dpop=dpop), None, PLAIN, AuthScheme.BEARER)).principal.subject == "alice"


@pytest.mark.parametrize("shown", [None, proof(PLAIN)], ids=["alone", "with a proof"])
async def test_a_plain_token_is_refused_where_binding_is_required(shown: str | None) -> None:
    assert await fault(strict(dpop=Binding.REQUIRED), shown, PLAIN, AuthScheme.BEARER) == TokenFault.UNBOUND


@pytest.mark.parametrize("dpop", Binding)
async def test_a_plain_token_gains_nothing_by_a_proof(dpop: Binding) -> None:
    assert await fault(strict(dpop=dpop), proof(PLAIN), PLAIN) == TokenFault.UNBOUND


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        {"jkt": ""},
        {"jkt": None},
        {"jkt": [thumbprint(CLIENT)]},
        {"jkt": thumbprint(CLIENT) + "="},
        {"jkt": thumbprint(CLIENT), "kid": "1"},
        {"x5t#S256": "A" * 43},
        {"jwk": public(CLIENT)},
        thumbprint(CLIENT),
        None,
        [],
    ],
    ids=(str(number) for number in count()),
)
async def test_a_token_that_is_bound_to_anything_else_is_refused(cnf: Any) -> None:
    token = signed(cnf=cnf)
    assert await fault(strict(), proof(token), token) == TokenFault.BOUND
    assert await fault(strict(), None, token, AuthScheme.BEARER) == TokenFault.BOUND


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.sampled_from(["htu", "htm", "ath"]))
async def test_no_text_in_a_claim_is_taken_for_the_right_one(text: str, name: str) -> None:
    assert await fault(strict(), proof(BOUND, **{name: text})) in {
        TokenFault.PROOF_METHOD,
        TokenFault.PROOF_URI,
        TokenFault.PROOF_OTHER,
    }


# --- the memory of proofs ---------------------------------------------------------------------------------------------


async def test_the_memory_has_a_bound_for_all_and_one_for_each_key_and_forgets_what_has_ended() -> None:
    clock = ManualClock()
    memory = ProofsInMemory(clock, most=8 * SHARE)

    async def add(key: str, number: int) -> bool:
        return await memory.is_first(f"{key}{number}".encode(), key, clock.now + 60)

    assert all([await add("greedy", number) for number in range(8)])
    with pytest.raises(ProofRejected) as refused:
        await add("greedy", 8)
    assert refused.value.fault == TokenFault.PROOF_TOO_MANY
    assert await add("modest", 0)
    clock.now += 61
    assert await add("greedy", 9)
    assert len(memory) == 1


async def test_a_full_memory_refuses_and_forgets_nothing_that_could_be_presented_again() -> None:
    clock = ManualClock()
    memory = ProofsInMemory(clock, most=SHARE)
    for number in range(SHARE):
        assert await memory.is_first(bytes([number]), str(number), clock.now + 60)
    with pytest.raises(ProofRejected):
        await memory.is_first(b"one more", "another", clock.now + 60)
    assert not await memory.is_first(bytes([0]), "0", clock.now + 60)


async def test_what_has_ended_goes_with_time_without_being_full() -> None:
    clock = ManualClock()
    memory = ProofsInMemory(clock)
    for number in range(100):
        await memory.is_first(f"a{number}".encode(), "k", clock.now + 60)
    clock.now += 100
    for number in range(60):
        await memory.is_first(f"b{number}".encode(), "k", clock.now + 60)
    assert len(memory) == 60
