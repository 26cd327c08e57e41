"""What a server behind HTTP asks its client during a call: on the call's own stream, or as a result that wants more.

A question of the handshake revisions is a request on the stream of the call that it is about (MCP 2025-11-25,
transports), so whose it is needs no guess; its answer is posted. A server of 2026-07-28 ends the call with its
questions, and is sent the call again with the answers. Which era the client is of, ``CallQuestions`` hides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from sidecar.errors import SidecarError, UpstreamProtocolViolation, UpstreamRefused
from sidecar.mcp import Treatment, from_upstream, questions
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.questions import CallQuestions, QuestionUnanswered, ServerQuestion
from sidecar.upstream.messages import (
    Outgoing,
    ServerRequest,
    encode_reply,
    encode_unanswered,
    outgoing,
    read_result,
)

MAX_REQUESTS: Final = 16
"""Requests that a server sends during one call, answered or not."""

MAX_OPEN: Final = 4
"""Questions of one call that are open at once."""

MAX_ROUNDS: Final = 8
"""Results of one call that want more, one after the other."""


class MoreRequired(Exception):
    """The result of a request asks for something.

    Args:
        asked: the questions, by name.
        state: what the server wants to be told with the answers.
    """

    def __init__(self, asked: dict[str, ServerQuestion], state: str | None) -> None:
        super().__init__(*asked)
        self.asked = asked
        self.state = state


class CallTime:
    """How long one request may take; while its client is asked, the time does not count.

    Args:
        limit: the timeout that is running.
    """

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._stops = 0
        self._left = 0.0

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the time."""
        clock = asyncio.get_running_loop().time
        if not self._stops:
            self._left = max(0.0, (self._limit.when() or clock()) - clock())
            self._limit.reschedule(None)
        self._stops += 1
        try:
            yield
        finally:
            self._stops -= 1
            if not self._stops:
                self._limit.reschedule(clock() + self._left)


class QuestionPlaces:
    """How many questions of a server can be open at once: each keeps a connection and a call's place.

    Args:
        most: that many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take one; raises QuestionUnanswered where there is none."""
        if self._taken >= self._most:
            raise QuestionUnanswered("too many questions of the server are open")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Asking:
    """The requests that a server sends while one of the sidecar's is under way.

    Args:
        asks: what the server may ask meanwhile.
        time: how long it may take.
        places: how many questions of the server can be open.
    """

    def __init__(self, asks: CallQuestions | None, time: CallTime, places: QuestionPlaces) -> None:
        self._asks = asks
        self.time = time
        self._places = places
        self._tasks: list[asyncio.Task[None]] = []
        self._taken = 0
        self._open = 0

    async def take(self, request: ServerRequest, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Answer a request; what a client is asked is answered while the call goes on.

        Raises:
            UpstreamProtocolViolation: there are too many.
        """
        self._taken += 1
        if self._taken > MAX_REQUESTS:
            raise UpstreamProtocolViolation("the server sends its client too many requests")
        relayed = from_upstream(request.method, notification=False) is Treatment.RELAY
        question = questions.read_raw_question(request.method, request.params) if relayed else None
        asks = self._asks
        if question is None or asks is None or asks.stateless or question.kind not in asks.kinds:
            await send(encode_reply(request))
        elif self._open >= MAX_OPEN:
            await send(encode_unanswered(request))
        else:
            self._open += 1
            self._tasks.append(asyncio.create_task(self._answer(request, partial(asks.ask, question), send)))

    async def close(self) -> None:
        """Withdraw what is still open: the call is over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(
        self, request: ServerRequest, ask: Callable[[], Awaitable[JsonObject]], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        try:
            with self._places.one(), self.time.stopped():
                reply = encode_reply(request, await ask())
        except SidecarError:
            reply = encode_unanswered(request)
        finally:
            self._open -= 1
        await send(reply)


def complete_or_required(result: bytes) -> bytes:
    """Return a result of 2026-07-28 that is the whole answer.

    Raises:
        MoreRequired: the server asks for something first.
        UpstreamProtocolViolation: it is neither; a task, for one, which nobody offered.
    """
    try:
        kind = _decode_typed_result(result).result_type
        if kind == "complete":
            return result
        members: JsonObject = msgspec.json.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolViolation("the result is not an object") from error
    if kind != "input_required":
        raise UpstreamProtocolViolation("the result is not complete, and nothing more was offered")
    raise MoreRequired(*questions.read_required(members))


async def carried_out(permit: Permit, ask: Callable[[Outgoing], Awaitable[bytes]]) -> UpstreamResult:
    """Have exactly what is permitted sent, as often as the server asks for something first; return its checked result.

    Raises:
        UpstreamProtocolViolation: it asks for something that was not offered.
        UpstreamRefused: it asks again and again.
        QuestionUnanswered: the client does not answer.
    """
    asks = permit.questions
    request = outgoing(permit)
    inputs: JsonObject = {} if asks is None else asks.inputs
    for _ in range(MAX_ROUNDS):
        try:
            sent = replace(request, params={**request.params, **inputs}) if inputs else request
            return read_result(permit.method, await ask(sent))
        except MoreRequired as more:
            required = more
        inputs = await _inputs(required, asks)
    raise UpstreamRefused("the server asks again and again")


async def _inputs(required: MoreRequired, asks: CallQuestions | None) -> JsonObject:
    if asks is None or not {question.kind for question in required.asked.values()} <= asks.kinds:
        raise UpstreamProtocolViolation("the result is not complete, and nothing more was offered")
    if asks.stateless:
        asks.end(required.asked, required.state)
    answers: JsonObject = {name: await asks.ask(question) for name, question in required.asked.items()}
    return {questions.RESPONSES: answers, **({} if required.state is None else {questions.STATE: required.state})}


class _TypedResult(msgspec.Struct, gc=False, rename="camel"):
    result_type: str = "complete"


_decode_typed_result = msgspec.json.Decoder(_TypedResult).decode
