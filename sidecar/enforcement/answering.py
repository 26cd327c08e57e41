"""When the answer to a call becomes a stream: once it keeps its client waiting, or has something to tell before it.

Until then nothing is committed, so a refusal keeps its own HTTP status, and a call that is quick has a plain answer. A
client that waits in silence gives up (measured: the official Python clients after 30 s without a byte; proxies after 60
s by default: nginx ``proxy_read_timeout``, AWS load balancers), so a stalled call becomes a stream well before.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

from sidecar.enforcement.channel import CallChannel
from sidecar.enforcement.event_stream import EventStream
from sidecar.enforcement.notices import Notices
from sidecar.enforcement.reply import Answer, Refused, Reply, Stream
from sidecar.enforcement.turn import Caller


class Answering:
    """Carries calls out, and answers each at once or with a stream.

    Args:
        notices: where streams are kept.
        stall_s: how long a call may keep its client waiting before its answer becomes a stream.
    """

    def __init__(self, notices: Notices, stall_s: float) -> None:
        self._notices = notices
        self._stall_s = stall_s
        self._under_way: set[asyncio.Task[Reply]] = set()

    async def answer(
        self,
        work: Coroutine[None, None, Reply],
        channel: CallChannel,
        caller: Caller,
        gone: asyncio.Future[None] | None,
    ) -> Reply:
        """Return the reply to a call, or the stream on which it will come.

        Args:
            work: carries the call out.
            channel: what its client hears before the answer.
            caller: who called.
            gone: done when the client has left.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        due: asyncio.Future[None] = loop.create_future()

        def now(_: object = None) -> None:
            if not due.done():
                due.set_result(None)

        task.add_done_callback(now)
        channel.when_wanted(now)
        if gone is not None:
            _while_running(task, gone, channel.gone)
        timer = loop.call_later(self._stall_s, now)
        try:
            await due
            if channel.stream is None:  # nobody knows yet whose conversation it is
                await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            timer.cancel()
        stream = channel.stream
        if task.done() and (stream is None or not stream.waiting or not isinstance(task.result(), Answer)):
            channel.end()
            return task.result()
        if stream is None:
            raise ValueError("a call that goes on has a stream")
        self._notices.add(stream)
        self._under_way.add(task)
        task.add_done_callback(partial(self._finished, channel, stream))
        return Stream(events=self._notices.read(stream, caller))

    async def stop(self) -> None:
        """End the calls whose answers are streams; each is recorded as what it was by then."""
        while self._under_way:
            for task in self._under_way:
                task.cancel()
            await asyncio.wait(self._under_way)

    def _finished(self, channel: CallChannel, stream: EventStream, task: asyncio.Task[Reply]) -> None:
        self._under_way.discard(task)
        channel.end()
        if task.cancelled():
            self._notices.drop(stream)
            return
        error = task.exception()
        if error is not None:
            loop = task.get_loop()
            loop.call_exception_handler({"message": "a call failed inside", "exception": error, "task": task})
            self._notices.drop(stream)
            return
        match task.result():
            case Answer(body=body) | Refused(body=body):
                self._notices.finish(stream, body)
            case _:
                self._notices.drop(stream)


def _while_running(task: asyncio.Task[Reply], gone: asyncio.Future[None], withdraw: Callable[[], None]) -> None:
    """Have the call withdrawn when its client leaves while it runs.

    Nothing of it stays after that: ``gone`` lives as long as a connection, on which calls without number follow.
    """

    def leave(_: asyncio.Future[None]) -> None:
        withdraw()

    gone.add_done_callback(leave)
    task.add_done_callback(lambda _: gone.remove_done_callback(leave))
