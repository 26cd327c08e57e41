"""Lines of the stdio transport: however the bytes are cut, the same lines come out, and none grows without bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp.lines import LineFraming, OversizeLine


def lines_of(framing: LineFraming, *chunks: bytes) -> list[bytes | OversizeLine]:
    return [line for chunk in chunks for line in framing.feed(chunk)]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 30))
def test_any_cutting_gives_the_same_lines(chunks, limit):
    whole = b"".join(chunks)
    expected = whole.split(b"\n")[:-1]
    got = lines_of(LineFraming(limit), *chunks)
    assert len(got) == len(expected)
    for line, want in zip(got, expected, strict=True):
        if len(want) <= limit:
            assert line == want
        else:
            assert isinstance(line, OversizeLine)
            assert line.tail == want[-64:]


@pytest.mark.parametrize(("size", "fits"), [(8, True), (9, False)])
def test_the_limit_is_exact(size, fits):
    [line] = lines_of(LineFraming(8), b"x" * size + b"\n")
    assert isinstance(line, bytes) is fits


def test_the_line_after_an_oversize_one_is_whole():
    assert lines_of(LineFraming(4), b"xxx", b"xxx", b"x\nab", b"cd\n")[1] == b"abcd"


def test_an_unfinished_line_is_not_a_line():
    assert lines_of(LineFraming(4), b"abc") == []
