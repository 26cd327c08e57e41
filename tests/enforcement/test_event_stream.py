"""One stream: what is read, kept, read again and let go of."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.enforcement.event_stream import (
    MAX_KEPT,
    MAX_KEPT_BYTES,
    EventStream,
    StreamOwner,
    event_number,
)
from tests.patience import HANG_S

OWNER = StreamOwner(session_id="s", key=("i", "u", "a"))


def stream(*, numbered: bool = True, primed: bool = False) -> EventStream:
    return EventStream("x", OWNER, numbered=numbered, primed=primed)


async def read(source: EventStream, after: int | None = None, most: int = 1000) -> list[tuple[str, bytes]]:
    """What a reader gets at once, before it has to wait; it leaves then."""
    found: list[tuple[str, bytes]] = []
    async with aclosing(source.read(after, lambda: 100.0)) as events:
        try:
            while len(found) < most:
                async with asyncio.timeout(0.01):
                    event = await anext(events)
                found.append((event.id, event.message))
        except (TimeoutError, StopAsyncIteration):
            pass
    return found


async def test_a_reader_gets_what_is_put_in_and_ends_with_the_last_message():
    source = stream(primed=True)
    source.put(b"1")
    source.finish(b"2")
    assert await read(source) == [("x.0", b""), ("x.1", b"1"), ("x.2", b"2")]
    assert not source.put(b"3"), "nothing comes after the last one"


async def test_what_was_read_can_be_read_again_where_events_have_ids_and_not_elsewhere():
    for numbered in (True, False):
        source = stream(numbered=numbered)
        for text in (b"1", b"2", b"3"):
            source.put(text)
        assert len(await read(source, most=2)) == 2
        again = [message for _, message in await read(source, after=1)]
        assert again == ([b"2", b"3"] if numbered else [b"3"])
        assert source.resumable is numbered


async def test_a_newer_reader_ends_the_one_before_it():
    source = stream()
    first = asyncio.create_task(read_all(source))
    await asyncio.sleep(0)
    second = asyncio.create_task(read_all(source))
    assert await first == []
    source.finish(b"end")
    assert await second == [b"end"]
    assert not source.is_read


async def read_all(source: EventStream, left_s: Callable[[], float] = lambda: 100.0) -> list[bytes]:
    async with asyncio.timeout(HANG_S), aclosing(source.read(None, left_s)) as events:
        return [event.message async for event in events]


async def test_closing_ends_its_reader_and_lets_go_of_everything():
    source = stream()
    source.put(b"secret")
    source.close()
    assert await read_all(source) == []
    assert (source.size, source.resumable, source.put(b"x")) == (0, False, False)


async def test_a_reader_whose_time_is_up_gets_nothing_more():
    source = stream()
    source.put(b"1")
    assert await read_all(source, lambda: 0.0) == []
    clock = asyncio.get_running_loop().time
    ends = clock() + 0.1
    assert await read_all(source, lambda: ends - clock()) == [b"1"]
    assert clock() >= ends


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_nobody_reads_is_bounded_in_number_and_bytes(numbered):
    many = stream(numbered=numbered)
    assert sum(many.put(b"x") for _ in range(2 * MAX_KEPT)) == MAX_KEPT
    large = stream(numbered=numbered)
    assert sum(large.put(bytes(100_000)) for _ in range(100)) == MAX_KEPT_BYTES // 100_000
    assert large.size <= MAX_KEPT_BYTES


async def test_the_answer_passes_a_full_stream_but_a_large_one_is_not_kept_for_nobody():
    full = stream()
    while full.put(b"x"):
        pass
    full.finish(b"answer")
    assert (await read(full))[-1][1] == b"answer"

    left = stream()
    await read(left)
    left.finish(bytes(MAX_KEPT_BYTES + 1))
    assert left.closed, "it was left, and nobody else could bound what is kept"
    small = stream()
    await read(small)
    small.finish(bytes(MAX_KEPT_BYTES))
    assert small.resumable


async def test_a_large_answer_is_let_go_of_once_it_was_read():
    source = stream()
    source.put(b"1")
    source.finish(bytes(MAX_KEPT_BYTES + 1))
    assert len(await read(source)) == 2
    assert source.size <= MAX_KEPT_BYTES


@pytest.mark.parametrize("event_id", ["", "x", "x.", ".", "x.-1", "x.1e3", "x.\u0661", "x. 1", "x.1 ", "x." + "9" * 10])
def test_what_is_no_event_id_names_no_stream(event_id):
    assert event_number(event_id) is None


def test_an_event_id_names_a_stream_and_a_number():
    assert event_number("x.0") == ("x", 0)
    assert event_number("a.b.17") == ("a.b", 17)


OPERATIONS = st.lists(
    st.one_of(st.just("put"), st.tuples(st.just("read"), st.integers(0, 5)), st.just("again")), max_size=30
)


@given(OPERATIONS)
@settings(deadline=None)
def test_every_reader_gets_each_message_once_and_in_order_however_often_it_comes_back(operations):
    async def play() -> None:
        source, sent, got, cursor = stream(), 0, [], None
        for operation in operations:
            match operation:
                case "put":
                    sent += 1
                    assert source.put(b"%d" % sent)
                case ("read", most):
                    found = await read(source, cursor, most)
                    got += [int(message) for _, message in found]
                    cursor = got[-1] if got else None
                case _:
                    whole = [int(message) for _, message in await read(source, 0)]
                    assert whole == list(range(1, sent + 1)), "nothing is lost below the bounds"
        got += [int(message) for _, message in await read(source, cursor)]
        assert got == list(range(1, sent + 1))

    asyncio.run(play())


def test_news_that_waits_unread_is_held_once_and_other_news_beside_it():
    news = stream()
    for message in (b"one", b"two", b"one", b"two", b"three"):
        assert news.put_news(message)
    assert [message for _, message in news._kept] == [b"one", b"two", b"three"]
