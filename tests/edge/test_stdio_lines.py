"""Lines of the stdio transport: however the bytes come, each line is one message, and none is held beyond its bound."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.edge.stdio import lines
from sidecar.mcp import Ends

MOST = 10

texts = st.lists(st.binary(max_size=25).map(lambda text: text.replace(b"\n", b"")), max_size=8)


async def chunks(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        yield data[start:end]


async def read(data: bytes, cuts: list[int]) -> list[bytes | Ends]:
    return [line async for line in lines(chunks(data, cuts), MOST)]


@given(texts, st.lists(st.integers(0, 300), max_size=12), st.booleans())
async def test_lines_do_not_depend_on_how_the_bytes_come(written: list[bytes], cuts: list[int], ended: bool) -> None:
    data = b"\n".join(written) + (b"\n" if ended else b"")
    expected = [line if len(line) <= MOST else Ends.of(line) for line in written if len(line) > MOST or line.strip()]
    assert await read(data, cuts) == expected


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", []),
        (b"\n \n\t\r\n", []),
        (b"a\r\n", [b"a\r"]),
        (b"a", [b"a"]),
        (b"0123456789\n", [b"0123456789"]),
        (b"0123456789x\n", [Ends.of(b"0123456789x")]),
        (b"a\n" + b"x" * 11 + b"\nb\n", [b"a", Ends.of(b"x" * 11), b"b"]),
    ],
    ids=["nothing", "white space", "a carriage return", "no line break", "the longest", "one more", "in between"],
)
async def test_a_line(data: bytes, found: list[bytes | Ends]) -> None:
    assert await read(data, []) == found
