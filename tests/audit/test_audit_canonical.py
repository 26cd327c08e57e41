"""The fast canonical text is the reference's, byte for byte, or is refused where the reference refuses."""

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.audit.canonical import canonical

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1e21]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, JSON, max_size=5))
@example({"\U00010000": 1, "\ue000": 2})  # UTF-16 order is the other way round than code points
@example({"a": [1.0, [-1e16, 1e-7]], "b": {"c": 0.0}})
@example({"a": '\x00\x1f\x7f\u2028"\\/\b\f\n\r\t'})
@example({"a": '":1.5,[2e9', "b": 9007199254740991})
def test_the_bytes_are_those_of_the_reference(value):
    assert canonical(value) == rfc8785.dumps(value)


# Keys and texts out of the very characters by which the fast text is judged: ends of strings, and numbers beside them.
TRICKY = st.text('\\":1.e,[{9', max_size=24)


@given(st.dictionaries(TRICKY, st.one_of(TRICKY, NUMBERS, st.lists(NUMBERS, max_size=2)), max_size=4))
@example({"a\\": 1.5})
@example({'a\\"': 1e16})
@example({'a\\\\"': "b", 'c":1.5': 2.5})
@example({"question": '{"time_ns":1795000000000000000}', "b": 1e-7})
def test_a_text_that_looks_like_json_hides_no_number_beside_it(value):
    assert canonical(value) == rfc8785.dumps(value)


def test_a_text_full_of_what_looks_like_numbers_is_read_once():
    canonical({"a": '\\":1.5' * 200_000, "b": "\\" * 1_000_000})


@pytest.mark.parametrize("value", [0.1, -0.25, 1.05, 100.001, 9999.5, 1e-4, 123456789.125, 0.30000000000000004])
def test_ordinary_fractions_need_no_reference(value, monkeypatch):
    expected = rfc8785.dumps({"a": value, "b": [0.5, value]})
    monkeypatch.setattr(rfc8785, "dumps", None)
    assert canonical({"a": value, "b": [0.5, value]}) == expected


@pytest.mark.parametrize("value", [1.0, -0.0, 100.0, 1e16, 1e21, 1e-5, 1.5e-7, 2.5e300])
def test_where_the_encoders_differ_the_reference_is_asked(value):
    assert canonical({"a": value}) == rfc8785.dumps({"a": value})
    assert canonical({"a": [0.5, value]}) == rfc8785.dumps({"a": [0.5, value]})


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 10**30, float("nan"), float("inf"), "\ud800", 1j, [2**53], {"deep": [[2**60]]}],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(ValueError):
        canonical({"a": value})


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, 1e308, "\ud7ff", "\ue000", [], {}], ids=repr)
def test_the_near_misses_have_one(value):
    assert canonical({"a": value}) == rfc8785.dumps({"a": value})
