"""Handles of sessions: only a sidecar with the keys makes one, and any of them reads it exactly as it was made."""

import base64
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.ended import MOST_TOLD, EndedSessions
from sidecar.mcp.handles import (
    KEY_BYTES,
    LONGEST_HANDLE,
    MOST_NAME_BYTES,
    CarriedQuestions,
    HandleKeys,
    SealedQuestion,
    SealedSession,
    cut,
    handle_digest,
    identity_digest,
)
from sidecar.mcp.revision import McpRevision
from sidecar.mcp.session import Sessions

OLD, NEW, OTHER = (bytes([n]) * KEY_BYTES for n in (1, 2, 3))
RESOURCE = "https://mcp.example/mcp"
ANN = ("https://idp.example", "ann", "desk")


def sealed(name: str = "client", revision: McpRevision = McpRevision.V2025_11_25) -> SealedSession:
    return SealedSession(
        identity=identity_digest(ANN), revision=revision, client_name=name, created=1_700_000_000, expires=1_700_086_400
    )


@given(st.text(max_size=200), st.sampled_from(McpRevision), st.text(min_size=1))
def test_what_was_sealed_is_read_and_is_short_visible_ascii(name: str, revision: McpRevision, unique: str) -> None:
    unique = unique.encode("utf-8", "ignore").decode() or "u"
    keys = HandleKeys([NEW], RESOURCE)
    handle = keys.seal(sealed(name, revision), unique)
    assert all("!" <= character <= "~" for character in handle)
    assert len(handle) <= LONGEST_HANDLE
    found = keys.read(handle)
    assert found == sealed(cut(name), revision)
    assert len(cut(name).encode()) <= MOST_NAME_BYTES


def test_every_character_counts_and_there_is_one_spelling() -> None:
    keys = HandleKeys([NEW], RESOURCE)
    handle = keys.seal(sealed(), "unique")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position in range(len(handle)):
        for character in alphabet:
            if character != handle[position]:
                assert keys.read(handle[:position] + character + handle[position + 1 :]) is None
    for size in range(len(handle)):
        assert keys.read(handle[:size]) is None
    for other in (
        handle + "A",
        handle + "=",
        handle + " ",
        f" {handle}",
        handle + "\n",
        handle.replace("_", "/") + "é",
    ):
        assert keys.read(other) is None


@given(
    st.one_of(st.text(max_size=300), st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
)
def test_nothing_else_is_a_handle(text: str) -> None:
    assert HandleKeys([NEW, OLD], RESOURCE).read(text) is None


def test_no_pieces_of_two_handles_make_a_third_and_none_is_read_as_what_it_is_not() -> None:
    """Spliced at every place; and what is sealed for a session is no request state, nor the other way round."""
    keys = HandleKeys([NEW, OLD], RESOURCE)
    first, second = (keys.seal(sealed(), unique) for unique in ("one", "two"))
    for place in range(1, len(first)):
        assert first[:place] + second[place:] in {first, second} or keys.read(first[:place] + second[place:]) is None
    assert keys.read(first + second) is None
    asked = SealedQuestion(identity=identity_digest(ANN), call=bytes(32), question=bytes(32), fields=(), expires=1)
    carried = CarriedQuestions(identity=identity_digest(ANN), call=bytes(32), expires=1, asked={}, state=None, rounds=1)
    states = keys.seal_question(asked, "one"), keys.seal_carried(carried, "one")
    assert (keys.read_question(states[0]), keys.read_carried(states[1])) == (asked, carried)
    for text in (first, *states):
        readers = (keys.read, keys.read_question, keys.read_carried)
        assert sum(reader(text) is not None for reader in readers) == 1, "each is one thing only"


def test_what_is_very_long_is_not_decoded() -> None:
    assert HandleKeys([NEW], RESOURCE).read("A" * 10_000_000) is None


def test_keys_are_rotated_without_losing_a_session() -> None:
    before = HandleKeys([OLD], RESOURCE)
    announced = HandleKeys([OLD, NEW], RESOURCE)
    changed = HandleKeys([NEW, OLD], RESOURCE)
    after = HandleKeys([NEW], RESOURCE)
    old = before.seal(sealed(), "a")
    assert announced.read(old) == changed.read(old) == sealed()
    assert after.read(old) is None
    new = changed.seal(sealed(), "b")
    assert announced.read(new) == after.read(new) == sealed()
    assert before.read(new) is None


def test_another_key_or_another_resource_reads_nothing() -> None:
    handle = HandleKeys([NEW], RESOURCE).seal(sealed(), "a")
    assert HandleKeys([OTHER], RESOURCE).read(handle) is None
    assert HandleKeys([NEW], RESOURCE + "2").read(handle) is None


def test_two_sessions_of_one_moment_have_handles_of_their_own() -> None:
    keys = HandleKeys([NEW], RESOURCE)
    handles = [keys.seal(sealed(), str(n)) for n in range(100)]
    assert len({handle[8:] for handle in handles}) == 100
    assert len({handle_digest(handle) for handle in handles}) == 100


@pytest.mark.parametrize("keys", [[], [NEW, NEW], [NEW, OLD, OTHER], [NEW[:-1]], [NEW + b"x"], [b""]], ids=len)
def test_keys_that_cannot_be_meant_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="key"):
        HandleKeys(keys, RESOURCE)


@pytest.mark.parametrize("other", [("https://idp.exampl", "eann", "desk"), ("https://idp.example", "ann", "desk2")])
def test_no_two_identities_are_one(other: tuple[str, str, str]) -> None:
    assert identity_digest(ANN) != identity_digest(other)
    assert identity_digest(("a", "", "b")) != identity_digest(("a", "b", ""))


def test_ended_sessions_are_bounded_and_each_is_told_once() -> None:
    ended = EndedSessions(most=3)
    for n in range(5):
        ended.end(bytes([n]), b"owner", 0)
    ended.learn([b"x"])
    assert len(ended) == 3
    assert [bytes([n]) in ended for n in range(5)] == [False, False, False, True, True]
    told = ended.take_untold()
    assert told == tuple(bytes([n]) for n in range(5))
    assert ended.take_untold() == ()
    ended.put_back(told[:2])
    ended.end(b"y", b"owner", 0)
    assert set(ended.take_untold()) == {*told[:2], b"y"}


def test_one_identity_does_not_fill_what_is_told_and_keeps_others_from_nothing() -> None:
    ended = EndedSessions()
    for n in range(3 * MOST_TOLD):
        ended.end(n.to_bytes(2), b"flood", 0)
    ended.end(b"other", b"owner", 0)
    assert len(ended.take_untold()) == MOST_TOLD + 1
    assert all(n.to_bytes(2) in ended for n in range(3 * MOST_TOLD)), "here they are ended all the same"
    ended.end(b"later", b"flood", 1)
    assert ended.take_untold() == (b"later",), "in the next span it is told again"


def test_an_idle_session_takes_less_than_twenty_kilobytes() -> None:
    keys, count = HandleKeys([NEW], RESOURCE), 2000
    tracemalloc.start()
    try:
        sessions = Sessions(count, count, 3600)
        before, _ = tracemalloc.get_traced_memory()
        for n in range(count):
            key = ("https://idp.example", f"user{n}", "desk")
            names = (("user", *key[:2]), ("agent", key[0], "desk"), ("pair", *key), ("token", f"{n:032x}"))
            handle = keys.seal(sealed(f"client {n}"), str(n))
            sessions.open(handle, key, McpRevision.V2025_11_25, f"client {n}", 0.0, names=names, ends=86_400.0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count < 20_000
