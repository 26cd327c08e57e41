"""A setting that does not match its pattern is refused in words, and never by the pattern."""

import re

import pytest

from sidecar.setting_names import in_words
from tests.parts import ROOT

PATTERNS = sorted(
    {
        pattern
        for file in (ROOT / "sidecar").glob("*settings*.py")
        for pattern in re.findall(r'pattern=r"([^"]+)"', file.read_text(encoding="utf-8"))
    }
)


def test_every_pattern_of_the_settings_is_found() -> None:
    fields = (len(re.findall(r"\bpattern=", file.read_text())) for file in (ROOT / "sidecar").glob("*settings*.py"))
    assert sum(fields) >= len(PATTERNS) >= 5


@pytest.mark.parametrize("number", range(len(PATTERNS)))
def test_a_pattern_is_told_in_words(number: int) -> None:
    told = in_words("string_pattern_mismatch", f"String should match pattern '{PATTERNS[number]}'")
    assert "needed" in told
    assert PATTERNS[number] not in told


def test_a_scope_prefix_says_what_may_stand_in_a_scope() -> None:
    of_scopes = [one for one in PATTERNS if "x21" in one and "http" not in one]
    assert len(of_scopes) == 2, "a scope, and what is put before one"
    for pattern in of_scopes:
        assert "RFC 6749" in in_words("string_pattern_mismatch", f"String should match pattern '{pattern}'")


def test_an_issuer_is_said_to_be_a_url() -> None:
    (pattern,) = (one for one in PATTERNS if "http" in one)
    assert "a URL is needed" in in_words("string_pattern_mismatch", f"String should match pattern '{pattern}'")
