"""Lines of the stdio transport: however the bytes come, each line is one message, and none is held beyond its bound."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from sidecar.edge.stdio import lines
from sidecar.mcp import Ends, EventDecoder, LineFraming

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


def in_lines(pieces: list[bytes]) -> None:
    async def given() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def use() -> None:
        assert [line async for line in lines(given(), MOST)] == []

    asyncio.run(use())


def in_framing(pieces: list[bytes]) -> None:
    framing = LineFraming(MOST)
    assert set(itertools.chain.from_iterable(map(framing.feed, pieces))) == {b""}


def in_events(pieces: list[bytes]) -> None:
    decoder = EventDecoder(MOST)
    assert list(itertools.chain.from_iterable(map(decoder.feed, pieces))) == []


class Copied(bytes):
    """Bytes that count how many of them are copied, in whichever way a reader cuts them."""

    copied = 0

    @override
    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, int) else self._counted(found)

    @override
    def partition(self, separator: Any, /) -> Any:
        return tuple(map(self._counted, super().partition(separator)))

    def _counted(self, piece: bytes) -> "Copied":
        Copied.copied += len(piece)
        return Copied(piece)


@pytest.mark.parametrize("reader", [in_lines, in_framing, in_events])
def test_what_follows_a_line_is_not_copied_for_each_line(reader: Callable[[list[bytes]], None]) -> None:
    """64 kB of line breaks would be 2 GB of copies."""
    Copied.copied = 0
    reader([Copied(b"\n" * 4_096)])
    assert Copied.copied <= 4_096
