"""Which request states were used is remembered for as long as each could come back, and for no more than fits."""

from typing import Any, cast

import pytest

from sidecar.enforcement.confirmation import request_states
from sidecar.enforcement.request_states import SHARE, RequestStates, UsedInMemory, call_digest, question_digest
from sidecar.enforcement.shared_sessions import SharedSessions
from sidecar.enforcement.turn import EnforcementRules, Ports
from sidecar.errors import NotConfirmed
from sidecar.mcp import EndedSessions, HandleKeys
from sidecar.mcp.input_required import GivenInput, StateRejected
from sidecar.model import Actor, Identity, JsonObject, Principal, ToolCall
from sidecar.ports import UsedStates
from sidecar.system import RandomIdentifiers
from tests.store.shared_database import HandClock


async def test_a_state_is_first_once() -> None:
    used = UsedInMemory(HandClock())
    assert await used.is_first(b"a", b"ann", 2000.0)
    assert not await used.is_first(b"a", b"ann", 2000.0)
    assert not await used.is_first(b"a", b"ben", 2000.0)
    assert await used.is_first(b"b", b"ann", 2000.0)


async def test_what_is_full_refuses_and_one_identity_takes_no_room_of_the_others() -> None:
    used = UsedInMemory(HandClock(), most=2 * SHARE)
    for one in (b"a", b"b"):
        assert await used.is_first(one, b"ann", 2000.0)
    with pytest.raises(NotConfirmed):
        await used.is_first(b"c", b"ann", 2000.0)
    assert not await used.is_first(b"a", b"ann", 2000.0), "nothing was forgotten for it"
    assert await used.is_first(b"c", b"ben", 2000.0)


async def test_what_has_expired_makes_room() -> None:
    clock = HandClock()
    now = clock.time_ns() / 1e9
    used = UsedInMemory(clock, most=SHARE)
    for n in range(50):
        assert await used.is_first(bytes([n]), b"ann", now - 1)
    assert len(used) <= 3
    assert len(used._of) <= 1


@pytest.mark.parametrize(
    ("server", "tool", "arguments"),
    [
        ("rw", "find", {"a": 1, "b": [1]}),
        ("ro", "count", {"a": 1, "b": [1]}),
        ("ro", "find", {"a": 2, "b": [1]}),
        ("ro", "find", {"a": "1", "b": [1]}),
        ("ro", "find", {"a": True, "b": [1]}),
        ("ro", "find", {"a": 1, "b": [1, 1]}),
        ("ro", "find", {"a": 1}),
        ("ro", "find", {"a": 2**53, "b": [1]}),
    ],
    ids=str,
)
def test_another_call_has_another_digest(server: str, tool: str, arguments: dict[str, object]) -> None:
    first = call_digest("ro", ToolCall(name="find", arguments={"a": 1, "b": [1]}))
    assert first == call_digest("ro", ToolCall(name="find", arguments={"b": [1], "a": 1}))
    assert first != call_digest(server, ToolCall(name=tool, arguments=arguments))  # type: ignore[arg-type]


def test_another_question_has_another_digest() -> None:
    assert question_digest({"message": "a"}) == question_digest({"message": "a"})
    assert question_digest({"message": "a"}) != question_digest({"message": "b"})


QUESTION: JsonObject = {
    "message": "Really?",
    "requestedSchema": {"type": "object", "properties": {"yes": {"type": "string"}}},
}
KEYS = HandleKeys([bytes(32)], "https://mcp.example")


def replica(*, keys: bool, used: UsedStates | None) -> RequestStates:
    """The states of one of several sidecars."""
    clock, nothing = HandClock(), cast("Any", None)
    ports = Ports(
        verifier=nothing,
        decisions=nothing,
        audit=nothing,
        upstreams={},
        clock=clock,
        identifiers=RandomIdentifiers(),
        tracer=nothing,
        metrics=nothing,
        shared_sessions=SharedSessions(lambda: KEYS, EndedSessions(), clock, lifetime_s=60) if keys else None,
        used_states=used,
    )
    return request_states(ports, EnforcementRules(environment="test", server_version="0"))


async def test_with_the_keys_alone_a_state_is_good_at_the_sidecar_that_gave_it_out_only() -> None:
    identity = Identity(principal=Principal(issuer="i", subject="s"), actor=Actor(id="a"), expires_at=9e9)
    call = ToolCall(name="delete-many", arguments={})
    for keys in (False, True):
        first, second = replica(keys=keys, used=None), replica(keys=keys, used=None)
        given = GivenInput(
            state=first.give(identity, "rw", call, QUESTION), responses={"confirmation": {"action": "decline"}}
        )
        with pytest.raises(StateRejected):
            second.read(given, identity, "rw", call)
        await first.use(given, first.read(given, identity, "rw", call))
        with pytest.raises(StateRejected):
            await first.use(given, first.read(given, identity, "rw", call))


async def test_where_it_is_known_everywhere_which_were_used_a_state_is_good_once_at_any_sidecar() -> None:
    identity = Identity(principal=Principal(issuer="i", subject="s"), actor=Actor(id="a"), expires_at=9e9)
    call = ToolCall(name="delete-many", arguments={})
    used = UsedInMemory(HandClock())
    first, second = replica(keys=True, used=used), replica(keys=True, used=used)
    given = GivenInput(
        state=first.give(identity, "rw", call, QUESTION), responses={"confirmation": {"action": "decline"}}
    )
    await second.use(given, second.read(given, identity, "rw", call))
    with pytest.raises(StateRejected):
        await first.use(given, first.read(given, identity, "rw", call))
