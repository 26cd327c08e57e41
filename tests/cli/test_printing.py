"""What others wrote cannot act on a terminal, and stays readable."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.printing import escaped
from tests.terminal import ACTS


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_it_was_it_prints(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert (shown == text) is text.isprintable()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_json_says_the_same(document: object) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    shown = escaped(text, keep="\n")
    assert json.JSONDecoder().decode(shown) == document
    assert [each for each in ACTS if each in shown] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 東京 [bold] 👍", "größe 東京 [bold] 👍"),
        ("a\x1b[2J", r"a\u001b[2J"),
        ("a\u202eb\u2066\u200b\ufeff\xad", r"a\u202eb\u2066\u200b\ufeff\u00ad"),
        ("a\r\n\tb\x7f\x9b", r"a\r\n\tb\u007f\u009b"),
        ("\U000e0041", r"\udb40\udc41"),
        (os.fsdecode(b"a\xffb"), "a?b"),
    ],
)
def test_it_is_written_as_json_would(text: str, shown: str) -> None:
    assert escaped(text) == shown
