"""One life of one MongoDB MCP server process: spawned, initialised, asked by many callers at once, ended.

Restarting is not done here (``sidecar.upstream.process`` owns the sequence of lives). When this life ends, for
any reason, every call in flight is answered with an error at that moment; none is lost.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from sidecar.errors import UpstreamError, UpstreamProtocolViolation, UpstreamRefused, UpstreamUnreachable
from sidecar.mcp import LineFraming, OversizeLine, Treatment, from_upstream
from sidecar.model import JsonObject, Tell
from sidecar.upstream import stateless
from sidecar.upstream.messages import (
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    Refusal,
    ServerNotification,
    ServerRequest,
    ServerResult,
    answered_by,
    decode_message,
    encode_notification,
    encode_reply,
    encode_request,
)
from sidecar.upstream.redaction import LogBudget, Redactor, Repeats
from sidecar.upstream.relayed import CONFIRMING, PROGRESS, read_progress, read_question, with_progress
from sidecar.upstream.spawning import READ_BYTES, ChildProcess
from sidecar.upstream.stateless import RevisionRefused
from sidecar.upstream.toollist import ToolList
from sidecar.upstream.watched import TOOLS_CHANGED

_MAX_LOG_LINE_BYTES = 8 * 1024
_LAST_LINES = 4
_WORDS = 200
"""Characters of a line that tells why a program did not start."""
_LOG_LINES_PER_SECOND = 50
_LEVELS = {
    b"[DEBUG]": logging.DEBUG,
    b"[INFO]": logging.DEBUG,
    b"[WARNING]": logging.WARNING,
    b"[ERROR]": logging.ERROR,
}
"""How the server's own stderr logger marks a line (seen in 3.0.4), and the level that the line has here. What it tells
of itself at each start is not news."""
_MAX_UNREAD_BYTES = 16 * 1024 * 1024
"""Replies and cancellations are written without waiting; a child that lets this much pile up does not read."""
_LAST_WORDS_S = 0.5
"""How long the output that a dead child had already written is still read."""
_OPENING = frozenset({"initialize", stateless.DISCOVER})
"""Requests that are not cancelled (MCP 2025-11-25, cancellation); a server without a handshake answers the second."""


AnswerForm: TypeAlias = Callable[[JsonObject], JsonObject]
"""Answers a question that the server asks about a call (MCP 2025-11-25, elicitation: the parameters, the result)."""


class Child:
    """A running server process and the calls that wait for it.

    Args:
        spawned: the process, leader of its own group.
        log: where its standard error goes, and at ``WARNING`` what is odd about its answers.
        redactor: what that log must not show.
        repeats: which of its lines were logged already, by this process or one before it.
        tools: its list of tools, which is forgotten when it says that they changed.
        told: takes what it says of what it offers besides tools.
        on_end: called once, the moment the child can answer no more.
    """

    def __init__(
        self,
        spawned: ChildProcess,
        *,
        log: logging.Logger,
        redactor: Redactor,
        repeats: Repeats,
        tools: ToolList,
        told: Callable[[ServerNotification], None],
        on_end: Callable[[], None],
    ) -> None:
        process = asyncio.subprocess.Process(spawned.transport, spawned.protocol, asyncio.get_running_loop())
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a child has pipes on all three standard streams")
        self._spawned = spawned
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._pid = process.pid
        self._log = log
        self._redactor = redactor
        self._repeats = repeats
        self.tools = tools
        self._told = told
        self._on_end = on_end
        self._budget = LogBudget(lines=_LOG_LINES_PER_SECOND, seconds=1.0)
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._telling: dict[int, Tell] = {}
        self._replying: dict[int, AnswerForm] = {}
        self._writing = asyncio.Lock()
        self._fault = ""
        self._listening: asyncio.Task[None] | None = None
        self._subscription: int | None = None
        """The request under which changes of the tools are told (MCP 2026-07-28)."""
        self.stateless = False
        """Whether each request says everything (MCP 2026-07-28); then the child has nothing to ask."""
        self.open = True
        """Whether it can still answer."""
        self.answers = 0
        """How many responses it has given."""
        self.strays = 0
        """How many of its messages were about no call that is under way, or said nothing that MCP defines."""
        self._words: deque[str] = deque(maxlen=_LAST_LINES)
        self._life = asyncio.create_task(self._live(), name=f"{log.name} child {process.pid}")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._pid

    def listen(self) -> None:
        """Ask to be told of changes of the tools for as long as the child lives (MCP 2026-07-28, subscriptions)."""
        self._listening = asyncio.create_task(self._listen(), name=f"{self._log.name} changes {self._pid}")

    async def ask(
        self,
        method: str,
        params: JsonObject,
        leaving: Callable[[], None] | None = None,
        tell: Tell | None = None,
        reply: AnswerForm | None = None,
    ) -> bytes:
        """Send one request and return the bytes of its result. Cancelling this cancels the request at the server.

        Args:
            method: the request's.
            params: the request's.
            leaving: called right before it is written; what it raises keeps it from being written.
            tell: takes the progress that the server reports of this request; None asks for none.
            reply: answers what the server asks; a question goes to the one request under way that has it.

        Raises:
            UpstreamUnreachable: the child is gone, or went before it answered.
            UpstreamRefused: it answered with an error.
            UpstreamProtocolViolation: it answered with something else.
        """
        request_id, future = await self._send(method, params, leaving, tell)
        if reply is not None:
            self._replying[request_id] = reply
        try:
            result = await future
            return stateless.check_complete(result) if self.stateless else result
        except asyncio.CancelledError:
            self._abandon(method, request_id, future)
            raise
        finally:
            self._pending.pop(request_id, None)
            self._telling.pop(request_id, None)
            self._replying.pop(request_id, None)

    @property
    def fault(self) -> str:
        """Why this life is over, once it is."""
        return self._fault or f"child {self.pid} ended with status {self._spawned.transport.get_returncode()}"

    @property
    def last_words(self) -> str:
        """What it wrote to standard error before its first answer, shortened and without secrets."""
        return " | ".join(self._words)

    async def ended(self) -> None:
        """Return when this life is over and nothing of the process is left."""
        await asyncio.wait({self._life})

    async def stop(self, grace_s: float) -> None:
        """End the child as MCP 2025-11-25 says (lifecycle, shutdown, stdio): close, wait, SIGTERM, wait, SIGKILL.

        Args:
            grace_s: how long each of the two waits is.
        """
        try:
            self._stdin.close()
            if not await self._ends_within(grace_s):
                self._signal(signal.SIGTERM)
                await self._ends_within(grace_s)
        finally:
            self.kill()
            await self.ended()

    def kill(self, fault: str = "") -> None:
        """End the child and everything in its process group now; calls in flight fail at once.

        Args:
            fault: what it did to be killed for.
        """
        if fault:
            self._fault = f"child {self.pid} {fault}"
        self._end()
        self._signal(signal.SIGKILL)

    async def _ends_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait({self._life}, timeout=seconds)
        return bool(done)

    def _signal(self, number: signal.Signals) -> None:
        # The group outlives its leader where the command is a wrapper (npx, a shell). Once this life is over, its
        # number may be another process's.
        if not self._life.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, number)

    async def _send(
        self, method: str, params: JsonObject, leaving: Callable[[], None] | None, tell: Tell | None
    ) -> tuple[int, asyncio.Future[bytes]]:
        # One waiting writer at a time bounds what piles up for a child that does not read. The reader never takes this
        # lock, so a child that wants its answers read before it reads on gets them read.
        async with self._writing:
            if not self.open:
                raise UpstreamUnreachable("the child process has ended")
            request_id = self._last_id + 1
            wanted = params if tell is None else with_progress(params, request_id)
            wanted = stateless.with_envelope(wanted) if self.stateless else wanted
            line = encode_request(request_id, method, wanted) + b"\n"
            if leaving is not None:
                leaving()
            self._last_id = request_id
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._pending[request_id] = future
            if tell is not None:
                self._telling[request_id] = tell
            try:
                self._stdin.write(line)
                await self._stdin.drain()
            except (ConnectionError, RuntimeError):
                # It reads no more (uvloop: RuntimeError). Its end answers the future, or else the caller's deadline.
                self._log.debug("child %d closed its input", self.pid)
            except asyncio.CancelledError:
                del self._pending[request_id]
                self._telling.pop(request_id, None)
                self._abandon(method, request_id, future)
                raise
        return request_id, future

    async def _listen(self) -> None:
        with contextlib.suppress(UpstreamError):
            self._subscription, ended = await self._send(stateless.LISTEN, stateless.CHANGES_OF_LISTS, None, None)
            await ended

    def _abandon(self, method: str, request_id: int, future: asyncio.Future[bytes]) -> None:
        """Tell the child that the call is cancelled (both eras, cancellation); what opens a life cannot be."""
        if future.done() and not future.cancelled():
            # It was answered in the same turn; asyncio would report an error that was never read.
            future.exception()
            return
        if method in _OPENING:
            return
        self.tell(encode_notification("notifications/cancelled", {"requestId": request_id}))

    def tell(self, message: bytes) -> None:
        """Write a notification or a reply without waiting: the reader must never wait for the child to read."""
        if not self.open or self._stdin.is_closing():
            return
        self._stdin.write(message + b"\n")
        if self._stdin.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.kill("does not read its input")

    async def _live(self) -> None:
        reading: asyncio.Task[object] = asyncio.create_task(self._read_answers())
        logging_: asyncio.Task[object] = asyncio.create_task(self._read_log())
        waiting: asyncio.Task[object] = asyncio.create_task(self._spawned.protocol.exited.wait())
        try:
            await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
            self._end()
            await asyncio.wait({waiting}, timeout=_LAST_WORDS_S)
            # Either it closed its output and lives on, or it is dead and only its group may be left.
            self.kill()
            await asyncio.wait({waiting})
            await asyncio.wait({logging_}, timeout=_LAST_WORDS_S)
        finally:
            self._end()
            await self._finish(reading, logging_, waiting, *filter(None, [self._listening]))

    async def _finish(self, *tasks: asyncio.Task[object]) -> None:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                self._log.error("reading from child %d failed", self.pid, exc_info=outcome)
        # A process that left the group may still hold the pipes.
        self._spawned.transport.close()

    def _end(self) -> None:
        if not self.open:
            return
        self.open = False
        for future in self._pending.values():
            if not future.done():
                future.set_exception(UpstreamUnreachable("the child process ended while the call was in flight"))
        self._on_end()

    async def _read_answers(self) -> None:
        framing = LineFraming(MAX_MESSAGE_BYTES)
        async for chunk in _chunks(self._stdout):
            for line in framing.feed(chunk):
                self._receive(line)

    def _receive(self, line: bytes | OversizeLine) -> None:
        if isinstance(line, OversizeLine):
            self._malformed(MalformedMessage(reason="a message over the limit", id=answered_by(line.tail)))
            return
        match decode_message(line):
            case ServerResult(id=request_id, result=result):
                self._settle(request_id, result)
            case Refusal(id=request_id, code=code, message=message, supported=supported):
                text = f"error {code}: {self._redactor.clean(message.encode('utf-8', 'replace'))}"
                other = code == stateless.UNSUPPORTED_REVISION
                self._settle(request_id, RevisionRefused(text, supported) if other else UpstreamRefused(text))
            case ServerRequest() if self.stateless:
                self._malformed(MalformedMessage(reason="a request, which no server of MCP 2026-07-28 may send"))
            case ServerRequest() as request:
                self.tell(encode_reply(request, self._replied(request)))
            case ServerNotification() as told:
                self._hear(told)
            case MalformedMessage() as malformed:
                self._malformed(malformed)

    def _replied(self, request: ServerRequest) -> JsonObject | None:
        """Answer a question about the one call that can be asked about; with two of them it could be either's."""
        if request.method != CONFIRMING or len(self._replying) != 1 or len(self._pending) != 1:
            return None
        question = read_question(request.params)
        [reply] = self._replying.values()
        return None if question is None else reply(question)

    def _hear(self, told: ServerNotification) -> None:
        """Act on a notification, or take it to the one call that it is about.

        A log message names no call, and on these pipes calls of many callers are under way, so it goes to nobody.
        """
        match from_upstream(told.method, notification=True):
            case Treatment.LOCAL if not self.stateless or stateless.told_of(told.params) == self._subscription:
                if told.method == TOOLS_CHANGED:
                    self.tools.changed()
                else:
                    self._told(told)
            case Treatment.RELAY if told.method == PROGRESS and (report := read_progress(told.params)) is not None:
                token, said = report
                tell = self._telling.get(token) if isinstance(token, int) else None
                if tell is None:
                    self._stray()
                else:
                    tell(PROGRESS, said)
            case _:
                self._stray()

    def _stray(self) -> None:
        self.strays += 1
        if self._log.isEnabledFor(logging.DEBUG) and self._budget.admit(asyncio.get_running_loop().time()):
            self._log.debug("child %d: a message that no call waits for was dropped", self.pid)

    def _malformed(self, malformed: MalformedMessage) -> None:
        if self._budget.admit(asyncio.get_running_loop().time()):
            self._log.warning("child %d wrote %s", self.pid, malformed.reason)
        if malformed.id is not None and malformed.id in self._pending:
            self._settle(malformed.id, UpstreamProtocolViolation(malformed.reason))

    def _settle(self, request_id: int, outcome: bytes | Exception) -> None:
        future = self._pending.get(request_id)
        if future is None or future.done():
            # An answer that is no longer waited for is normal after a cancellation; any other is worth a line.
            level = logging.DEBUG if 0 < request_id <= self._last_id else logging.WARNING
            if self._budget.admit(asyncio.get_running_loop().time()):
                self._log.log(level, "child %d answered request %d, which no call waits for", self.pid, request_id)
            return
        self.answers += 1
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _read_log(self) -> None:
        framing = LineFraming(_MAX_LOG_LINE_BYTES)
        clock = asyncio.get_running_loop().time
        async for chunk in _chunks(self._stderr):
            for line in framing.feed(chunk):
                self._log_line(line, clock())

    def _log_line(self, line: bytes | OversizeLine, now: float) -> None:
        if isinstance(line, OversizeLine):
            # A cut could leave half a secret, which no pattern finds.
            self._budget.count_dropped()
            return
        if not self.answers and (words := self._redactor.clean(line)[:_WORDS].strip()) and not words.startswith("at "):
            self._words.append(words)
        # A line without a mark may go on with a value that had a line break in it; at the start it is a cause of death.
        unmarked = logging.DEBUG if self.answers > 1 else logging.INFO
        level = _LEVELS.get(line.partition(b" ")[0], unmarked)
        if not self._log.isEnabledFor(level):
            return
        if not self._budget.admit(now):
            return
        text = self._redactor.clean(line)
        repeated = self._repeats.admit(text, now)
        if repeated is None:
            return
        if dropped := self._budget.take_dropped():
            self._log.warning("%d lines of child %d were not logged", dropped, self.pid)
        self._log.log(level, "%s%s", text, f" ({repeated} more like it)" if repeated else "")


async def _chunks(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await stream.read(READ_BYTES):
        yield chunk
