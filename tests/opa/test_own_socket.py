"""The connections to the managed OPA: one question at a time on each, and every wrong answer is none."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.client import OpaClient
from sidecar.opa.http_answer import MAX_HEAD_BYTES, AnswerFraming, FramedAnswer
from sidecar.opa.memo import Memo
from sidecar.ports import Question
from tests.opa.test_opa_client import (
    FAULTS,
    IMPATIENT_S,
    PATIENT_S,
    REASONS,
    SECRET,
    WRONG_ANSWERS,
    Handler,
    Peer,
    abort,
    never,
    peer,
    properly,
    reset,
    slow_drip,
)

NOT_OPAS = "no answer in HTTP/1.1 as OPA writes it: .*"
OWN_REASONS = REASONS | {
    "a truncated body": "the answer broke off",
    "truncated chunks": "the answer broke off",
    "a reset connection": "Dropped",
    "not HTTP": NOT_OPAS,
    "two lengths": NOT_OPAS,
    "a huge header": NOT_OPAS,
}


@asynccontextmanager
async def asked(
    handler: Handler, folder: Path, *, timeout_s: float = PATIENT_S, memo: Memo | None = None
) -> AsyncIterator[tuple[Peer, OpaClient]]:
    async with (
        peer(handler, path=folder / "s") as stand_in,
        OpaClient(stand_in.url, timeout_s=timeout_s, own=True, memo=memo) as client,
    ):
        yield stand_in, client


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_every_wrong_answer_is_no_decision_and_has_its_reason(name: str, runtime: Path) -> None:
    async with asked(WRONG_ANSWERS[name], runtime) as (_, client):
        with pytest.raises(DecisionUnavailable) as caught:
            await client.ask(Question.DECISION, {"subject": SECRET})
    assert re.fullmatch(OWN_REASONS[name], caught.value.detail), caught.value.detail
    assert SECRET not in caught.value.detail
    assert name in FAULTS[caught.value.fault]


@pytest.mark.parametrize("handler", [never, slow_drip], ids=["silent", "dripping"])
async def test_a_late_answer_is_no_decision_and_its_connection_is_not_used_again(
    handler: Handler, runtime: Path
) -> None:
    async def late_then_well(request: web.Request) -> web.StreamResponse:
        return await (handler if len(stand_in.asked) == 1 else properly)(request)

    async with asked(late_then_well, runtime, timeout_s=IMPATIENT_S) as (stand_in, client):
        with pytest.raises(DecisionUnavailable, match="no answer within"):
            await client.ask(Question.DECISION, {})
        assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
        first, second = stand_in.asked
        assert first.protocol is not second.protocol


async def test_one_connection_carries_one_question_after_the_other(runtime: Path) -> None:
    async with asked(properly, runtime) as (stand_in, client):
        for number in range(5):
            assert (await client.ask(Question.DECISION, {"n": number})).result == {"allow": False}
        assert await client.healthy()
    assert len({request.protocol for request in stand_in.asked}) == 1
    assert stand_in.asked[0].headers["Host"] == "opa"
    assert stand_in.asked[0].raw_path == "/v1/data/mcp/main/decision?strict-builtin-errors=true&provenance=true"
    assert stand_in.bodies[0] == b'{"input":{"n":0}}'


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_both_loops_carry_questions(loop: Callable[[], asyncio.AbstractEventLoop], runtime: Path) -> None:
    """uvloop is what serves."""

    async def play() -> None:
        async with asked(properly, runtime) as (stand_in, client):
            await asyncio.gather(*(client.ask(Question.DECISION, {"n": number}) for number in range(5)))
            assert await client.healthy()
            assert len({request.protocol for request in stand_in.asked}) == 5

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


async def test_questions_at_the_same_time_have_a_connection_each_and_their_own_answers(runtime: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        sent = await request.json()
        await asyncio.sleep(0.001 * (sent["input"]["n"] % 5))
        return web.json_response({"result": sent["input"]["n"]})

    async with asked(echo, runtime) as (_, client):
        numbers = range(40)
        answers = await asyncio.gather(*(client.ask(Question.DECISION, {"n": number}) for number in numbers))
    assert [answer.result for answer in answers] == [*numbers]


async def test_an_answer_to_a_cancelled_question_goes_to_nobody(runtime: Path) -> None:
    release = asyncio.Event()

    async def echo_when_released(request: web.Request) -> web.Response:
        sent = await request.json()
        if sent["input"]["n"] == 0:
            await release.wait()
        return web.json_response({"result": sent["input"]["n"]})

    async with asked(echo_when_released, runtime) as (stand_in, client):
        cancelled = asyncio.create_task(client.ask(Question.DECISION, {"n": 0}))
        await stand_in.was_asked(1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        release.set()
        for number in range(1, 4):
            assert (await client.ask(Question.DECISION, {"n": number})).result == number
        assert stand_in.asked[0].protocol not in {request.protocol for request in stand_in.asked[1:]}


async def test_a_kept_connection_that_died_costs_one_more_attempt(runtime: Path) -> None:
    async def dies_when_used_again(request: web.Request) -> web.StreamResponse:
        return await (reset if len(stand_in.asked) == 2 else properly)(request)

    async with asked(dies_when_used_again, runtime) as (stand_in, client):
        for _ in range(2):
            assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
        assert len(stand_in.asked) == 3


async def test_bytes_after_an_answer_close_the_connection(runtime: Path) -> None:
    async def twice(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if len(stand_in.asked) > 1:
            return await properly(request)
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"result":true}'
        request.transport.write(answer)
        await asyncio.sleep(0.05)
        request.transport.write(answer)  # to a question that nobody asked
        await asyncio.sleep(0.05)
        abort(request)
        return web.Response()

    async with asked(twice, runtime) as (stand_in, client):
        assert (await client.ask(Question.SELF_TEST, {})).result is True
        await asyncio.sleep(0.1)
        assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
        assert len(stand_in.asked) == 2


async def test_closing_ends_the_questions_in_flight(runtime: Path) -> None:
    async with asked(never, runtime) as (stand_in, client):
        questions = [asyncio.create_task(client.ask(Question.DECISION, {"n": n})) for n in range(3)]
        await stand_in.was_asked(3)
        await client.close()
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DecisionUnavailable] * 3
        assert not await client.healthy()


def test_only_a_unix_socket_is_an_own_opas() -> None:
    with pytest.raises(ConfigurationError, match="Unix socket"):
        OpaClient("http://127.0.0.1:8181", own=True)


# --- equal questions at the same time ---------------------------------------------------------------------------------


async def test_equal_questions_at_the_same_time_share_an_evaluation_and_different_ones_never(runtime: Path) -> None:
    all_there = asyncio.Event()

    async def echo(request: web.Request) -> web.Response:
        sent = await request.json()
        await all_there.wait()
        return web.json_response({"result": sent["input"]})

    async with asked(echo, runtime, memo=Memo(60, lambda: True)) as (stand_in, client):
        documents: list[JsonObject] = [{"n": number % 3} for number in range(12)]
        asking = [asyncio.create_task(client.ask(Question.DECISION, one)) for one in documents]
        await stand_in.was_asked(3)
        all_there.set()
        assert [answer.result for answer in await asyncio.gather(*asking)] == documents
        assert sorted(stand_in.bodies) == [b'{"input":{"n":%d}}' % number for number in range(3)]


async def test_the_failure_of_a_shared_evaluation_is_each_ones(runtime: Path) -> None:
    async with asked(WRONG_ANSWERS["evaluation error"], runtime, memo=Memo(60, lambda: True)) as (stand_in, client):
        outcomes = await asyncio.gather(
            *(client.ask(Question.DECISION, {"n": 1}) for _ in range(5)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [DecisionUnavailable] * 5
        assert len(stand_in.asked) == 1


async def test_those_that_wait_for_a_question_that_is_cancelled_ask_it_themselves(runtime: Path) -> None:
    async def first_never(request: web.Request) -> web.StreamResponse:
        return await (never if len(stand_in.asked) == 1 else properly)(request)

    async with asked(first_never, runtime, memo=Memo(60, lambda: True)) as (stand_in, client):
        first = asyncio.create_task(client.ask(Question.DECISION, {"n": 1}))
        await stand_in.was_asked(1)
        others = [asyncio.create_task(client.ask(Question.DECISION, {"n": 1})) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        assert [answer.result for answer in await asyncio.gather(*others)] == [{"allow": False}] * 3
        assert len(stand_in.asked) == 2
        assert not client._asking


async def test_who_is_cancelled_while_waiting_takes_nothing_from_the_one_that_asked(runtime: Path) -> None:
    release = asyncio.Event()

    async def when_released(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return await properly(request)

    async with asked(when_released, runtime, memo=Memo(60, lambda: True)) as (stand_in, client):
        first = asyncio.create_task(client.ask(Question.DECISION, {"n": 1}))
        await stand_in.was_asked(1)
        second = asyncio.create_task(client.ask(Question.DECISION, {"n": 1}))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        release.set()
        assert (await first).result == {"allow": False}


# --- framing ----------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONGEST = 100


def framed(*parts: bytes) -> FramedAnswer | None:
    framing, found = AnswerFraming(LONGEST), None
    for part in parts:
        assert found is None, "bytes after a whole answer"
        found = framing.feed(part)
    return found


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=8), st.sets(st.integers(1, 250)), st.booleans())
def test_an_answer_is_the_same_however_its_bytes_come(body: list[bytes], cuts: set[int], chunked: bool) -> None:
    whole = b"".join(body)
    if chunked:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in body)
        sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    else:
        sent = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(whole), whole)
    places = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    found = framed(*(sent[start:end] for start, end in itertools.pairwise(places)))
    assert found == FramedAnswer(status=200, media_type="application/json", body=whole, last=False)


@given(st.binary(max_size=300))
def test_no_bytes_are_an_unexpected_failure(sent: bytes) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
        outcome = outcome_of(start + sent)
        if isinstance(outcome, PdpFault):
            assert outcome in {PdpFault.UNREACHABLE, PdpFault.TOO_LARGE, PdpFault.MEDIA_TYPE}
        else:
            assert outcome is None or len(outcome.body) <= LONGEST


def outcome_of(sent: bytes) -> FramedAnswer | PdpFault | None:
    try:
        return AnswerFraming(LONGEST).feed(sent)
    except DecisionUnavailable as error:
        return error.fault


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"http/1.1 200 OK\r\n",
        HEAD + b"\r\n",
        HEAD + b"Content-Length: +1\r\n\r\n1",
        HEAD + b"Content-Length: 1, 1\r\n\r\n1",
        HEAD + b"Content-Length: 0x1\r\n\r\n1",
        HEAD + b"Content-Length: \r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1",
        HEAD + b"Content-Type: text/html\r\nContent-Length: 1\r\n\r\n1",
        HEAD + b"Content-Length: 1\r\n\r\n12",
        HEAD + b"Content-Length : 1\r\n\r\n1",
        HEAD + b" folded: 1\r\nContent-Length: 1\r\n\r\n1",
        HEAD + b"X: a\x00b\r\nContent-Length: 1\r\n\r\n1",
        HEAD + b"X: a\nContent-Length: 9\r\nContent-Length: 1\r\n\r\n1",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n000000001\r\nx\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: 1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 16,
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_opa_never_writes_is_refused(sent: bytes) -> None:
    with pytest.raises(DecisionUnavailable) as caught:
        AnswerFraming(LONGEST).feed(sent)
    assert caught.value.fault is PdpFault.UNREACHABLE


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 101\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n65\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n1\r\n",
    ],
)
def test_an_answer_that_says_to_be_too_long_is_not_waited_for(sent: bytes) -> None:
    with pytest.raises(DecisionUnavailable) as caught:
        AnswerFraming(LONGEST).feed(sent)
    assert caught.value.fault is PdpFault.TOO_LARGE


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (
            HEAD + b"content-length:\t1 \r\n\r\n1",
            FramedAnswer(status=200, media_type="application/json", body=b"1", last=False),
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", FramedAnswer(status=204, media_type="", body=b"", last=False)),
        (
            b"HTTP/1.1 500 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            FramedAnswer(status=500, media_type="", body=b"", last=True),
        ),
        (
            HEAD + b"Connection: Keep-Alive\r\nContent-Length: 100\r\n\r\n" + b"x" * 100,
            FramedAnswer(status=200, media_type="application/json", body=b"x" * 100, last=False),
        ),
        (
            HEAD + b"Transfer-Encoding: Chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n",
            FramedAnswer(status=200, media_type="application/json", body=b"x" * 100, last=False),
        ),
    ],
)
def test_what_opa_writes_is_read(sent: bytes, answer: FramedAnswer) -> None:
    assert framed(sent) == answer
