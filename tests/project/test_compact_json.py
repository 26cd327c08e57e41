"""The compiled encoder's bytes are those of the standard library's, or it is not used."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar import compact_json

STANDARD = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
SORTED = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
TEXT = st.one_of(
    st.text(max_size=8),
    st.text(
        '\x00\b\t\n\x0b\f\r\x1f"\\/\x7f\x80\u2028\ufeff\uffff\u02cb\u03cf\u04d3\U0001f600\ud800\udfff',
        max_size=8,
    ),
    st.integers(200, 212).map(lambda length: "x" * length),  # lengths that are tags of MessagePack too
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-300, 70_000),
    st.floats(),
    st.sampled_from(
        [2**31, 2**32 - 1, 2**32, 2**53, 2**63, 2**64, -(2**31) - 1, -(2**63) - 1, 1e16, 1e22, -0.0, 5e-324]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


def standard(encoder: json.JSONEncoder, value: Any) -> bytes | type[ValueError]:
    try:
        return encoder.encode(value).encode()
    except ValueError:
        return ValueError


def fractions(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(fractions, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


@given(JSON)
@example([math.nan])
@example({"a": [{"b": math.inf}]})
@example({"a": "\u02cb\x7f\u07f0", "b": [-math.inf]})
@example({"\ud800": 1})
@example([1e16, 1.0, 0.1, 1e-7, 1e22, -0.0])
def test_the_bytes_are_those_of_the_standard_encoder_and_so_are_the_refusals(value: Any):
    expected = standard(STANDARD, value)
    if not isinstance(expected, bytes):
        with pytest.raises(ValueError):
            compact_json.encode(value)
        return
    found = compact_json.encode(value)
    assert found == expected or fractions(value)
    assert repr(json.loads(found)) == repr(json.loads(expected))  # noqa: TID251 - our own bytes


@given(st.dictionaries(TEXT, JSON, max_size=5))
@example({"a": 2**32})
@example({"a": {"b": [math.nan]}})
def test_sorted_bytes_are_those_of_the_standard_encoder_or_none(value: Any):
    found = compact_json.encode_sorted(value)
    assert found is None or found == standard(SORTED, value)


@pytest.mark.parametrize("value", [1.5, math.nan, 2**32, -(2**31) - 1, "\ud800"], ids=repr)
def test_what_canonical_forms_write_otherwise_has_no_sorted_bytes(value: Any):
    assert compact_json.encode_sorted({"a": [{"b": value}]}) is None


@pytest.mark.parametrize("value", [2**32 - 1, -(2**31), True, None, "é\U0001f600"], ids=repr)
def test_the_near_misses_have(value: Any):
    assert compact_json.encode_sorted({"a": [{"b": value}]}) is not None


def test_what_is_nothing_like_json_is_refused():
    with pytest.raises(TypeError):
        compact_json.encode({"a": object()})  # type: ignore[dict-item]
