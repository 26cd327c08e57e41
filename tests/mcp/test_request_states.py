"""Request states: only a sidecar with the keys makes one, it says one thing, and it is read as nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.handles import (
    KEY_BYTES,
    LONGEST_STATE,
    MOST_FIELDS_BYTES,
    HandleKeys,
    SealedQuestion,
    SealedSession,
    identity_digest,
)
from sidecar.mcp.revision import McpRevision

OLD, NEW, OTHER = (bytes([n]) * KEY_BYTES for n in (1, 2, 3))
RESOURCE = "https://mcp.example/mcp"
ANN = ("https://idp.example", "ann", "desk")
DIGESTS = st.binary(min_size=32, max_size=32)


def asked(*fields: str) -> SealedQuestion:
    return SealedQuestion(
        identity=identity_digest(ANN), call=b"c" * 32, question=b"q" * 32, fields=fields, expires=1_700_000_120
    )


@given(DIGESTS, DIGESTS, DIGESTS, st.lists(st.text(max_size=9), max_size=9), st.integers(0, 2**32 - 1), st.text())
def test_what_was_sealed_is_read(
    identity: bytes, call: bytes, question: bytes, fields: list[str], expires: int, unique: str
) -> None:
    unique = unique.encode("utf-8", "ignore").decode()
    keys = HandleKeys([NEW], RESOURCE)
    told = SealedQuestion(identity=identity, call=call, question=question, fields=tuple(fields), expires=expires)
    state = keys.seal_question(told, unique)
    assert all("!" <= character <= "~" for character in state)
    assert len(state) <= LONGEST_STATE
    assert keys.read_question(state) == told


@given(st.data())
def test_every_character_counts_and_there_is_one_spelling(data: st.DataObject) -> None:
    keys = HandleKeys([NEW], RESOURCE)
    state = keys.seal_question(asked("confirmation"), "unique")
    place = data.draw(st.integers(0, len(state) - 1))
    other = data.draw(st.characters().filter(lambda character: character != state[place]))
    assert keys.read_question(state[:place] + other + state[place + 1 :]) is None
    assert keys.read_question(state[:place]) is None
    for altered in (state + "=", state + "A", " " + state, state + "\n"):
        assert keys.read_question(altered) is None
    assert keys.read_question(state) == asked("confirmation")


@given(st.text(max_size=400))
def test_what_is_made_up_is_nothing(text: str) -> None:
    assert HandleKeys([NEW], RESOURCE).read_question(text) is None


def test_keys_roll_and_other_keys_and_resources_read_nothing() -> None:
    state = HandleKeys([OLD], RESOURCE).seal_question(asked(), "unique")
    assert HandleKeys([NEW, OLD], RESOURCE).read_question(state) == asked()
    for keys in ([NEW], [OTHER, NEW]):
        assert HandleKeys(keys, RESOURCE).read_question(state) is None
    assert HandleKeys([OLD], RESOURCE + "/").read_question(state) is None


def test_a_handle_is_no_state_and_a_state_no_handle() -> None:
    keys = HandleKeys([NEW], RESOURCE)
    session = SealedSession(
        identity=identity_digest(ANN),
        revision=McpRevision.V2025_11_25,
        client_name="c" * 64,
        created=1_700_000_000,
        expires=1_700_086_400,
    )
    handle = keys.seal(session, "unique")
    assert keys.read(handle) == session
    assert keys.read_question(handle) is None
    assert keys.read(keys.seal_question(asked(), "unique")) is None


def test_a_form_with_more_fields_than_fit_is_not_sealed() -> None:
    keys = HandleKeys([NEW], RESOURCE)
    most = "f" * (MOST_FIELDS_BYTES - 4)
    assert len(keys.seal_question(asked(most), "unique")) <= LONGEST_STATE
    with pytest.raises(ValueError, match="do not fit"):
        keys.seal_question(asked(most + "f"), "unique")
