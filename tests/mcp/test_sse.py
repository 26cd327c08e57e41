"""Server-sent events: however the bytes are cut and lines ended, the same data come out, within the limit."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import UpstreamProtocolViolation
from sidecar.mcp.sse import EventDecoder

STREAMS = [
    (b"data: a\n\n", [b"a"]),
    (b"data:a\r\n\r\ndata:  b\r\r", [b"a", b" b"]),
    (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    (b"event: message\nid: 7\nretry: 5\ndata: {\ndata: }\n\n", [b"{\n}"]),
    (b"event: ping\ndata: a\n\ndata: b\n\n", [b"b"]),
    (b": keepalive\n\nid: 1\ndata:\n\ndata: x\n\n", [b"x"]),
    (b"data\n\n\n\n", []),
    (b"data: unfinished\n", []),
    (b"dat: a\nDATA: b\n data: c\n\n", []),
]


def data_of(stream: bytes, cuts: list[int], limit: int = 1000) -> list[bytes]:
    decoder = EventDecoder(limit)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    return [data for chunk in chunks for data in decoder.feed(chunk)]


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
def test_events_are_read_as_the_standard_says(stream, expected):
    assert data_of(stream, []) == expected
    assert data_of(stream, list(range(len(stream)))) == expected


@given(st.binary(max_size=60) | st.text("data: \r\n:x", max_size=60).map(str.encode), st.lists(st.integers(0, 60)))
def test_any_cutting_gives_the_same_events(stream, cuts):
    assert data_of(stream, cuts) == data_of(stream, [])


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 20, b"data: xxxxxx\n" * 3, b": comment\n" * 5], ids=repr)
def test_an_event_without_end_is_a_protocol_violation(stream):
    with pytest.raises(UpstreamProtocolViolation):
        data_of(stream, [], limit=20)


def test_the_limit_is_of_one_event_and_not_of_the_stream():
    assert data_of(b"data: xxxx\n\n" * 50, [], limit=10) == [b"xxxx"] * 50
