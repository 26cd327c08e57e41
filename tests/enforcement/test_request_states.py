"""Which request states were used is remembered for as long as each could come back, and for no more than fits."""

import pytest

from sidecar.enforcement.request_states import SHARE, UsedInMemory, call_digest, question_digest
from sidecar.errors import NotConfirmed
from sidecar.model import ToolCall
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
